"""A task as another package would bring it: how bright is an image, in the mean? Lower errors are better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from metric_zoo.benchmarks.schema import Count, Epoch, Loss, Share, SplitScores
from metric_zoo.benchmarks.tasks import Figure, Gap, MainScore, Task

if TYPE_CHECKING:
    from metric_zoo.benchmarks.tasks.training import TaskTraining

NAME = "brightness"


class Errors(SplitScores):
    """Mean and largest absolute error, black being 0 and white 1."""

    mae: Share
    worst: Share
    images: Count


class BrightnessEpoch(Epoch):
    """With the test images' mean absolute error."""

    scored = "test_mae"

    test_mae: Loss | None = None

    @property
    def test_score(self) -> float:
        return 255 * self.test_mae


class Brightness(Task):
    """Mean brightness of grey images, by regression."""

    name = NAME
    label = "Brightness of images"
    scores = Errors
    epoch = BrightnessEpoch
    main = MainScore(
        name="test_mae",
        short="MAE",
        unit="levels",
        value=lambda scores: 255 * scores.mae,
        meaning="Mean absolute error of the test images' brightness, of 255 levels.",
        higher=False,
        digits=3,
        quantity="mean absolute error",
    )
    gap = Gap(
        of=lambda train, test: test.mae - train.mae,
        formula="test minus training MAE",
        meaning="Test minus training MAE.",
        told=lambda gap: f"{255 * gap:.3f} levels",
        unit="levels",
        scale=255.0,
    )
    figures = (Figure("worst", lambda record: 255 * record.test.worst, "Worst, levels", "Of one image.", 1),)
    error = "mae"
    corruptions = ("noise",)
    robust = "mae"

    def training(self) -> TaskTraining:
        from tests.end_to_end.brightness_training import Training

        return Training()

    def tested(self, scores: Errors) -> dict[str, float]:
        return {"test_mae": scores.mae}

    def contradictions(self, scores: Errors) -> Iterator[str]:
        if scores.worst < scores.mae:
            yield "the worst error is below the mean one"
