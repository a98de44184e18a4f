"""Narrowing a selection by what a convolution sees: its stage, resolution, receptive field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from metric_zoo.converters.nodes import ConvNode
from metric_zoo.errors import ConversionError

Range: TypeAlias = "tuple[int | None, int | None] | None"


@dataclass(frozen=True)
class Filters:
    """Every filter that is given must hold.

    Attributes:
        stages: numbers of stages, as ResNet counts its layers; see `metric_zoo.converters.selection.stages`.
        resolution: (least, most) pixels of the input's shorter side at the declared size; None is no bound.
        receptive_field: (least, most) pixels of the image, a side, that one output pixel sees.

    Raises:
        ConversionError: for anything else.
    """

    stages: Sequence[int] | None = None
    resolution: Range = None
    receptive_field: Range = None

    def __post_init__(self) -> None:
        stages = self.stages
        if stages is not None and (
            not isinstance(stages, (list, tuple, set, range)) or not stages or not all(map(_is_whole, stages))
        ):
            raise ConversionError(f"stages={stages!r}: expected a list of stage numbers such as [2, 3, 4]")
        for name in ("resolution", "receptive_field"):
            _check_range(name, getattr(self, name))

    def check_known(self, nodes: Sequence[ConvNode]) -> None:
        """Raise if a filter asks for what no convolution knows of itself.

        Raises:
            ConversionError: saying what is unknown.
        """
        if self.receptive_field is not None and all(node.receptive_field is None for node in nodes):
            raise ConversionError("receptive_field: unknown, torch.fx cannot trace this model; use stages= or where=")
        known = sorted({node.stage for node in nodes if node.stage is not None})
        absent = [stage for stage in self.stages or () if stage not in known]
        if absent:
            raise ConversionError(f"stages={self.stages!r}: no convolution is in stage {absent[0]}; there are {known}")

    def reason(self, node: ConvNode) -> str:
        """Why a convolution is left out, or an empty text."""
        if self.stages is not None and node.stage not in self.stages:
            return f"stage {node.stage}" if node.stage is not None else "in no stage"
        side = min(node.input_shape[-2:]) if node.input_shape else None
        if self.resolution is not None and not _within(side, self.resolution):
            return f"input of {side} px" if side is not None else "its input is unknown"
        if self.receptive_field is not None and not _within(node.receptive_field, self.receptive_field):
            field = node.receptive_field
            return f"receptive field of {field} px" if field is not None else "its receptive field is unknown"
        return ""


def _within(value: int | None, bounds: tuple[int | None, int | None]) -> bool:
    least, most = bounds
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _check_range(name: str, bounds: Any) -> None:
    if bounds is None:
        return
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(b is None or _is_whole(b) for b in bounds)
    if not pair or (None not in bounds and bounds[0] > bounds[1]):
        raise ConversionError(f"{name}={bounds!r}: expected (least, most) in pixels, None for no bound")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
