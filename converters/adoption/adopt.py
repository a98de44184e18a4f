"""Adopt deformable layers of other libraries in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from metric_zoo.converters.adoption.prove import Comparison
from metric_zoo.converters.adoption.recognise import Candidate, survey
from metric_zoo.converters.adoption.swap import taken
from metric_zoo.converters.check_model import check_adoptable
from metric_zoo.converters.example_inputs import Inputs, candidate_inputs
from metric_zoo.converters.layer_report import LayerReport
from metric_zoo.converters.model_state import full_copy, is_meta
from metric_zoo.converters.prove import Proof
from metric_zoo.converters.report import ConversionReport, attach, earlier_report
from metric_zoo.converters.verify import Difference
from metric_zoo.nn.adopted import own_class

_CALLS = "torchvision.ops.deform_conv2d"
"""Under this name a report has calls that no module's code shows."""


def adopt(model: nn.Module, *, example_input: Any = None, inplace: bool = False) -> nn.Module:
    """Let the deformable convolutions of torchvision and mmcv that a model holds run on this project's operators.

    They then run on CPU without a build, in bfloat16, compiled as one operator, and in `torch.export` and
    `torch.onnx.export`. What is adopted:

    - `torchvision.ops.DeformConv2d`; its mask is taken as it is,
    - mmcv's ``DeformConv2d``, ``DeformConv2dPack``, ``ModulatedDeformConv2d`` and ``ModulatedDeformConv2dPack``, and
      the same layers under their older names, in any package: their name, attributes and the code of their ``forward``
      are recognised, mmcv need not be installed. A modulated pack keeps its plain sigmoid,
    - calls of `torchvision.ops.deform_conv2d` in the code of any other module, under any name and behind any branch:
      the module's own code runs, and the operator that it meets is ours.

    A module that is adopted stays the same object with the same parameters, buffers, hooks, attributes and mode. Its
    class becomes one that is derived from its own (``AdoptedDeformConv2d``): state dicts keep their keys, and load
    strictly in both directions. It is a leaf for `torch.fx`, and can be copied and pickled. What is lost:
    `torch.jit.script` is refused, and a module with calls pays a look at each of its operations where it is not
    compiled.

    The function is the same to rounding. Where an offset is a whole number its gradient is the mean of both sides;
    torchvision's and mmcv's is that of one side. Under autocast the operator computes in autocast's dtype, as
    `torch.nn.functional.conv2d` does; torchvision's computes in float32 on CUDA, and does not run on CPU.

    Args:
        model: any `nn.Module`.
        example_input: a tensor ``(B, C, H, W)``, a tuple of positional arguments or a dict of keywords, on which the
            adopted model is compared with the original, layer by layer and as a whole; None compares nothing.
        inplace: adopt in this object instead of a copy.

    Returns:
        The model. `conversion_report` tells what was adopted, what was left alone and why, and the differences on the
        example input. A model without deformable layers comes back as it is, and its report says so: the call may
        stand in a pipeline, and be repeated. `revert` gives the layers their classes back.

    Raises:
        ConversionError: if ``model`` is no module, or wrapped, scripted or compiled; if the adopted model does not run
            on the example input, or computes something else. The model is then left exactly as it was.

    Example:
        >>> import torch, torchvision, metric_zoo as mz
        >>> class Block(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.offset = torch.nn.Conv2d(4, 18, 3, padding=1)
        ...         self.deform = torchvision.ops.DeformConv2d(4, 8, 3, padding=1)
        ...     def forward(self, x):
        ...         return self.deform(x, self.offset(x))
        >>> block = mz.adopt(Block(), example_input=torch.rand(1, 4, 9, 9))
        >>> block.deform
        AdoptedDeformConv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        >>> block(torch.rand(1, 4, 9, 9)).shape
        torch.Size([1, 8, 9, 9])
    """
    check_adoptable(model)
    inputs = None if example_input is None else next(candidate_inputs(model, example_input))
    return _adopt(model if inplace else full_copy(model), inputs)


def _adopt(model: nn.Module, inputs: Inputs | None) -> nn.Module:
    """Adopt in this very object, or leave it as it was."""
    adopted, left = survey(model)
    if inputs is None or is_meta(model):
        why = "no example_input was given" if inputs is None else "a model on the meta device has no values"
        with taken(adopted):
            _report(model, adopted, left, Proof(not_compared=why))
        return model
    comparison = Comparison(inputs, adopted)
    comparison.run_original(model)
    with taken(adopted):
        proof = comparison.run_adopted(model)
    if comparison.calls_left:
        left[_CALLS] = f"{comparison.calls_left} calls on the example input, from code that does not show them"
    _report(model, adopted, left, proof, comparison.differences)
    return model


def _report(
    model: nn.Module,
    adopted: Sequence[Candidate],
    left: Mapping[str, str],
    proof: Proof,
    differences: Mapping[str, Difference] = MappingProxyType({}),
) -> None:
    """Attach what was done; what an earlier conversion left alone stays so."""
    earlier = earlier_report(model)
    report = ConversionReport(
        own_class(model).__name__,
        converted={each.name: _described(each, differences.get(each.name)) for each in adopted},
        skipped={**(earlier.skipped if earlier else {}), **left},
        output=proof.output,
        output_float64=proof.output_float64,
        not_compared=proof.not_compared,
    )
    attach(model, report)


def _described(each: Candidate, difference: Difference | None) -> LayerReport:
    module: Any = each.module
    return LayerReport(
        kind=f"adopted {own_class(module).__name__}",
        options={},
        kernel=tuple(module.weight.shape[2:]) if each.is_layer else (),
        input_shape=None,
        output_shape=None,
        head="",
        head_parameters=0,
        difference=difference,
    )
