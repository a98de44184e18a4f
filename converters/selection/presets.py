"""Selections that have a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import nn

from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.paper_resnet import atrous_layer4


@dataclass(frozen=True)
class Preset:
    """A selection that has a name.

    Attributes:
        holds: whether a convolution, among all of the model, belongs to it.
        prepared: a context in which the model is what the selection is meant for: it changes the model, for good unless
            the block fails.
    """

    holds: Callable[[ConvNode, Sequence[ConvNode]], bool]
    prepared: Callable[[nn.Module], AbstractContextManager[object]] = nullcontext


def _every(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return _stem_too(node, nodes) and not node.stem


def _stem_too(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return node.calls > 0 and not node.patchify


def _last(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    last = max((other.stage for other in nodes if other.stage is not None), default=None)
    return last is not None and node.stage == last and _every(node, nodes)


def _paper(node: ConvNode, nodes: Sequence[ConvNode]) -> bool:
    return re.match(r"layer[234]\.", node.name) is not None and node.kernel == (3, 3)


PRESETS = {
    "paper": Preset(_paper, atrous_layer4),
    "last": Preset(_last),
    "all": Preset(_every),
    "stem+all": Preset(_stem_too),
}
"""By name. 1x1 kernels never convert.

``paper`` is the selection of *Metric Convolutions* (ICCV 2025, https://arxiv.org/abs/2406.05400, section 5): every 3x3
convolution of ResNet's layers 2 to 4, in a network whose layer 4 runs at stride 1, with dilation 2 after its first
block.
"""


def prepared_for(where: object, model: nn.Module) -> AbstractContextManager[object]:
    """The context of the preset that ``where`` names; one that changes nothing for every other ``where``."""
    return PRESETS[where].prepared(model) if isinstance(where, str) and where in PRESETS else nullcontext()
