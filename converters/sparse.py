"""Put sparse kernel complexes in the place of large fixed filters, where that pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from metric_zoo.converters.analyse import Analysis, analyse
from metric_zoo.converters.build import swap
from metric_zoo.converters.conv_types import behaviour
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.original import inherit
from metric_zoo.converters.paper_resnet import is_atrous
from metric_zoo.converters.progress import PATIENCE
from metric_zoo.converters.report import Approximation, ConversionReport, attach, describe
from metric_zoo.converters.selection.filters import Filters
from metric_zoo.converters.selection.select import Decision, check_selection, select
from metric_zoo.converters.selection.where import Where
from metric_zoo.converters.verify import layer_differences, nothing_compared, output_difference, run
from metric_zoo.errors import ConversionError
from metric_zoo.nn.registry import get_kind
from metric_zoo.nn.sparse import SparseKernelComplex2d, SparseOptions
from metric_zoo.timing import alternate, quartiles

_REPEATS = 5


def sparsify(
    model: nn.Module,
    where: Where,
    filters: Filters,
    leftovers: Mapping[str, str],
    example_input: Any,
    strict: bool,
    options: Mapping[str, Any],
) -> nn.Module:
    """`convert` to ``"sparse"``, on this very object; it is left as it was where that fails.

    Raises:
        ConversionError: as `convert`; MetricZooError for an unknown option.
    """
    settings = SparseOptions.from_options(SparseKernelComplex2d.kind, options)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConversionError("a model on the meta device has no kernels to fit")
    analysis = analyse(model, example_input, neighbours=callable(where) or filters.receptive_field is not None)
    decisions = select(analysis.nodes, SparseKernelComplex2d.kind, where, filters)
    layers: dict[str, SparseKernelComplex2d] = {}
    found: dict[str, Approximation] = {}
    chosen = [node for node in analysis.nodes if decisions[node.name].kind is not None]
    for node in tqdm(chosen, "sparse kernels", unit="layer", delay=PATIENCE, leave=False):
        layer, figures = approximate(node, settings)
        lost = figures.loses(settings.max_error, settings.min_speedup)
        if lost:
            decisions[node.name] = Decision(None, lost, "refused")
        else:
            layers[node.name], found[node.name] = layer, figures
    check_selection(decisions, leftovers, where, filters, strict, model)
    report = _swapped(model, analysis, layers, found)
    report.skipped = {name: d.reason for name, d in decisions.items() if d.kind is None} | dict(leftovers)
    attach(model, report)
    return model


def approximate(node: ConvNode, settings: SparseOptions) -> tuple[SparseKernelComplex2d, Approximation]:
    """A complex for a convolution's kernels, and how it does. One that is too slow is not fitted.

    Args:
        node: of a convolution that a complex can stand in for, and that is called.
    """
    conv, config = node.module, settings
    layer = build_sparse(conv, config.samples, config.layers)
    slow = _timed(layer, node)
    if slow.loses(config.max_error, config.min_speedup):
        return layer, slow
    layer.fit(conv.weight, config.steps, seed=config.seed, progress=True)
    layer.keep_as_fitted()
    return layer, replace(_timed(layer, node), kernel_error=layer.kernel_error(conv.weight))


def build_sparse(conv: nn.Conv2d, samples: int, layers: int) -> SparseKernelComplex2d:
    """An unfitted layer that has ``conv``'s size, place, hooks and bias, the same parameter."""
    layer = get_kind(SparseKernelComplex2d.kind).build(
        conv, behaviour(conv).padding, {"samples": samples, "layers": layers}
    )
    inherit(layer, conv)
    return layer


@torch.no_grad()
def _timed(layer: SparseKernelComplex2d, node: ConvNode) -> Approximation:
    """Both forward passes on noise of the declared size, in turn."""
    weight = node.module.weight
    noise = torch.rand(node.input_shape, generator=torch.Generator().manual_seed(0)).to(weight)
    pair = {"dense": lambda: node.module.forward(noise), "sparse": lambda: layer.forward(noise)}
    medians = {name: quartiles(each)[1] for name, each in alternate(pair, _REPEATS, weight.device).items()}
    return Approximation(medians["dense"], medians["sparse"])


def _swapped(
    model: nn.Module,
    analysis: Analysis,
    layers: Mapping[str, SparseKernelComplex2d],
    figures: Mapping[str, Approximation],
) -> ConversionReport:
    """Swap, unless the model then does not run; what that does to the outputs is in the report."""
    report = ConversionReport(type(model).__name__, atrous=is_atrous(model))
    if not layers:
        return report
    nodes = {node.name: node for node in analysis.nodes if node.name in layers}
    pairs = {nodes[name].module: layer for name, layer in layers.items()}
    inputs = analysis.proofs[-1]
    before, moved = layer_differences(model, inputs, pairs)
    swap(model, pairs)
    try:
        found = output_difference(run(model, inputs), before)
    except BaseException:
        swap(model, {layer: conv for conv, layer in pairs.items()})
        raise
    report.not_compared = nothing_compared(found)
    report.output = found if report.not_compared is None else None
    report.converted = {
        name: describe(
            layer,
            nodes[name].module,
            nodes[name].input_shape,
            nodes[name].output_shape,
            moved.get(nodes[name].module),
            approximation=figures[name],
        )
        for name, layer in layers.items()
    }
    return report
