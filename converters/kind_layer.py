"""What the layer of a kind has, for a type checker: `kind_of` tells whether a module is one, but not as what class."""

from __future__ import annotations

from typing import Literal, Protocol, cast

from torch import Tensor, nn

from metric_zoo.nn.config import KindOptions


class KindLayer(Protocol):
    """Beside being a module; `SampledConv2d` or what stands in for it."""

    kind: str
    config: KindOptions
    weight: Tensor
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"]

    def is_identity(self) -> bool:
        """Whether it computes what the convolution did whose place it took."""
        ...


def as_layer(module: nn.Module) -> KindLayer:
    """A module that is of a kind."""
    return cast(KindLayer, module)
