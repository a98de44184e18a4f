"""Deformable convolution against torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision

from metric_zoo import MetricZooError, ops

# in, out, kernel, stride, padding, dilation, groups, offset groups, mask
CASES = [
    (4, 6, (3, 3), 1, 1, 1, 1, 1, False),
    (4, 6, (3, 3), 1, 1, 1, 1, 1, True),
    (4, 6, (3, 3), 2, 1, 1, 1, 1, True),
    (4, 6, (3, 3), (1, 2), (0, 2), 1, 1, 1, False),
    (4, 6, (3, 3), 1, 2, 2, 1, 1, True),
    (4, 6, (3, 3), 1, (1, 3), (1, 3), 1, 2, False),
    (4, 6, (3, 3), 1, 1, 1, 2, 1, True),
    (4, 4, (3, 3), 1, 1, 1, 4, 1, False),
    (4, 8, (3, 3), 1, 1, 1, 4, 4, True),
    (6, 6, (5, 3), 1, (2, 1), 1, 3, 2, True),
    (4, 6, (2, 4), 1, 1, 1, 1, 1, False),
    (4, 6, (1, 1), 1, 0, 1, 1, 1, False),
]


def name(case) -> str:
    labels = ("in", "out", "k", "stride", "pad", "dil", "groups", "offset_groups", "mask")
    return "-".join(f"{label}{value}".replace(" ", "") for label, value in zip(labels, case, strict=True))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_values_and_gradients_are_torchvisions(case):
    c_in, c_out, kernel, stride, padding, dilation, groups, offset_groups, masked = case
    x = torch.randn(3, c_in, 11, 9)
    weight, bias = torch.randn(c_out, c_in // groups, *kernel), torch.randn(c_out)
    size = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups).shape[-2:]
    cells = offset_groups * kernel[0] * kernel[1]
    offset = torch.randn(3, 2 * cells, *size) * 2
    mask = torch.rand(3, cells, *size) if masked else None
    results = []
    for function in (ops.deform_conv2d, torchvision.ops.deform_conv2d):
        leaves = [t.clone().requires_grad_() for t in (x, offset, weight, bias, mask) if t is not None]
        y = function(*leaves[:4], stride, padding, dilation, *leaves[4:])
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in leaves)])
    for label, ours, theirs in zip(("y", "x", "offset", "weight", "bias", "mask"), *results, strict=False):
        scale = theirs.abs().max()
        assert (ours - theirs).abs().max() <= 1e-5 * scale, label


@pytest.mark.parametrize("offset_groups", [1, 2])
def test_shift_is_one_offset_for_every_cell(offset_groups):
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(3, 4, 3, 3)
    shift = torch.randn(2, 2 * offset_groups, 8, 8)
    cells = shift.view(2, offset_groups, 1, 2, 8, 8).repeat(1, 1, 9, 1, 1, 1).flatten(1, 3)
    expected = torchvision.ops.deform_conv2d(x, cells, weight, padding=1)
    torch.testing.assert_close(ops.shifted_conv2d(x, shift, weight, padding=1), expected, rtol=1e-4, atol=1e-5)


def test_sampled_convolution_with_positions_shared_by_the_batch():
    x, weight, offset = torch.randn(3, 2, 6, 6), torch.randn(4, 2, 3, 3), torch.randn(1, 18, 6, 6)
    rows, columns = torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij")
    grid = torch.stack((columns, rows), dim=-1).view(1, 9, 2, 1, 1)
    positions = offset.view(1, 9, 2, 6, 6).flip(2) + grid
    expected = torchvision.ops.deform_conv2d(x, offset.expand(3, -1, -1, -1), weight, padding=1)
    torch.testing.assert_close(ops.sampled_conv2d(x, weight, positions, padding=1), expected, rtol=1e-4, atol=1e-5)


def test_nan_offset_spoils_its_pixel_only():
    x, weight, offset = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.zeros(2, 18, 6, 6)
    offset[1, 7, 2, 3] = float("nan")
    spoiled = ops.deform_conv2d(x, offset, weight, padding=1).isnan()
    assert spoiled[1, :, 2, 3].all() and spoiled.sum() == 4


BAD = [
    ({"offset": torch.zeros(1, 18, 5, 6)}, r"offset has shape \(1, 18, 5, 6\), expected \(1, 18\*G, 6, 6\)"),
    ({"offset": torch.zeros(1, 17, 6, 6)}, "offset has shape"),
    ({"offset": torch.zeros(1, 54, 6, 6)}, "dividing the input's 4 channels"),
    ({"weight": torch.zeros(3, 5, 3, 3)}, "input has 4 channels"),
    ({"weight": torch.zeros(3, 4, 3)}, "weight has shape"),
    ({"bias": torch.zeros(2)}, "bias has shape"),
    ({"weight": torch.zeros(3, 4, 3, 3, dtype=torch.float64)}, "dtype"),
    ({"input": torch.zeros(4, 6, 6)}, "input has shape"),
    ({"stride": 0}, "stride is 0"),
    ({"padding": "some"}, "padding is 'some'"),
    ({"dilation": 9, "padding": 0}, "smaller than the kernel"),
    ({"mask": torch.zeros(1, 9, 5, 5)}, "mask has shape"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m.split()[0] + str(i) for i, (_, m) in enumerate(BAD)])
def test_errors_name_the_tensor(change, message):
    good = {
        "input": torch.zeros(1, 4, 6, 6),
        "offset": torch.zeros(1, 18, 6, 6),
        "weight": torch.zeros(3, 4, 3, 3),
        "padding": 1,
    }
    with pytest.raises(MetricZooError, match=message):
        ops.deform_conv2d(**{**good, **change})
