"""What the published program does and the published formulas do not; for comparison, never for use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metric_zoo.errors import RecipeError
from metric_zoo.nn.field import Field
from metric_zoo.nn.metric import MetricConv2d
from metric_zoo.ops.padding import Pads


class BatchMixedMetricConv2d(MetricConv2d):
    """Metric convolution that scales each image's samples by the metrics of other images of its batch.

    The published program lays out directions batch by batch and metrics image by image: sample i of image b, of n
    samples and B images, gets the metric of image (b n + i) mod B. For one image nothing is mixed. Published figures of
    batches were obtained so; an image's output then depends on its neighbours.
    """

    def _field(self, input: Tensor, pads: Pads) -> Field:
        height, width = input.shape[-2:]
        positions = super()._field(input, pads).positions((height, width), self, pads)
        positions = positions.unflatten(1, (self._sample_groups(), -1))
        batch, cells = positions.shape[0], positions.shape[2]
        cell = torch.arange(cells, device=input.device)
        image = (torch.arange(batch, device=input.device)[:, None] * cells + cell) % batch
        return Field.at(positions[image, :, cell].transpose(1, 2).flatten(1, 2), self._sample_groups())


def mix_batches(model: nn.Module) -> nn.Module:
    """Turn every metric convolution of a model, in place, into a `BatchMixedMetricConv2d`.

    Raises:
        RecipeError: if it has none.
    """
    layers = [module for module in model.modules() if type(module) is MetricConv2d]
    if not layers:
        raise RecipeError("batch_mixed: the model has no metric convolution")
    for layer in layers:
        layer.__class__ = BatchMixedMetricConv2d  # same parameters and options; only what it computes differs
    return model
