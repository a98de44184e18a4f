"""What a task says of itself: its scores, what ranks them, its words and columns. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from metric_zoo.benchmarks.schema import Epoch, SplitScores

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record
    from metric_zoo.benchmarks.tasks.training import TaskTraining


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
    value: Callable[[Record], float | None]
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


class Task(ABC):
    """A task: everything that records, tables, plots, pages and checks need to know of it.

    A subclass says it once, and `metric_zoo.benchmarks.tasks.register` makes it known.

    Attributes:
        name: what recipes call it.
        label: the title of its board.
        board: the name of that board's page; tasks of one board have equal tables. Empty: the task's own name.
        is_default: whether recipes that name no task mean it.
        scores: the schema of a split's scores; ``images`` says of how many.
        epoch: the schema of an epoch.
        main: what ranks.
        gap: of generalization; None for a task without.
        figures: further columns.
        published: what papers publish; None for nothing.
        error: the field of the scores that a search for a learning rate minimises, ``error_label`` its name.
        hits: the field of the scores that is the share of right answers, which records then keep image by image.
        corruptions: of the test images, and ``robust`` the field of the scores that a record keeps of each.
        needs: what a record must have to be submitted, beside what all need.
        needs_noise: whether recipes give ``data.noise``.
        takes_image, takes_peers: whether they may give ``data.image``, and ``peers``.
        data_keys: of a recipe's ``data``, those that make other data of it under the same name.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    board: ClassVar[str] = ""
    is_default: ClassVar[bool] = False
    scores: ClassVar[type[SplitScores]]
    epoch: ClassVar[type[Epoch]]
    main: ClassVar[MainScore]
    gap: ClassVar[Gap | None] = None
    figures: ClassVar[tuple[Figure, ...]] = ()
    published: ClassVar[PublishedFigures | None] = None
    error: ClassVar[str]
    error_label: ClassVar[str] = "loss"
    hits: ClassVar[str] = ""
    corruptions: ClassVar[tuple[str, ...]] = ()
    robust: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    needs_noise: ClassVar[bool] = False
    takes_image: ClassVar[bool] = False
    takes_peers: ClassVar[bool] = False
    data_keys: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def training(self) -> TaskTraining:
        """Data, loss and evaluation: what needs torch, imported here."""

    @abstractmethod
    def tested(self, scores: Any) -> dict[str, float]:
        """Fields of an epoch, from the test split's scores."""

    def trained(self, right: float) -> dict[str, float]:
        """Fields of an epoch beside the loss, from the share of right answers while training."""
        return {}

    @property
    def page(self) -> str:
        """The name of its board's page."""
        return self.board or self.name

    def gap_of(self, train: Any, test: Any) -> float | None:
        """The generalization gap; None where there is none."""
        return None if self.gap is None else self.gap.of(train, test)

    def contradictions(self, scores: Any) -> Iterator[str]:
        """What cannot be about a split's scores, in words."""
        yield from ()

    def told(self, scores: Any) -> str:
        """A split's scores on one line."""
        return ", ".join(f"{name} {value:.4g}" for name, value in scores if name != "images" and value is not None)

    def facts(self, train: Any, test: Any) -> list[tuple[str, str]]:
        """Figures of one run for its page, and what they are called."""
        score = self.main
        return [
            (score.title, score.text(score.value(test))),
            (f"Training {score.short}", score.text(score.value(train))),
        ]

    def robust_score(self, scores: Any, value: float) -> float:
        """The main score where ``robust`` is ``value``."""
        return self.main.value(scores.model_copy(update={self.robust: value}))

    def cell_figures(self, record: Record) -> Mapping[str, float | None]:
        """A run's columns by name, those of the main score and the gap included."""
        gap = record.generalization_gap
        found = {self.main.name: self.main.value(record.test)}
        found["generalization_gap"] = None if gap is None or self.gap is None else self.gap.scale * gap
        return {**found, **{figure.name: figure.value(record) for figure in self.figures}}
