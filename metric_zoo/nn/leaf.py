"""What `torch.fx` records of a layer: one call, whichever tracer looks."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.fx import Proxy, Tracer


class Leaf(nn.Module):
    """A module that symbolic tracing does not enter.

    A tracer takes modules of the framework for leaves, and enters all others; torchvision's and timm's feature
    extractors have tracers of their own. So the module answers for itself when it is called with what they pass, before
    its hooks and its ``forward`` see anything that is no tensor.
    """

    @property
    def itself(self) -> Leaf:
        """The module: its name where it is the root of what is traced, whose own name is empty."""
        return self

    def _call_impl(self, *args, **kwargs):
        input = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(input, Proxy):
            return self.recorded(input, *args, **kwargs)
        return super()._call_impl(*args, **kwargs)

    def recorded(self, proxy: Proxy, *args, **kwargs) -> Any:
        """A node that calls this module; for a ``forward`` that is itself the root, or called by name."""
        tracer = cast("Tracer", proxy.tracer)  # others meet no modules
        target = tracer.path_of_module(self) or "itself"
        return tracer.create_proxy("call_module", target, args, kwargs)
