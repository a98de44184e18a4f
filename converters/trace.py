"""Tracing that survives modules which torch.fx cannot enter."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.experimental.meta_tracer import MetaTracer

from metric_zoo.converters.example_inputs import Inputs
from metric_zoo.converters.model_state import SHARED

_MAX_RETRIES = 25
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class LeafRetryTracer(fx.Tracer):
    """A tracer that does not enter convolutions, childless modules, or module types that failed before."""

    def __init__(self, leaves: tuple[type, ...] = ()) -> None:
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


class _ConcreteTracer(LeafRetryTracer, MetaTracer):
    """The same, with the shapes of one input: what a model decides by them is decided."""


def trace(model: nn.Module) -> fx.GraphModule | None:
    """Trace ``model`` symbolically; whatever module type fails becomes a leaf and tracing starts again.

    Returns:
        A GraphModule over the model's own modules, or None if it cannot be traced.
    """
    return _retry(model, lambda tracer: tracer.trace(model), LeafRetryTracer)


def trace_concrete(model: nn.Module, inputs: Inputs) -> fx.GraphModule | None:
    """Trace ``model`` for inputs of these shapes: good for reading, not for running on others.

    Args:
        model: on the meta device.
        inputs: meta tensors.
    """
    defaults = {name: p.default for name, p in inspect.signature(model.forward).parameters.items()}
    names = [name for name, default in defaults.items() if default is inspect.Parameter.empty]
    given = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=False))
    if not given.keys() >= set(names) or not all(isinstance(given[name], Tensor) for name in names):
        return None
    optional = {name: default for name, default in defaults.items() if name not in names}
    shapes = {name: given[name] for name in names}
    with SHARED, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that it cannot follow
        return _retry(model, lambda tracer: tracer.trace(model, shapes, concrete_args=optional), _ConcreteTracer)


def _retry(model: nn.Module, run: Callable[[Any], fx.Graph], make: type[LeafRetryTracer]) -> fx.GraphModule | None:
    leaves: tuple[type, ...] = (nn.Conv2d,)
    for _ in range(_MAX_RETRIES):
        tracer = make(leaves)
        try:
            with SHARED:
                graph = run(tracer)
            return fx.GraphModule(tracer.root, graph, type(model).__name__)
        except Exception:
            if tracer.failed is None or tracer.failed in (*leaves, type(model)):
                return None
            leaves = (*leaves, tracer.failed)
    return None
