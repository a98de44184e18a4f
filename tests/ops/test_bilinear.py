"""Bilinear reads against scipy, their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from metric_zoo.ops import bilinear_sample


def positions(height: int, width: int, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Inside, across the border and beyond it."""
    x = torch.rand(1, count, dtype=torch.float64) * (width + 4) - 2.5
    y = torch.rand(1, count, dtype=torch.float64) * (height + 4) - 2.5
    return x, y


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (33, 3)])
def test_values_are_scipys(size):
    image = torch.randn(1, 2, *size, dtype=torch.float64)
    x, y = positions(*size)
    samples = bilinear_sample(image, x, y)
    for channel in range(2):
        expected = ndimage.map_coordinates(
            image[0, channel].numpy(), [y[0].numpy(), x[0].numpy()], order=1, mode="grid-constant", cval=0.0
        )
        np.testing.assert_allclose(samples[0, channel], expected, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (56, 56), (100, 224)])
def test_integer_positions_read_pixels_exactly(size):
    """Also where the size is no power of two and division by it would round."""
    image = torch.randn(1, 1, *size)
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    assert torch.equal(bilinear_sample(image, columns[None], rows[None]), image)


def test_first_and_second_derivatives():
    image = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    # Away from integers, where finite differences would straddle a kink.
    x = (torch.randint(-2, 6, (2, 6)) + 0.2 + 0.6 * torch.rand(2, 6)).double().requires_grad_()
    y = (torch.randint(-2, 5, (2, 6)) + 0.2 + 0.6 * torch.rand(2, 6)).double().requires_grad_()
    assert torch.autograd.gradcheck(bilinear_sample, (image, x, y))
    assert torch.autograd.gradgradcheck(bilinear_sample, (image, x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("create_graph", [False, True], ids=["fused", "differentiable"])
def test_gradient_at_integers_is_the_mean_of_both_sides(dtype, create_graph):
    image = torch.randn(1, 1, 7, 6, dtype=dtype)
    x = torch.tensor([[0.0, 2.0, 5.0, 3.0, -1.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[0.0, 3.0, 6.0, 1.25, 2.0]], dtype=dtype, requires_grad=True)
    grads = torch.autograd.grad(bilinear_sample(image, x, y).sum(), (x, y), create_graph=create_graph)

    def read(x_value: float, y_value: float) -> float:
        plane = image[0, 0].double().numpy()
        return ndimage.map_coordinates(plane, [[y_value], [x_value]], order=1, mode="grid-constant", cval=0.0)[0]

    step = 2.0**-10
    for index, (px, py) in enumerate(zip(x[0].tolist(), y[0].tolist(), strict=True)):
        central_x = (read(px + step, py) - read(px - step, py)) / (2 * step)
        central_y = (read(px, py + step) - read(px, py - step)) / (2 * step)
        assert math.isclose(grads[0][0, index].item(), central_x, rel_tol=1e-4, abs_tol=1e-5)
        assert math.isclose(grads[1][0, index].item(), central_y, rel_tol=1e-4, abs_tol=1e-5)


def test_nan_position_spoils_only_its_sample_and_infinity_reads_zero():
    x = torch.tensor([[1.0, math.nan, math.inf, -math.inf, 1e30]])
    samples = bilinear_sample(torch.ones(1, 1, 4, 4), x, torch.ones(1, 5))[0, 0]
    assert samples.isnan().tolist() == [False, True, False, False, False]
    assert samples[[0, 2, 3, 4]].tolist() == [1, 0, 0, 0]


def test_infinite_pixel_outside_the_window_does_not_reach_the_sample():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 0, 0] = math.inf
    assert bilinear_sample(image, torch.tensor([[2.0, -1.0]]), torch.tensor([[2.0, 2.0]])).flatten().tolist() == [0, 0]
