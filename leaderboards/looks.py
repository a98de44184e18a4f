"""How a kind looks in pictures: as it says itself, the same in each."""

from __future__ import annotations

from functools import cache

from metric_zoo.benchmarks.learners import PEER

_COLOURS = ("#3b7dd8", "#e08a1e", "#2e9e6b", "#b055c4", "#d6456b", "#1ba3b8", "#8a7a2c", "#6b6fd6")
_MARKERS = "osD^vP*X"


@cache
def look(kind: str) -> dict[str, str]:
    """Colour and marker. A kind of a package that is not installed here has them by its name."""
    # Late: the registry imports torch, and only pictures ask.
    from metric_zoo.nn.registry import KINDS, list_kinds

    if kind == PEER.kind:
        return {"color": PEER.colour, "marker": PEER.marker}
    if kind in list_kinds():
        return {"color": KINDS[kind].colour, "marker": KINDS[kind].marker}
    number = sum(kind.encode()) % len(_COLOURS)
    return {"color": _COLOURS[number], "marker": _MARKERS[number]}
