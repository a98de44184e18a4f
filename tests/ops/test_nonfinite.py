"""Infinity and NaN spoil what they must and nothing else, on every fused backend."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import ops
from metric_zoo.geometry import RandersMetric
from metric_zoo.ops.backends.native import library
from tests.conftest import interpreted


@pytest.fixture(autouse=True, params=["native", pytest.param("triton", marks=interpreted)])
def backend(request):
    if request.param == "native" and not library.is_available():
        pytest.skip(library.why_unavailable())
    with ops.use_backend(request.param):
        yield


def test_infinity_beside_a_pixel_that_is_read_exactly_does_not_matter():
    """conv2d is the oracle: bilinear weights of zero read nothing."""
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    x[0, 1, 4, 4] = math.inf
    x[0, 2, 0, 7] = math.nan
    metric = RandersMetric.identity(1, 1, 8, 8)
    ours, theirs = ops.metric_conv2d(x, weight, metric, padding=1), F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(ours.isfinite(), theirs.isfinite())
    finite = theirs.isfinite()
    torch.testing.assert_close(ours[finite], theirs[finite], rtol=1e-5, atol=1e-5)


def test_nan_metric_spoils_its_pixel_only():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    packed = RandersMetric.identity(2, 1, 8, 8).packed
    packed[1, 0, 2, 5] = math.nan
    spoiled = ops.metric_conv2d(x, weight, packed, padding=1).isnan()
    assert spoiled[1, :, 2, 5].all() and spoiled.sum() == 4
