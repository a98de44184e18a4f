"""The ordinary convolution: the kind that stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import Kind, Promise, declare


@dataclass(frozen=True)
class StandardConfig(KindOptions):
    """The ordinary convolution has no options."""


declare(
    Kind("standard", None, StandardConfig, Promise.FUNCTION, StandardConfig, "standard", colour="#3b7dd8", marker="o")
)
