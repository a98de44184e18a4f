"""An input a model accepts, for when the caller gives none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from metric_zoo.errors import ConversionError

Inputs = tuple[Any, ...] | dict[str, Any]
"""What a model is called with: positional arguments, or keywords."""

_DEFAULT_SIZE = (3, 224, 224)
_FRAMES = 16


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """The model's output for these arguments."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def candidate_inputs(model: nn.Module, example_input: Any = None) -> Iterator[Inputs]:
    """Yield arguments to try on ``model``, on its device and in its dtype.

    With ``example_input`` only that: a tensor, a tuple of positional arguments, or a dict of keywords. Otherwise random
    images of the model's declared size, as a batch (classification, segmentation; by keyword where the forward takes
    one keyword only), as a list (detection), as a pair (optical flow) and as a clip of 16 frames (video).

    Raises:
        ConversionError: if ``example_input`` is none of these, or a dict whose keys are no names.
    """
    if example_input is not None:
        yield _given(example_input)
        return
    keyword = _only_keyword(model)
    for size in _input_sizes(model):
        images = _images(model, size)
        if keyword:
            yield {keyword: images}
            continue
        yield (images,)
        yield ([images[0]],)
        yield (images, images)
        if any(isinstance(module, nn.Conv3d) for module in model.modules()):
            yield (images[:, :, None].expand(-1, -1, _FRAMES, -1, -1),)


def _given(example_input: Any) -> Inputs:
    if isinstance(example_input, Mapping):
        wrong = next((key for key in example_input if not isinstance(key, str)), None)
        if wrong is not None:
            raise ConversionError(f"example_input has the key {wrong!r}: a dict holds keywords of the model's forward")
        return dict(example_input)
    if not isinstance(example_input, (Tensor, tuple, list)):
        raise ConversionError(
            f"example_input is a {type(example_input).__name__}, expected a tensor (B, C, H, W), a tuple of positional "
            "arguments or a dict of keywords"
        )
    return tuple(example_input) if isinstance(example_input, tuple) else (example_input,)


def _only_keyword(model: nn.Module) -> str | None:
    """The argument of a forward that must be given one, by keyword."""
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return needed[0].name if len(needed) == 1 and needed[0].kind is needed[0].KEYWORD_ONLY else None


def why_not_accepted(model: nn.Module, example_input: Any) -> str:
    """What to pass to a model that does not run, for a message."""
    if example_input is None:
        return "any example input tried; pass example_input="
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not named or isinstance(example_input, Mapping):
        return "the example_input given"
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return f"the example_input given; its forward takes keywords, pass a dict with {needed}"


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
    grid = getattr(model, "_traits", {}).get("img_size", grid) or grid  # what timm was given, or the tag fixes
    if grid is not None:
        height, width = (grid, grid) if isinstance(grid, int) else grid
    first = next((m.in_channels for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), channels)
    return [(c, height, width) for c in dict.fromkeys((first, channels))]


def cropped(inputs: Inputs, side: int) -> Inputs:
    """The same arguments with every image cut to ``side`` pixels a side."""
    return _pytree.tree_map(lambda v: v[..., :side, :side] if isinstance(v, Tensor) else v, inputs)
