"""The ``torch`` backend: one grid_sample over all samples, then a 1x1 convolution over channels and samples.

It runs on every device and is differentiable any number of times; the other backends are measured against it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.backends.base import Backend, Gradients
from metric_zoo.ops.bilinear import bilinear_gradients, bilinear_sample
from metric_zoo.ops.blending import blend, multilinear
from metric_zoo.ops.layout import memory_format
from metric_zoo.ops.rules import rule_of
from metric_zoo.ops.window import Window, autocasts


def sampled_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
    read: Callable[[Tensor, Tensor, Tensor], Tensor] = bilinear_sample,
) -> Tensor:
    """The operator of `metric_zoo.ops.dispatch.sampled`, which documents the arguments; ``read`` samples an image."""
    samples = read(*_located(input, field, sampling, window))
    if mask is not None:
        samples = samples * mask.flatten(0, 1).unsqueeze(1).to(samples.dtype)
    samples = _by_channel(samples, input, window)
    if not autocasts(input):
        samples = samples.to(weight.dtype)
    return _product(samples, weight.flatten(1), bias, window.groups)


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> Tensor:
    """`Backend.forward`: `sampled_conv2d` for a program that was recorded on this backend."""
    with torch.autocast(input.device.type, enabled=False):
        output = sampled_conv2d(input, weight, bias, field, mask, sampling, window)
    return output.contiguous(memory_format=memory_format(input))


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """`Backend.backward`, of offsets and positions only: within an operator nothing is differentiated, and their rules
    are linear."""
    need_input, need_weight, need_field, need_mask = needs
    if weight.numel() == 0:  # which the framework's convolution refuses
        tensors = (input, weight, field, mask)
        return tuple(
            torch.zeros_like(t) if need and t is not None else None for t, need in zip(tensors, needs, strict=True)
        )
    with torch.autocast(input.device.type, enabled=False):
        image, x, y = _located(input, field, sampling, window)
        samples = bilinear_sample(image, x, y)
        factor = None if mask is None else mask.flatten(0, 1).unsqueeze(1).to(samples.dtype)
        counted = samples if factor is None else samples * factor
        flow, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.contiguous(),
            _by_channel(counted, input, window).to(weight.dtype),
            weight.flatten(1)[..., None, None],
            *(None, (1, 1), (0, 0), (1, 1), False, (0, 0), window.groups, (True, need_weight, False)),
        )
        flow = flow.reshape(samples.shape).to(samples.dtype)
        grad_mask = None
        if need_mask and mask is not None:
            grad_mask = (flow * samples).sum(1).view(mask.shape).to(mask.dtype)
        flow = flow if factor is None else flow * factor
        grad_image, along = bilinear_gradients(image, x, y, flow, (need_input, need_field))
    if need_input and grad_image is not None:
        grad_image = grad_image.reshape(input.shape).to(input.dtype).contiguous(memory_format=memory_format(input))
    if need_weight:
        grad_weight = grad_weight.reshape(weight.shape).contiguous(memory_format=memory_format(weight))
    return grad_image, grad_weight, None if along is None else _to_field(along, field, window), grad_mask


def forward_blended(
    input: Tensor, weight: Tensor, field: Tensor, tables: Tensor, grid: tuple[int, int], window: Window
) -> Tensor:
    """`Backend.forward_blended`, for a program that was recorded on another backend."""
    places = at_least_float32(field[:, 0, 0])
    y, x, factor = blend(multilinear(places, grid[-places.shape[1] :]), tables).unbind(2)
    mask = factor[:, None].expand(input.shape[0], -1, -1, -1, -1)
    return forward(input, weight, None, torch.stack((y, x), 2)[:, None], mask, "position", window)


def given_field(field: Tensor, sampling: str, window: Window) -> tuple[Tensor, str]:
    """The field and its sampling; of a rule that computes places these places, by the framework's own operations."""
    rule = rule_of(sampling)
    if rule.is_given:
        return field, sampling
    places = rule.places(at_least_float32(field), window.kernel_size, window.dilation)
    return torch.stack(places, 3), "position"


def sample_positions(field: Tensor, sampling: str, window: Window) -> Tensor:
    """``(B or 1, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to each window's centre."""
    y, x = rule_of(sampling).places(at_least_float32(field), window.kernel_size, window.dilation)
    return torch.stack((x, y), 3).expand(-1, -1, -1, -1, *window.size).flatten(1, 2)


def _located(input: Tensor, field: Tensor, sampling: str, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """The images ``(B*G, C/G, H, W)``, and x and y of what is read of each, ``(B*G, K, Ho, Wo)`` in pixels."""
    y, x = rule_of(sampling).places(at_least_float32(field), window.kernel_size, window.dilation)
    rows, columns = _centres(y, window)
    groups = field.shape[1]
    x, y = ((c.expand(input.shape[0], -1, -1, *window.size)).flatten(0, 1) for c in (x + columns, y + rows[:, None]))
    return _by_group(input, groups), x, y


def _by_channel(samples: Tensor, input: Tensor, window: Window) -> Tensor:
    """``(B*G, C/G, K, Ho, Wo) -> (B, C*K, Ho, Wo)``: channel-major, the order in which a kernel flattens."""
    return samples.reshape(input.shape[0], input.shape[1] * window.cells, *window.size)


def _to_field(along: tuple[Tensor, Tensor], field: Tensor, window: Window) -> Tensor:
    """The gradients along x and y, ``(B*G, K, Ho, Wo)`` each, summed to the field of offsets or positions."""
    both = torch.stack(along[::-1], dim=2)
    both = both.unflatten(0, (both.shape[0] // field.shape[1], field.shape[1]))
    return both.sum_to_size(field.shape).to(field.dtype).contiguous()


def _by_group(field: Tensor, groups: int) -> Tensor:
    """``(B, G*n, H, W) -> (B*G, n, H, W)``."""
    return field.reshape(field.shape[0] * groups, field.shape[1] // groups, *field.shape[2:])


def _product(samples: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """``(B, C*K, Ho, Wo)`` and ``(O, C*K/groups) -> (B, O, Ho, Wo)``."""
    outputs, depth = weight.shape
    if outputs and depth:
        return F.conv2d(samples, weight[..., None, None], bias, groups=groups)
    # conv2d refuses to make no channels, and makes none of none: their sum is zero.
    samples = samples.reshape(samples.shape[0], groups, depth, *samples.shape[2:])
    total = torch.einsum("god,bgdhw->bgohw", weight.reshape(groups, outputs // groups, depth), samples).flatten(1, 2)
    return total if bias is None else total + bias[:, None, None].to(total.dtype)


def _centres(like: Tensor, window: Window) -> list[Tensor]:
    """Rows ``(Ho,)`` and columns ``(Wo,)`` of the image in the windows' centres."""
    options = {"device": like.device, "dtype": like.dtype}
    return [
        torch.arange(size, **options) * stride + (dilation * (kernel - 1) / 2 - before)
        for size, stride, dilation, kernel, (before, _) in zip(
            window.size, window.stride, window.dilation, window.kernel_size, window.pads, strict=True
        )
    ]


class Torch(Backend):
    """The framework's own operations, on any device."""

    name = "torch"
    is_composed = True
    compose = staticmethod(sampled_conv2d)
    forward = staticmethod(forward)
    backward = staticmethod(backward)
    forward_blended = staticmethod(forward_blended)

    def differentiates(self, sampling: str) -> bool:
        return rule_of(sampling).is_given
