"""All pictures of some models and one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.explain.balls import draw_balls
from metric_zoo.explain.cam import draw_cams
from metric_zoo.explain.fields import draw_fields
from metric_zoo.explain.prepare import Look, prepare
from metric_zoo.explain.probe import sampled_layers
from metric_zoo.nn.base import SampledConv2d


def explain_models(
    models: Mapping[str, nn.Module],
    picture: Tensor,
    out: Path,
    *,
    layer: str | None = None,
    pixels: Sequence[tuple[float, float]] | None = None,
    size: int | None = None,
    target: int | None = None,
    look: Look | None = None,
) -> list[Path]:
    """Balls, fields and Grad-CAM, each as PNG and SVG.

    Args:
        models: by name; those without converted layers take part in Grad-CAM alone.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1].
        out: folder.
        layer: a converted layer's name; None draws the first and the last one's balls, and the last one's fields.
        pixels: (x, y) of the prepared image where balls are drawn; None is a grid.
        size: pixels a side that the picture is brought to; None is the first model's own.
        target: class that Grad-CAM explains; None is each model's answer.
        look: how the picture is prepared for all of them; None is as the first model says of itself.

    Returns:
        The files, ``balls-NAME``, ``fields-NAME`` and, of models that tell classes, ``grad-cam``.

    Raises:
        MetricZooError: if there is no model, or as the pictures' own functions.
    """
    if not models:
        raise MetricZooError("there is no model to explain")
    input, shown = prepare(next(iter(models.values())), picture, size, look)
    files, classify = [], all(_tells_classes(model, input) for model in models.values())
    for ending in ("png", "svg"):
        if classify:  # first, since it may refuse the target
            draw_cams(models, input, shown, out / f"grad-cam.{ending}", target)
        for name, model in models.items():
            if not any(isinstance(part, SampledConv2d) for part in model.modules()):
                continue
            balls, fields = (out / f"{word}-{name}.{ending}" for word in ("balls", "fields"))
            draw_balls(model, input, shown, balls, [layer] if layer else None, pixels)
            draw_fields(model, input, shown, fields, layer or list(sampled_layers(model))[-1])
            files += [balls, fields]
        if classify:
            files.append(out / f"grad-cam.{ending}")
    return files


def _tells_classes(model: nn.Module, input: Tensor) -> bool:
    """Not, for example, an image."""
    with torch.no_grad():
        answer = model(input)
    return isinstance(answer, Tensor) and answer.dim() == 2
