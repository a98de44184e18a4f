"""A picture as a model wants it, and the same for the eye."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def prepare(model: nn.Module, picture: Tensor, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Resize a picture's shorter side to ``size``, cut out the middle, normalise.

    Args:
        model: whose own size, mean and standard deviation (timm's models know theirs) are used, or 224 and ImageNet's.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1].
        size: pixels a side; None is the model's.

    Returns:
        ``(1, 3, size, size)`` normalised, and the same in [0, 1].
    """
    config = _config(model)
    size = size or config["size"]
    least = min(picture.shape[-2:])
    shape = [max(size, round(side * size / least)) for side in picture.shape[-2:]]
    shown = F.interpolate(picture, shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = ((side - size) // 2 for side in shape)
    shown = shown[..., top : top + size, left : left + size].expand(-1, 3, -1, -1)
    mean, std = (shown.new_tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    parameter = next(model.parameters(), torch.zeros(()))
    return ((shown - mean) / std).to(parameter), shown


def _config(model: nn.Module) -> dict:
    if not hasattr(model, "pretrained_cfg"):
        return {**_IMAGENET, "size": 224}
    from timm.data import resolve_model_data_config

    found = resolve_model_data_config(model)
    return {"mean": found["mean"], "std": found["std"], "size": found["input_size"][-1]}
