"""The kinds by name."""

from __future__ import annotations

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.nn.active import ActiveConv2d
from metric_zoo.nn.config import (
    ActiveConfig,
    DeformConfig,
    DilatedConfig,
    MetricConfig,
    SparseConfig,
    StandardConfig,
)
from metric_zoo.nn.deform import DeformConv2d
from metric_zoo.nn.dilated import DilatedConv2d
from metric_zoo.nn.geodesic import GeodesicConv2d
from metric_zoo.nn.kind import KINDS, Kind, Promise
from metric_zoo.nn.metric import MetricConv2d
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.shifted import ShiftedConv2d
from metric_zoo.nn.sparse import SparseKernelComplex2d, SparseOptions


def _declare(layer, config, promise=Promise.FUNCTION, conversion=None, name="") -> None:
    name = name or layer.kind
    KINDS[name] = Kind(name, layer, config, promise, conversion or config, name, "#3b7dd8", "o")


_declare(None, StandardConfig, name="standard")
_declare(DilatedConv2d, DilatedConfig, Promise.NOTHING)
_declare(ShiftedConv2d, DeformConfig)
_declare(ActiveConv2d, ActiveConfig)
_declare(DeformConv2d, DeformConfig)
_declare(ModulatedDeformConv2d, DeformConfig)
_declare(MetricConv2d, MetricConfig)
_declare(GeodesicConv2d, MetricConfig)
_declare(SparseKernelComplex2d, SparseConfig, Promise.APPROXIMATION, SparseOptions)


def list_kinds() -> list[str]:
    """The names of all kinds; ``"standard"`` is the ordinary convolution."""
    return list(KINDS)


def get_kind(name: str) -> Kind:
    """Look a kind up.

    Raises:
        MetricZooError: for an unknown name, with the nearest known one.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise MetricZooError(f"unknown kind {name!r}{suggest(str(name), KINDS)}; known: {list_kinds()}")
    return KINDS[name]
