"""Which convolutions to convert, and why not the others: one policy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from metric_zoo.converters.conv_types import unsupported_reason
from metric_zoo.converters.fit_metric import unfit_reason
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.selection.filters import Filters
from metric_zoo.converters.selection.where import Where, check_kind, wanted_kinds
from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind
from metric_zoo.nn.sparse import SparseKernelComplex2d

_EVERYTHING = Filters()


@dataclass(frozen=True)
class Decision:
    """The kind a convolution becomes, or None and the reason.

    ``outcome`` tells reasons apart: ``"convert"``; ``"unselected"`` by ``where``; ``"unwanted"`` by the policy or for
    its 1x1 kernel; ``"unsupported"``, a class the converter does not know; ``"settled"``, it is as asked already;
    ``"refused"``, it was tried and lost.
    """

    kind: str | None
    reason: str = ""
    outcome: str = "convert"


def select(
    nodes: list[ConvNode], to: str, where: Where = None, filters: Filters = _EVERYTHING, fit: bool = False
) -> dict[str, Decision]:
    """Decide on every convolution.

    The default policy takes every convolution with a kernel larger than 1x1 that is called, overlaps its windows, sees
    at least 8 pixels a side and is not the stem; for ``"sparse"`` every depthwise one of 7x7 or more. An explicit
    ``where`` overrides the policy's preferences (stem, small input, patches, not called, size of a fixed kernel), not
    its impossibilities (1x1, unknown subclasses).

    Args:
        nodes: from `analyse`.
        to: the kind, or ``"sparse"``.
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
    check_kind(to, to)
    wanted = wanted_kinds(nodes, to, where)
    filters.check_known(nodes)
    decide = _decide_fixed if to == SparseKernelComplex2d.kind else _decide_to_fit if fit else _decide
    return {node.name: decide(node, wanted[node.name], where is not None, filters) for node in nodes}


def _decide_to_fit(node: ConvNode, kind: str | None, explicit: bool, filters: Filters) -> Decision:
    settled = _settled(node, kind, filters)
    if settled:
        return settled
    if getattr(node.module, "kind", None) == kind:
        return Decision(None, f"already {kind}", "settled")
    unfit = unfit_reason(node.module)
    return Decision(None, unfit, "unwanted") if unfit else Decision(kind)


def _decide_fixed(node: ConvNode, kind: str | None, explicit: bool, filters: Filters) -> Decision:
    settled = _settled(node, kind, filters)
    if settled:
        return settled
    if isinstance(node.module, SampledConv2d):
        return Decision(None, f"{node.module.kind}: its kernel is not fixed", "unwanted")
    unsupported = unsupported_reason(node.module)
    if unsupported:
        return Decision(None, unsupported, "unsupported")
    asked = get_kind(kind)
    unwanted = asked.why_not(node.module) or asked.unwanted(node, explicit)
    return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind)


def _settled(node: ConvNode, kind: str | None, filters: Filters) -> Decision | None:
    if kind is None:
        return Decision(None, "not selected", "unselected")
    outside = filters.reason(node)
    if outside:
        return Decision(None, f"not selected: {outside}", "unselected")
    if kind == "standard":
        return Decision(None, "kind 'standard' keeps the layer as it is", "settled")
    return None


def _decide(node: ConvNode, kind: str | None, explicit: bool, filters: Filters) -> Decision:
    settled = _settled(node, kind, filters)
    if settled:
        return settled
    if isinstance(node.module, SampledConv2d):
        if node.module.kind == kind:
            return Decision(None, f"already {kind}", "settled")
        raise ConversionError(
            f"{node.name} is already {node.module.kind!r} and cannot become {kind!r}: revert the model first, "
            "or leave that layer out by 'where'"
        )
    if max(node.kernel) == 1:  # whatever its class
        return Decision(None, get_kind(kind).unwanted(node, explicit), "unwanted")
    unsupported = unsupported_reason(node.module)
    if unsupported:
        return Decision(None, unsupported, "unsupported")
    asked = get_kind(kind)
    unwanted = asked.why_not(node.module) or asked.unwanted(node, explicit)
    return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind)


def check_selection(
    decisions: Mapping[str, Decision],
    leftovers: Mapping[str, str],
    where: Where,
    filters: Filters,
    strict: bool,
    model: nn.Module,
) -> None:
    """Raise, or warn, where nothing is to be converted.

    Raises:
        ConversionError: if ``where``, a filter or ``strict`` asked for something; and under ``strict`` for what is
            unsupported.
    """
    unsupported = {n: d.reason for n, d in decisions.items() if d.outcome == "unsupported"} | dict(leftovers)
    if strict and unsupported:
        name, reason = next(iter(unsupported.items()))
        raise ConversionError(f"strict: {name} cannot be converted: {reason}")
    if any(decision.outcome in ("convert", "settled") for decision in decisions.values()):
        return
    tried_first = sorted(decisions.items(), key=lambda item: item[1].outcome != "refused")
    considered = [f"{name} ({d.reason})" for name, d in tried_first if d.outcome != "unselected"]
    message = f"nothing to swap in {type(model).__name__}: " + (
        f"{len(considered)} convolutions were considered, e.g. {considered[0]}" if considered else "none was selected"
    )
    if where is not None or strict or filters != Filters():
        raise ConversionError(f"{message}; change 'where' or what narrows it")
    warnings.warn(message, stacklevel=4)
