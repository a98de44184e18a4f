"""What a module answers that decides where it reads: which parameters do, whether they have learned, what it read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from metric_zoo.nn.field import Field
from metric_zoo.ops.window import Window


class Reading(NamedTuple):
    """Where one call of a module has read.

    Attributes:
        field: of the samples.
        window: of the module, with its pads and the output's size.
        size: (height, width) of the image, in pixels.
        batch: number of images.
        grid: ``(G*K, 2)``, (x, y): where the samples lie that have not moved.
    """

    field: Field
    window: Window
    size: tuple[int, int]
    batch: int
    grid: Tensor


class SamplingRule(NamedTuple):
    """How a module comes to its samples.

    Attributes:
        name: of the rule, for tables.
        parameters: that decide where it samples, and nothing that can be told from it; they learn slowly.
        is_fresh: whether the parameters are where they begin.
        read: the arguments of a call -> where it has read.
    """

    name: str
    parameters: list[nn.Parameter]
    is_fresh: Callable[[], bool]
    read: Callable[..., Reading]


class Sampling(nn.Module):
    """Mixed into a module that decides where it reads."""

    def sampling_rule(self) -> SamplingRule | None:
        """How it does; None where that cannot be told."""
        raise NotImplementedError


def rule_of_module(module: Any) -> SamplingRule | None:
    """None for all that read where a grid says, or do not tell."""
    return module.sampling_rule() if isinstance(module, Sampling) else None


def is_zero(parameters: list[nn.Parameter]) -> bool:
    """Whether all are: most rules begin so."""
    return not any(parameter.count_nonzero() for parameter in parameters)
