"""The layer equals a depthwise convolution with its kernels; conv2d is the oracle."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import create_conv2d
from torch import nn

import metric_zoo as mz
from metric_zoo import MetricZooError
from metric_zoo.nn import SparseKernelComplex2d
from metric_zoo.sparse import targets


def random_layer(**options) -> SparseKernelComplex2d:
    layer = SparseKernelComplex2d(4, 7, 5, 2, **options).double()
    with torch.no_grad():
        layer.offsets.uniform_(-1.7, 1.7)
        layer.weights.normal_()
        if layer.bias is not None:
            layer.bias.normal_()
    return layer


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 3, 2, 5, "same", "valid"])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_convolution_with_its_kernels(stride, padding, bias):
    if padding == "same" and stride != 1:
        pytest.skip("conv2d has no such padding with a stride")
    layer, input = random_layer(stride=stride, padding=padding, bias=bias), torch.randn(2, 4, 15, 18).double()
    assert layer.complex().reach <= 4
    kernel = layer.complex().kernel(9)[:, None]  # of offsets below 1.7: nothing lies outside
    grown = {"same": 4, "valid": 1}.get(padding, padding if isinstance(padding, str) else padding + 1)
    expected = F.conv2d(input, kernel, layer.bias, stride, grown, groups=4)
    torch.testing.assert_close(layer(input), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(layer(input[0]), expected[0], atol=1e-12, rtol=0)


def test_gradients_against_finite_differences():
    layer, input = random_layer(padding=3), torch.randn(1, 4, 6, 5).double().requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(input, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (input,))

    assert torch.autograd.gradcheck(run, (input, *layer.parameters()), fast_mode=True)


def test_from_a_convolution():
    """A bank of blurs and their difference, which does not keep its sum; one is empty."""
    conv = nn.Conv2d(4, 4, 21, padding=10, groups=4)
    kernels = [targets.gaussian(3.0, 21), targets.disk(21), targets.gaussian(2.0, 21) - targets.gaussian(4.0, 21)]
    with torch.no_grad():
        conv.weight.copy_(torch.stack([*kernels, torch.zeros(21, 21)])[:, None])
    layer = SparseKernelComplex2d.from_conv(conv, 12, 3, steps=600)
    input = torch.rand(1, 4, 64, 64)
    found, expected = layer(input), conv(input)
    for channel in range(3):
        missed = (found - expected)[:, channel]
        error = (missed.std() if channel == 2 else missed.square().mean().sqrt()) / expected[:, channel].std()
        assert error < 0.25, channel
    assert torch.equal(found[:, 3], expected[:, 3])
    assert layer.state_dict().keys() == {"offsets", "weights", "bias"}
    assert "36 reads instead of 441" in repr(layer)


def test_what_is_not_negative_keeps_its_brightness():
    conv = nn.Conv2d(2, 2, 21, groups=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.stack([targets.disk(21), 3 * targets.star(21)])[:, None])
    output = SparseKernelComplex2d.from_conv(conv, 8, 2, steps=10)(torch.ones(1, 2, 40, 40))
    for channel, total in enumerate((1.0, 3.0)):
        middle = output[0, channel, 9:-9, 9:-9]
        torch.testing.assert_close(middle, torch.full_like(middle, total), atol=1e-4, rtol=0)


def test_channels_last_comes_out_as_it_went_in():
    layer = random_layer(padding=3)
    input = torch.randn(2, 4, 33, 35).double()
    found = layer(input.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, layer(input), atol=1e-12, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [True, False])
def test_autocast_decides_on_the_type(bias):
    layer, conv = random_layer(bias=bias).float(), nn.Conv2d(4, 4, 7, groups=4, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 4, 20, 20)).dtype == conv(torch.randn(1, 4, 20, 20)).dtype


def test_input_and_kernels_of_another_shape():
    layer = random_layer()
    with pytest.raises(MetricZooError, match="expected 4 channels"):
        layer(torch.zeros(1, 3, 20, 20))
    with pytest.raises(MetricZooError, match="expected 4 channels"):
        layer(torch.zeros(20, 20))
    with pytest.raises(MetricZooError, match=r"expected \(4, 1, 7, 7\)"):
        layer.fit(torch.ones(4, 1, 9, 9))


def test_offsets_are_what_decides_where_to_sample():
    layer = random_layer()
    assert [id(p) for p in mz.nn.head_parameters(nn.Sequential(layer))] == [id(layer.offsets)]


BAD = {
    "dense": (nn.Conv2d(4, 8, 7), "not depthwise"),
    "even": (nn.Conv2d(4, 4, 8, groups=4), "8 x 8, not odd"),
    "dilated": (nn.Conv2d(4, 4, 7, groups=4, dilation=2), r"dilation \(2, 2\)"),
    "mirrored": (nn.Conv2d(4, 4, 7, groups=4, padding_mode="reflect"), "padding_mode='reflect'"),
    "meta": (nn.Conv2d(4, 4, 7, groups=4, device="meta"), "no values"),
    "no convolution": (nn.Linear(3, 3), "a Linear"),
    "pads as it likes": (create_conv2d(4, 4, 9, stride=2, padding="same", depthwise=True), "a Conv2dSame"),
    "samples": (mz.nn.DeformConv2d(4, 4, 9, groups=4), "a DeformConv2d"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_cannot_stand_in_for(case):
    conv, message = BAD[case]
    with pytest.raises(MetricZooError, match=message):
        SparseKernelComplex2d.from_conv(conv)


def test_bad_sizes():
    for arguments, message in (((4, 6), "even kernel"), ((0, 7), "channels=0"), ((4, 7, 0), "samples=0")):
        with pytest.raises(MetricZooError, match=message):
            mz.nn.SparseKernelComplex2d(*arguments)
