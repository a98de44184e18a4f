"""Every test of an operator runs on every fused backend that this machine has, and on torch."""

from __future__ import annotations

import pytest

from metric_zoo import ops
from metric_zoo.ops.backends.native import library


@pytest.fixture(params=["native", "torch"], autouse=True)
def backend(request):
    if request.param == "native" and not library.is_available():
        pytest.skip(f"native backend: {library.why_unavailable()}")
    with ops.use_backend(request.param):
        yield request.param
