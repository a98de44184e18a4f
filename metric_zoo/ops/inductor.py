"""Inductor calls the operators whole, though the framework's table says, for exporters, what they amount to."""

from __future__ import annotations

import sys


def keep_whole(operator: str) -> None:
    """Of its qualified name. Where the environment names CI, inductor refuses an operator that has a decomposition it
    was not given, unless the operator is on this list. Called where shapes are computed: inductor, too, comes there
    first, and is not imported for it."""
    allowed = getattr(sys.modules.get("torch._inductor.lowering"), "FALLBACK_ALLOW_LIST", None)
    if allowed is not None:
        allowed.add(operator)
