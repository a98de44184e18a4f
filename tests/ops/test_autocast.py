"""Under autocast an operator takes and returns the dtypes that `torch.nn.functional.conv2d` takes and returns."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.geometry import RandersMetric
from metric_zoo.geometry.sampling import grid_offsets

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MODES = {
    "none": nullcontext,
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "without cache": lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    "disabled": lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
    "of another device": lambda: torch.autocast("cuda", torch.bfloat16),
}
AT_THE_IDENTITY = {
    "deform": lambda x, w, b: ops.deform_conv2d(x, torch.zeros(2, 18, 5, 5), w, b, padding=1),
    "sampled": lambda x, w, b: ops.sampled_conv2d(x, w, grid_offsets((3, 3))[None, :, :, None, None], b, padding=1),
    "metric": lambda x, w, b: ops.metric_conv2d(x, w, RandersMetric.identity(2, 1, 5, 5), b, padding=1),
    "shifted": lambda x, w, b: ops.shifted_conv2d(x, torch.zeros(2, 2, 5, 5), w, b, padding=1),
}


def whole_numbers(*shape: int) -> torch.Tensor:
    """Of which no dtype rounds a sum of products."""
    return torch.randint(-2, 3, shape).double()


def expected(mode, *tensors):
    """Of conv2d; None where it refuses the dtypes."""
    try:
        with MODES[mode]():
            return F.conv2d(*tensors, padding=1)
    except RuntimeError:
        return None


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", AT_THE_IDENTITY)
def test_dtypes_and_values_are_those_of_conv2d(name, mode):
    numbers = whole_numbers(2, 3, 5, 5), whole_numbers(4, 3, 3, 3), whole_numbers(4)
    for input, weight, bias in product(DTYPES, DTYPES, (None, *DTYPES)):
        dtypes = [d for d in (input, weight, bias) if d is not None]
        leaves = [n.clone().to(d).requires_grad_() for n, d in zip(numbers, dtypes, strict=False)]
        tensors = [*leaves, None][:3]
        theirs = expected(mode, *tensors)
        if theirs is None:
            with MODES[mode](), pytest.raises(MetricZooError, match="dtype"):
                AT_THE_IDENTITY[name](*tensors)
            continue
        with MODES[mode]():
            ours = AT_THE_IDENTITY[name](*tensors)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), dtypes
        ours.sum().backward()
        assert [leaf.grad.dtype for leaf in leaves] == dtypes


AS_CONV2D = {"DilatedConv2d": {"factor": 1}}


@pytest.mark.parametrize("kind", sorted(n for n in nn.__all__ if n.endswith("Conv2d") and n != "SampledConv2d"))
def test_layers_of_float64_stay(kind):
    """The report's case."""
    conv, layer = torch.nn.Conv2d(4, 4, 3).double(), getattr(nn, kind)(4, 4, 3, **AS_CONV2D.get(kind, {})).double()
    layer.load_state_dict(conv.state_dict(), strict=False)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = conv(x), layer(x)
    assert ours.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours.sum().backward()
    assert all(p.grad.dtype == torch.float64 for p in layer.parameters() if p.grad is not None)


def test_a_sparse_layer_of_float64_stays():
    layer, x = nn.SparseKernelComplex2d(3, 7, padding=3).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x)
    assert cast.dtype == torch.float64 and torch.equal(cast, plain)


def test_a_field_keeps_its_precision():
    """Beside float64 inputs, under autocast, as without."""
    x, w = torch.randn(1, 2, 6, 6, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    offset = torch.randn(1, 18, 4, 4, dtype=torch.float64)
    plain = ops.deform_conv2d(x, offset, w)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.deform_conv2d(x, offset, w), plain)


def test_second_derivatives_keep_theirs():
    def second() -> torch.Tensor:
        torch.manual_seed(0)
        x, w = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(2, 2, 3, 3, requires_grad=True)
        loss = ops.deform_conv2d(x, torch.randn(1, 18, 4, 4), w).square().sum()
        return loss, x, w

    def penalty(loss, x, w):
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), w)[0]

    plain, under = penalty(*second()), second()
    with torch.autocast("cpu", torch.bfloat16):
        found = penalty(*under)
    torch.testing.assert_close(found, plain, rtol=2e-2, atol=2e-2 * plain.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("place", ["weight", "bias"])
def test_the_operator_itself_refuses_what_autocast_would_cast(place, dtype):
    """Its kernels read all numbers alike: of another dtype they would read other memory."""
    tensors = {"weight": torch.zeros(3, 2, 3, 3), "bias": torch.zeros(3)}
    tensors[place] = tensors[place].to(dtype)
    x, field = torch.zeros(1, 2, 5, 5), torch.zeros(1, 1, 9, 2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(MetricZooError, match="dtype"):
        torch.ops.metric_zoo.sampled_conv2d(
            x, tensors["weight"], tensors["bias"], field, None, "offset", [1, 1], [0] * 4, [1, 1], 1
        )
