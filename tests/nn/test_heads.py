"""The forms of a prediction head: closed forms and counts are the oracles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import metric_zoo as mz
from metric_zoo.nn.head import HEADS, PredictionHead, affordable_head, bottleneck_width, head_cost
from tests.kinds import SAMPLED, WITH_HEADS

PADS = ((1, 1), (1, 1))


def head(form: str, kernel: tuple[int, int] = (3, 3), stride: int = 1, dilation: int = 1, width: int = 2):
    return PredictionHead(6, 5, kernel, kernel, (stride,) * 2, (dilation,) * 2, form, width)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_separable_head_is_the_dense_convolution_of_its_product(stride):
    separable = head("separable", stride=stride)
    x = torch.randn(2, 6, 9, 11)
    dense = separable.weight * separable.features.weight.transpose(0, 1)
    torch.testing.assert_close(separable(x, PADS), F.conv2d(x, dense, separable.bias, stride, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_pointwise_head_reads_the_centres(stride, dilation):
    pointwise = head("pointwise", stride=stride, dilation=dilation)
    x = torch.randn(2, 6, 9, 9)
    everywhere = F.conv2d(x, pointwise.weight, pointwise.bias)
    pads = ((dilation, dilation),) * 2
    torch.testing.assert_close(pointwise(x, pads), everywhere[..., ::stride, ::stride])


def test_a_bottleneck_is_the_product_of_its_two_matrices():
    bottleneck = head("bottleneck")
    x = torch.randn(2, 6, 5, 5)
    matrix = bottleneck.weight[..., 0, 0] @ bottleneck.features.weight[..., 0, 0]
    expected = torch.einsum("oc,bchw->bohw", matrix, x) + bottleneck.bias[:, None, None]
    torch.testing.assert_close(bottleneck(x, PADS), expected, rtol=1e-4, atol=1e-6)


def test_a_pointwise_head_of_an_even_kernel_keeps_the_size_of_the_output():
    pointwise = head("pointwise", kernel=(4, 2))
    assert pointwise(torch.randn(1, 6, 8, 8), ((1, 2), (0, 1))).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("form", HEADS)
def test_cost_is_what_the_module_holds(form):
    assert head_cost(form, 6, 5, (3, 3), width=2) == sum(p.numel() for p in head(form).parameters())


# in, out, kernel, parameters of the convolution -> the form that sees most within them
AFFORDABLE = [
    (64, 5, (3, 3), 64 * 64 * 9, "full"),
    (96, 5, (7, 7), 96 * 49, "pointwise"),
    (96, 2, (3, 3), 96 * 9, "pointwise"),
    (96, 98, (7, 7), 96 * 49, "bottleneck"),
    (128, 18, (3, 3), 128 * 4 * 9, "separable"),
]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "budget", "form"), AFFORDABLE)
def test_affordable_heads_fit(inputs, outputs, kernel, budget, form):
    assert affordable_head(inputs, outputs, kernel, budget) == form
    width = bottleneck_width(inputs, outputs, budget)
    assert head_cost(form, inputs, outputs, kernel, width) <= budget


@pytest.mark.parametrize("form", ["auto", *HEADS])
@pytest.mark.parametrize("kind", WITH_HEADS)
def test_every_form_starts_as_the_convolution_and_learns(kind, form):
    layer = SAMPLED[kind](8, 8, 3, padding=1, groups=8, head=form)
    x = torch.randn(2, 8, 7, 7)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=1, groups=8)
    assert layer.is_identity()
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-6)
    layer(x).square().sum().backward()
    assert layer.sampler.weight.grad.isfinite().all() and layer.sampler.weight.grad.any()
    with torch.no_grad():
        layer.sampler.weight.normal_()
    layer(x).square().sum().backward()
    assert all(p.grad.any() for p in layer.sampler.parameters()), "what comes before the last convolution learns too"
    assert not layer.is_identity()


def test_no_grouped_convolution_gets_a_larger_head_by_default():
    model = nn.Sequential(nn.Conv2d(3, 96, 1), nn.Conv2d(96, 96, 7, padding=3, groups=96), nn.Conv2d(96, 64, 3))
    for kind in WITH_HEADS:
        converted = mz.convert(model, kind, example_input=torch.rand(1, 3, 24, 24))
        depthwise, dense = converted[1], converted[2]
        assert sum(p.numel() for p in depthwise.sampler.parameters()) <= depthwise.weight.numel()
        assert dense.sampler.form == "full"
        report = mz.conversion_report(converted)
        assert report.converted["1"].head == depthwise.sampler.form and depthwise.sampler.form in str(report)
    assert mz.convert(model, "shifted", head="full", example_input=torch.rand(1, 3, 24, 24))[1].sampler.form == "full"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "seperable"}, "did you mean 'separable'"),
        ({"head": "pointwise", "head_kernel_size": 3}, "has no window"),
        ({"head_kernel_size": 2}, "both sides odd or even"),
    ],
)
def test_impossible_heads(options, message):
    with pytest.raises(mz.MetricZooError, match=message):
        mz.nn.MetricConv2d(8, 8, 3, **options)


@pytest.mark.parametrize("form", HEADS)
def test_state_dicts_of_the_former_submodule_name(form):
    """The submodule was called ``head``: its keys still load, strictly, also deep inside a model."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(mz.nn.MetricConv2d(4, 4, 3, head=form)))
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    former = {key.replace(".sampler.", ".head."): value for key, value in state.items()}
    assert former.keys() != state.keys()
    model.load_state_dict(former)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_no_key_holds_what_the_field_calls_a_classifier():
    """timm's checkpoint filters rewrite "head." anywhere in a key (1.0.31: convnext, swin, davit, ...)."""
    keys = mz.nn.MetricConv2d(4, 4, 3, head="separable").state_dict()
    assert not [key for key in keys if any(word in key for word in ("head", "fc", "classifier", "last_linear"))]


@pytest.mark.parametrize("form", ["separable", "bottleneck"])
def test_every_convolution_of_a_head_is_called(form):
    """Offloading, sharding and pruning act in hooks: a weight that is read without a call is not there."""
    layer = mz.nn.ShiftedConv2d(4, 4, 3, padding=1, groups=4, head=form)
    called = []
    for name, module in layer.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    layer(torch.randn(1, 4, 6, 6))
    assert called == ["", "sampler", "sampler.features"]
