"""Selections that have a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from metric_zoo.converters.nodes import ConvNode


def _every(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return _stem_too(node, nodes) and not node.stem


def _stem_too(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return node.calls > 0 and not node.patchify


def _last(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    last = max((other.stage for other in nodes if other.stage is not None), default=None)
    return last is not None and node.stage == last and _every(node, nodes)


def _paper(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return re.match(r"layer[234]\.", node.name) is not None and node.kernel == (3, 3)


PRESETS: dict[str, Callable[[ConvNode, Sequence[ConvNode]], bool]] = {
    "paper": _paper,
    "last": _last,
    "all": _every,
    "stem+all": _stem_too,
}
"""Name -> whether a convolution, among all of the model, belongs to it. 1x1 kernels never convert.

``paper`` is the selection of *Metric Convolutions* (ICCV 2025, section 5): every 3x3 convolution of ResNet's layers 2
to 4; `convert` also runs layer 4 at stride 1, with dilation 2 after its first block.
"""
