"""The small convolution that predicts where a layer samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.padding import Pads


class PredictionHead(nn.Conv2d):
    """An ordinary convolution that reads a layer's input on the layer's own output grid.

    Stride and dilation are the layer's. The padding belongs to each call, because the layer may resolve it from the
    input's size; a kernel smaller or larger than the layer's is kept centred on the layer's windows.

    Args:
        in_channels, out_channels: as in `torch.nn.Conv2d`.
        kernel_size: (height, width) of the head; its parity must be the layer's, or it could not be centred.
        layer_kernel_size, stride, dilation: of the layer it serves.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        layer_kernel_size: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        device=None,
        dtype=None,
    ) -> None:
        if any((own - layer) % 2 for own, layer in zip(kernel_size, layer_kernel_size, strict=True)):
            raise MetricZooError(
                f"head_kernel_size={kernel_size}: expected both sides odd or even like the kernel's {layer_kernel_size}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, device=device, dtype=dtype
        )
        self.margin = tuple(
            d * (own - layer) // 2 for d, own, layer in zip(dilation, kernel_size, layer_kernel_size, strict=True)
        )

    def forward(self, input: Tensor, pads: Pads) -> Tensor:
        """``input (B, C, H, W)``, the layer's ``pads`` -> ``(B, out_channels, Ho, Wo)``."""
        (top, bottom), (left, right) = (tuple(p + m for p in side) for side, m in zip(pads, self.margin, strict=True))
        if top == bottom >= 0 and left == right >= 0:
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), self.dilation)
        # Uneven padding, or a head smaller than the padding it is spared: F.pad crops where a side is negative.
        input = F.pad(input, (left, right, top, bottom))
        return F.conv2d(input, self.weight, self.bias, self.stride, 0, self.dilation)
