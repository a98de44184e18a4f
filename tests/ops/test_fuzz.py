"""The native backend against the torch backend on shapes and options that nobody chose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metric_zoo import MetricZooError
from metric_zoo.benchmarks.operators.calls import KINDS, Call, assert_alike
from metric_zoo.ops.backends.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())


@pytest.fixture(autouse=True, params=[None])
def backend():
    """Each call names its backend."""


small = st.integers(1, 4)
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def calls(draw) -> Call:
    kind = draw(st.sampled_from(KINDS))
    groups, fields = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (2, 3), (3, 2), (4, 4)]))
    per_group = draw(st.sampled_from([1, 1, 2, 5, 17, 40]))
    channels = groups * fields * per_group
    out_channels = groups * draw(st.sampled_from([1, 2, 5, 18, 35]))
    if draw(st.booleans()):  # depthwise
        groups = out_channels = channels
    sampling = draw(st.sampled_from(["grid", "grid", "zermelo", "polar", "onion"])) if kind == "metric" else "grid"
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    if sampling in ("polar", "onion"):
        kernel = (3, 3) if sampling == "onion" else (kernel[0], kernel[0])
    if kind in ("snake", "star"):  # there must be cells beside the middle
        kernel = (kernel[0], max(kernel[1], 3))
    return Call(
        kind=kind,
        batch=draw(st.integers(0, 3)),
        size=draw(st.tuples(st.integers(1, 12), st.integers(1, 12))),
        channels=channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=draw(st.tuples(small, small)),
        padding=draw(st.tuples(pads, pads)),
        dilation=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        groups=groups,
        fields=fields,
        bias=draw(st.booleans()),
        sampling=sampling,
        channels_last=draw(st.booleans()),
        seed=draw(st.integers(0, 100)),
        dtype=torch.float64,
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(calls())
def test_native_equals_torch(call):
    try:
        call.leaves()
    except MetricZooError:  # the kernel does not fit into the image
        assume(False)
    assert_alike(call.outcome("native"), call.outcome("torch"), 1e-10)


extremes = st.sampled_from([0.0, 1.0, -1.0, 1e-38, 1e30, float("inf"), -float("inf"), float("nan")])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(calls(), st.sampled_from(["input", "weight", "field"]), extremes, extremes, st.integers(0, 1000))
def test_no_value_crashes(call, name, first, second, seed):
    """Numbers that break most kernels: whatever comes out, memory holds, and untouched images stay finite."""
    try:
        leaves = call.leaves()
    except MetricZooError:
        assume(False)
    draw = torch.Generator().manual_seed(seed)
    flat = leaves[name].reshape(-1)
    if flat.numel():
        flat[torch.randint(flat.numel(), (3,), generator=draw)] = torch.tensor([first, second, first]).to(flat)
    leaves = {key: tensor.requires_grad_() for key, tensor in leaves.items()}
    output = call.run(**leaves)
    output.sum().backward()
    assert output.shape[0] == call.batch and all(leaf.grad.shape == leaf.shape for leaf in leaves.values())
