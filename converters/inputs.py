"""An input a model accepts, for when the caller gives none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metric_zoo.errors import ConversionError

_DEFAULT_SIZE = (3, 224, 224)
_FRAMES = 16


def candidate_inputs(model: nn.Module, example_input: Any = None) -> Iterator[tuple[Any, ...]]:
    """Yield positional arguments to try on ``model``, on its device and in its dtype.

    With ``example_input`` only that: a tensor, or a tuple of arguments. Otherwise random images of the model's
    declared size, as a batch (classification, segmentation), as a list (detection), as a pair (optical flow) and as a
    clip of 16 frames (video).

    Raises:
        ConversionError: if ``example_input`` is neither a tensor nor a tuple or list.
    """
    if example_input is not None:
        if not isinstance(example_input, (Tensor, tuple, list)):
            raise ConversionError(
                f"example_input is a {type(example_input).__name__}, expected a tensor (B, C, H, W) or a tuple of "
                "positional arguments"
            )
        yield tuple(example_input) if isinstance(example_input, tuple) else (example_input,)
        return
    for size in _input_sizes(model):
        images = _images(model, size)
        yield (images,)
        yield ([images[0]],)
        yield (images, images)
        if any(isinstance(module, nn.Conv3d) for module in model.modules()):
            yield (images[:, :, None].expand(-1, -1, _FRAMES, -1, -1),)


def _images(model: nn.Module, size: tuple[int, int, int]) -> Tensor:
    """One seeded random image batch; it does not disturb the global random state."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(0)).to(parameter)


def _input_sizes(model: nn.Module) -> list[tuple[int, int, int]]:
    """Likely (channels, height, width): what the first convolution reads, then what the configuration declares.

    A model built for another number of channels or another size says so in its modules, not in its configuration; the
    first convolution of a few reads something other than the image.
    """
    cfg = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = cfg.get("input_size") or _DEFAULT_SIZE
    grid = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if grid is not None:
        height, width = (grid, grid) if isinstance(grid, int) else grid
    first = next((m.in_channels for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), channels)
    return [(c, height, width) for c in dict.fromkeys((first, channels))]


def cropped(inputs: tuple[Any, ...], side: int) -> tuple[Any, ...]:
    """The same arguments with every image cut to ``side`` pixels a side."""
    return torch.utils._pytree.tree_map(lambda v: v[..., :side, :side] if isinstance(v, Tensor) else v, inputs)
