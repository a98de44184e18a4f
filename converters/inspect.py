"""A table of a model's convolutions and what the selection makes of each."""

from __future__ import annotations

from typing import Any

from torch import nn

from metric_zoo.converters.analyse import analyse
from metric_zoo.converters.check_model import check_model
from metric_zoo.converters.model_state import shell_copy
from metric_zoo.converters.replacement import Replacement, chosen
from metric_zoo.converters.selection.presets import prepared_for
from metric_zoo.converters.selection.select import Selection, select
from metric_zoo.converters.selection.where import Where
from metric_zoo.converters.strategies.choose import choose_strategy
from metric_zoo.nn.kind import Promise
from metric_zoo.text import size

COLUMNS = (
    "name",
    "layer",
    "kernel",
    "stride",
    "groups",
    "input",
    "output",
    "stage",
    "field",
    "calls",
    "norm",
    "selected",
    "reason",
)


def inspect_convolutions(
    model: nn.Module, to: str = "metric", where: Where = None, example_input: Any = None
) -> list[dict[str, Any]]:
    """One row per convolution, in module order; nothing is converted.

    Args:
        model, to, where, example_input: as in `convert`.

    Returns:
        Rows with the keys `COLUMNS`: sizes as text (``"3x3"``, ``"64x56x56"``), ``stage`` and ``field`` (receptive, in
        pixels) as in `ConvNode`, ``norm`` the layer that alone reads the
        output (empty if none or unknown), ``selected`` the kind or an empty text, ``reason`` why not.

    Raises:
        ConversionError: as `convert` for ``where`` and ``example_input``; MetricZooError for an unknown kind.
    """
    check_model(model)
    subject = shell_copy(model)
    with prepared_for(where, subject):
        analysis = analyse(subject, example_input)
    strategy = choose_strategy(to)
    decided = select(analysis.nodes, Selection(to, where), strategy)
    if strategy.to.promise is not Promise.APPROXIMATION:  # which takes kernels, and time
        strategy.try_out(chosen(decided))
    return [_row(each) for each in decided]


def _row(each: Replacement) -> dict[str, Any]:
    node = each.node
    return {
        "name": node.name,
        "layer": type(node.module).__name__,
        "kernel": size(node.kernel),
        "stride": size(node.stride),
        "groups": node.groups,
        "input": size(node.input_shape and node.input_shape[1:]),
        "output": size(node.output_shape and node.output_shape[1:]),
        "stage": "" if node.stage is None else node.stage,
        "field": "" if node.receptive_field is None else node.receptive_field,
        "calls": node.calls,
        "norm": node.norm or "",
        "selected": each.decision.kind or "",
        "reason": each.decision.reason,
    }
