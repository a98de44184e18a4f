"""The small convolution that predicts where a layer samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.padding import NO_PADS, Pads, unpadded

HEADS = ("full", "separable", "pointwise", "bottleneck")
"""Forms of a head, in order of what they see and cost."""


class WindowConv2d(nn.Conv2d):
    """A convolution whose padding belongs to each call."""

    def forward(self, input: Tensor, pads: Pads) -> Tensor:
        """``input (B, C, H, W)``, ``((top, bottom), (left, right))`` -> ``(B, out_channels, Ho, Wo)``."""
        (top, bottom), (left, right) = pads
        padding = (top, left)
        if not top == bottom >= 0 or not left == right >= 0:
            # Uneven padding, or a head smaller than the padding it is spared: F.pad crops where a side is negative.
            input, padding = F.pad(input, (left, right, top, bottom)), 0
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class PredictionHead(WindowConv2d):
    """Convolutions that read a layer's input on the layer's own output grid; the last one is this module itself.

    Stride and dilation are the layer's. The padding belongs to each call, because the layer may resolve it from the
    input's size; a kernel smaller or larger than the layer's is kept centred on the layer's windows.

    Forms: ``full``, one convolution with the whole window (the published one); ``separable``, a depthwise convolution
    with the window, then 1x1; ``pointwise``, 1x1; ``bottleneck``, 1x1 to ``width`` channels, then 1x1. Whatever comes
    before the last convolution is the submodule ``features``, so zeros in ``weight`` and ``bias`` make every form a
    head of zeros. Every convolution is called: offloading, sharding, pruning and weight norm work by hooks on calls.

    Args:
        in_channels, out_channels: as in `torch.nn.Conv2d`.
        kernel_size: (height, width) of the window; its parity must be the layer's, or it could not be centred. Forms
            without a window ignore it.
        layer_kernel_size, stride, dilation: of the layer it serves.
        form: one of `HEADS`.
        width: channels of a bottleneck.

    Attributes:
        resting: what its channels are where the layer is the ordinary convolution; empty for zeros.
    """

    bias: nn.Parameter
    resting: Sequence[float] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        layer_kernel_size: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        form: str = "full",
        width: int = 1,
        device=None,
        dtype=None,
    ) -> None:
        window = kernel_size if form in ("full", "separable") else (1, 1)
        if form in ("full", "separable") and any(
            (own - layer) % 2 for own, layer in zip(window, layer_kernel_size, strict=True)
        ):
            raise MetricZooError(
                f"head_kernel_size={kernel_size}: expected both sides odd or even like the kernel's {layer_kernel_size}"
            )
        first: dict[str, Any] = {"stride": stride, "dilation": dilation, "device": device, "dtype": dtype}
        plain: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = width if form == "bottleneck" else in_channels
        last = first if form in ("full", "pointwise") else plain
        super().__init__(channels, out_channels, window if form == "full" else 1, **last)
        self.form = form
        self.features: WindowConv2d | None = None
        if form == "separable":
            self.features = WindowConv2d(in_channels, channels, window, groups=in_channels, bias=False, **first)
        elif form == "bottleneck":
            self.features = WindowConv2d(in_channels, channels, 1, bias=False, **first)
        # Of an even kernel without a window of its own the sample up and left of the centre is read.
        excess = [d * (own - layer) for d, own, layer in zip(dilation, window, layer_kernel_size, strict=True)]
        self.margin = tuple((total - total // 2, total // 2) for total in excess)

    def reset_parameters(self) -> None:
        """Predict the ordinary grid everywhere, and be able to learn: only the last convolution is constant."""
        if "form" not in vars(self):  # the constructor of torch.nn.Conv2d asks for its own start
            super().reset_parameters()
            return
        self.reset_features()
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        if self.resting:
            _set(self.bias, self.resting)

    def reset_as_framework(self) -> None:
        """The framework's default for every convolution."""
        self.reset_features()
        super().reset_parameters()

    @torch.no_grad()
    def is_fresh(self) -> bool:
        """Whether it is as `reset_parameters` leaves it: its last convolution has never learned."""
        resting = self.bias.new_tensor(self.resting) if self.resting else torch.zeros_like(self.bias)
        return not self.weight.count_nonzero() and torch.equal(self.bias, resting)

    def reset_features(self) -> None:
        """The framework's default for what comes before the last convolution."""
        if self.features is not None:
            self.features.reset_parameters()

    def forward(self, input: Tensor, pads: Pads) -> Tensor:
        """``input (B, C, H, W)``, the layer's ``pads`` -> ``(B, out_channels, Ho, Wo)``."""
        if self.margin != NO_PADS:
            pads = Pads(*((p + m, q + n) for (p, q), (m, n) in zip(pads, self.margin, strict=True)))
        if self.features is None:
            return super().forward(input, pads)
        return super().forward(self.features(input, pads), NO_PADS)


class PooledHead(nn.Conv2d):
    """A 1x1 convolution of the means of an image's channels: one prediction an image.

    Args:
        in_channels, out_channels: as in `torch.nn.Conv2d`.
    """

    bias: nn.Parameter
    form = "pooled"

    def __init__(self, in_channels: int, out_channels: int, device=None, dtype=None) -> None:
        super().__init__(in_channels, out_channels, 1, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Predict zeros, and be able to learn."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def is_fresh(self) -> bool:
        """Whether it is as `reset_parameters` leaves it."""
        return not self.weight.count_nonzero() and not self.bias.count_nonzero()

    def forward(self, input: Tensor, pads: Pads) -> Tensor:
        """``input (B, C, H, W)`` -> ``(B, out_channels, 1, 1)``; of what has been padded the image alone counts."""
        image, _ = unpadded(input, pads)
        return super().forward(image.mean((2, 3), keepdim=True))


@torch.no_grad()
def _set(parameter: Any, values: Sequence[float]) -> None:
    """Also where every process holds a shard: each takes its own."""
    whole = torch.tensor(values, dtype=parameter.dtype, device=parameter.device)
    if hasattr(parameter, "placements"):
        from torch.distributed.tensor import distribute_tensor

        whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(whole)


def head_cost(form: str, in_channels: int, out_channels: int, kernel_size: tuple[int, int], width: int = 1) -> int:
    """Parameters of a head of this form."""
    window = kernel_size[0] * kernel_size[1]
    kernels = {
        "full": in_channels * window * out_channels,
        "separable": in_channels * window + in_channels * out_channels,
        "pointwise": in_channels * out_channels,
        "bottleneck": width * (in_channels + out_channels),
    }
    return kernels[form] + out_channels


def bottleneck_width(in_channels: int, out_channels: int, budget: int) -> int:
    """The widest bottleneck within ``budget`` parameters; at least 1, and no wider than what it predicts."""
    return max(1, min(out_channels, (budget - out_channels) // (in_channels + out_channels)))


def affordable_head(in_channels: int, out_channels: int, kernel_size: tuple[int, int], budget: int) -> str:
    """The form that sees most among those of at most ``budget`` parameters; a bottleneck where none is."""
    costs = ((form, head_cost(form, in_channels, out_channels, kernel_size)) for form in HEADS[:-1])
    return next((form for form, cost in costs if cost <= budget), "bottleneck")
