"""The kinds by name: those of this package and, through the entry points ``metric_zoo.kinds``, of others."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.nn.kind import KINDS, Kind

# Kinds are listed in this order: what is not learned, one shift, one map, steps, offsets, balls, and fitted kernels.
# isort: off
from metric_zoo.nn import standard  # noqa: F401
from metric_zoo.nn import dilated  # noqa: F401
from metric_zoo.nn import shifted  # noqa: F401
from metric_zoo.nn import similar  # noqa: F401
from metric_zoo.nn import affine  # noqa: F401
from metric_zoo.nn import stn  # noqa: F401
from metric_zoo.nn import snake  # noqa: F401
from metric_zoo.nn import active  # noqa: F401
from metric_zoo.nn import deform  # noqa: F401
from metric_zoo.nn import modulated  # noqa: F401
from metric_zoo.nn import dcnv3  # noqa: F401
from metric_zoo.nn import dcnv4  # noqa: F401
from metric_zoo.nn import star  # noqa: F401
from metric_zoo.nn import metric  # noqa: F401
from metric_zoo.nn import geodesic  # noqa: F401
from metric_zoo.nn import sparse  # noqa: F401
# isort: on

GROUP = "metric_zoo.kinds"
"""Of entry points: each is loaded, and declares its kinds while it is."""


def list_kinds() -> list[str]:
    """The names of all kinds; ``"standard"`` is the ordinary convolution."""
    _load_others()
    return list(KINDS)


def get_kind(name: str) -> Kind:
    """Look a kind up.

    Raises:
        MetricZooError: for an unknown name, with the nearest known one.
    """
    if not isinstance(name, str) or name not in KINDS:
        known = list_kinds()
        if not isinstance(name, str) or name not in KINDS:
            raise MetricZooError(f"unknown kind {name!r}{suggest(str(name), known)}; known: {known}")
    return KINDS[name]


def list_layers() -> dict[str, Kind]:
    """The kinds that have a layer of their own, by name."""
    return {name: KINDS[name] for name in list_kinds() if KINDS[name].layer is not None}


def featured_kinds() -> tuple[str, ...]:
    """Those that demonstrations and sweeps show without being asked for them; the most adaptive comes first."""
    return tuple(name for name in reversed(list_kinds()) if KINDS[name].featured)


@cache
def _load_others() -> None:
    """Once; a package whose kinds cannot be had is named, and costs nobody else's."""
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # another package's code may fail in any way
            package = entry.dist.name if entry.dist else entry.value
            why = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"the kind {entry.name!r} of {package} cannot be loaded: {why}", stacklevel=3)
