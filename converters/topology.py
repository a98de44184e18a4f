"""The neighbours of a model's convolutions, from the best trace that can be had.

First the whole model, symbolically; then with the shapes of one input; then in parts, each module that traces by
itself, which finds a detector's backbone. A trace counts only if it runs and shows every convolution that ran.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from metric_zoo.converters.example_inputs import Inputs, call
from metric_zoo.converters.model_state import meta_copy
from metric_zoo.converters.selection.receptive import receptive_fields
from metric_zoo.converters.trace import trace, trace_concrete
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.recorder import Call, on_calls


@dataclass
class Topology:
    """What a trace tells of convolutions.

    Attributes:
        visible: the convolutions it shows.
        norms: convolution -> the normalisation that alone reads it.
        padded: convolutions that read a padding operation.
        fields: convolution -> receptive field; empty where the model was traced in parts.
    """

    visible: set[str] = field(default_factory=set)
    norms: dict[str, str] = field(default_factory=dict)
    padded: set[str] = field(default_factory=set)
    fields: dict[str, int] = field(default_factory=dict)


def topology_of(bare: nn.Module, inputs: Inputs, called: set[str]) -> Topology:
    """The topology of the convolutions that a trace shows, all of them where ``called <= visible``.

    Args:
        bare: the model on the meta device; it is left as it was.
        inputs: meta tensors it accepts.
        called: names of the convolutions that these inputs call.
    """
    # Tracing leaks proxies into some models' caches: every attempt gets a copy.
    for attempt in (trace, lambda model: trace_concrete(model, inputs)):
        graph = attempt(meta_copy(bare).eval())
        if graph is None or not _runs(graph, inputs):
            continue
        topology = _read(graph)
        if called <= topology.visible:
            topology.fields = receptive_fields(graph)
            return topology
    return _of_parts(bare, inputs, called)


def _of_parts(bare: nn.Module, inputs: Inputs, called: set[str]) -> Topology:
    """Trace the largest modules that can be traced by themselves."""
    arguments = _arguments(bare, inputs)
    whole = Topology()
    pending = [(name, child) for name, child in bare.named_children()]
    while pending:
        name, module = pending.pop()
        wanted = {conv for conv in called if conv.startswith(f"{name}.")}
        if not wanted:
            continue
        graph = trace(meta_copy(module).eval()) if name in arguments else None
        part = _read(graph, f"{name}.") if graph is not None and _runs(graph, arguments[name]) else Topology()
        if wanted <= part.visible:
            whole.visible |= part.visible
            whole.norms |= part.norms
            whole.padded |= part.padded
        else:
            pending += [(f"{name}.{key}", child) for key, child in module.named_children()]
    return whole


def _arguments(bare: nn.Module, inputs: Inputs) -> dict[str, Inputs]:
    """The arguments that every module gets first."""
    found: dict[str, Inputs] = {}

    parts = {module: name for name, module in bare.named_modules() if name and next(module.children(), None)}

    def note(made: Call) -> None:
        bound = inspect.signature(made.module.forward).bind(*made.args, **made.kwargs)
        found.setdefault(parts[made.module], dict(bound.arguments) if bound.kwargs else bound.args)

    # A model may need values, not shapes: what ran until then is known.
    with suppress(Exception), on_calls(parts, note, before=True), evaluation(bare):
        call(bare, inputs)
    return found


def _runs(graph: fx.GraphModule, inputs: Inputs) -> bool:
    try:
        with torch.no_grad():
            fx.Interpreter(graph).run(*_in_order(graph, inputs))  # unlike a call, it prints nothing when it fails
    except Exception:
        return False
    return True


def _in_order(graph: fx.GraphModule, inputs: Inputs) -> tuple[Any, ...]:
    """Arguments as an interpreter takes them: keywords and defaults where the graph has its placeholders."""
    if not isinstance(inputs, dict):
        return inputs
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    return tuple(inputs[place.target] if place.target in inputs else place.args[0] for place in places)


def _read(graph: fx.GraphModule, prefix: str = "") -> Topology:
    topology = Topology()
    for node in _convolutions(graph):
        name = prefix + str(node.target)
        topology.visible.add(name)
        norm = _norm(node, graph)
        if norm is not None:
            topology.norms[name] = prefix + norm
        if _is_pad(next(iter(node.all_input_nodes), None), graph):
            topology.padded.add(name)
    return topology


def _convolutions(graph: fx.GraphModule) -> Iterator[fx.Node]:
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], nn.modules.conv._ConvNd):
            yield node


def _norm(node: fx.Node, graph: fx.GraphModule) -> str | None:
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    is_norm = user.op == "call_module" and "Norm" in type(graph.get_submodule(str(user.target))).__name__
    return str(user.target) if is_norm else None


def _is_pad(node: Any, graph: fx.GraphModule) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return "Pad" in type(graph.get_submodule(str(node.target))).__name__
    return node.op == "call_function" and node.target is nn.functional.pad
