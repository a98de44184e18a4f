"""Understand a model: every convolution's shapes, calls and order by hooks, its neighbours by torch.fx.

The trace is read, never shipped: a GraphModule loses a model's class and methods.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from metric_zoo.converters.inputs import candidate_inputs, to_meta
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.errors import ConversionError
from metric_zoo.nn.head import PredictionHead

_MAX_RETRIES = 25
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Analysis:
    """What is known about a model.

    Attributes:
        nodes: its convolutions in module order.
        inputs: real positional arguments on which the model runs.
        traced: whether torch.fx saw every convolution that ran.
    """

    nodes: list[ConvNode]
    inputs: tuple[Any, ...]
    traced: bool


@dataclass
class _Call:
    order: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    calls: int = 1


@dataclass
class _Topology:
    norms: dict[str, str] = field(default_factory=dict)
    padded: set[str] = field(default_factory=set)


def analyse(model: nn.Module, example_input: Any = None) -> Analysis:
    """Run ``model`` once on an example input, on the meta device where it allows that, and trace it.

    Args:
        model: any module; it is left as it was.
        example_input: a tensor, a tuple of positional arguments, or None for a random image of the declared size.

    Raises:
        ConversionError: if the model runs on none of the inputs tried.
    """
    convolutions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not isinstance(module, PredictionHead)
    }
    inputs, calls = _record(model, example_input, convolutions)
    topology = _topology(model, inputs, set(calls))
    known = topology or _Topology()
    nodes = [_node(name, module, calls.get(name), known) for name, module in convolutions.items()]
    return Analysis(nodes, inputs, topology is not None)


def _node(name: str, module: nn.Conv2d, call: _Call | None, topology: _Topology) -> ConvNode:
    return ConvNode(
        name=name,
        module=module,
        kernel=module.kernel_size,
        stride=module.stride,
        dilation=module.dilation,
        groups=module.groups,
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        input_shape=call.input_shape if call else None,
        output_shape=call.output_shape if call else None,
        calls=call.calls if call else 0,
        order=call.order if call else None,
        norm=topology.norms.get(name),
        explicit_pad=name in topology.padded,
    )


def _record(model: nn.Module, example_input: Any, names: Any) -> tuple[tuple[Any, ...], dict[str, _Call]]:
    """Find arguments the model accepts: first without arithmetic, on a meta copy, then for real."""
    failures = []
    for inputs in candidate_inputs(model, example_input):
        for run, arguments in ((meta_copy, to_meta(inputs)), (None, inputs)):
            try:
                return inputs, _hooked_run(run(model) if run else model, arguments, names)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    given = "the example_input given" if example_input is not None else "any example input tried; pass example_input="
    raise ConversionError(f"{type(model).__name__} does not run on {given} ({failures[1]})")


def _hooked_run(model: nn.Module, inputs: tuple[Any, ...], names: Any) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}

    def hook(name: str):
        def record(module: nn.Module, arguments: tuple, named: dict[str, Tensor], output: Tensor) -> None:
            if name in calls:
                calls[name].calls += 1
            else:
                image = (*arguments, *named.values())[0]
                calls[name] = _Call(len(calls), tuple(image.shape), tuple(output.shape))

        return record

    handles = [m.register_forward_hook(hook(n), with_kwargs=True) for n, m in model.named_modules() if n in names]
    try:
        with evaluation(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def meta_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes but no storage."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty.detach()
        )
    return copy.deepcopy(model, memo)


class LeafRetryTracer(fx.Tracer):
    """A tracer that does not enter convolutions, childless modules, or module types that failed before."""

    def __init__(self, leaves: tuple[type, ...]) -> None:
        super().__init__(autowrap_modules=(math,))
        self.leaves = leaves
        self.failed: type | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A childless module may choose by self.training (drop path); as a leaf it still does so in the graph. A
        # normalisation with an activation inside is one layer to its neighbours.
        return (
            isinstance(m, (*self.leaves, *_NORMS))
            or next(m.children(), None) is None
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = type(m)
            raise


def trace(model: nn.Module) -> fx.GraphModule | None:
    """Trace ``model`` symbolically; whatever module type fails becomes a leaf and tracing starts again.

    Returns:
        A GraphModule over the model's own modules, or None if it cannot be traced.
    """
    leaves: tuple[type, ...] = (nn.Conv2d,)
    for _ in range(_MAX_RETRIES):
        tracer = LeafRetryTracer(leaves)
        try:
            graph = tracer.trace(model)
            return fx.GraphModule(tracer.root, graph, type(model).__name__)
        except Exception:
            if tracer.failed is None or tracer.failed in (*leaves, type(model)):
                return None
            leaves = (*leaves, tracer.failed)
    return None


def _topology(model: nn.Module, inputs: tuple[Any, ...], called: set[str]) -> _Topology | None:
    """Neighbours of the convolutions, or None unless the trace shows every convolution that ran and itself runs."""
    try:
        # Tracing leaks proxies into some models' caches, so a copy is traced.
        copied = meta_copy(model).eval()
        graph = trace(copied)
        if graph is None:
            return None
        with torch.no_grad():
            graph(*to_meta(inputs))
    except Exception:
        return None
    modules = dict(graph.named_modules())
    topology, visible = _Topology(), set()
    for node in graph.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.Conv2d):
            continue
        visible.add(node.target)
        if len(node.users) == 1:
            user = next(iter(node.users))
            if user.op == "call_module" and "Norm" in type(modules[user.target]).__name__:
                topology.norms[node.target] = user.target
        if _is_pad(next(iter(node.all_input_nodes), None), modules):
            topology.padded.add(node.target)
    return topology if called <= visible else None


def _is_pad(node: Any, modules: dict[str, nn.Module]) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return "Pad" in type(modules[node.target]).__name__
    return node.op == "call_function" and node.target is nn.functional.pad
