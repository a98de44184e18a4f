"""What is known about one convolution of a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ConvNode:
    """One convolution of a model, as the analysis saw it. A callable ``where`` receives these.

    Most are an `nn.Conv2d`; the others (`nn.Conv3d`, transposed, quantized, ...) are there to be refused with a reason.

    Attributes:
        name: the module's path, as in `nn.Module.named_modules`.
        module: the module itself, of the model being converted.
        kernel, stride, dilation: (height, width).
        groups, in_channels, out_channels: as in `nn.Conv2d`.
        input_shape, output_shape: of its first call on the example input, ``(B, C, H, W)``; None if it was not called.
        calls: how often the example input called it.
        order: rank of its first call among all convolutions; None if it was not called.
        stem: whether it reads what the first convolution reads, the image.
        stage: 1 to 4 as ResNet's layers, by resolution; 0 and below before them; None if unknown. See `stages_of`.
        norm: name of the normalisation layer that alone reads its output; None if there is none or it is unknown.
        explicit_pad: whether its input comes straight from a padding operation.
        receptive_field: pixels of the image, a side, that one output pixel sees; None if it is unknown.
    """

    name: str
    module: nn.Module
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    calls: int
    order: int | None
    stem: bool = False
    stage: int | None = None
    norm: str | None = None
    explicit_pad: bool = False
    receptive_field: int | None = None

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a kernel of its own."""
        return self.groups > 1 and self.groups == self.in_channels

    @property
    def patchify(self) -> bool:
        """Whether its windows tile the input without overlap."""
        return max(self.kernel) > 1 and self.kernel == self.stride
