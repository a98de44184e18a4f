"""Which convolutions to convert, and why not the others: one policy."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.converters.filters import Filters
from metric_zoo.converters.fit import unfit_reason
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.source import unsupported_reason
from metric_zoo.converters.where import Where, wanted_kinds
from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind

MIN_INPUT_SIDE = 8
"""Pixels. Below this a window covers most of the map and there is little to adapt to."""

_EVERYTHING = Filters()


@dataclass(frozen=True)
class Decision:
    """The kind a convolution becomes, or None and the reason.

    ``outcome`` tells reasons apart: ``"convert"``; ``"unselected"`` by ``where``; ``"unwanted"`` by the policy or for
    its 1x1 kernel; ``"unsupported"``, a class the converter does not know; ``"settled"``, it is as asked already.
    """

    kind: str | None
    reason: str = ""
    outcome: str = "convert"


def select(
    nodes: list[ConvNode], to: str, where: Where = None, filters: Filters = _EVERYTHING, fit: bool = False
) -> dict[str, Decision]:
    """Decide on every convolution.

    The default policy takes every convolution with a kernel larger than 1x1 that is called, overlaps its windows, sees
    at least 8 pixels a side and is not the stem. An explicit ``where`` overrides the policy's preferences (stem, small
    input, patches, not called), not its impossibilities (1x1, unknown subclasses).

    Args:
        nodes: from `analyse`.
        to: the kind.
        where: None; a preset, ``"paper"`` (every 3x3 of ResNet's layers 2 to 4), ``"last"`` (the last stage), ``"all"``
            (small inputs too) or ``"stem+all"``; a regular expression for whole names; a list of convolutions or of
            modules that hold them; ordered rules ``{pattern: kind or None}``, of which the last that matches counts,
            patterns being globs, or regular expressions after ``re:``; or a callable on a `ConvNode` that returns a
            kind, or whether to convert.
        filters: what ``where``, or the policy, is narrowed by.
        fit: decide on the layers that are sampled already, and on no other.

    Returns:
        A decision for every name.

    Raises:
        ConversionError: if ``where`` is malformed or one of its expressions matches no convolution, or a filter needs
            what is unknown.
    """
    get_kind(to)
    wanted = wanted_kinds(nodes, to, where)
    filters.check_known(nodes)
    decide = _decide_to_fit if fit else _decide
    return {node.name: decide(node, wanted[node.name], where is not None, filters) for node in nodes}


def _decide_to_fit(node: ConvNode, kind: str | None, explicit: bool, filters: Filters) -> Decision:
    outside = "not selected" if kind is None else filters.reason(node)
    if outside:
        return Decision(None, outside, "unselected")
    if kind == "standard":
        return Decision(None, "kind 'standard' keeps the layer as it is", "settled")
    if getattr(node.module, "kind", None) == kind:
        return Decision(None, f"already {kind}", "settled")
    unfit = unfit_reason(node.module)
    return Decision(None, unfit, "unwanted") if unfit else Decision(kind)


def _decide(node: ConvNode, kind: str | None, explicit: bool, filters: Filters) -> Decision:
    if kind is None:
        return Decision(None, "not selected", "unselected")
    outside = filters.reason(node)
    if outside:
        return Decision(None, f"not selected: {outside}", "unselected")
    if kind == "standard":
        return Decision(None, "kind 'standard' keeps the ordinary convolution", "settled")
    if isinstance(node.module, SampledConv2d):
        if node.module.kind == kind:
            return Decision(None, f"already {kind}", "settled")
        raise ConversionError(
            f"{node.name} is already {node.module.kind!r} and cannot become {kind!r}: revert the model first, "
            "or leave that layer out by 'where'"
        )
    if max(node.kernel) == 1:
        return Decision(None, "1x1 kernel: one sample, nothing to spread", "unwanted")
    unsupported = unsupported_reason(node.module)
    if unsupported:
        return Decision(None, unsupported, "unsupported")
    unwanted = "" if explicit else _unwanted(node)
    return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind)


def _unwanted(node: ConvNode) -> str:
    if node.calls == 0:
        return "not called in evaluation"
    if node.patchify:
        return "patch embedding: stride equals kernel"
    if node.stem:
        return "stem: the first convolution"
    side = min(node.input_shape[-2:])
    return f"input of {side} px, below {MIN_INPUT_SIDE}" if side < MIN_INPUT_SIDE else ""
