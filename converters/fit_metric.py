"""Start metric layers from layers that sample freely: the metrics whose balls explain their samples best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metric_zoo.converters.build import build_layer
from metric_zoo.converters.example_inputs import Inputs, call
from metric_zoo.converters.model_state import evaluation
from metric_zoo.converters.original import find_original
from metric_zoo.converters.progress import PATIENCE
from metric_zoo.errors import ConversionError
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.metric import MetricConv2d
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.registry import get_kind

_ITERATIONS = 40
"""Of L-BFGS; the loss of layers that were tried falls by less than a thousandth in the next forty."""


def unfit_reason(module: nn.Module) -> str:
    """Why a convolution's samples cannot be fitted; empty if they can."""
    if not isinstance(module, SampledConv2d):
        return "an ordinary convolution: there are no samples to fit"
    if isinstance(module, ModulatedDeformConv2d):
        return "modulated: a metric has no masks"
    if getattr(module.config, "sampling", "grid") != "grid":
        return f"sampling={module.config.sampling!r}: its cells are not the grid's"
    if any(name not in module._parameters for name in ("weight", "bias")):
        return "its weight is computed (weight norm, pruning or a parametrization), not a parameter"
    return ""


def check_may_fit(to: str, options: Mapping[str, Any]) -> None:
    """Raise unless a kind samples the ball of a metric cell by cell.

    Raises:
        ConversionError: saying what does.
    """
    layer = get_kind(to).layer
    if layer is None or not issubclass(layer, MetricConv2d):
        raise ConversionError(f"init='fit' finds metrics: to={to!r} has none, use 'metric' or 'geodesic'")
    if options.get("sampling", "grid") != "grid":
        raise ConversionError(
            f"init='fit' compares samples cell by cell: sampling={options['sampling']!r} has other cells, use 'grid'"
        )


def build_fitting_layer(name: str, old: SampledConv2d, to: str, options: Mapping[str, Any]) -> SampledConv2d:
    """A fresh layer of a kind in the place of ``old``, with its kernel, and as many groups of samples."""
    groups = {"metric_groups": old._sample_groups(), **options}
    if groups["metric_groups"] != old._sample_groups():
        raise ConversionError(
            f"{name}: metric_groups={groups['metric_groups']}, but it samples in {old._sample_groups()} groups"
        )
    layer = build_layer(name, _as_plain(old), to, groups)
    layer.standardization = old.standardization
    layer._origin = find_original(old)
    return layer


def _as_plain(layer: SampledConv2d) -> nn.Conv2d:
    """What `build_layer` reads, without a rule: parameters, padding, mode, hooks and whatever hangs on the layer."""
    size = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
    conv = nn.Conv2d(
        *size, dilation=layer.dilation, groups=layer.groups, padding_mode=layer.padding_mode, device="meta"
    )
    own = {"sampler", "offset"}
    for name, value in vars(layer).items():
        if name not in ("_parameters", "_modules", "config", "standardization", "_origin"):
            setattr(conv, name, value)
    conv._parameters = {name: value for name, value in layer._parameters.items() if name not in own}
    return conv


def plain_view(layer: nn.Conv2d) -> nn.Conv2d:
    """The convolution itself; of a sampled layer what it is without its rule."""
    return _as_plain(layer) if isinstance(layer, SampledConv2d) else layer


def fit_layers(model: nn.Module, pairs: Mapping[SampledConv2d, MetricConv2d], inputs: Inputs) -> list[float]:
    """Fit every new layer's head to the samples of the old one, on what reaches it in the model.

    Returns:
        For every pair, the share of the old samples' squared distances from the grid that the new ones account for.

    Raises:
        ConversionError: if a layer is not called on these inputs.
    """
    if any(layer.weight.is_meta or torch.finfo(layer.weight.dtype).bits < 32 for layer in pairs):
        raise ConversionError("init='fit' needs weights in float32 or float64, not half or meta: convert model.float()")
    seen: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.setdefault(layer, arguments[0].detach())

    handles = [old.register_forward_pre_hook(keep) for old in pairs]
    try:
        with evaluation(model):
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) < len(pairs):
        raise ConversionError(f"{len(pairs) - len(seen)} of {len(pairs)} layers are not called on the example input")
    waiting = tqdm(pairs.items(), "fitting", unit="layer", delay=PATIENCE, leave=False)
    return [fit_rule(new, old, seen[old]) for old, new in waiting]


def fit_rule(new: MetricConv2d, old: SampledConv2d, input: Tensor) -> float:
    r"""Train a layer's head, by L-BFGS, until its samples lie where another layer's do, in the mean square.

    Source: Metric Convolutions, ICCV 2025, the unifying theory: what a layer samples is the unit ball of some metric.

    Args:
        new: its head changes, and nothing else.
        old: with the same grid of samples.
        input: ``(B, C, H, W)``, what both read.

    Returns:
        :math:`1 - \sum |y_{new} - y_{old}|^2 / \sum |y_{old} - g|^2` over all samples: 1 where they agree; 1, too,
        where the old ones never left the grid.
    """
    with torch.no_grad():
        target = old.sample_positions(input)
    grid = grid_offsets(old.kernel_size, old.dilation).to(target).repeat(old._sample_groups(), 1)[..., None, None]
    moved = (target - grid).square().mean()
    if moved == 0:
        return 1.0
    if not bool(target.isfinite().all()):
        raise ConversionError("the example input's samples are not finite")
    parameters = list(new.sampler.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            missed = (new.sample_positions(input) - target).square().mean() / moved
        missed.backward(inputs=parameters)
        return missed

    optimizer.step(loss)
    optimizer.zero_grad()
    with torch.no_grad():
        return 1 - ((new.sample_positions(input) - target).square().mean() / moved).item()
