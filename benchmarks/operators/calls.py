"""Random calls of every kind of operator, for comparing two ways of computing one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from metric_zoo import ops
from metric_zoo.nn.registry import list_layers
from metric_zoo.ops.padding import output_size, resolve_padding

OPERATORS = {name: kind.operator for name, kind in reversed(list_layers().items()) if kind.operator is not None}
"""By the kind whose layers call them; the most adaptive comes first."""
KINDS = tuple(OPERATORS)


class Compared(ABC):
    """What `leaves` and `run` of a subclass give, with gradients.

    Attributes:
        seed: of the leaves.
    """

    seed: int

    @abstractmethod
    def leaves(self) -> dict[str, Tensor]:
        """The tensors that it is called with, by name."""

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Tensor:
        """The output for them."""

    def outcome(self, backend: str) -> dict[str, Tensor]:
        """The output and the gradient of every leaf for a fixed upstream gradient."""
        with ops.use_backend(backend):
            return self.outcome_of(self.leaves())

    def outcome_of(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """`outcome` for given tensors, on the backend in use."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in leaves.items()}
        output = self.run(**leaves)
        draw = torch.Generator().manual_seed(self.seed + 1)
        # Of numbers that every dtype holds exactly.
        upstream = torch.randint(-8, 9, output.shape, generator=draw).to(output) / 4
        output.backward(upstream)
        return {"output": output.detach(), **{name: cast(Tensor, leaf.grad) for name, leaf in leaves.items()}}


@dataclass(frozen=True)
class Call(Compared):
    """Shapes and options of one call; `leaves` makes its tensors, `run` calls the operator."""

    kind: str = "metric"
    batch: int = 2
    size: tuple[int, int] = (9, 8)
    channels: int = 4
    out_channels: int = 6
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    fields: int = 1
    bias: bool = True
    sampling: str = "grid"
    channels_last: bool = False
    seed: int = 0
    dtype: torch.dtype = field(default=torch.float32)

    def leaves(self) -> dict[str, Tensor]:
        """input, weight, bias, field and mask as far as the kind has them; the field's samples lie off integers."""
        draw = torch.Generator().manual_seed(self.seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw, dtype=torch.float64)

        pads = resolve_padding(self.padding, self.size, self.kernel, self.stride, self.dilation)
        out = output_size(self.size, self.kernel, self.stride, pads, self.dilation)
        tensors = {
            "input": random(self.batch, self.channels, *self.size),
            "weight": random(self.out_channels, self.channels // self.groups, *self.kernel),
        }
        if self.bias:
            tensors["bias"] = random(self.out_channels)
        tensors |= OPERATORS[self.kind].draw(random, self.batch, self.fields, self.kernel, out)
        tensors = {name: tensor.to(self.dtype) for name, tensor in tensors.items()}
        if self.channels_last:
            tensors["input"] = tensors["input"].contiguous(memory_format=torch.channels_last)
        return tensors

    def run(self, input, weight, field, bias=None, mask=None) -> Tensor:
        """The operator on given tensors."""
        tensors = {"bias": bias, "mask": mask}
        given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return OPERATORS[self.kind].run(self, input, weight, field, **given)


@dataclass(frozen=True)
class Blend(Compared):
    """Of `metric_zoo.ops.blended_conv2d`; places lie within the grid and off its tables."""

    grid: tuple[int, ...] = (4,)
    samples: int = 5
    batch: int = 2
    channels: int = 3
    size: tuple[int, int] = (9, 8)
    seed: int = 0

    def leaves(self) -> dict[str, Tensor]:
        """input, coordinates, offsets and weights, in float32."""
        draw = torch.Generator().manual_seed(self.seed)
        place = torch.rand(self.batch, len(self.grid), *self.size, generator=draw) * 0.9 + 0.05
        cells = [torch.randint(size - 1, place[:, :1].shape, generator=draw) for size in self.grid]
        return {
            "input": torch.randn(self.batch, self.channels, *self.size, generator=draw),
            "coordinates": place + torch.cat(cells, 1),
            "offsets": 2 * torch.randn(*self.grid, self.samples, 2, generator=draw),
            "weights": torch.randn(*self.grid, self.samples, generator=draw),
        }

    def run(self, input, coordinates, offsets, weights) -> Tensor:
        """The operator on given tensors."""
        return ops.blended_conv2d(input, coordinates, offsets, weights)


def assert_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Every tensor of two outcomes differs by at most ``tolerance`` of its largest value."""
    for name, expected in theirs.items():
        scale = expected.abs().max().item() if expected.numel() else 0.0
        difference = (ours[name] - expected).abs().max().item() if expected.numel() else 0.0
        assert ours[name].shape == expected.shape, name
        assert difference <= tolerance * max(scale, 1e-3), f"{name}: {difference:.3g} at a scale of {scale:.3g}"
