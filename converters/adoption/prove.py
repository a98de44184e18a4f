"""An adopted model computes what it computed, on an input that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from metric_zoo.converters.adoption.recognise import Candidate
from metric_zoo.converters.adoption.swap import adopted_modules, give_back
from metric_zoo.converters.example_inputs import Inputs
from metric_zoo.converters.model_state import full_copy
from metric_zoo.converters.prove import Proof, proof_of
from metric_zoo.converters.verify import Difference, check_unchanged, difference, output_difference, run
from metric_zoo.errors import ConversionError
from metric_zoo.nn.recorder import Call, on_calls
from metric_zoo.nn.substitution import is_torchvisions
from metric_zoo.text import told


class Comparison:
    """The original's run, with each layer beside what it will be, and then the adopted model's.

    Attributes:
        differences: of every layer that was compared, by its name.
        calls_left: how often the adopted model still called torchvision's operator.
    """

    def __init__(self, inputs: Inputs, adopted: Sequence[Candidate]) -> None:
        self.inputs = inputs
        self.differences: dict[str, Difference] = {}
        self.calls_left = 0
        self._layers = {each.module: each for each in adopted if each.is_layer}
        self._outputs: list[Tensor] | None = None
        self._failure = ""

    def run_original(self, model: nn.Module) -> None:
        """Before anything is adopted. It may fail: a layer's compiled part may be missing here.

        Raises:
            ConversionError: if a layer would compute something else.
        """
        try:
            with on_calls(self._layers, self._compare):
                self._outputs = run(model, self.inputs)
        except Exception as error:  # whatever a missing kernel raises
            self._failure = f"the original does not run here: {told(error)}"
        for module, each in self._layers.items():
            if each.name in self.differences:
                dtype = next(module.parameters()).dtype
                check_unchanged(f"layer {each.name}", self.differences[each.name], dtype, roundings=4)

    def _compare(self, call: Call) -> None:
        each = self._layers[call.module]
        found = difference(each.compute(call.module, *call.args, **call.kwargs), call.output)
        earlier = self.differences.get(each.name)
        self.differences[each.name] = found if earlier is None else earlier | found

    def run_adopted(self, model: nn.Module) -> Proof:
        """After everything was.

        Raises:
            ConversionError: if the model does not run, or computes something else.
        """
        try:
            with _CallsLeft() as left:
                after = run(model, self.inputs)
        except Exception as error:
            name = type(model).__name__
            raise ConversionError(f"{name} does not run on the example input, adopted: {told(error)}") from error
        self.calls_left = left.count
        if self._outputs is None:
            return Proof(not_compared=self._failure)
        found = output_difference(after, self._outputs)
        return proof_of(found, None if found is None else self._exact(model, found))

    def _exact(self, model: nn.Module, found: Difference) -> Difference | None:
        """None where only rounding moved the output; else the difference in float64, where that shows that it was
        rounding which the network amplifies."""
        dtype = next((tensor.dtype for tensor in self._outputs or []), torch.float32)
        try:
            check_unchanged("the output", found, dtype, roundings=16)
            return None
        except ConversionError:
            exact = _in_float64(model, self.inputs) if dtype == torch.float32 else None
            if exact is None:
                raise
            check_unchanged("the output in float64", exact, torch.float64, roundings=16)
            return exact


class _CallsLeft(TorchFunctionMode):
    """Counts calls of torchvision's operator that nothing inside has taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch asks for it."""
        self.count += is_torchvisions(func)
        return func(*args, **(kwargs or {}))


def _in_float64(model: nn.Module, inputs: Inputs) -> Difference | None:
    """None where the model does not run in double precision, or its output's shapes differ."""
    double = full_copy(model).double()
    wide = _pytree.tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, inputs)
    try:
        after = run(double, wide)
        for module in adopted_modules(double).values():
            give_back(module)
        return output_difference(after, run(double, wide))
    except RuntimeError:
        return None
