"""Convert a model in one call, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, fx, nn

from metric_zoo.converters.analyse import Analysis, analyse
from metric_zoo.converters.build import INITS, build_layer, check_lossless, check_may_start_uniform, swap
from metric_zoo.converters.check_model import check_model, check_not_sharded
from metric_zoo.converters.example_inputs import Inputs
from metric_zoo.converters.fit_metric import build_fitting_layer, check_may_fit, fit_layers, plain_view
from metric_zoo.converters.graph import functional_leftovers, to_graph
from metric_zoo.converters.model_state import full_copy
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.original import CONVERTED, restore
from metric_zoo.converters.paper_resnet import atrous_layer4, is_atrous
from metric_zoo.converters.progress import progress
from metric_zoo.converters.report import ConversionReport, attach, describe, detach
from metric_zoo.converters.resize import images_of
from metric_zoo.converters.selection.filters import Filters, Range
from metric_zoo.converters.selection.select import Decision, check_selection, select
from metric_zoo.converters.selection.where import Where
from metric_zoo.converters.sparse import sparsify
from metric_zoo.converters.verify import (
    Difference,
    check_unchanged,
    layer_differences,
    nothing_compared,
    output_difference,
    run,
)
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import KINDS, get_kind
from metric_zoo.nn.sparse import SparseKernelComplex2d

OUTPUTS = ("module", "graph")


def convert(
    model: nn.Module,
    to: str = "metric",
    *,
    where: Where = None,
    stages: Sequence[int] | None = None,
    resolution: Range = None,
    receptive_field: Range = None,
    example_input: Any = None,
    init: str = "pretrained",
    inplace: bool = False,
    output: str = "module",
    strict: bool = False,
    **options: Any,
) -> nn.Module:
    """Replace selected convolutions of any model by another kind, keeping the pretrained function.

    The model keeps its class, methods, state-dict keys, hooks, device, dtype and modes; each replaced layer keeps its
    weights and gains a head (but for ``to="sparse"``, where samples replace the kernel). The result is checked on an
    example input before it is returned. What takes more than two seconds shows a bar on stderr.

    Args:
        model: any `nn.Module` with `nn.Conv2d` layers.
        to: a kind of `list_kinds`; or ``"sparse"``, which approximates large fixed depthwise kernels (7x7 and more) by
            sparse kernel complexes and keeps those that are faster and close enough; see
            `metric_zoo.converters.sparse.SparseOptions`. The report tells the error and the speed of each layer, and
            what was refused with its figure.
        where: which convolutions: a preset (``"paper"``, ``"last"``, ``"all"``, ``"stem+all"``), a regular expression,
            names, rules or a callable; see `metric_zoo.converters.selection.select.select`. None is the default policy.
            ``"paper"`` also runs ResNet's layer 4 at stride 1, with dilation 2 after its first block, and the function
            that is kept is that of this network.
        stages, resolution, receptive_field: narrow the selection; see
            `metric_zoo.converters.selection.filters.Filters`. Stages count as ResNet's layers: ``stages=[2, 3, 4]`` is
            ``layer2`` to ``layer4``, or what has their resolution.
        example_input: a tensor ``(B, C, H, W)``, a tuple of positional arguments or a dict of keywords; None is a
            random image of the declared size. The model's own forward hooks see it too.
        init: ``"pretrained"`` keeps weights and function; ``"uniform"`` is the paper's start, constant kernels;
            ``"fit"`` takes layers that are sampled already (deformable, shifted, active), keeps their kernels, and
            finds the metrics whose balls their samples cover best on ``example_input``, which must be real images: the
            function is approximated, and the report says how much of the offsets the balls explain.
        inplace: convert this object instead of a copy.
        output: ``"module"``; or ``"graph"``, a `torch.fx.GraphModule` with the model's parameters but without its
            methods, right in training and in evaluation. In it `F.conv2d` calls on a parameter are convolutions too,
            named after it, unless they are made by a module without children, which stays one node.
        strict: raise where a selected convolution cannot be converted or nothing is, instead of reporting it.
        options: of the kind's layer, for example ``sampling=``, ``eps_omega=``, ``offset_groups=``. ``head`` is
            ``"auto"`` unless given: no grouped or depthwise convolution gets a head larger than itself, but the
            smallest ones, of a few channels, which get the smallest head there is.

    Returns:
        The converted model; `conversion_report` tells what was done.

    Raises:
        ConversionError: if an argument is impossible, ``where`` selects nothing, or the output changed. The model is
            then left exactly as it was.
        MetricZooError: for an unknown kind or option.

    Example:
        >>> import timm, metric_zoo as mz
        >>> model = mz.convert(timm.create_model("resnet18"), to="metric")
        >>> type(model.layer2[0].conv1).__name__
        'MetricConv2d'
    """
    _check_arguments(model, to, init, output)
    if init == "fit":
        check_may_fit(to, options)
        if example_input is None:
            raise ConversionError("init='fit' needs example_input: images such as the model was trained on")
    filters = Filters(stages, resolution, receptive_field)
    if not inplace:
        model = full_copy(model)
    subject = to_graph(model) if output == "graph" else model
    leftovers = functional_leftovers(subject) if isinstance(subject, fx.GraphModule) else {}
    paper = isinstance(where, str) and where == "paper"
    with progress(subject, "converting"), atrous_layer4(subject, wanted=paper):
        if to == SparseKernelComplex2d.kind:
            return sparsify(subject, where, filters, leftovers, example_input, strict, options)
        return _convert(subject, to, where, filters, leftovers, example_input, init, strict, options)


def _convert(
    model: nn.Module,
    to: str,
    where: Where,
    filters: Filters,
    leftovers: Mapping[str, str],
    example_input: Any,
    init: str,
    strict: bool,
    options: Mapping[str, Any],
) -> nn.Module:
    """Convert this very object, or leave it as it was."""
    analysis = analyse(model, example_input, neighbours=callable(where) or filters.receptive_field is not None)
    decisions = select(analysis.nodes, to, where, filters, fit=init == "fit")
    check_selection(decisions, leftovers, where, filters, strict, model)
    _check_settled(analysis.nodes, decisions, options)
    layers = _build_layers(analysis.nodes, decisions, to, options, init)
    report = ConversionReport(type(model).__name__, atrous=is_atrous(model))
    report.skipped = {name: d.reason for name, d in decisions.items() if d.kind is None}
    report.skipped |= dict(leftovers)
    explained = _fit(analysis, layers, model) if init == "fit" else {}
    with images_of(model, analysis.side), _swapped(analysis, layers, model, init) as compared:
        report.not_compared = _why_not_compared(model, layers, init)
        if report.not_compared is None:
            found, exact = _prove(model, layers, compared)
            report.not_compared = nothing_compared(found)
            if report.not_compared is None:
                report.output, report.output_float64 = found, exact
        if init == "uniform":
            for layer in layers.values():
                layer.reset_uniform()
    nodes = {node.name: node for node in analysis.nodes}
    report.converted = {
        name: describe(
            layer,
            plain_view(node.module),
            node.input_shape,
            node.output_shape,
            compared.layers.get(name),
            explained.get(name),
        )
        for name, layer, node in ((name, layer, nodes[name]) for name, layer in layers.items())
    }
    attach(model, report)
    return model


def revert(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Put the ordinary convolutions back, with their classes and current weights.

    That is exact only while no sampling rule has moved: heads still zero, offsets still zero. What approximates a
    kernel (``to="sparse"``) gives place to the kernel itself as long as it has not been trained. A ResNet that the
    paper's preset has dilated stays dilated.

    Args:
        model: a model from `convert`.
        inplace: revert this object instead of a copy.

    Returns:
        The model without sampled layers; with ``inplace=False`` the argument is untouched.

    Raises:
        ConversionError: naming the layers whose rule has been trained, or for a sharded model. The model is then left
            as it was.
    """
    if not isinstance(model, nn.Module):
        raise ConversionError(f"model is a {type(model).__name__}, expected an nn.Module")
    check_not_sharded(model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, CONVERTED)}
    if any(p.is_meta for layer in layers.values() for p in layer.parameters()):
        raise ConversionError("a model on the meta device has no values: whether its rules have moved is unknown")
    moved = [name for name, layer in layers.items() if not layer.is_identity()]
    if moved:
        sparse = isinstance(layers[moved[0]], SparseKernelComplex2d)
        why = "its kernel was not saved with it, or it has changed" if sparse else "a trained sampling rule"
        raise ConversionError(
            f"{len(moved)} of {len(layers)} layers no longer equal a convolution, {moved[0]!r} the first ({why}): "
            "that cannot be reverted exactly"
        )
    if not inplace:
        model = full_copy(model)
    swap(model, {m: restore(m) for m in model.modules() if isinstance(m, CONVERTED)})
    detach(model)
    return model


