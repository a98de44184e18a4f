"""A picture as a model wants it, and the same for the eye."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.images import centre_crop, in_channels


@dataclass(frozen=True)
class Look:
    """What a model takes: pixels a side, channels (1 or 3), and what is subtracted and divided by, per channel."""

    size: int = 224
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def of(cls, model: nn.Module) -> Look:
        """What a timm model says of itself; 224 pixels and ImageNet's statistics for another."""
        if not hasattr(model, "pretrained_cfg"):
            return cls()
        from timm.data import resolve_model_data_config

        found = resolve_model_data_config(model)
        channels, _, size = found["input_size"]
        return cls(size, channels, tuple(found["mean"]), tuple(found["std"]))


def prepare(
    model: nn.Module, picture: Tensor, size: int | None = None, look: Look | None = None
) -> tuple[Tensor, Tensor]:
    """Resize a picture's shorter side, cut out the middle, normalise.

    Args:
        model: on whose device and in whose dtype the input is to be.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1].
        size: pixels a side; None is what ``look`` says.
        look: None is `Look.of` the model.

    Returns:
        ``(1, C, size, size)`` normalised, and the same in [0, 1].

    Raises:
        MetricZooError: for a size below 1, or a model of other than 1 or 3 channels.
    """
    look = look or Look.of(model)
    look = replace(look, size=look.size if size is None else size)
    if look.size < 1 or look.channels not in (1, 3):
        raise MetricZooError(f"{look.size} pixels a side, {look.channels} channels: expected 1 or more, and 1 or 3")
    least = min(picture.shape[-2:])
    shape = [max(look.size, round(side * look.size / least)) for side in picture.shape[-2:]]
    shown = F.interpolate(picture, shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    shown = in_channels(centre_crop(shown, look.size), look.channels)
    mean, std = (shown.new_tensor(values).view(1, -1, 1, 1) for values in (look.mean, look.std))
    parameter = next(model.parameters(), torch.zeros(()))
    return ((shown - mean) / std).to(parameter), shown
