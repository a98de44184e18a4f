"""What a converted layer has, of whatever kind, for a type checker: `kind_of` tells only whether a module is one."""

from __future__ import annotations

from typing import Literal, Protocol, cast

from torch import Tensor, nn

from metric_zoo.nn.adopted import Adopted
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import kind_of


class ConvertedLayer(Protocol):
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


def as_converted(module: nn.Module) -> ConvertedLayer:
    """A module that is of a kind."""
    return cast(ConvertedLayer, module)


def is_converted(module: nn.Module) -> bool:
    """Whether it is a layer of a kind, or adopted from another library."""
    return isinstance(module, Adopted) or kind_of(module) is not None
