"""Denoising: what an image was before noise was added, on a data set or on one image; PSNR ranks. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from metric_zoo.benchmarks.schema import Count, Epoch, Loss, SplitScores
from metric_zoo.benchmarks.tasks.denoising.published import PUBLISHED, PUBLISHED_OF_ONE_IMAGE
from metric_zoo.benchmarks.tasks.figures import Figure, Gap, MainScore
from metric_zoo.benchmarks.tasks.registry import register
from metric_zoo.benchmarks.tasks.task import Task

if TYPE_CHECKING:
    from metric_zoo.benchmarks.tasks.training import TaskTraining


class Fidelity(SplitScores):
    """Of one split's restored images, in evaluation mode, pixels in [0, 1]: means over the images of the mean squared
    error, the peak signal-to-noise ratio in dB and the structural similarity.

    ``published_mse`` is the error as the metric-convolution paper's program adds it up: means over batches, summed,
    over the number of images.
    """

    mse: Loss
    psnr: Annotated[float, Field(ge=-400, le=200, allow_inf_nan=False)]
    ssim: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    published_mse: Loss
    images: Count


class DenoisingEpoch(Epoch):
    """With the test images' mean squared error."""

    scored = "test_mse"

    train_top1: None = None
    test_top1: None = None
    """Of no meaning here, like the one before: every epoch of a record has the figures that the first tasks had."""
    test_mse: Loss | None = None

    @property
    def test_score(self) -> float:
        """The error as PSNR in dB."""
        assert self.test_mse is not None, "`scored` is there"
        return psnr_of(self.test_mse)


def psnr_of(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, the peak being 1; at most 150."""
    return -10 * math.log10(max(mse, 1e-15))


def _relative(train: Fidelity, test: Fidelity) -> float | None:
    """Of an error that is zero nothing is a multiple."""
    return (test.mse - train.mse) / train.mse if train.mse else None


@register
class Denoising(Task):
    """Mean squared error of images in [0, 1]; the generalization gap is delta = (test - train) / train of it."""

    name = "denoising"
    label = "Denoising"
    scores = Fidelity
    epoch = DenoisingEpoch
    main = MainScore(
        name="test_psnr",
        short="PSNR",
        unit="dB",
        value=lambda scores: scores.psnr,
        meaning="Peak signal-to-noise ratio of the restored test images, mean ± sample standard deviation over seeds.",
    )
    gap = Gap(
        of=_relative,
        formula="(test - train) / train of the mean squared error",
        meaning="Generalization gap: (test - train) / train of the mean squared error.",
        told=lambda gap: f"{gap:.3g} of the training error",
        symbol=" δ",
        is_ratio=True,
    )
    figures = (
        Figure("test_mse", lambda r: r.test.mse, "Test MSE, 1e-3", "Mean squared error of pixels in [0, 1].", 3, 1e3),
        Figure("train_mse", lambda r: r.train.mse, "Training MSE, 1e-3", "", 3, 1e3),
        Figure("test_ssim", lambda r: r.test.ssim, "Test SSIM", "", 3),
        Figure(
            "published_mse",
            lambda r: r.test.published_mse,
            "MSE as published, 1e-4",
            "The error as the metric-convolution paper adds it up: means over batches, over the number of images; a "
            "batch's size smaller than the true one.",
            3,
            1e4,
        ),
    )
    published = PUBLISHED
    error = "mse"
    error_label = "MSE"
    needs_noise = True
    takes_peers = True
    data_keys = ("image", "image_size", "channels")

    def training(self) -> TaskTraining:
        from metric_zoo.benchmarks.tasks.denoising.training import Training

        return Training()

    def tested(self, scores: Fidelity) -> dict[str, float]:
        return {"test_mse": scores.mse}

    def contradictions(self, scores: Fidelity) -> Iterator[str]:
        # The logarithm is convex: a mean of PSNRs is no lower than the PSNR of the mean.
        if scores.psnr < psnr_of(scores.mse) - 1e-3:
            yield f"a PSNR of {scores.psnr:.3f} dB is too low for a mean squared error of {scores.mse:.3g}"
        if scores.published_mse > scores.mse * (1 + 1e-9):
            yield "published_mse is above mse"

    def told(self, scores: Fidelity) -> str:
        return f"PSNR {scores.psnr:.2f} dB, SSIM {scores.ssim:.3f}, mean squared error {scores.mse:.4g}"

    def facts(self, train: Fidelity, test: Fidelity) -> list[tuple[str, str]]:
        return [
            ("Test PSNR, SSIM", f"{test.psnr:.2f} dB, {test.ssim:.3f}"),
            ("Test, training MSE", f"{test.mse:.3e}, {train.mse:.3e}"),
            ("Test MSE as published", f"{test.published_mse:.3e}"),
        ]


@register
class SingleImageDenoising(Denoising):
    """Of one image: trained on one realisation of the noise, tested on another."""

    name = "single-image-denoising"
    board = Denoising.name
    published = PUBLISHED_OF_ONE_IMAGE
    takes_image = True

    def training(self) -> TaskTraining:
        from metric_zoo.benchmarks.tasks.denoising.training import SingleImageTraining

        return SingleImageTraining()