def _check_arguments(model: Any, to: str, init: str, output: str) -> None:
    check_model(model)
    if to == "standard" and init == "uniform":
        raise ConversionError("to='standard' leaves every convolution as it is: init='uniform' would do nothing")
    if to == SparseKernelComplex2d.kind and init != "pretrained":
        raise ConversionError(f"to={to!r} approximates the kernels that are there: init={init!r} would lose them")
    if init not in INITS:
        raise ConversionError(f"init={init!r}: expected one of {INITS}{suggest(str(init), INITS)}")
    if output not in OUTPUTS:
        raise ConversionError(f"output={output!r}: expected one of {OUTPUTS}{suggest(str(output), OUTPUTS)}")


def _options_by_kind(kinds: set[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give every kind the options it knows; each option must be known to one of them."""
    split = {}
    for kind in kinds:
        known = {f.name for f in fields(KINDS[kind].config)}
        split[kind] = {name: value for name, value in options.items() if name in known}
    unclaimed = set(options).difference(*split.values())
    if unclaimed:
        first = min(kinds)
        get_kind(first).config.from_options(first, {name: options[name] for name in sorted(unclaimed)})
    for kind, own in split.items():
        if "head" in get_kind(kind).config.__dataclass_fields__:
            own.setdefault("head", "auto")
    return {kind: get_kind(kind).config.from_options(kind, own).to_dict() for kind, own in split.items()}


def _build_layers(
    nodes: list[ConvNode], decisions: Mapping[str, Decision], to: str, options: Mapping[str, Any], init: str
) -> dict[str, SampledConv2d]:
    kinds = {d.kind for d in decisions.values() if d.kind} or {to}
    by_kind = _options_by_kind(kinds, options)
    modules = {node.name: node.module for node in nodes}
    chosen = {name: decision.kind for name, decision in decisions.items() if decision.kind}
    if init == "fit":
        for kind in set(chosen.values()):
            check_may_fit(kind, options)
        # Unless they were asked for, the groups are those of the layer that is fitted, not the kind's default.
        for own in by_kind.values():
            if "metric_groups" not in options:
                own.pop("metric_groups", None)
        return {name: build_fitting_layer(name, modules[name], kind, by_kind[kind]) for name, kind in chosen.items()}
    return {name: build_layer(name, modules[name], kind, by_kind[kind]) for name, kind in chosen.items()}


def _fit(analysis: Analysis, layers: Mapping[str, SampledConv2d], model: nn.Module) -> dict[str, float]:
    """Fit the new layers, before they are swapped in; how much each explains, by name."""
    modules = {node.name: node.module for node in analysis.nodes}
    shares = fit_layers(model, {modules[name]: layer for name, layer in layers.items()}, analysis.proofs[-1])
    return dict(zip(layers, shares, strict=True))


def _check_settled(nodes: list[ConvNode], decisions: Mapping[str, Decision], options: Mapping[str, Any]) -> None:
    """Layers that are of the kind already stay; options that they do not have would be lost without a word."""
    for node in nodes:
        if decisions[node.name].outcome != "settled" or not isinstance(node.module, SampledConv2d):
            continue
        have = node.module.config.to_dict()
        for name, value in options.items():
            value = tuple(value) if isinstance(value, list) else value
            if name in have and have[name] != value:
                raise ConversionError(
                    f"{node.name} is already {node.module.kind!r} with {name}={have[name]!r}, asked for {value!r}: "
                    "revert the model first, or leave that layer out by 'where'"
                )


@dataclass
class _Compared:
    """The input of the proof, the original's outputs, and the difference of each replacement from what it replaces."""

    inputs: Inputs = ()
    before: list[Tensor] = field(default_factory=list)
    layers: dict[str, Difference] = field(default_factory=dict)


@contextmanager
def _swapped(
    analysis: Analysis, layers: Mapping[str, SampledConv2d], model: nn.Module, init: str
) -> Iterator[_Compared]:
    """Compare the lossless layers with what they replace, swap all; swap back if the block fails."""
    modules = {node.name: node.module for node in analysis.nodes}
    lossless = {} if init != "pretrained" else {n: layer for n, layer in layers.items() if KINDS[layer.kind].lossless}
    for name, layer in lossless.items():
        check_lossless(name, layer)
    for name, layer in layers.items():
        if init == "uniform":
            check_may_start_uniform(name, layer)
    compared = _compare(model, analysis, lossless) if lossless and not _is_meta(model) else _Compared()
    for name, difference in compared.layers.items():
        check_unchanged(f"layer {name}", difference, layers[name].weight.dtype, roundings=4)
    swap(model, {modules[name]: layer for name, layer in layers.items()})
    try:
        yield compared
    except BaseException:
        swap(model, {layer: modules[name] for name, layer in layers.items()})
        raise


def _compare(model: nn.Module, analysis: Analysis, layers: Mapping[str, SampledConv2d]) -> _Compared:
    """Run the original on the first input it accepts, each convolution beside its replacement."""
    modules = {node.name: node.module for node in analysis.nodes if node.name in layers}
    replacements = {modules[name]: layer for name, layer in layers.items()}
    for inputs in analysis.proofs:
        try:
            before, found = layer_differences(model, inputs, replacements)
        except Exception as error:
            failure = error
            continue
        return _Compared(inputs, before, {name: found[m] for name, m in modules.items() if m in found})
    raise ConversionError(f"{type(model).__name__} does not run on its example input: {failure}") from failure


def _prove(
    model: nn.Module, layers: Mapping[str, SampledConv2d], compared: _Compared
) -> tuple[Difference | None, Difference | None]:
    """The whole model's difference, and that in float64 where rounding alone exceeds the tolerance.

    Both are None if the outputs' shapes depend on the data.
    """
    try:
        after = run(model, compared.inputs)
    except Exception as error:
        raise ConversionError(f"{type(model).__name__} does not run with the layers converted: {error}") from error
    found = output_difference(after, compared.before)
    exact = None
    if found is None:
        return None, None
    dtype = next((t.dtype for t in compared.before), torch.float32)
    try:
        check_unchanged("the output", found, dtype, roundings=16)
    except ConversionError:
        # An ill-conditioned network (a detector that decodes boxes) amplifies float32's rounding beyond the
        # tolerance. In float64 rounding vanishes, and a real difference stays.
        exact = difference_in_float64(model, compared.inputs, layers) if dtype == torch.float32 else None
        if exact is None:
            raise
        check_unchanged("the output in float64", exact, torch.float64, roundings=16)
    return found, exact


def difference_in_float64(model: nn.Module, inputs: Inputs, layers: Iterable[str]) -> Difference | None:
    """How far the converted ``layers`` move the output of a double-precision copy, where rounding vanishes.

    Args:
        model: converted.
        inputs: arguments that it accepts.
        layers: names of converted layers that still equal a convolution.

    Returns:
        The difference; None where the model does not run in double precision or its output's shapes differ.
    """
    double = full_copy(model).double()
    wide = torch.utils._pytree.tree_map(
        lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, inputs
    )
    try:
        after = run(double, wide)
        modules = dict(double.named_modules())
        swap(double, {modules[name]: restore(modules[name]) for name in layers})
        return output_difference(after, run(double, wide))
    except RuntimeError:
        return None


def _why_not_compared(model: nn.Module, layers: Mapping[str, SampledConv2d], init: str) -> str | None:
    if not layers:
        return "nothing was swapped"
    if init == "uniform":
        return "init='uniform' gives up the pretrained function"
    if init == "fit":
        return "init='fit' approximates the function"
    if _is_meta(model):
        return "a model on the meta device has no values"
    other = next((layer.kind for layer in layers.values() if not KINDS[layer.kind].lossless), None)
    return f"kind {other!r} starts as another function" if other else None


def _is_meta(model: nn.Module) -> bool:
    return any(p.is_meta for p in model.parameters())
