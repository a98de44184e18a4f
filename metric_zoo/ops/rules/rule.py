"""What a sampling rule says of itself: from the numbers of a field to the places of samples."""

from __future__ import annotations

from enum import IntEnum

from torch import Tensor


class Form(IntEnum):
    """What the kernels of a backend compute: as in native/csrc/problem.h and triton/taps.py."""

    OFFSET = 0
    """``y_i = g_i + f_i``, g the ordinary grid and f the field."""
    POSITION = 1
    """``y_i = f_i``."""
    BALL = 2
    """``y_i = a_i / F(u_i)``, F the norm that the field holds."""
    BLEND = 3
    """Between the tables of `metric_zoo.ops.blended`, at the place that the field holds."""
    LINEAR = 4
    """``y_i = g_i + sum_n f_n t_in``, t a table."""
    RADIAL = 5
    """``y_i = exp(sum_n f_n s_in) g_i + sum_n f_n t_in``, s and t tables."""


class Rule:
    """One rule. Vectors are (y, x), in pixels from the window's centre.

    Attributes:
        name: the operators' ``sampling``.
        form: of the kernels that compute it.
        per_cell: whether the field has numbers for every cell, and not for a whole window.
        eps: what the form's table comes with.
    """

    name: str
    form: Form
    per_cell = False

    def check(self, kernel_size: tuple[int, int]) -> None:
        """Raise unless the rule is defined for a kernel.

        Raises:
            MetricZooError: saying why not.
        """

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        """How many numbers a cell or a window has in a field that is ``given`` so many."""
        raise NotImplementedError

    def table(self, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int) -> Tensor | None:
        """The constants of the form, float64: of a ball ``(K, 4)``, displacement and direction, (x, y) each; of the
        linear and radial forms ``(K, numbers, 3)``: exponent, y and x. None for a form without."""
        return None

    def eps(self, kernel_size: tuple[int, int]) -> float:
        """What a ball adds to its norm."""
        return 0.0

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The samples' y and x, by the framework's own operations.

        Args:
            field: ``(B, G, K or 1, n, Ho, Wo)``, in float32 at least; any size but G and n may be 1.

        Returns:
            ``(B, G, K, Ho, Wo)`` each, with the sizes of 1 that the field has.
        """
        raise NotImplementedError

    @property
    def is_given(self) -> bool:
        """Whether every sample's place stands in the field, but for constants."""
        return self.form in (Form.OFFSET, Form.POSITION)
