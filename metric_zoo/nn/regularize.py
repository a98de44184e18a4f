"""A penalty that keeps what sampling rules predict small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metric_zoo.nn.base import SampledConv2d


def head_regularization(model: nn.Module) -> Tensor:
    r"""Mean over all heads and over {weight, bias} of the mean absolute value; a scalar to add to the loss.

    The published classification runs add 5000 times this (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400).
    The identity of a metric head has a bias of 1 in its direction, which counts like any other value. Of a head of two
    convolutions the last counts.

    Returns:
        A scalar with gradients to the heads; 0 where the model has none.
    """
    heads = [m.sampler for m in model.modules() if isinstance(m, SampledConv2d) and m.sampler is not None]
    terms = [parameter.abs().mean() for head in heads for parameter in (head.weight, head.bias)]
    return torch.stack(terms).mean() if terms else torch.zeros(())
