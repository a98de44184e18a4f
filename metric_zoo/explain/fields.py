"""Fields of what a layer's balls look like, over the picture."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn

from metric_zoo.explain.figure import panels, save, show
from metric_zoo.explain.probe import probe
from metric_zoo.geometry.fields import ball_fields


def draw_fields(model: nn.Module, input: Tensor, picture: Tensor, path: Path, layer: str) -> None:
    """Draw a layer's anisotropy, orientation, area and drift as maps beside the picture.

    Those of a layer without a metric are of the Randers metric whose ball its samples cover.

    Args:
        model: converted.
        input: ``(1, C, H, W)`` as the model wants it.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1], the same image for the eye.
        path: of the figure; ``.png``, ``.svg`` or ``.pdf``.
        layer: its name; of several metric groups the first is drawn.

    Raises:
        MetricZooError: as `metric_zoo.explain.probe.probe`.
    """
    found = probe(model, input, layer)
    values = ball_fields(found.metric)
    figure, axes = panels(1, 5, 2.6)
    show(axes[0, 0], picture, f"{layer}, {found.kind}")
    maps = (
        ("anisotropy, long : short axis", values.anisotropy, "viridis", 1, None),
        ("orientation of the long axis, degrees", values.orientation * 180 / math.pi, "twilight", -90, 90),
        ("area, of the unit disc", values.area, "viridis", 0, None),
        ("drift", values.drift, "viridis", 0, 1),
    )
    for place, (title, field, colours, low, high) in zip(axes[0, 1:], maps, strict=True):
        shown = place.imshow(field[0, 0].detach().cpu().float().numpy(), cmap=colours, vmin=low, vmax=high)
        place.set_title(title, fontsize=8)
        place.set_axis_off()
        figure.colorbar(shown, ax=place, shrink=0.7)
    save(figure, path)
