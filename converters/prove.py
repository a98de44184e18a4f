"""Prove a conversion: the original's run, with every convolution beside its replacement, and the converted model's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils import _pytree

from metric_zoo.converters.build import swap
from metric_zoo.converters.example_inputs import Inputs
from metric_zoo.converters.model_state import full_copy
from metric_zoo.converters.original import restore
from metric_zoo.converters.replacement import Replacement
from metric_zoo.converters.verify import Difference, nothing_compared, output_difference, run
from metric_zoo.converters.verify import difference as difference_of
from metric_zoo.errors import ConversionError
from metric_zoo.nn.recorder import Call, on_calls


@dataclass(frozen=True)
class Proof:
    """What is known of a conversion's effect; as of `metric_zoo.converters.report.ConversionReport`."""

    output: Difference | None = None
    output_float64: Difference | None = None
    not_compared: str | None = None


@dataclass(frozen=True)
class Reference:
    """What the model computed before the layers were swapped, and from what."""

    inputs: Inputs
    outputs: list[Tensor]


def run_original(model: nn.Module, candidates: Iterable[Inputs], beside: Sequence[Replacement]) -> Reference:
    """Run the original on the first input it accepts, each convolution beside its replacement.

    Raises:
        ConversionError: if it accepts none.
    """
    failure: Exception | None = None
    for inputs in candidates:
        try:
            return Reference(inputs, run_beside(model, inputs, beside))
        except Exception as error:
            failure = error
    raise ConversionError(f"{type(model).__name__} does not run on its example input: {failure}") from failure


def run_beside(model: nn.Module, inputs: Inputs, replacements: Sequence[Replacement]) -> list[Tensor]:
    """Run the original once; compare every convolution with its replacement on the inputs it sees.

    A network's output can hide a wrong layer (a residual branch that starts at gamma = 0, an empty list of boxes);
    a layer's own output cannot.

    Returns:
        The model's output tensors; the replacements have got their differences.
    """
    by_conv = {each.node.module: each for each in replacements}
    found: dict[Replacement, Difference] = {}

    def compare(call: Call) -> None:
        each = by_conv[call.module]
        new = difference_of(_quiet(each.built, call.input), call.output)
        found[each] = found[each] | new if each in found else new

    with on_calls(by_conv, compare):
        outputs = run(model, inputs)
    for each, difference in found.items():
        each.difference = difference
    return outputs


def _quiet(layer: nn.Module, input: Tensor) -> Tensor:
    """The layer without its hooks: they are the original's, and the user's run them in the model."""
    mode, layer.training = layer.training, False
    try:
        return layer.forward(input)
    finally:
        layer.training = mode


def moved_output(model: nn.Module, reference: Reference) -> Difference | None:
    """How far the converted model's output is from the original's; None if their shapes depend on the data.

    Raises:
        ConversionError: if the converted model does not run.
    """
    try:
        after = run(model, reference.inputs)
    except Exception as error:
        raise ConversionError(f"{type(model).__name__} does not run with the layers converted: {error}") from error
    return output_difference(after, reference.outputs)


def proof_of(found: Difference | None, exact: Difference | None = None) -> Proof:
    """Of the output's difference, and of that in float64; it says so where nothing was compared."""
    why = nothing_compared(found)
    return Proof(found, exact) if why is None else Proof(not_compared=why)


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
    wide = _pytree.tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, inputs)
    try:
        after = run(double, wide)
        modules = dict(double.named_modules())
        swap(double, {modules[name]: restore(modules[name]) for name in layers})
        return output_difference(after, run(double, wide))
    except RuntimeError:
        return None
