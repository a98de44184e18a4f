"""Sampled convolution: the one operator behind every kind. Where to sample is its argument."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.bilinear import bilinear_sample
from metric_zoo.ops.padding import Padding, Pads, output_size, pair, resolve_padding


def sampled_conv2d(
    input: Tensor,
    weight: Tensor,
    positions: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Convolution whose samples lie at given positions around each window's centre.

    .. math:: out[b,o,p] = bias[o] + \sum_{c,i} weight[o,c,i]\, m_i(p)\, x[b,c](c(p) + y_i(p))

    with the window's centre :math:`c(p) = p \cdot stride - padding + dilation (k-1)/2` and bilinear reads that are
    zero outside the image (Metric Convolutions, ICCV 2025, section 2). This is the torch backend: one grid_sample over
    all samples, then a 1x1 convolution over channels and samples. Differentiable any number of times.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C/groups, kh, kw)``; K = kh*kw samples in the kernel's row-major order.
        positions: ``(B or 1, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to the window's centre; G divides C, and
            the channels of each of the G contiguous parts share their positions.
        bias: ``(O,)``.
        stride, dilation: one or two whole numbers, (height, width).
        padding: any form of `resolve_padding`.
        groups: as in `torch.nn.Conv2d`.
        mask: ``(B, G*K, Ho, Wo)``, a factor on every sample.

    Returns:
        ``(B, O, Ho, Wo)``; NaN at the pixels whose positions are NaN.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together.
    """
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    kernel_size = check_kernel(input, weight, bias, groups)
    pads = resolve_padding(padding, tuple(input.shape[-2:]), kernel_size, stride, dilation)
    size = output_size(tuple(input.shape[-2:]), kernel_size, stride, pads, dilation)
    sample_groups = _check_positions(input, positions, kernel_size, size)
    _check_mask(mask, positions, input)

    x, y = _absolute(positions, kernel_size, stride, pads, dilation)
    batch = input.shape[0]
    cells = kernel_size[0] * kernel_size[1]
    x, y = (_by_group(c.expand(batch, -1, -1, -1), cells) for c in (x, y))
    samples = bilinear_sample(_by_group(input, input.shape[1] // sample_groups), x, y)
    if mask is not None:
        samples = samples * _by_group(mask, cells).unsqueeze(1).to(samples.dtype)
    # (B*G, C/G, K, Ho, Wo) -> (B, C*K, Ho, Wo): channel-major, the order in which a kernel flattens.
    samples = samples.reshape(batch, input.shape[1] * cells, *size)
    if not _autocasts(input):
        samples = samples.to(weight.dtype)
    return F.conv2d(samples, weight.flatten(1)[..., None, None], bias, groups=groups)


def _autocasts(input: Tensor) -> bool:
    """Whether autocast chooses the dtypes; some devices (meta) do not know it."""
    device = input.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _by_group(field: Tensor, per_group: int) -> Tensor:
    """``(B, G*n, H, W) -> (B*G, n, H, W)``."""
    return field.reshape(field.shape[0] * (field.shape[1] // per_group), per_group, *field.shape[2:])


def check_kernel(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> tuple[int, int]:
    """Check input, weight and bias against each other; return the kernel size.

    Raises:
        MetricZooError: naming the tensor and the shape, dtype or device expected.
    """
    if input.dim() != 4:
        raise MetricZooError(f"input has shape {tuple(input.shape)}, expected (B, C, H, W)")
    if weight.dim() != 4:
        raise MetricZooError(f"weight has shape {tuple(weight.shape)}, expected (O, C/groups, kh, kw)")
    if not input.is_floating_point():
        raise MetricZooError(f"input has dtype {input.dtype}, expected a floating-point type")
    if groups < 1 or weight.shape[0] % groups or input.shape[1] != weight.shape[1] * groups:
        raise MetricZooError(
            f"input has {input.shape[1]} channels, weight {tuple(weight.shape)} with groups={groups} "
            f"expects {weight.shape[1] * groups}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise MetricZooError(f"bias has shape {tuple(bias.shape)}, expected ({weight.shape[0]},)")
    if input.device != weight.device:
        raise MetricZooError(f"input is on {input.device}, weight on {weight.device}: move one of them")
    if input.dtype != weight.dtype and not _autocasts(input):
        raise MetricZooError(f"input has dtype {input.dtype}, weight {weight.dtype}: cast one of them or use autocast")
    return tuple(weight.shape[-2:])


def check_fields(name: str, field: Tensor, input: Tensor, per_group: int, size: tuple[int, int]) -> int:
    """Check a ``(B, per_group*G, Ho, Wo)`` field of an input; return G.

    Raises:
        MetricZooError: naming the field and the shape expected.
    """
    channels = field.shape[1] if field.dim() == 4 else 0
    sample_groups = channels // per_group
    wanted = (input.shape[0], per_group * max(sample_groups, 1), *size)
    if tuple(field.shape) != wanted or input.shape[1] % sample_groups:
        raise MetricZooError(
            f"{name} has shape {tuple(field.shape)}, expected ({input.shape[0]}, {per_group}*G, {size[0]}, {size[1]}) "
            f"with G dividing the input's {input.shape[1]} channels"
        )
    if field.device != input.device:
        raise MetricZooError(f"{name} is on {field.device}, input on {input.device}: move one of them")
    return sample_groups


def _check_positions(input: Tensor, positions: Tensor, kernel_size: tuple[int, int], size: tuple[int, int]) -> int:
    if positions.dim() != 5 or positions.shape[2] != 2 or positions.shape[0] not in (1, input.shape[0]):
        raise MetricZooError(f"positions has shape {tuple(positions.shape)}, expected (B, G*K, 2, Ho, Wo)")
    field = positions[:, :, 0].expand(input.shape[0], *positions.shape[1:2], *positions.shape[3:])
    return check_fields("positions (x part)", field, input, kernel_size[0] * kernel_size[1], size)


def _check_mask(mask: Tensor | None, positions: Tensor, input: Tensor) -> None:
    if mask is None:
        return
    wanted = (input.shape[0], positions.shape[1], *positions.shape[3:])
    if tuple(mask.shape) != wanted:
        raise MetricZooError(f"mask has shape {tuple(mask.shape)}, expected {wanted}")


def _absolute(
    positions: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int], pads: Pads, dilation: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Add the windows' centres: ``(B, G*K, 2, Ho, Wo)`` -> x and y, each ``(B, G*K, Ho, Wo)``, in image pixels."""
    positions = at_least_float32(positions)
    like = {"device": positions.device, "dtype": positions.dtype}
    top, left = pads[0][0], pads[1][0]
    rows = torch.arange(positions.shape[-2], **like) * stride[0] + (dilation[0] * (kernel_size[0] - 1) / 2 - top)
    columns = torch.arange(positions.shape[-1], **like) * stride[1] + (dilation[1] * (kernel_size[1] - 1) / 2 - left)
    return positions[:, :, 0] + columns, positions[:, :, 1] + rows[:, None]
