"""Kernels that stay as they are while the sampling learns."""

from __future__ import annotations

from torch import nn

from metric_zoo.nn.base import SampledConv2d


def freeze_kernels(model: nn.Module) -> nn.Module:
    """Stop the kernels of all sampled layers from learning: the paper's FKW setting. The heads go on.

    Returns:
        The model.
    """
    for layer in model.modules():
        if isinstance(layer, SampledConv2d):
            layer.weight.requires_grad_(False)
    return model
