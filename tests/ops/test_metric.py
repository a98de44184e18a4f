"""Metric convolution: against conv2d at the identity, against torchvision elsewhere, and its symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from metric_zoo import MetricZooError, ops
from metric_zoo.geometry import RandersMetric, metric_from_raw
from metric_zoo.ops.padding import output_size, resolve_padding

# kernel, stride, padding, dilation, groups, channels in, out, metric groups
CASES = [
    ((3, 3), 1, 1, 1, 1, 4, 6, 1),
    ((3, 3), 2, 1, 1, 1, 4, 6, 2),
    ((3, 3), 1, 2, 2, 2, 4, 6, 4),
    ((5, 5), 2, "same", 1, 4, 4, 4, 1),
    ((2, 4), 1, "same", 1, 1, 4, 6, 1),
    ((3, 5), (1, 2), ((1, 0), (3, 1)), (2, 1), 1, 4, 6, 1),
    ((7, 7), 1, 3, 1, 6, 6, 6, 3),
]


def geometry(case, size=(11, 13)):
    kernel, stride, padding, dilation, *_ = case
    stride, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, dilation))
    pads = resolve_padding(padding, size, kernel, stride, dilation)
    return stride, dilation, pads, output_size(size, kernel, stride, pads, dilation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_euclidean_metric_is_conv2d(case, dtype):
    kernel, _, padding, _, groups, c_in, c_out, metric_groups = case
    stride, dilation, ((top, bottom), (left, right)), size = geometry(case)
    x, weight = torch.randn(2, c_in, 11, 13, dtype=dtype), torch.randn(c_out, c_in // groups, *kernel, dtype=dtype)
    metric = RandersMetric.identity(2, metric_groups, *size, dtype=dtype)
    y = ops.metric_conv2d(x, weight, metric, None, stride, padding, dilation, groups)
    expected = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups)
    assert (y - expected).abs().max() <= 100 * torch.finfo(dtype).eps * expected.abs().max()


def numpy_positions(metric: RandersMetric, kernel, dilation) -> torch.Tensor:
    """Section 2 of the specification, cell by cell, as offsets in torchvision's (dy, dx)."""
    m = metric.matrix.numpy()
    omega = metric.drift.numpy()
    offsets = []
    for group in range(metric.groups):
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                g = np.array([dilation[1] * (column - (kernel[1] - 1) / 2), dilation[0] * (row - (kernel[0] - 1) / 2)])
                length = np.linalg.norm(g)
                u = g / length if length else g
                norm = np.sqrt(np.einsum("i,bijhw,j->bhw", u, m[:, group], u)) + np.einsum(
                    "i,bihw->bhw", u, omega[:, group]
                )
                factor = 1 / norm if length else np.ones_like(norm)
                offsets += [g[1] * factor - g[1], g[0] * factor - g[0]]
    return torch.from_numpy(np.stack(offsets, axis=1))


@pytest.mark.parametrize("case", [c for c in CASES if not isinstance(c[2], tuple) and c[2] != "same"], ids=str)
def test_any_metric_is_torchvisions_deformation(case):
    kernel, _, padding, _, groups, c_in, c_out, metric_groups = case
    stride, dilation, _, size = geometry(case)
    x, weight = torch.randn(2, c_in, 11, 13), torch.randn(c_out, c_in // groups, *kernel)
    metric = metric_from_raw(torch.randn(2, 7 * metric_groups, *size, dtype=torch.float64))
    offset = numpy_positions(metric, kernel, dilation)
    expected = torchvision.ops.deform_conv2d(x.double(), offset, weight.double(), None, stride, padding, dilation)
    y = ops.metric_conv2d(x.double(), weight.double(), metric, None, stride, padding, dilation, groups)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    y32 = ops.metric_conv2d(x, weight, metric.packed.float(), None, stride, padding, dilation, groups)
    assert (y32 - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_against_finite_differences():
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(1, 7, 5, 5, dtype=torch.float64)
    packed = metric_from_raw(raw).packed.requires_grad_()
    for sampling in ("grid", "polar", "onion"):
        function = lambda x, w, m, s=sampling: ops.metric_conv2d(x, w, m, padding=1, sampling=s)  # noqa: E731
        # The centre cell of grid and onion sits on an integer, but it does not move with the metric.
        assert torch.autograd.gradcheck(function, (x, weight, packed)), sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_at_the_euclidean_metric_is_the_mean_of_both_sides(dtype):
    """Every sample on a kink: central differences of the (piecewise smooth) function are the definition."""
    x, weight = torch.randn(1, 2, 6, 6, dtype=dtype), torch.randn(3, 2, 3, 3, dtype=dtype)
    metric = RandersMetric.identity(1, 1, 6, 6, dtype=dtype).packed.requires_grad_()
    direction = torch.randn(1, 5, 6, 6, dtype=dtype)
    upstream = torch.randn(1, 3, 6, 6, dtype=dtype)
    (ops.metric_conv2d(x, weight, metric, padding=1) * upstream).sum().backward()

    def value(step: float) -> float:
        moved = metric.detach().double() + step * direction.double()
        y = ops.metric_conv2d(x.double(), weight.double(), moved, padding=1)
        return (y * upstream.double()).sum().item()

    step = 1e-6
    central = (value(step) - value(-step)) / (2 * step)
    assert (metric.grad * direction).sum().item() == pytest.approx(central, rel=1e-4, abs=1e-4)


def test_images_of_a_batch_do_not_mix():
    """The published program fails this: it scales image b by the metric of another one."""
    x, weight = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    packed = metric_from_raw(torch.randn(5, 7, 8, 8, dtype=torch.float64)).packed
    together = ops.metric_conv2d(x, weight, packed, padding=1)
    alone = torch.cat([ops.metric_conv2d(x[i : i + 1], weight, packed[i : i + 1], padding=1) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampling", ["grid", "polar", "onion"])
def test_shift_equivariance_away_from_the_border(sampling):
    x, weight = torch.randn(1, 3, 20, 20, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    packed = metric_from_raw(torch.randn(1, 7, 20, 20, dtype=torch.float64)).packed
    roll = lambda t: torch.roll(t, (2, 3), (2, 3))  # noqa: E731
    y = ops.metric_conv2d(x, weight, packed, padding=1, sampling=sampling)
    shifted = ops.metric_conv2d(roll(x), weight, roll(packed), padding=1, sampling=sampling)
    inner = (slice(None), slice(None), slice(9, 14), slice(9, 14))  # no ball reaches the border from here
    torch.testing.assert_close(shifted[inner], roll(y)[inner], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": torch.zeros(1, 4, 6, 6)}, r"metric has shape \(1, 4, 6, 6\), expected \(1, 5\*G, 6, 6\)"),
        ({"metric": torch.zeros(2, 5, 6, 6)}, "metric has shape"),
        ({"metric": torch.ones(1, 15, 6, 6)}, "dividing the input's 4 channels"),
        ({"sampling": "grids"}, "did you mean 'grid'"),
        ({"groups": 3}, "groups=3"),
        ({"input": torch.zeros(1, 4, 6, 6, dtype=torch.int32)}, "int32"),
    ],
)
def test_errors(change, message):
    good = {
        "input": torch.zeros(1, 4, 6, 6),
        "weight": torch.zeros(3, 4, 3, 3),
        "metric": RandersMetric.identity(1, 1, 6, 6).packed,
        "padding": 1,
    }
    with pytest.raises(MetricZooError, match=message):
        ops.metric_conv2d(**{**good, **change})
