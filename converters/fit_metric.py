"""Start metric layers from layers that sample freely: the metrics whose balls explain their samples best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metric_zoo.converters.example_inputs import Inputs, call
from metric_zoo.converters.progress import PATIENCE
from metric_zoo.converters.replacement import Replacement
from metric_zoo.errors import ConversionError
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.recorder import first_inputs

_ITERATIONS = 40
"""Of L-BFGS; the loss of layers that were tried falls by less than a thousandth in the next forty."""


def fit_layers(model: nn.Module, replacements: Sequence[Replacement], inputs: Inputs) -> None:
    """Fit every new layer's head to the samples of the one it replaces, on what reaches that in the model.

    Every replacement gets the share of the old samples' squared distances from the grid that the new ones account for.

    Raises:
        ConversionError: if a layer is not called on these inputs.
    """
    if any(each.conv.weight.is_meta or torch.finfo(each.conv.weight.dtype).bits < 32 for each in replacements):
        raise ConversionError("init='fit' needs weights in float32 or float64, not half or meta: convert model.float()")
    with first_inputs(each.conv for each in replacements) as seen, evaluation(model):
        call(model, inputs)
    if len(seen) < len(replacements):
        missing = len(replacements) - len(seen)
        raise ConversionError(f"{missing} of {len(replacements)} layers are not called on the example input")
    for each in tqdm(replacements, "fitting", unit="layer", delay=PATIENCE, leave=False):
        each.explained = fit_rule(each.sampled, cast(SampledConv2d, each.conv), seen[each.conv])


def fit_rule(new: SampledConv2d, old: SampledConv2d, input: Tensor) -> float:
    r"""Train a layer's head, by L-BFGS, until its samples lie where another layer's do, in the mean square.

    Source: Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, the unifying theory: what a layer samples
    is the unit ball of some metric.

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
    assert new.sampler is not None, "a layer that fits metrics has a head"
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
