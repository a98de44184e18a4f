"""Classification: which of several classes an image is of; top-1 accuracy ranks. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from metric_zoo.benchmarks.schema import Count, Epoch, Loss, Share, SplitScores
from metric_zoo.benchmarks.tasks.classification.published import PUBLISHED
from metric_zoo.benchmarks.tasks.figures import Figure, Gap, MainScore
from metric_zoo.benchmarks.tasks.registry import register
from metric_zoo.benchmarks.tasks.task import Task

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record
    from metric_zoo.benchmarks.tasks.training import TaskTraining


class Scores(SplitScores):
    """Of one split, in evaluation mode: accuracies as shares, mean cross-entropy in nats, expected calibration error
    (15 bins of confidence, a share), and how many images."""

    top1: Share
    top5: Share
    loss: Loss
    calibration_error: Share | None = None
    images: Count


class ClassificationEpoch(Epoch):
    """``train_top1`` is the running average while training."""

    scored = "test_top1"

    train_top1: Share | None = None
    test_top1: Share | None = None
    test_mse: None = None
    """Of no meaning here: every epoch of a record has the figures that the first tasks had."""

    @property
    def test_score(self) -> float:
        """Top-1 in percent."""
        assert self.test_top1 is not None, "`scored` is there"
        return 100 * self.test_top1


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _corrupted(record: Record) -> float | None:
    return 100 * float(np.mean([*record.robustness.values()])) if record.robustness else None


@register
class Classification(Task):
    """Cross-entropy; the generalization gap is training minus test top-1 accuracy, as a share."""

    name = "classification"
    label = "Classification"
    is_default = True
    scores = Scores
    epoch = ClassificationEpoch
    main = MainScore(
        name="test_top1",
        short="top-1",
        unit="%",
        value=lambda scores: 100 * scores.top1,
        meaning="Accuracy on the test split in evaluation mode, mean ± sample standard deviation over seeds.",
        quantity="accuracy",
        step="points",
        per="Points",
    )
    gap = Gap(
        of=lambda train, test: train.top1 - test.top1,
        formula="train minus test top-1",
        meaning="Generalization gap: training minus test top-1 accuracy, both in evaluation mode and without "
        "augmentation.",
        told=lambda gap: f"{100 * gap:.2f} points of top-1",
        unit="points",
        scale=100.0,
    )
    figures = (
        Figure(
            "robustness",
            _corrupted,
            "Corrupted, %",
            "Mean test top-1 under noise, blur, rotation and scaling.",
            has_spread=True,
        ),
        Figure("train_top1", lambda record: 100 * record.train.top1),
        Figure("test_top5", lambda record: 100 * record.test.top5),
        Figure(
            "calibration_error",
            lambda record: _percent(record.test.calibration_error),
            "Calibration error, %",
            "Expected calibration error on the test split, 15 bins.",
        ),
    )
    published = PUBLISHED
    error = "loss"
    hits = "top1"
    corruptions = ("noise", "blur", "rotation", "scale")
    robust = "top1"
    needs = ("test_hits",)

    def training(self) -> TaskTraining:
        from metric_zoo.benchmarks.tasks.classification.training import Training

        return Training()

    def trained(self, right: float) -> dict[str, float]:
        return {"train_top1": right}

    def tested(self, scores: Scores) -> dict[str, float]:
        return {"test_top1": scores.top1}

    def contradictions(self, scores: Scores) -> Iterator[str]:
        if scores.top5 < scores.top1:
            yield "top-5 is below top-1"
        right = scores.top1 * scores.images
        if abs(right - round(right)) > 1e-6 * max(scores.images, 1):
            yield f"top-1 {scores.top1!r} is no whole number of {scores.images} images"

    def told(self, scores: Scores) -> str:
        calibration = "" if scores.calibration_error is None else f", calibration error {scores.calibration_error:.3f}"
        return f"top-1 {100 * scores.top1:.2f}%, top-5 {100 * scores.top5:.2f}%, loss {scores.loss:.3f}{calibration}"

    def facts(self, train: Scores, test: Scores) -> list[tuple[str, str]]:
        return [
            ("Test top-1, top-5", f"{100 * test.top1:.2f}%, {100 * test.top5:.2f}%"),
            ("Training top-1", f"{100 * train.top1:.2f}%"),
        ]
