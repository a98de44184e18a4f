"""The fused operator against the composed one, and as the framework sees it."""

from __future__ import annotations

import pytest
import torch

from metric_zoo import MetricZooError, ops
from metric_zoo.ops.native import library


@pytest.fixture(autouse=True)
def backend():
    """What is compared here is chosen by the tests themselves."""


CASES = {
    "one axis": ((5,), 24, 1),
    "two tables": ((2,), 5, 3),
    "two axes": ((3, 4), 7, 20),
    "two axes, one channel": ((2, 2), 16, 1),
}


def arguments(case: str, batch: int = 1, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Coordinates reach a little beyond the grid."""
    grid, samples, channels = CASES[case]
    scale = torch.tensor(grid, dtype=dtype).view(1, -1, 1, 1)
    coordinates = torch.rand(batch, len(grid), 14, 17, dtype=dtype) * 1.2 * scale - 0.3
    offsets = torch.randn(*grid, samples, 2, dtype=dtype) * 4
    return torch.randn(2, channels, 14, 17, dtype=dtype), coordinates, offsets, torch.randn(*grid, samples, dtype=dtype)


@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_native_is_what_torch_computes(case, batch, isa):
    given = arguments(case, batch)
    with ops.use_backend("torch"):
        expected = ops.blended_conv2d(*given)
    try:
        library.limit_isa(isa)
        with ops.use_backend("native"):
            found = ops.blended_conv2d(*given)
            rough = ops.blended_conv2d(*(t.float() for t in given))
    finally:
        library.limit_isa("avx512")
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(rough, expected.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_gradients_against_finite_differences(case):
    grid, samples, _ = CASES[case]
    place = torch.rand(1, len(grid), 3, 4, dtype=torch.float64) * 0.9 + 0.05
    offsets = torch.randn(*grid, samples, 2, dtype=torch.float64)
    leaves = (torch.randn(1, 2, 3, 4, dtype=torch.float64), place, offsets, torch.randn(*grid, samples).double())
    assert torch.autograd.gradcheck(ops.blended_conv2d, [t.requires_grad_() for t in leaves])


@pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())
def test_opcheck():
    given = [t.requires_grad_() for t in arguments("one axis")]
    torch.library.opcheck(torch.ops.metric_zoo.blended_conv2d, given)


def test_compiles_without_a_break():
    given = arguments("two axes")
    compiled = torch.compile(ops.blended_conv2d, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), ops.blended_conv2d(*given))


def test_half_precision_is_computed_in_float32():
    given = [t.half() for t in arguments("one axis")]
    expected = ops.blended_conv2d(*(t.float() for t in given))
    found = ops.blended_conv2d(*given)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=1e-2)


@pytest.mark.parametrize("name", ["native", "torch"])
def test_nan_stays_at_its_pixel(name):
    input, coordinates, offsets, weights = arguments("one axis")
    coordinates[0, 0, 3, 4] = torch.nan
    with ops.use_backend(name):
        output = ops.blended_conv2d(input, coordinates, offsets, weights)
    expected = torch.zeros(14, 17, dtype=torch.bool)
    expected[3, 4] = True
    assert torch.equal(output.isnan(), expected.expand_as(output))


def test_bad_input():
    input, coordinates, offsets, weights = arguments("one axis")
    for given, message in (
        ((input[0], coordinates, offsets, weights), r"expected \(B, C, H, W\)"),
        ((input, coordinates[..., 1:], offsets, weights), "coordinates"),
        ((input, coordinates, offsets[..., :1], weights), "offsets"),
        ((input, coordinates, offsets[:1], weights[:1]), "two tables or more"),
        ((input, coordinates.expand(-1, 2, -1, -1), offsets, weights), "2 coordinates"),
        ((input, coordinates.to("meta"), offsets, weights), "coordinates is on meta"),
    ):
        with pytest.raises(MetricZooError, match=message):
            ops.blended_conv2d(*given)
