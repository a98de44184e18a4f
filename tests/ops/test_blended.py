"""The fused operator against the composed one, and as the framework sees it."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from metric_zoo import MetricZooError, ops
from metric_zoo.ops.backends.native import library
from tests.conftest import interpreted

native = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())


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


@native
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


@interpreted
@pytest.mark.parametrize("case, batch", [("one axis", 1), ("two tables", 2), ("two axes", 1)])
def test_triton_is_what_torch_computes(case, batch):
    """Also where a table that no pixel needs, and a coordinate, are NaN."""
    input, place, offsets, weights = arguments(case, batch)
    last = place.new_tensor(weights.shape[:-1]).view(1, -1, 1, 1) - 2
    place = place.minimum(last)  # whatever the last table of an axis holds
    place[..., 3, 4] = torch.nan
    with ops.use_backend("torch"):
        expected = ops.blended_conv2d(input, place, offsets, weights)
    offsets[-1], weights[-1] = torch.nan, torch.nan
    with ops.use_backend("triton"):
        found = ops.blended_conv2d(*(t.float() for t in (input, place, offsets, weights)))
    torch.testing.assert_close(found, expected.float(), atol=1e-3, rtol=0, equal_nan=True)


@native
@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("jump", [False, True])
@pytest.mark.parametrize("grid", [(4,), (3, 3)])
def test_runs_of_pixels_that_read_runs_of_pixels(grid, jump, isa):
    """Maps that change slowly, as real ones do, on a picture with room for vectors; some pixels jump."""
    height, width = 45, 150
    slope = torch.linspace(0, 1, width).double().expand(height, -1)
    place = torch.stack([slope * (size - 1) for size in grid])[None]
    if jump:
        place[..., 70] = 0
        place[..., 20, 90] = torch.nan
    offsets = torch.randn(*grid, 6, 2).double().cumsum(0) * 0.6
    given = (torch.randn(2, 1, height, width).double(), place, offsets, torch.randn(*grid, 6).double())
    expected = ops.blended_conv2d(*(t.expand(2, 8, -1, -1) if t is given[0] else t for t in given))[:, :1]
    with ops.use_backend("torch"):
        torch.testing.assert_close(expected, ops.blended_conv2d(*given), atol=1e-11, rtol=0, equal_nan=True)
    try:
        library.limit_isa(isa)
        found = ops.blended_conv2d(*given)
        rough = ops.blended_conv2d(*(t.float() for t in given))
    finally:
        library.limit_isa("avx512")
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0, equal_nan=True)
    torch.testing.assert_close(rough, expected.float(), atol=2e-3, rtol=0, equal_nan=True)


def test_a_very_wide_picture():
    """Positions of float32 lie a fraction of a pixel apart there: nothing is read beyond the end."""
    width = 300_000
    offsets = torch.tensor([[0.5, 0.0], [1.0, 0.0]]).expand(2, 2, 2).contiguous()
    output = ops.blended_conv2d(torch.ones(1, 1, 3, width), torch.zeros(1, 1, 3, width), offsets, torch.ones(2, 2))
    assert bool((output[..., 2:-2] == 2).all()) and output.amax() <= 2


@pytest.mark.parametrize("case", CASES)
def test_gradients_on_the_grid_are_those_of_the_cell_behind(case):
    """Tables of weights that grow by one: the slope is the same everywhere."""
    grid, samples, _ = CASES[case]
    weights = sum(torch.meshgrid(*(torch.arange(float(size)) for size in grid), indexing="ij")).double()
    weights = weights[..., None].expand(*grid, samples).contiguous()
    places = torch.zeros(1, len(grid), 1, 9, dtype=torch.float64)
    places[:, 0, 0] = torch.linspace(0, grid[0] - 1, 9)
    places.requires_grad_()
    ones = torch.ones(1, 1, 1, 9, dtype=torch.float64)
    output = ops.blended_conv2d(ones, places, torch.zeros(*grid, samples, 2, dtype=torch.float64), weights)
    (slope,) = torch.autograd.grad(output.sum(), places)
    torch.testing.assert_close(slope[:, 0], torch.full((1, 1, 9), float(samples), dtype=torch.float64))


@pytest.mark.parametrize("case", CASES)
def test_gradients_against_finite_differences(case):
    grid, samples, _ = CASES[case]
    place = torch.rand(1, len(grid), 3, 4, dtype=torch.float64) * 0.9 + 0.05
    offsets = torch.randn(*grid, samples, 2, dtype=torch.float64)
    leaves = (torch.randn(1, 2, 3, 4, dtype=torch.float64), place, offsets, torch.randn(*grid, samples).double())
    assert torch.autograd.gradcheck(ops.blended_conv2d, [t.requires_grad_() for t in leaves])


def gradients(backend: str, given: tuple[torch.Tensor, ...], upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in given]
    with ops.use_backend(backend):
        return torch.autograd.grad(ops.blended_conv2d(*leaves), leaves, upstream.to(leaves[0].dtype))


@native
@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_native_has_the_gradients_of_torch(case, batch, isa):
    """Of a place that serves all images, too; beyond the grid a place has none. The same again, bit for bit."""
    given = arguments(case, batch)
    upstream = torch.randn_like(given[0])
    expected = gradients("torch", given, upstream)
    try:
        library.limit_isa(isa)
        found, again = (gradients("native", given, upstream) for _ in range(2))
        rough = gradients("native", tuple(t.float() for t in given), upstream)
    finally:
        library.limit_isa("avx512")
    for one, same, single, other in zip(found, again, rough, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
        assert torch.equal(one, same)
        scale = other.abs().max().item()
        torch.testing.assert_close(single.double() / scale, other / scale, atol=1e-4, rtol=0)
    outside = (given[1] < 0) | (given[1] > given[1].new_tensor(CASES[case][0]).view(1, -1, 1, 1) - 1)
    assert bool(outside.any()) and not bool(found[1][outside].any())


@native
@pytest.mark.parametrize("case", CASES)
def test_only_what_is_asked_for(case):
    """One gradient at a time, of a picture that lies channels last."""
    image, *others = arguments(case)
    given = (image.contiguous(memory_format=torch.channels_last), *others)
    upstream = torch.randn_like(image)
    for index, expected in enumerate(gradients("torch", given, upstream)):
        leaves = [t.requires_grad_(place == index) for place, t in enumerate(t.detach() for t in given)]
        with ops.use_backend("native"):
            (found,) = torch.autograd.grad(ops.blended_conv2d(*leaves), [leaves[index]], upstream)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


@native
def test_gradients_of_a_large_picture():
    """Tables receive from every pixel; here the same from each, so that the sum is known."""
    height, width, samples = 600, 900, 3
    leaves = [t.requires_grad_() for t in (torch.zeros(2, samples, 2), torch.ones(2, samples))]
    place = torch.full((1, 1, height, width), 0.3)
    ops.blended_conv2d(torch.ones(1, 1, height, width), place, *leaves).sum().backward()
    expected = torch.tensor([0.7, 0.3])[:, None] * (height * width)
    torch.testing.assert_close(leaves[1].grad, expected.expand(2, samples), rtol=1e-6, atol=0)


@native
def test_gradients_of_no_pictures():
    leaves = [t[:0] if t.dim() == 4 else t for t in arguments("one axis", 2)]
    leaves = [t.detach().requires_grad_() for t in leaves]
    for gradient, leaf in zip(torch.autograd.grad(ops.blended_conv2d(*leaves).sum(), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape and not gradient.any()


@pytest.mark.parametrize("case", ["two tables", "two axes, one channel"])
def test_second_derivatives_against_finite_differences(case):
    grid, *_ = CASES[case]
    place = torch.rand(1, len(grid), 2, 3, dtype=torch.float64) * 0.8 + 0.1
    offsets = torch.randn(*grid, 3, 2, dtype=torch.float64)
    leaves = (torch.randn(1, 2, 2, 3, dtype=torch.float64), place, offsets, torch.randn(*grid, 3).double())
    assert torch.autograd.gradgradcheck(ops.blended_conv2d, [t.requires_grad_() for t in leaves])


@native
def test_gradients_store_nothing_per_sample():
    """All that torch allocates together is less than one number for each sample of a pixel; positions are two."""
    height, width, samples = 256, 256, 32
    places = torch.rand(1, 1, height, width, requires_grad=True)
    offsets, weights = (torch.randn(3, samples, *more).requires_grad_() for more in ((2,), ()))
    image = torch.randn(1, 1, height, width, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        ops.blended_conv2d(image, places, offsets, weights).sum().backward()
    taken = sum(event.cpu_memory_usage for event in run.events() if event.cpu_memory_usage > 0)
    assert taken < 4 * height * width * samples


@native
def test_flops_are_those_of_a_depthwise_convolution():
    image = torch.zeros(2, 3, 14, 17)
    with FlopCounterMode(display=False) as wanted:
        torch.nn.functional.conv2d(image, torch.zeros(3, 1, 1, 5), groups=3, padding=(0, 2))
    with FlopCounterMode(display=False) as found, ops.use_backend("native"):
        ops.blended_conv2d(image, torch.zeros(1, 1, 14, 17), torch.zeros(4, 5, 2), torch.zeros(4, 5))
    assert found.get_total_flops() == wanted.get_total_flops() > 0
    image.requires_grad_()
    with FlopCounterMode(display=False) as both, ops.use_backend("native"):
        ops.blended_conv2d(image, torch.zeros(1, 1, 14, 17), torch.zeros(4, 5, 2), torch.zeros(4, 5)).sum().backward()
    assert both.get_total_flops() == 2 * wanted.get_total_flops()


@native
def test_opcheck():
    given = [t.requires_grad_() for t in arguments("one axis")]
    torch.library.opcheck(torch.ops.metric_zoo.blended_conv2d, given)
    torch.library.opcheck(
        torch.ops.metric_zoo.blended_conv2d_backward, (torch.randn_like(given[0]), *given, [True, False, True, True])
    )


def test_compiles_without_a_break(monkeypatch):
    monkeypatch.setenv("CI", "true")  # inductor is stricter there
    given = arguments("two axes")
    compiled = torch.compile(ops.blended_conv2d, fullgraph=True)
    torch.testing.assert_close(compiled(*given), ops.blended_conv2d(*given))
    leaves = [t.detach().requires_grad_() for t in given]
    expected, found = (torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (ops.blended_conv2d, compiled))
    torch.testing.assert_close(found, expected)


def test_half_precision_is_computed_in_float32():
    given = [t.half() for t in arguments("one axis")]
    expected = ops.blended_conv2d(*(t.float() for t in given))
    found = ops.blended_conv2d(*given)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=1e-2)


@interpreted
@pytest.mark.parametrize("case", ["two tables"])
def test_triton_has_the_gradients_of_torch(case):
    given = arguments(case)
    upstream = torch.randn_like(given[0])
    rough = gradients("triton", tuple(t.float() for t in given), upstream)
    for found, expected in zip(rough, gradients("torch", given, upstream), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found.double() / scale, expected / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [pytest.param("native", marks=native), "torch"])
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
        ((input, coordinates.long(), offsets, weights), "coordinates has dtype torch.int64"),
        ((input, coordinates, offsets[:, :0], weights[:, :0]), "offsets"),
    ):
        with pytest.raises(MetricZooError, match=message):
            ops.blended_conv2d(*given)


@native
def test_the_operator_itself_takes_one_dtype():
    input, *others = arguments("one axis")
    for index in range(3):
        given = [t.float() if index == place else t for place, t in enumerate(others)]
        with pytest.raises(MetricZooError, match="has dtype torch.float32, input torch.float64"):
            torch.ops.metric_zoo.blended_conv2d(input, *given)
