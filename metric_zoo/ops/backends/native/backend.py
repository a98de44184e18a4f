"""What the ``native`` backend says of itself."""

from __future__ import annotations

from metric_zoo.ops.backends.base import Backend
from metric_zoo.ops.backends.native import blended, library, operators


class Native(Backend):
    """C++ on CPU."""

    name = "native"
    device = "cpu"
    dtypes = tuple(library.TYPES)
    differentiates_blended = True
    forward = staticmethod(operators.forward)
    backward = staticmethod(operators.backward)
    forward_blended = staticmethod(blended.forward)
    backward_blended = staticmethod(blended.backward)

    def why_unavailable(self) -> str:
        return library.why_unavailable()

    def instructions(self) -> str | None:
        return library.limit_isa()
