"""Start anew: constant kernels and the rules as they were published, for training from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from metric_zoo.converters.replacement import Replacement
from metric_zoo.converters.strategies.keep import Keep
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError


class StartAnew(Strategy):
    """The paper's start, which gives up the function."""

    init = "uniform"

    def check(self, model: nn.Module, example_input: Any) -> None:
        """It needs a kind that has a layer."""
        if self.to.layer is None:
            raise ConversionError(
                f"to={self.to.name!r} leaves every convolution as it is: init={self.init!r} would do nothing"
            )

    def check_built(self, replacements: Sequence[Replacement]) -> None:
        """It raises where constant kernels would leave nothing."""
        for each in replacements:
            if getattr(each.layer, "standardization", None) is not None:
                raise ConversionError(
                    f"{each.name}: init={self.init!r} makes constant kernels, which weight standardisation turns into "
                    f"zeros; use init={Keep.init!r}"
                )

    def why_not_compared(self, model: nn.Module, replacements: Sequence[Replacement]) -> str | None:
        """Always."""
        return f"init={self.init!r} gives up the pretrained function"

    def finish(self, replacements: Sequence[Replacement]) -> None:
        """The kernels are the model's own parameters: they are overwritten last."""
        for each in replacements:
            each.sampled.reset_uniform()
