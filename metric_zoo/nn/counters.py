"""What other libraries' FLOP counters have to be told: they know `torch.nn.Conv2d`, and not what samples.

`torch.utils.flop_counter` needs nothing. All count multiply-adds of kernels and heads; reads are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metric_zoo.nn.head import PredictionHead
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.registry import list_layers


@torch.no_grad()
def multiply_adds(layer: nn.Module, *inputs: Tensor) -> int:
    """Of one call of a layer, its head included."""
    with FlopCounterMode(display=False) as counter:
        layer.forward(*inputs)
    return counter.get_total_flops() // 2


def thop_ops() -> dict[type, Callable]:
    """For ``thop.profile(model, inputs, custom_ops=thop_ops())``."""

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # thop gives it the attribute
        layer.total_ops += multiply_adds(layer, *inputs)

    return {kind.layer: count for kind in list_layers().values() if kind.layer}


def ptflops_hooks() -> dict[type, Callable]:
    """For ``ptflops.get_model_complexity_info(..., backend="pytorch", custom_modules_hooks=ptflops_hooks())``."""

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # ptflops gives it the attribute
        layer.__flops__ += multiply_adds(layer, *inputs)

    return {kind.layer: count for kind in list_layers().values() if kind.layer}


def fvcore_handles() -> dict[str, Callable]:
    """For ``fvcore.nn.FlopCountAnalysis(model, inputs).set_op_handle(**fvcore_handles())``."""

    def sampled(inputs: list[Any], outputs: list[Any]) -> int:
        weight, output = inputs[1].type().sizes(), outputs[0].type().sizes()
        return math.prod(output) * math.prod(weight[1:])

    def blended(inputs: list[Any], outputs: list[Any]) -> int:
        return math.prod(inputs[0].type().sizes()) * inputs[3].type().sizes()[-1]

    return {"metric_zoo::sampled_conv2d": sampled, "metric_zoo::blended_conv2d": blended}


def complete_torchinfo(statistics: Any) -> Any:
    """Correct ``total_mult_adds`` of what ``torchinfo.summary(model, ...)`` returns: call it once, on the result.

    torchinfo takes no rules. It leaves out a layer that has a child, and counts a head as if its output were one pixel.
    As it does, biases are counted.
    """
    for info in statistics.summary_list:
        counted = info.macs if info.is_leaf_layer else 0
        converted = kind_of(info.module) is not None
        if isinstance(info.module, PredictionHead) or (converted and isinstance(info.module, nn.Conv2d)):
            own = sum(p.numel() for p in (info.module.weight, info.module.bias) if p is not None)
            statistics.total_mult_adds += own * info.output_size[0] * math.prod(info.output_size[2:]) - counted
        elif converted:
            image = torch.zeros(info.input_size).to(next(info.module.parameters()))
            statistics.total_mult_adds += multiply_adds(info.module, image) - counted
    return statistics
