"""Symbolic tracing that survives modules which torch.fx cannot enter."""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn

_MAX_RETRIES = 25
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


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
