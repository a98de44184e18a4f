"""Which convolutions to convert, and why not the others: one policy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from metric_zoo.converters.converted import as_converted
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.replacement import Decision, Replacement
from metric_zoo.converters.selection.filters import Filters
from metric_zoo.converters.selection.where import Where, check_kind, wanted_kinds
from metric_zoo.converters.strategies.choose import choose_strategy
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.registry import get_kind


@dataclass(frozen=True)
class Selection:
    """Which convolutions a conversion is asked for.

    Attributes:
        to: the kind.
        where: None; a preset, ``"paper"`` (every 3x3 of ResNet's layers 2 to 4), ``"last"`` (the last stage), ``"all"``
            (small inputs too) or ``"stem+all"``; a regular expression for whole names; a list of convolutions or of
            modules that hold them; ordered rules ``{pattern: kind or None}``, of which the last that matches counts,
            patterns being globs, or regular expressions after ``re:``; or a callable on a `ConvNode` that returns a
            kind, or whether to convert.
        filters: what ``where``, or the policy, is narrowed by.
        strict: raise for what is unsupported, and where nothing is left.
    """

    to: str
    where: Where = None
    filters: Filters = field(default_factory=Filters)
    strict: bool = False

    @property
    def asks_for_neighbours(self) -> bool:
        """Whether it needs to know more than shapes."""
        return callable(self.where) or self.filters.receptive_field is not None


def select(nodes: list[ConvNode], selection: Selection, strategy: Strategy | None = None) -> list[Replacement]:
    """Decide on every convolution.

    The default policy takes every convolution that its kind wants: with a kernel larger than 1x1, that is called,
    overlaps its windows, sees at least 8 pixels a side and is not the stem; of a kind that approximates fixed kernels
    every large one. An explicit ``where`` overrides the policy's preferences (stem, small input, patches, not called,
    size of a fixed kernel), not its impossibilities (1x1, unknown subclasses).

    Args:
        nodes: from `analyse`.
        strategy: of the conversion; None keeps the pretrained function.

    Returns:
        A replacement for every node, decided on.

    Raises:
        ConversionError: if ``where`` is malformed or one of its expressions matches no convolution, or a filter needs
            what is unknown.
    """
    to, where = selection.to, selection.where
    check_kind(to, to)
    strategy = strategy or choose_strategy(to)
    wanted = wanted_kinds(nodes, to, where)
    selection.filters.check_known(nodes)
    return [Replacement(node, _decide(node, wanted[node.name], selection, strategy)) for node in nodes]


def _decide(node: ConvNode, kind: str | None, selection: Selection, strategy: Strategy) -> Decision:
    if kind is None:
        return Decision(None, "not selected", "unselected")
    outside = selection.filters.reason(node)
    if outside:
        return Decision(None, f"not selected: {outside}", "unselected")
    if get_kind(kind).layer is None:
        return Decision(None, f"kind {kind!r} keeps the layer as it is", "settled")
    return strategy.decide(node, get_kind(kind), selection.where is not None)


def check_selection(
    replacements: Iterable[Replacement], leftovers: Mapping[str, str], selection: Selection, model: nn.Module
) -> None:
    """Raise, or warn, where nothing is to be converted.

    Raises:
        ConversionError: if ``where``, a filter or ``strict`` asked for something; under ``strict`` for what is
            unsupported; and for what the options do not fit, under ``strict``, by ``where``, or if that is all.
    """
    decisions = {each.name: each.decision for each in replacements}
    unsupported = {n: d.reason for n, d in decisions.items() if d.outcome == "unsupported"} | dict(leftovers)
    if selection.strict and unsupported:
        name, reason = next(iter(unsupported.items()))
        raise ConversionError(f"strict: {name} cannot be converted: {reason}")
    _check_fit(decisions, selection)
    if any(decision.outcome in ("convert", "settled") for decision in decisions.values()):
        return
    message = f"nothing to swap in {type(model).__name__}: {_considered(decisions)}"
    if selection.where is not None or selection.strict or selection.filters != Filters():
        raise ConversionError(f"{message}; change 'where' or what narrows it")
    warnings.warn(message, stacklevel=4)


def _check_fit(decisions: Mapping[str, Decision], selection: Selection) -> None:
    """What options do not fit stays where the policy has chosen it, and others are converted."""
    name = next((name for name, decision in decisions.items() if decision.outcome == "misfit"), None)
    alone = not any(decision.outcome in ("convert", "settled") for decision in decisions.values())
    if name is not None and (selection.strict or selection.where is not None or alone):
        raise ConversionError(f"{name}: {decisions[name].reason}")


def _considered(decisions: Mapping[str, Decision]) -> str:
    tried_first = sorted(decisions.items(), key=lambda item: item[1].outcome != "refused")
    considered = [f"{name} ({d.reason})" for name, d in tried_first if d.outcome != "unselected"]
    return (
        f"{len(considered)} convolutions were considered, e.g. {considered[0]}" if considered else "none was selected"
    )


def check_settled(replacements: Iterable[Replacement], options: Mapping[str, Any]) -> None:
    """Layers that are of the kind already stay; options that they do not have would be lost without a word.

    Raises:
        ConversionError: naming the first such option.
    """
    for each in replacements:
        if each.decision.outcome != "settled" or kind_of(each.node.module) is None:
            continue
        layer = as_converted(each.node.module)
        have = layer.config.to_dict()
        for name, value in options.items():
            value = tuple(value) if isinstance(value, list) else value
            if name in have and have[name] != value:
                raise ConversionError(
                    f"{each.name} is already {layer.kind!r} with {name}={have[name]!r}, asked for {value!r}: "
                    "revert the model first, or leave that layer out by 'where'"
                )
