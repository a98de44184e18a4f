"""The options of a conversion, given to the kinds that take them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import Kind


def split_options(kinds: Collection[Kind], options: Mapping[str, Any]) -> dict[str, KindOptions]:
    """What every kind takes of ``options``, by the kind's name. A head is ``"auto"`` unless one is given.

    Raises:
        MetricZooError: for an option that none of the kinds has, or a value out of range.
    """
    split = {kind.name: {name: options[name] for name in _names(kind) if name in options} for kind in kinds}
    unclaimed = set(options).difference(*split.values())
    if unclaimed:
        first = min(kinds, key=lambda kind: kind.name)
        first.conversion.from_options(first.name, {name: options[name] for name in sorted(unclaimed)})
    for kind in kinds:
        if "head" in _names(kind):
            split[kind.name].setdefault("head", "auto")
    return {kind.name: kind.conversion.from_options(kind.name, split[kind.name]) for kind in kinds}


def layer_options(kind: Kind, settings: KindOptions) -> dict[str, Any]:
    """Those that the kind's layer has; the others are the conversion's."""
    return {option.name: getattr(settings, option.name) for option in fields(kind.config)}


def _names(kind: Kind) -> list[str]:
    return [option.name for option in fields(kind.conversion)]
