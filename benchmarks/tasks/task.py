"""What a task says of itself. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from metric_zoo.benchmarks.schema import Epoch, SplitScores
from metric_zoo.benchmarks.tasks.figures import Figure, Gap, MainScore, PublishedFigures

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record
    from metric_zoo.benchmarks.tasks.training import TaskTraining


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
        found: dict[str, float | None] = {self.main.name: self.main.value(record.test)}
        found["generalization_gap"] = None if gap is None or self.gap is None else self.gap.scale * gap
        return {**found, **{figure.name: figure.value(record) for figure in self.figures}}
