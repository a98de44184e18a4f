"""Which strategy a conversion follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metric_zoo.converters.strategies.approximate import Approximate
from metric_zoo.converters.strategies.fit import Fit
from metric_zoo.converters.strategies.keep import Keep
from metric_zoo.converters.strategies.start_anew import StartAnew
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.kind import Promise
from metric_zoo.nn.registry import get_kind

_BY_INIT: dict[str, type[Strategy]] = {each.init: each for each in (Keep, StartAnew, Fit)}
INITS = tuple(_BY_INIT)


def choose_strategy(to: str, init: str = Keep.init, options: Mapping[str, Any] | None = None) -> Strategy:
    """The one for a kind and a start.

    Raises:
        ConversionError: for a start that is unknown, or not for this kind; MetricZooError for an unknown kind.
    """
    kind = get_kind(to)
    approximates = kind.promise is Promise.APPROXIMATION
    if approximates and init != Approximate.init:
        raise ConversionError(f"to={to!r} approximates the kernels that are there: init={init!r} would lose them")
    if init not in INITS:
        raise ConversionError(f"init={init!r}: expected one of {INITS}{suggest(str(init), INITS)}")
    return (Approximate if approximates else _BY_INIT[init])(kind, options or {})
