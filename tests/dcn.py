"""DCNv3 and DCNv4 written out with torchvision's deformable convolution and the framework's functions: an oracle.

Published order: x outer, y inner, offsets (x, y). torchvision's: row by row, offsets (y, x) from the ordinary grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

ACTIVATIONS = {"GELU": F.gelu, "ReLU": F.relu, "SiLU": F.silu}


class Window(NamedTuple):
    group: int = 4
    kernel_size: int = 3
    dilation: int = 1
    offset_scale: float = 1.0
    remove_center: bool = False

    @property
    def points(self) -> list[tuple[int, int]]:
        """(column, row) of every cell that is sampled."""
        side = range(self.kernel_size)
        cells = [(column, row) for column in side for row in side]
        return [cell for cell in cells if not (self.remove_center and set(cell) == {self.kernel_size // 2})]


def aggregated(value: Tensor, offset: Tensor, mask: Tensor, window: Window) -> Tensor:
    """``(B, H, W, C)``, ``(B, H, W, G, P, 2)`` and ``(B, H, W, G, P)`` -> ``(B, H, W, C)``."""
    group, kernel, dilation, scale, _ = window
    (batch, height, width, channels), middle = value.shape, dilation * (kernel - 1) // 2
    moved = value.new_zeros(batch, group, kernel**2, 2, height, width)
    counted = value.new_zeros(batch, group, kernel**2, height, width)
    for point, (column, row) in enumerate(window.points):
        for axis, cell in ((1, column), (0, row)):
            grid = cell * dilation - middle
            shift = scale * offset[..., point, 1 - axis] + (scale - 1) * grid
            moved[:, :, row * kernel + column, axis] = shift.permute(0, 3, 1, 2)
        counted[:, :, row * kernel + column] = mask[..., point].permute(0, 3, 1, 2)
    ones = value.new_ones(channels, 1, kernel, kernel)
    sampled = deform_conv2d(
        value.permute(0, 3, 1, 2),
        moved.flatten(1, 3),
        ones,
        padding=dilation * (kernel - 1) // 2,
        dilation=dilation,
        mask=counted.flatten(1, 2),
    )
    return sampled.permute(0, 2, 3, 1)


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def mixed(samples: Tensor, value: Tensor, query: Tensor, weights: dict[str, Tensor], group: int) -> Tensor:
    if "center_feature_scale_proj_weight" not in weights:
        return samples
    names = (f"center_feature_scale_proj_{kind}" for kind in ("weight", "bias"))
    share = F.linear(query, *(weights[name] for name in names)).sigmoid()[..., None]
    parts = (part.unflatten(-1, (group, -1)) for part in (samples, value))
    own, other = parts
    return (own * (1 - share) + other * share).flatten(-2)


def dcnv3(x: Tensor, weights: dict[str, Tensor], window: Window, activation: str = "GELU") -> Tensor:
    """The module's function of ``(B, H, W, C)``, layer norm."""
    kernel = weights["dw_conv.0.weight"]
    seen = F.conv2d(
        x.permute(0, 3, 1, 2), kernel, weights["dw_conv.0.bias"], padding=kernel.shape[-1] // 2, groups=x.shape[-1]
    )
    seen = ACTIVATIONS[activation](norm(seen.permute(0, 2, 3, 1), weights, "dw_conv.1.1"))
    value, sizes = linear(x, weights, "input_proj"), (window.group, len(window.points))
    offset = linear(seen, weights, "offset").unflatten(-1, (*sizes, 2))
    mask = linear(seen, weights, "mask").unflatten(-1, sizes).softmax(-1)
    samples = mixed(aggregated(value, offset, mask, window), value, seen, weights, window.group)
    return linear(samples, weights, "output_proj")


def split(predicted: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Offsets and factors of DCNv4's head, group after group; what it has more of is not read."""
    points = len(window.points)
    predicted = predicted[..., : 3 * window.group * points].unflatten(-1, (window.group, 3 * points))
    return predicted[..., : 2 * points].unflatten(-1, (points, 2)), predicted[..., 2 * points :]


def dcnv4(x: Tensor, weights: dict[str, Tensor], window: Window) -> Tensor:
    """The module's function of ``(B, H, W, C)``."""
    seen = x
    value = linear(x, weights, "value_proj") if "value_proj.weight" in weights else x
    if "offset_mask_dw.weight" in weights:
        kernel, bias = weights["offset_mask_dw.weight"], weights["offset_mask_dw.bias"]
        seen = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2, groups=x.shape[-1])
        seen = seen.permute(0, 2, 3, 1)
    samples = aggregated(value, *split(linear(seen, weights, "offset_mask"), window), window)
    samples = mixed(samples, value, samples, weights, window.group)
    return linear(samples, weights, "output_proj") if "output_proj.weight" in weights else samples
