"""Sampling learned for every pixel of one image by itself, instead of predicted from what the layer reads."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.head import PredictionHead
from metric_zoo.nn.recorder import first_inputs
from metric_zoo.ops.padding import Pads


class LearnedField(nn.Module):
    """Stands in for a layer's head and answers the same to every input: numbers that are parameters.

    Args:
        start: ``(1, P, H, W)``, a head's answer.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.field = nn.Parameter(start.clone())

    @property
    def weight(self) -> nn.Parameter:
        """What a regularisation of heads keeps small, and what tells that sampling has moved."""
        return self.field

    bias = weight

    @torch.no_grad()
    def is_fresh(self) -> bool:
        """Whether it has never learned: a head starts with the same answer everywhere."""
        return torch.equal(self.field, self.field[..., :1, :1].expand_as(self.field))

    def forward(self, input: Tensor, pads: Pads) -> Tensor:
        """``(B, P, H, W)`` for an input of B images."""
        # Without gradients a view of a parameter would still claim to need one, which FlopCounterMode trips over.
        field = self.field if torch.is_grad_enabled() else self.field.detach()
        return field.expand(len(input), -1, -1, -1)


@torch.no_grad()
def learn_fields(model: nn.Module, image: Tensor) -> nn.Module:
    """Give every sampled layer a field instead of its head, in place; it starts where the head does without an input.

    Source: Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, single-image denoising.

    Args:
        model: converted.
        image: ``(1, C, H, W)``, of the only size that the model will take from now on.
    """
    layers = [m for m in model.modules() if isinstance(m, SampledConv2d) and m.sampler is not None]

    with first_inputs(layers) as seen:
        model(image)
    for layer in layers:
        if layer.sampler is not None and layer in seen:
            start = layer.sampler(*layer._padded(torch.zeros_like(seen[layer])))
            layer.sampler = cast(PredictionHead, LearnedField(start))  # for which it stands in
    return model
