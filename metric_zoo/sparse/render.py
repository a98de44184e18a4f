"""From samples to the dense kernels that they amount to; differentiable."""

from __future__ import annotations

import torch
from torch import Tensor


def layer_kernels(offsets: Tensor, weights: Tensor, size: int) -> Tensor:
    r"""The dense kernel of every layer: a bilinear read at :math:`o` is the hat function around :math:`o`.

    .. math:: K_l(u) = \sum_i w_{l,i}\, h(u_x - x_{l,i})\, h(u_y - y_{l,i}), \quad h(t) = \max(0, 1 - |t|)

    Args:
        offsets: ``(*, L, N, 2)``, (x, y) in pixels.
        weights: ``(*, L, N)``.
        size: odd; what lies further than ``size // 2`` from the middle is cut off.

    Returns:
        ``(*, L, size, size)``.
    """
    with torch.autocast(offsets.device.type, enabled=False):
        return _layer_kernels(offsets, weights, size)


def _layer_kernels(offsets: Tensor, weights: Tensor, size: int) -> Tensor:
    grid = torch.arange(size, dtype=offsets.dtype, device=offsets.device) - size // 2
    columns, rows = ((1 - (grid - offsets[..., axis, None]).abs()).clamp_min(0) for axis in (0, 1))
    return (rows * weights[..., None]).mT @ columns


def compose(kernels: Tensor) -> Tensor:
    """The kernel of layers in a row, ``(*, L, size, size) -> (*, size, size)``: their circular convolution.

    It is the linear one wherever ``size // 2`` is at least the sum of the layers' reaches.
    """
    size = kernels.shape[-2:]
    spectra = torch.fft.rfft2(torch.fft.ifftshift(kernels, dim=(-2, -1)))
    return torch.fft.fftshift(torch.fft.irfft2(spectra.prod(-3), s=size), dim=(-2, -1))


def resize(kernel: Tensor, size: int) -> Tensor:
    """The same around its middle in ``(*, size, size)``, both odd: zeros are added, or the rest is cut off."""
    missing = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (missing,) * 4)
