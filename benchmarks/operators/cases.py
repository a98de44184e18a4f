"""What is measured: shapes, and the contenders on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from metric_zoo import ops
from metric_zoo.geometry import RandersMetric, ball_samples, grid_offsets, metric_from_raw

REFERENCES = ("conv2d", "torchvision")
OURS = ("metric", "deformable", "shifted")
CONTENDERS = (*REFERENCES, *OURS, "torch backend")
"""``torch backend`` is metric convolution on it; ours run on the fastest backend of the device."""

_SEED = 0


@dataclass(frozen=True)
class Case:
    """One shape: square images and kernels, padding that keeps the size.

    Attributes:
        batch, channels, out_channels, side, kernel, groups: in the field's usual sense.
    """

    batch: int
    channels: int
    out_channels: int
    side: int
    kernel: int
    groups: int = 1

    def __str__(self) -> str:
        name = f"{self.batch}x{self.channels}x{self.side}x{self.side} to {self.out_channels}, k {self.kernel}"
        if self.groups == 1:
            return name
        return f"{name}, " + ("depthwise" if self.groups == self.channels else f"{self.groups} groups")


CASES = (
    Case(8, 64, 64, 56, 3),  # the stages of a ResNet at 224 pixels
    Case(8, 128, 128, 28, 3),
    Case(8, 256, 256, 14, 3),
    Case(8, 512, 512, 14, 3),
    Case(8, 512, 512, 7, 3),
    Case(16, 64, 64, 32, 3),  # and at 32
    Case(16, 128, 128, 16, 3),
    Case(16, 256, 256, 8, 3),
    Case(8, 128, 128, 28, 3, 32),  # a ResNeXt's
    Case(8, 256, 256, 28, 7, 256),  # a ConvNeXt's
    Case(8, 256, 256, 28, 3, 256),  # a MobileNet's
    Case(1, 1, 1, 256, 5),  # single-image denoising
    Case(1, 1, 1, 256, 11),
    Case(1, 1, 1, 256, 31),
    Case(1, 64, 64, 512, 3),  # large images
    Case(16, 64, 64, 112, 3),
)


def contenders(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, tuple[Callable[[], Tensor], list]]:
    """Name -> (the operator on random data, the tensors whose gradients a training step needs).

    All sample at the positions of one random metric, but for ``conv2d`` and for ``shifted``, whose shift is random.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()

    size, k, pad = (case.side, case.side), case.kernel, case.kernel // 2
    if k % 2 == 0:
        raise ValueError(f"{case}: an even kernel does not keep the size")
    x = random(case.batch, case.channels, *size)
    weight = random(case.out_channels, case.channels // case.groups, k, k)
    raw = torch.randn((case.batch, 7, *size), generator=generator)
    metric = metric_from_raw(raw).packed
    grid = grid_offsets((k, k)).float()[..., None, None]
    moved = ball_samples("grid", (k, k)).positions(RandersMetric(metric)) - grid
    offset = moved.flip(2).flatten(1, 2).to(device, dtype).requires_grad_()
    metric = metric.to(device, dtype).requires_grad_()
    shift = random(case.batch, 2, *size)

    def on_torch() -> Tensor:
        with ops.use_backend("torch"):
            return ops.metric_conv2d(x, weight, metric, padding=pad, groups=case.groups)

    def of_torchvision() -> Tensor:
        if dtype != torch.bfloat16:
            return torchvision.ops.deform_conv2d(x, offset, weight, padding=(pad, pad))
        # It knows no bfloat16; this is what it does under autocast.
        return torchvision.ops.deform_conv2d(x.float(), offset.float(), weight.float(), padding=(pad, pad)).to(dtype)

    return {
        "conv2d": (lambda: F.conv2d(x, weight, padding=pad, groups=case.groups), [x, weight]),
        "torchvision": (of_torchvision, [x, weight, offset]),
        "metric": (
            lambda: ops.metric_conv2d(x, weight, metric, padding=pad, groups=case.groups),
            [x, weight, metric],
        ),
        "deformable": (lambda: ops.deform_conv2d(x, offset, weight, padding=pad), [x, weight, offset]),
        "shifted": (lambda: ops.shifted_conv2d(x, shift, weight, padding=pad), [x, weight, shift]),
        "torch backend": (on_torch, [x, weight, metric]),
    }
