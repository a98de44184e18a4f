"""The kinds by name."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.nn.active import ActiveConv2d
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import (
    ActiveConfig,
    DeformConfig,
    DilatedConfig,
    KindOptions,
    MetricConfig,
    StandardConfig,
)
from metric_zoo.nn.deform import DeformConv2d
from metric_zoo.nn.dilated import DilatedConv2d
from metric_zoo.nn.geodesic import GeodesicConv2d
from metric_zoo.nn.metric import MetricConv2d
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.shifted import ShiftedConv2d


@dataclass(frozen=True)
class Kind:
    """A kind of convolution: its layer (None for the ordinary one), its options, and whether it can start as the
    convolution it replaces.
    """

    layer: type[SampledConv2d] | None
    config: type[KindOptions]
    lossless: bool = True


KINDS: dict[str, Kind] = {
    "standard": Kind(None, StandardConfig),
    "dilated": Kind(DilatedConv2d, DilatedConfig, lossless=False),
    "shifted": Kind(ShiftedConv2d, DeformConfig),
    "active": Kind(ActiveConv2d, ActiveConfig),
    "deformable": Kind(DeformConv2d, DeformConfig),
    "modulated": Kind(ModulatedDeformConv2d, DeformConfig),
    "metric": Kind(MetricConv2d, MetricConfig),
    "geodesic": Kind(GeodesicConv2d, MetricConfig),
}


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
