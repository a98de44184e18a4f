"""Understand a model: every convolution's shapes, calls and order by hooks, its neighbours by torch.fx.

The trace is read, never shipped: a GraphModule loses a model's class and methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from metric_zoo.converters.conv_types import find_convolutions
from metric_zoo.converters.example_inputs import Inputs, call, candidate_inputs, cropped, why_not_accepted
from metric_zoo.converters.model_state import meta_copy, to_meta
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.resize import enlarges, images_of
from metric_zoo.converters.selection.stages import stages_of
from metric_zoo.converters.topology import Topology, topology_of
from metric_zoo.errors import ConversionError
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.recorder import Call, on_calls

_PROOF_SIDES = (96, 64, 128)
"""Pixels, in order of preference: enough for every layer to have an inside and a border, cheap enough to run twice."""


@dataclass(frozen=True)
class Analysis:
    """What is known about a model.

    Attributes:
        nodes: its convolutions in module order; shapes are those at the declared size.
        proofs: arguments on which a conversion can be proved, the cheapest first: a small image, if the model calls
            the same convolutions on it; an image of the declared size, or the caller's input and only that.
        side: to what a detector may resize the image of a proof, in pixels; None is its own size.
        traced: whether torch.fx saw every convolution that ran; None if it was not asked.
    """

    nodes: list[ConvNode]
    proofs: list[Inputs]
    traced: bool | None = None
    side: int | None = None


@dataclass
class _Calls:
    order: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stem: bool
    calls: int = 1


def analyse(model: nn.Module, example_input: Any = None, neighbours: bool = True) -> Analysis:
    """Run ``model`` once on an example input, on the meta device where it allows that, and trace it.

    Args:
        model: any module; it is left as it was.
        example_input: a tensor, a tuple of positional arguments, a dict of keywords, or None for a random image of the
            declared size.
        neighbours: trace the model, for the `ConvNode`'s norm, explicit_pad and receptive_field.

    Raises:
        ConversionError: if the model runs on none of the inputs tried.
    """
    convolutions = find_convolutions(model)
    bare = meta_copy(model)
    inputs, calls, dry = _record(model, bare, example_input, convolutions)
    small, side = [], None
    if example_input is None and (dry or enlarges(model)):
        small, side = _small_inputs(*((bare, to_meta(inputs)) if dry else (model, inputs)), inputs, calls)
    topology = topology_of(bare, to_meta(inputs), set(calls)) if neighbours else Topology()
    stages = stages_of(model, _reductions(calls))
    nodes = [_node(name, module, calls.get(name), stages.get(name), topology) for name, module in convolutions.items()]
    return Analysis(nodes, [*small, inputs], set(calls) <= topology.visible if neighbours else None, side)


def _node(name: str, module: nn.Module, call: _Calls | None, stage: int | None, topology: Topology) -> ConvNode:
    conv = cast(_ConvNd, module)  # others, such as quantized ones, have the same attributes
    return ConvNode(
        name=name,
        module=module,
        kernel=conv.kernel_size,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        input_shape=call.input_shape if call else None,
        output_shape=call.output_shape if call else None,
        calls=call.calls if call else 0,
        order=call.order if call else None,
        stem=call.stem if call else False,
        stage=stage,
        norm=topology.norms.get(name),
        explicit_pad=name in topology.padded,
        receptive_field=topology.fields.get(name),
    )


def _reductions(calls: dict[str, _Calls]) -> dict[str, float]:
    """Image size / output size of every convolution whose output is a map, not a pooled vector.

    The image is what the first convolution reads: a detector resizes what it is given.
    """
    side = next((min(call.input_shape[-2:]) for call in calls.values()), 1)
    outputs = {name: min(call.output_shape[-2:]) for name, call in calls.items()}
    return {name: side / output for name, output in outputs.items() if output > 1}


def _record(
    model: nn.Module, bare: nn.Module, example_input: Any, names: Any
) -> tuple[Inputs, dict[str, _Calls], bool]:
    """Find arguments the model accepts: first without arithmetic, on its meta copy, then for real.

    Returns:
        The arguments, the calls, and whether the meta copy made them.
    """
    failures = []
    for inputs in candidate_inputs(model, example_input):
        for runner, arguments in ((bare, to_meta(inputs)), (model, inputs)):
            try:
                return inputs, _recorded_run(runner, arguments, names), runner is bare
            except Exception as error:
                failures.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    why = why_not_accepted(model, example_input)
    raise ConversionError(f"{type(model).__name__} does not run on {why} ({failures[1]})")


def _small_inputs(
    runner: nn.Module, arguments: Inputs, inputs: Inputs, calls: dict[str, _Calls]
) -> tuple[list[Inputs], int | None]:
    """A crop of ``inputs``, with its side, on which the model calls the same convolutions as often; else none."""
    wanted = {name: each.calls for name, each in calls.items()}
    for side in _PROOF_SIDES:
        try:
            with images_of(runner, side):
                found = _recorded_run(runner, cropped(arguments, side), calls)
        except Exception:
            continue
        if {name: each.calls for name, each in found.items()} == wanted:
            return [cropped(inputs, side)], side
    return [], None


def _recorded_run(model: nn.Module, inputs: Inputs, names: Any) -> dict[str, _Calls]:
    calls: dict[str, _Calls] = {}
    first: list[Tensor] = []  # what the first convolution reads; all branches of a stem read this very tensor

    convolutions = {module: name for name, module in model.named_modules() if name in names}

    def note(made: Call) -> None:
        name, image = convolutions[made.module], made.input
        if name in calls:
            calls[name].calls += 1
            return
        if not first:
            first.append(image)
        calls[name] = _Calls(len(calls), tuple(image.shape), tuple(made.output.shape), image is first[0])

    with on_calls(convolutions, note), evaluation(model):
        # The call of a GraphModule prints what failed, and failing is part of the search.
        call(model.forward if isinstance(model, fx.GraphModule) else model, inputs)
    return calls
