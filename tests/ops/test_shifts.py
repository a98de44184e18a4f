"""Depthwise convolutions that sample alike at every pixel take a way of their own through the native backend."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import ops
from metric_zoo.ops.backends.native import library
from metric_zoo.ops.backends.native.shifts import shifts_of
from metric_zoo.ops.window import check_window

pytestmark = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())

SHAPES = {
    "3x3": ((29, 31), (3, 3), 1, 1),
    "a row of 24": ((40, 37), (1, 24), ((0, 0), (11, 12)), 1),
    "wide and low": ((5, 333), (5, 5), 4, 2),
    "even, not padded": ((130, 7), (3, 2), 0, 1),
    "one column": ((600, 1), (3, 3), 2, 1),
}


@pytest.fixture(autouse=True)
def backend():
    with ops.use_backend("native"):
        yield "native"


@pytest.fixture(params=library.ISAS, autouse=True)
def isa(request):
    library.limit_isa(request.param)
    yield
    library.limit_isa("avx512")


@pytest.mark.parametrize("spread", [1.0, 20.0, 1e7])
@pytest.mark.parametrize("channels, fields", [(1, 1), (3, 1), (6, 2), (9, 9)])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_torch_backend(shape, channels, fields, spread):
    size, kernel, padding, dilation = SHAPES[shape]
    input, weight = torch.randn(2, channels, *size).double(), torch.randn(channels, 1, *kernel).double()
    positions = torch.randn(1, fields * kernel[0] * kernel[1], 2, 1, 1).double() * spread
    options = {"padding": padding, "dilation": dilation, "groups": channels, "bias": torch.randn(channels).double()}
    with ops.use_backend("torch"):
        expected = ops.sampled_conv2d(input, weight, positions, **options)
    for given in (input, input.to(memory_format=torch.channels_last)):
        found = ops.sampled_conv2d(given, weight, positions, **options)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)


def test_whole_pixels_are_an_ordinary_convolution():
    input, weight = torch.randn(2, 5, 30, 31), torch.randn(5, 1, 3, 3)
    grid = torch.tensor([[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)]).float().view(1, 9, 2, 1, 1)
    expected = F.conv2d(input, weight, padding=1, groups=5)
    torch.testing.assert_close(ops.sampled_conv2d(input, weight, grid, padding=1, groups=5), expected)


@pytest.mark.parametrize("planes", [1, 9])
def test_any_number_of_threads(planes):
    """Few planes share their rows out, many are shared out themselves."""
    input, weight, positions = torch.randn(1, planes, 43, 41), torch.randn(planes, 1, 1, 8), torch.randn(1, 8, 2, 1, 1)
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(ops.sampled_conv2d(input, weight, positions, padding=((0, 0), (3, 4)), groups=planes))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs)


def test_infinity_beside_a_pixel_that_is_read_exactly_does_not_matter():
    input = torch.zeros(1, 1, 40, 40)
    input[0, 0, 2, 2] = torch.inf
    position = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1)
    output = ops.sampled_conv2d(input, torch.ones(1, 1, 1, 1), position)
    assert torch.equal(output.isfinite(), ~torch.isinf(input.roll(-1, 3)))


def test_positions_that_are_not_finite():
    output = ops.sampled_conv2d(torch.randn(1, 1, 5, 5), torch.ones(1, 1, 1, 1), torch.full((1, 1, 2, 1, 1), torch.nan))
    assert bool(output.isnan().all())


def test_what_is_faster_the_usual_way_goes_there():
    """Many channels that share their positions; images of a few pixels; numbers that are not finite."""

    def way(channels, fields, side, value=1.0):
        input, weight = torch.zeros(1, channels, side, side), torch.full((channels, 1, 1, 1), value)
        field = torch.zeros(1, fields, 1, 2, 1, 1)
        return shifts_of(input, weight, field, None, "position", check_window(input, weight, None, 1, 0, 1, channels))

    assert way(1, 1, 64) is not None and way(3, 1, 64) is not None and way(64, 64, 64) is not None
    assert way(64, 1, 64) is None and way(64, 64, 14) is None and way(1, 1, 64, torch.nan) is None


def test_corners_that_samples_share_are_read_once():
    """Five samples between the same four pixels."""
    input, weight = torch.zeros(1, 2, 40, 40), torch.ones(2, 1, 1, 5)
    field = torch.tensor([[0.25, 0.25], [0.5, 0.5], [0.75, 0.25], [0.1, 0.9], [0.5, 0.1]]).view(1, 1, 5, 2, 1, 1)
    window = check_window(input, weight, None, 1, ((0, 0), (2, 2)), 1, 2)
    shifts = shifts_of(input, weight, field, None, "position", window)
    assert shifts.first.tolist() == [0, 4, 8]
    assert shifts.weights.view(2, 4).sum(1).tolist() == pytest.approx([5, 5])
