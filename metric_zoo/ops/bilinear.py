"""Bilinear sampling with zeros outside the image, differentiable any number of times.

Two linear maps carry everything: `_Gather` reads an image at positions, `_Scatter` is its transpose. Each is the
other's derivative with respect to its first argument, and both get their derivative with respect to the positions
from finite differences that are exact for a bilinear function, so that the family is closed under differentiation.

At integer coordinates bilinear interpolation has a kink. The derivative there is defined as the mean of its two
sides: an identity metric puts every sample on such a kink, and a one-sided choice (made by rounding) would bias the
gradient of every freshly converted network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32

_BILINEAR, _ZEROS, _ALIGN_CORNERS = 0, 0, False


def bilinear_sample(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read ``image`` at real positions; every corner outside the image contributes zero, as in deform_conv2d.

    Args:
        image: ``(N, C, H, W)``; half types are read in float32.
        x, y: ``(N, *S)`` columns and rows in pixels (0 is the centre of the first), in the dtype of the result.

    Returns:
        ``(N, C, *S)``; NaN where a position is NaN, zero where it is infinite.

    Raises:
        RuntimeError: from the framework, if the shapes do not fit; the public operators check them first.
    """
    image = at_least_float32(image)
    samples = _Gather.apply(image, _positions(image, x, y))
    return samples.unflatten(2, x.shape[1:])


def grid_sample(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`bilinear_sample` in one operation, which exporters know for images of any size.

    Positions are rounded, so that one at a pixel has the slope of either side: a result is right, a derivative is not.
    """
    image = at_least_float32(image)
    height, width = image.shape[-2:]
    columns, rows = _positions(image, x, y).unbind(-1)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    samples = F.grid_sample(image, grid[:, None], "bilinear", "zeros", align_corners=False)
    return samples.reshape(*image.shape[:2], *x.shape[1:])


def bilinear_gradients(
    image: Tensor, x: Tensor, y: Tensor, grad: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """What flows back through `bilinear_sample`: to image, and to x and y, in at least float32.

    Args:
        image, x, y: as for `bilinear_sample`.
        grad: of its result.
        needs: whether the image needs it, and whether the positions do; None stands for what does not.
    """
    image = at_least_float32(image)
    grad_image, grad_position = _fused_gradients(image, _positions(image, x, y), grad.flatten(2), needs)
    if grad_position is None:
        return grad_image, None
    along_x, along_y = grad_position.unbind(-1)
    return grad_image, (along_x.view(x.shape), along_y.view(x.shape))


def _positions(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``(N, *S)`` each to ``(N, P, 2)``. Two pixels beyond the border read zero like anything further out, and keep
    float-to-int conversions in range."""
    height, width = image.shape[-2:]
    x, y = x.to(image.dtype), y.to(image.dtype)
    return torch.stack((x.clamp(-2, width + 1), y.clamp(-2, height + 1)), dim=-1).flatten(1, -2)


class _Gather(torch.autograd.Function):
    """``(image (N, C, H, W), position (N, P, 2)) -> samples (N, C, P)``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, position: Tensor) -> Tensor:
        padded = _pad_to_power_of_two(image)
        samples = torch.grid_sampler_2d(padded, _normalise(position, padded), _BILINEAR, _ZEROS, _ALIGN_CORNERS)
        return samples.squeeze(2)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        image, position = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself will be differentiated
            return _Scatter.apply(grad, position, image.shape[-2:]), _position_gradient(image, position, grad)
        return _fused_gradients(image, position, grad, ctx.needs_input_grad)


class _Scatter(torch.autograd.Function):
    """``(samples (N, C, P), position (N, P, 2)) -> image (N, C, H, W)``, the transpose of `_Gather` in its image."""

    generate_vmap_rule = True

    @staticmethod
    def forward(samples: Tensor, position: Tensor, size: torch.Size) -> Tensor:
        image = samples.new_zeros(*samples.shape[:2], *size)
        grad_image, _ = _fused_gradients(image, position, samples, (True, False))
        assert grad_image is not None
        return grad_image

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor):
        samples, position = ctx.saved_tensors
        return _Gather.apply(grad, position), _position_gradient(grad, position, samples), None


def _position_gradient(image: Tensor, position: Tensor, grad: Tensor) -> Tensor:
    """Derivative of ``sum(grad * gather(image, position))`` with respect to ``position``, from four more gathers.

    Along one axis a bilinear function between the grid lines ``a = ceil(p) - 1`` and ``b = floor(p) + 1`` has the
    slope ``(f(b) - f(a)) / (b - a)``; on a line, where ``b - a = 2``, that is the mean of both sides.
    """
    x, y = position.unbind(-1)
    slopes = []
    for axis, p in enumerate((x, y)):
        low, high = (p.ceil() - 1).detach(), (p.floor() + 1).detach()
        ends = [torch.stack((q, y) if axis == 0 else (x, q), dim=-1) for q in (low, high)]
        difference = _Gather.apply(image, ends[1]) - _Gather.apply(image, ends[0])
        slopes.append((grad * difference).sum(1) / (high - low))
    return torch.stack(slopes, dim=-1)


def _fused_gradients(
    image: Tensor, position: Tensor, grad: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients of a gather from the framework's kernel, which at integers yields the right-hand slope.

    Mirroring the image and negating the positions reads the same values and yields the left-hand slope.
    """
    padded = _pad_to_power_of_two(image)
    grid = _normalise(position, padded)
    grad_image, right = _kernel_backward(grad, padded, grid, needs[0])
    if needs[0] and grad_image is not None:
        grad_image = grad_image[..., : image.shape[-2], : image.shape[-1]]
    if not needs[1]:
        return grad_image, None
    _, left = _kernel_backward(grad, padded.flip(2, 3), -grid, False)
    scale = position.new_tensor((2.0 / padded.shape[-1], 2.0 / padded.shape[-2]))
    return grad_image, ((right - left) / 2 * scale).squeeze(1)


def _kernel_backward(grad: Tensor, padded: Tensor, grid: Tensor, image_too: bool) -> tuple[Tensor | None, Tensor]:
    return torch.ops.aten.grid_sampler_2d_backward(
        grad.unsqueeze(2).contiguous(), padded, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS, [image_too, True]
    )


def _pad_to_power_of_two(image: Tensor) -> Tensor:
    """Append zeros until both sides are powers of two.

    grid_sample takes positions divided by the image's size. By a power of two that division is exact, so integer
    positions stay integers; by any other size a sample meant for a pixel falls beside it.
    """
    height, width = (1 << max(n - 1, 0).bit_length() for n in image.shape[-2:])
    bottom, right = height - image.shape[-2], width - image.shape[-1]
    return F.pad(image, (0, right, 0, bottom)) if bottom or right else image


def _normalise(position: Tensor, padded: Tensor) -> Tensor:
    """Pixels to grid_sample's [-1, 1], ``(N, P, 2) -> (N, 1, P, 2)``."""
    size = position.new_tensor((padded.shape[-1], padded.shape[-2]))
    return ((2 * position + 1) / size - 1).unsqueeze(1)
