"""What every backend says of itself, and what it computes."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.ops.window import Window

Gradients = tuple[Tensor | None, ...]


class Backend:
    """One implementation of the operators. Whoever needs to know something about it asks it, and not its name.

    Attributes:
        name: for `metric_zoo.ops.use_backend`.
        device: type of the device that it runs on; None for any.
        dtypes: in which it computes; None for any.
        by_default: whether it runs where nobody has chosen.
        is_composed: whether it is made of the framework's operations. Their derivatives are the framework's, too: it
            then runs by `compose`, and by `forward`, as an operator, only in a program that is recorded.
        differentiates_blended: whether it has `backward_blended`; else the gradients are those of the composed form.
    """

    name: str
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    by_default = True
    is_composed = False
    differentiates_blended = False

    def why_unavailable(self) -> str:
        """What it lacks on this machine; empty where nothing is."""
        return ""

    def runs_on(self, device: str) -> bool:
        """Whether it is there for a type of device."""
        return self.device in (None, device) and not self.why_unavailable()

    def differentiates(self, sampling: str) -> bool:
        """Whether `backward` knows this sampling; else the operator is given the positions that it amounts to."""
        return True

    def instructions(self) -> str | None:
        """The instruction set in use, where it has several."""
        return None

    @staticmethod
    def compose(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        field: Tensor,
        mask: Tensor | None,
        sampling: str,
        window: Window,
    ) -> Tensor:
        """`forward` of a backend that is composed, with the framework's derivatives."""
        raise NotImplementedError

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        field: Tensor,
        mask: Tensor | None,
        sampling: str,
        window: Window,
    ) -> Tensor:
        """The operator of `metric_zoo.ops.dispatch.sampled`, which documents the arguments; they have been checked.

        Raises:
            MetricZooError: for a dtype or a size that it cannot compute.
        """
        raise NotImplementedError

    @staticmethod
    def backward(
        grad: Tensor,
        input: Tensor,
        weight: Tensor,
        field: Tensor,
        mask: Tensor | None,
        sampling: str,
        window: Window,
        needs: tuple[bool, bool, bool, bool],
    ) -> Gradients:
        """Gradients of input, weight, field and mask; None where ``needs`` says so.

        Args:
            grad: of the output.
            input, weight, field, mask, sampling, window: as `forward`.

        Raises:
            MetricZooError: as `forward`.
        """
        raise NotImplementedError

    @staticmethod
    def forward_blended(
        input: Tensor, weight: Tensor, field: Tensor, tables: Tensor, grid: tuple[int, int], window: Window
    ) -> Tensor:
        """The operator of `metric_zoo.ops.blended`.

        Args:
            input: ``(B, C, H, W)``.
            weight: ``(C, 1, kh, kw)``, ones.
            field: ``(B or 1, 1, 1, 1 or 2, H, W)``, places on the grid.
            tables: ``(down * across, K, 3)``: (y, x) from the window's centre and a factor, of every sample.
            grid: tables down and across; one down for a grid of one axis.
            window: of this input and weight.

        Raises:
            MetricZooError: as `forward`.
        """
        raise NotImplementedError

    @staticmethod
    def backward_blended(
        grad: Tensor,
        input: Tensor,
        weight: Tensor,
        field: Tensor,
        tables: Tensor,
        grid: tuple[int, int],
        window: Window,
        needs: tuple[bool, bool, bool],
    ) -> Gradients:
        """Gradients of input, field and tables; None where ``needs`` says so.

        Args:
            grad: of the output.
            input, weight, field, tables, grid, window: as `forward_blended`.

        Raises:
            MetricZooError: as `forward`.
        """
        raise NotImplementedError
