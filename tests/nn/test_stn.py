"""One affine map an image, around its centre. Oracle: torchvision's deform_conv2d on the image with its border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from metric_zoo.nn import SpatialTransformerConv2d
from metric_zoo.ops.padding import resolve_padding

CASES = {  # kernel, stride, padding, mode
    "strided": (3, 2, 1, "zeros"),
    "TensorFlow's padding": (3, 2, "same", "zeros"),
    "even kernel": (4, 1, "same", "zeros"),
    "uneven": (5, 2, ((1, 3), (0, 2)), "zeros"),
    "reflect": (3, 1, 1, "reflect"),
    "even kernel, circular": (4, 1, "same", "circular"),
    "uneven, replicate": (5, 2, ((1, 3), (0, 2)), "replicate"),
}


def moved(kernel, stride, padding, mode) -> SpatialTransformerConv2d:
    layer = SpatialTransformerConv2d(3, 4, kernel, stride, padding, padding_mode=mode).double()
    for parameter in layer.sampler.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return layer.requires_grad_(False)


def transformed(layer: SpatialTransformerConv2d, x: torch.Tensor) -> torch.Tensor:
    """Offsets cell by cell: A - I times the place from the image's centre, and t."""
    height, width = x.shape[2:]
    (top, bottom), (left, right) = resolve_padding(
        layer.padding, (height, width), layer.kernel_size, layer.stride, layer.dilation
    )
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, (left, right, top, bottom), mode=mode)
    (kh, kw), (sy, sx) = layer.kernel_size, layer.stride
    rows = np.arange(0, padded.shape[2] - kh + 1, sy)[:, None] + np.arange(kh) - top - (height - 1) / 2
    columns = np.arange(0, padded.shape[3] - kw + 1, sx)[:, None] + np.arange(kw) - left - (width - 1) / 2
    y, x_ = rows.T[:, None, :, None], columns.T[None, :, None, :]  # (kh, kw, Ho, Wo)
    head = layer.sampler
    offsets = []
    for features in x.mean((2, 3)):
        xx, xy, yx, yy, t_x, t_y = (head.weight[:, :, 0, 0] @ features + head.bias).tolist()
        both = np.stack((yx * x_ + yy * y + t_y, xx * x_ + xy * y + t_x), 2)
        offsets.append(torch.from_numpy(both.reshape(-1, *both.shape[3:])))
    return torchvision.ops.deform_conv2d(padded, torch.stack(offsets), layer.weight, layer.bias, layer.stride)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_image_is_moved_around_its_centre(case):
    layer = moved(*case)
    for size in ((9, 8), (8, 11)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(layer(x), transformed(layer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", ["compile", "export"])
def test_padding_that_a_program_applies_is_no_part_of_the_image(way):
    layer = moved(*CASES["TensorFlow's padding"])
    if way == "compile":
        torch._dynamo.reset()
        found = torch.compile(layer, backend="eager", dynamic=True, fullgraph=True)
    else:
        free = {2: torch.export.Dim("height", min=5, max=64), 3: torch.export.Dim("width", min=5, max=64)}
        found = torch.export.export(layer, (torch.randn(2, 3, 9, 8).double(),), dynamic_shapes=(free,)).module()
    for size in ((9, 8), (8, 11), (16, 7)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(found(x), transformed(layer, x), rtol=1e-10, atol=1e-10)
