"""What deformable, modulated and shifted convolution share: a head that predicts offsets."""

from __future__ import annotations

from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import DeformConfig
from metric_zoo.ops.padding import Padding


class OffsetConv2d(SampledConv2d):
    """Base class: options, constructor and counts."""

    config: DeformConfig

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        offset_groups: int = 1,
        head_kernel_size: int | None = None,
        head: str = "full",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            config=DeformConfig(offset_groups, head_kernel_size, head),
            device=device,
            dtype=dtype,
        )

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _cells(self) -> int:
        """Offset fields in all: kernel cells times offset groups."""
        return self.kernel_size[0] * self.kernel_size[1] * self.config.offset_groups
