"""Convert a model in one call, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from metric_zoo.converters.adoption.swap import adopted_modules, give_back
from metric_zoo.converters.analyse import analyse
from metric_zoo.converters.build import swap, swapped
from metric_zoo.converters.check_model import check_model, check_not_sharded
from metric_zoo.converters.converted import as_converted
from metric_zoo.converters.graph import functional_leftovers, to_graph
from metric_zoo.converters.model_state import full_copy
from metric_zoo.converters.original import restore
from metric_zoo.converters.progress import progress
from metric_zoo.converters.replacement import chosen
from metric_zoo.converters.report import attach, detach, report_of
from metric_zoo.converters.resize import images_of
from metric_zoo.converters.selection.filters import Filters, Range
from metric_zoo.converters.selection.presets import prepared_for
from metric_zoo.converters.selection.select import Selection, check_selection, check_settled, select
from metric_zoo.converters.selection.where import Where
from metric_zoo.converters.strategies.choose import choose_strategy
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.kind import Promise, kind_of

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
    weights and gains a head (or, of a kind that approximates the kernel, gives it up). The result is checked on an
    example input before it is returned; after an error it is as it was. Two seconds and more show a bar on stderr.

    Args:
        model: any `nn.Module` with `nn.Conv2d` layers.
        to: a kind of `list_kinds`. One that promises an approximation (sparse kernel complexes, of large fixed
            depthwise kernels) is tried beside each convolution and kept where it is faster and close enough, as its
            options say. The report tells each layer's error and speed, and what was refused with its figure.
        where: which convolutions: a preset (``"paper"``, ``"last"``, ``"all"``, ``"stem+all"``), a regular expression,
            names, rules or a callable, as in `metric_zoo.converters.selection.select.Selection`; None is the default
            policy. With ``"paper"`` the network whose function is kept is one whose layer 4 runs at stride 1.
        stages, resolution, receptive_field: narrow the selection; see
            `metric_zoo.converters.selection.filters.Filters`. Stages count as ResNet's layers: ``stages=[2, 3, 4]`` is
            ``layer2`` to ``layer4``, or what has their resolution.
        example_input: a tensor ``(B, C, H, W)``, a tuple of positional arguments or a dict of keywords; None is a
            random image of the declared size. The model's own forward hooks see it too.
        init: ``"pretrained"`` keeps weights and function; ``"uniform"`` is the paper's start, constant kernels;
            ``"fit"`` takes layers that are sampled already, keeps their kernels, and finds the metrics whose balls
            their samples cover best on ``example_input``, real images; the report says how much the balls explain.
        inplace: convert this object instead of a copy.
        output: ``"module"``; or ``"graph"``, a `torch.fx.GraphModule` with the model's parameters but without its
            methods, right in training and in evaluation. In it `F.conv2d` calls on a parameter are convolutions too,
            named after it, unless they are made by a module without children, which stays one node.
        strict: raise where a selected convolution cannot be converted or nothing is, instead of reporting it; what
            ``where`` selects and options do not fit is an error in any case.
        options: of the kind's layer, for example ``sampling=``, ``eps_omega=``, ``offset_groups=``. ``head`` is
            ``"auto"`` unless given: no grouped or depthwise convolution gets a head larger than itself, but the
            smallest ones, of a few channels, which get the smallest head there is.

    Returns:
        The converted model; `conversion_report` tells what was done.

    Raises:
        ConversionError: if an argument is impossible, ``where`` selects nothing, or the output changed.
        MetricZooError: for an unknown kind or option.

    Example:
        >>> import timm, metric_zoo as mz
        >>> model = mz.convert(timm.create_model("resnet18"), to="metric")
        >>> type(model.layer2[0].conv1).__name__
        'MetricConv2d'
    """
    check_model(model)
    strategy = choose_strategy(to, init, options)
    _check_output(output)
    strategy.check(model, example_input)
    selection = Selection(to, where, Filters(stages, resolution, receptive_field), strict)
    if not inplace:
        model = full_copy(model)
    subject = to_graph(model) if output == "graph" else model
    with progress(subject, "converting"), prepared_for(where, subject):
        return _convert(subject, selection, strategy, example_input)


def _check_output(output: Any) -> None:
    if output not in OUTPUTS:
        raise ConversionError(f"output={output!r}: expected one of {OUTPUTS}{suggest(str(output), OUTPUTS)}")


def _convert(model: nn.Module, selection: Selection, strategy: Strategy, example_input: Any) -> nn.Module:
    """Convert this very object, or leave it as it was: understand, decide, build, prove, report."""
    analysis = analyse(model, example_input, neighbours=selection.asks_for_neighbours)
    leftovers = functional_leftovers(model) if isinstance(model, fx.GraphModule) else {}

    decided = select(analysis.nodes, selection, strategy)
    strategy.try_out(chosen(decided))
    check_selection(decided, leftovers, selection, model)
    check_settled(decided, strategy.options)

    replacements = chosen(decided)
    strategy.check_built(replacements)
    strategy.fill(model, analysis, replacements)

    with images_of(model, strategy.side(analysis)):
        reference = strategy.compare(model, analysis, replacements)
        with swapped(model, replacements):
            proof = strategy.prove(model, reference, replacements)
            strategy.finish(replacements)

    attach(model, report_of(model, decided, leftovers, proof))
    return model


def revert(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Put the ordinary convolutions back, with their classes and current weights, and give adopted layers theirs.

    That is exact only while no sampling rule has moved: heads still zero, offsets still zero. What approximates a
    kernel gives place to the kernel itself as long as it has not been trained. A ResNet that the
    paper's preset has dilated stays dilated. What `adopt` has taken over computes the same before and after, trained
    or not, but for the operator that it runs on.

    Args:
        model: a model from `convert` or `adopt`.
        inplace: revert this object instead of a copy.

    Returns:
        The model without sampled and adopted layers; with ``inplace=False`` the argument is untouched.

    Raises:
        ConversionError: naming the layers whose rule has been trained, for a sharded model, or for an adopted layer
            whose class has changed since. The model is then left as it was.
    """
    if not isinstance(model, nn.Module):
        raise ConversionError(f"model is a {type(model).__name__}, expected an nn.Module")
    check_not_sharded(model)
    layers = {name: m for name, m in model.named_modules() if kind_of(m) is not None}
    if any(p.is_meta for layer in layers.values() for p in layer.parameters()):
        raise ConversionError("a model on the meta device has no values: whether its rules have moved is unknown")
    moved = [name for name, layer in layers.items() if not as_converted(layer).is_identity()]
    if moved:
        kind = kind_of(layers[moved[0]])
        approximates = kind is not None and kind.promise is Promise.APPROXIMATION
        why = "its kernel was not saved with it, or it has changed" if approximates else "a trained sampling rule"
        raise ConversionError(
            f"{len(moved)} of {len(layers)} layers no longer equal a convolution, {moved[0]!r} the first ({why}): "
            "that cannot be reverted exactly"
        )
    adopted_modules(model)
    if not inplace:
        model = full_copy(model)
    for adopted in adopted_modules(model).values():
        give_back(adopted)
    swap(model, {m: restore(m) for m in model.modules() if kind_of(m) is not None})
    detach(model)
    return model
