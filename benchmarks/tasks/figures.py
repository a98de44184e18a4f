"""The figures that a task declares: what ranks, the gap, further columns, and what papers publish. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record


@dataclass(frozen=True)
class MainScore:
    """What rows are ranked by.

    Attributes:
        name: of its column, such as ``test_top1``.
        short: what it is called after "Test", such as ``top-1``.
        unit: ``%``, ``dB``; may be empty.
        value: from a split's scores to the score in that unit.
        meaning: for who reads its heading and wonders.
        higher: whether more is better.
        digits: decimals of it and of differences.
        quantity: what it measures, in running text; ``short`` where nothing else is said.
        step: what a difference of one is called; the unit where nothing else is said.
        per: what one of it is called in "... per GFLOP"; empty where such a ratio says nothing.
    """

    name: str
    short: str
    unit: str
    value: Callable[[Any], float]
    meaning: str
    higher: bool = True
    digits: int = 2
    quantity: str = ""
    step: str = ""
    per: str = ""

    @property
    def title(self) -> str:
        """``Test top-1``."""
        return f"Test {self.short}"

    @property
    def heading(self) -> str:
        """With the unit: ``Test top-1, %``."""
        return ", ".join(filter(None, (self.title, self.unit)))

    @property
    def axis(self) -> str:
        """For an axis, or within a line: ``test top-1, %``."""
        return _small(self.heading)

    def text(self, value: float) -> str:
        """A value with its unit: ``91.00%``, ``31.25 dB``."""
        return f"{value:.{self.digits}f}{'' if self.unit == '%' else ' '}{self.unit}".strip()

    def gain(self, value: Any) -> Any:
        """Of a value or many: more is better."""
        return value if self.higher else -value


@dataclass(frozen=True)
class Gap:
    """How much better a network is on what it was trained on.

    Attributes:
        of: from the scores of the training and of the test images; None where it is not defined for them.
        formula: what that computes, in words.
        meaning: for who reads the column's heading and wonders.
        told: a gap in words.
        symbol: behind "Gap".
        unit: of ``scale`` times the gap.
        scale: from a record's figure to the table's.
        is_ratio: whether gaps of one table may be of different magnitudes.
    """

    of: Callable[[Any, Any], float | None]
    formula: str
    meaning: str
    told: Callable[[float], str]
    symbol: str = ""
    unit: str = ""
    scale: float = 1.0
    is_ratio: bool = False

    @property
    def heading(self) -> str:
        """``Gap, points`` or ``Gap δ``."""
        return ", ".join(filter(None, (f"Gap{self.symbol}", self.unit)))

    @property
    def axis(self) -> str:
        """For an axis, or within a line: ``generalization gap, points``."""
        return f"generalization {_small(self.heading)}"


def _small(heading: str) -> str:
    return heading[0].lower() + heading[1:]


@dataclass(frozen=True)
class Figure:
    """A column beside the main score and the gap.

    Attributes:
        name: of the column.
        value: from a record; None where it has none.
        heading: in tables; empty for a column of the files alone.
        meaning: for who reads it and wonders.
        digits: decimals.
        scale: from the column's figure to the table's.
        has_spread: whether deviation and interval over the seeds are told.
    """

    name: str
    value: Callable[[Any], float | None]
    heading: str = ""
    meaning: str = ""
    digits: int = 2
    scale: float = 1.0
    has_spread: bool = False


@dataclass(frozen=True)
class Published:
    """A figure of a paper: its mean, and its standard deviation (over five runs or more) where the paper gives one."""

    dataset: str
    model: str
    kind: str
    mean: float
    deviation: float | None
    setting: str
    quantity: str
    source: str


@dataclass(frozen=True)
class PublishedFigures:
    """What papers publish for a task.

    Attributes:
        heading, meaning: of the column of what is published for a row's protocol.
        beside: the column that it is compared with, ``scale`` times.
        figures: all of them.
        find: that of a record's protocol; None for most.
    """

    heading: str
    meaning: str
    beside: str
    figures: tuple[Published, ...]
    find: Callable[[Record], Published | None]
    scale: float = 1.0
