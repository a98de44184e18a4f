"""Mean squared error, PSNR and SSIM (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400,
denoising experiments)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.data.noisy import load_noisy, load_noisy_image
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.tasks.denoising import Fidelity
from metric_zoo.benchmarks.tasks.gather import scored
from metric_zoo.benchmarks.tasks.training import Evaluation, TaskTraining


class Training(TaskTraining):
    """Of networks that answer with images; on a data set of them."""

    def load(self, run: Run) -> Splits:
        return load_noisy(run.data)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output.float(), target)

    def evaluate(
        self, accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, batch_size: int
    ) -> Evaluation:
        def row(output: Tensor, clean: Tensor) -> Tensor:
            restored = output.float()
            return torch.stack((squared_error(restored, clean), similarity(restored, clean)), 1)

        errors, similarities = scored(accelerator, model, loader, size, row).unbind(1)
        scores = Fidelity(
            mse=errors.mean().item(),
            psnr=psnr(errors).mean().item(),
            ssim=similarities.mean().item(),
            published_mse=as_published(errors, batch_size),
            images=size,
        )
        return Evaluation(scores)


class SingleImageTraining(Training):
    """Of one image: trained on one realisation of the noise, tested on another."""

    def load(self, run: Run) -> Splits:
        return load_noisy_image(run.data, run.seed)


def squared_error(restored: Tensor, clean: Tensor) -> Tensor:
    """The mean over each image's pixels, ``(B, C, H, W) -> (B,)``."""
    return (restored - clean).square().flatten(1).mean(1)


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, the peak being 1; at most 150."""
    return -10 * torch.log10(mse.clamp_min(1e-15))


def similarity(restored: Tensor, clean: Tensor) -> Tensor:
    """SSIM of each image (Wang et al., 2004): Gaussian window, sigma 1.5, range 1, over the pixels whose window of
    11 x 11 lies inside; ``(B,)``."""
    options = {"data_range": 1.0, "reduction": "none", "return_full_image": True}
    _, everywhere = structural_similarity_index_measure(restored, clean, **options)
    return everywhere[..., 5:-5, 5:-5].flatten(1).mean(1)  # the metric itself would average the reflected border, too


def as_published(errors: Tensor, batch_size: int) -> float:
    """The figure that the paper's program prints: means over batches, added up, over the number of IMAGES.

    With full batches that is the mean squared error over ``batch_size``.
    """
    return sum(part.mean().item() for part in errors.split(batch_size)) / len(errors)
