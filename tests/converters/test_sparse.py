"""Conversion to sparse kernel complexes. Oracles: F.conv2d with the kernels that were there, and white noise, whose
filtered error is the kernels' own. No decision that a test asks for depends on a clock."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

import metric_zoo as mz
from metric_zoo import ConversionError, MetricZooError
from metric_zoo.converters.build import build_layer
from metric_zoo.converters.selection.select import Selection, select
from metric_zoo.nn import SparseKernelComplex2d
from metric_zoo.sparse import targets

QUICK = {"samples": 12, "layers": 3, "steps": 200, "min_speedup": 0.0}


def filter_of(kernel: torch.Tensor, channels: int = 2) -> nn.Conv2d:
    size = kernel.shape[-1]
    conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
    with torch.no_grad():
        conv.weight.copy_(kernel.expand(channels, 1, -1, -1))
    return conv


class Blurred(nn.Module):
    """A network with one large smooth filter, one of noise, and layers that a complex cannot stand in for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 3, padding=1)
        self.blur = filter_of(targets.gaussian(3, 15))
        self.noise = filter_of(torch.randn(15, 15, generator=torch.Generator().manual_seed(0)))
        self.small = filter_of(targets.gaussian(1, 5))

    def forward(self, x):
        return self.small(self.noise(self.blur(self.stem(x))))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Blurred().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_a_smooth_filter_is_replaced_and_noise_is_not(model, image):
    before = copy.deepcopy(model)
    converted = mz.convert(model, to="sparse", example_input=image, **QUICK)
    assert [type(m).__name__ for m in converted.children()] == ["Conv2d", "SparseKernelComplex2d", "Conv2d", "Conv2d"]
    report = mz.conversion_report(converted)
    assert list(report.converted) == ["blur"]
    assert "off by" in report.skipped["noise"] and "more than 25%" in report.skipped["noise"]
    assert report.skipped["small"] == "kernel of 5 x 5, below 7"
    assert report.skipped["stem"] == "not depthwise"
    moved = (converted(image) - before(image)).abs().max().item()
    assert report.output.maximum == pytest.approx(moved, rel=1e-3)
    assert "kernels moved" in str(report) and "speed" in str(report)
    assert report.to_frame().set_index("name").loc["blur", "kernel_error"] == report.approximations["blur"].kernel_error
    torch.testing.assert_close(before(image), model(image), rtol=0, atol=0)  # the argument is untouched


def test_the_reported_error_is_what_white_noise_loses(model):
    """For white noise the output's relative error is the kernel's, by Parseval."""
    converted = mz.convert(model, to="sparse", where=["blur"], **QUICK)
    noise = torch.randn(4, 2, 200, 200, generator=torch.Generator().manual_seed(2))
    wanted = nn.functional.conv2d(noise, model.blur.weight, groups=2)
    found = (converted.blur(noise) - converted.blur.bias[:, None, None])[..., 7:-7, 7:-7]
    error = ((found - wanted).norm() / wanted.norm()).item()
    assert mz.conversion_report(converted).approximations["blur"].kernel_error == pytest.approx(error, rel=0.1)


def test_what_is_slower_is_refused_with_the_figure_and_nothing_changes(model):
    before = list(model.modules())
    with pytest.raises(ConversionError, match=r"blur \(sparse kernels are .* times as fast: .* ms instead of .* ms\)"):
        mz.convert(model, to="sparse", where=["blur"], inplace=True, **{**QUICK, "min_speedup": 1e9})
    assert list(model.modules()) == before
    with pytest.warns(UserWarning, match="nothing to swap in Blurred.* e.g. blur"):
        converted = mz.convert(model, to="sparse", **{**QUICK, "min_speedup": 1e9})
    assert "times as fast" in mz.conversion_report(converted).skipped["blur"]


def test_revert_puts_the_kernel_back(model, image):
    converted = mz.convert(model, to="sparse", **QUICK)
    assert torch.equal(mz.revert(converted)(image), model(image))
    moved = mz.revert(copy.deepcopy(converted).double())
    assert torch.equal(moved(image.double()), copy.deepcopy(model).double()(image.double()))
    with torch.no_grad():
        converted.blur.weights.mul_(1.01)
    with pytest.raises(ConversionError, match="'blur' the first"):
        mz.revert(converted)


def test_save_and_load(model, image, tmp_path):
    converted = mz.convert(model, to="sparse", **QUICK)
    mz.save(converted, tmp_path / "saved")
    loaded = mz.load(tmp_path / "saved", model=Blurred())
    assert torch.equal(loaded(image), converted(image))
    assert loaded.blur.config == converted.blur.config
    with pytest.raises(ConversionError, match="no longer equal a convolution"):
        mz.revert(loaded)


def test_then_to_another_kind(model, image):
    """What was approximated stays, and so does its share in the report."""
    sparse = mz.convert(model, to="sparse", example_input=image, **QUICK)
    both = mz.convert(sparse, to="metric", where="stem+all", example_input=image)
    report = mz.conversion_report(both)
    assert {name: layer.kind for name, layer in report.converted.items()} == {
        "stem": "metric", "blur": "sparse", "noise": "metric", "small": "metric",
    }  # fmt: skip
    assert report.output.maximum >= mz.conversion_report(sparse).output.maximum
    assert isinstance(both.blur, SparseKernelComplex2d)


def test_hooks_bias_and_mode_stay(model, image):
    seen = []
    model.blur.register_forward_hook(lambda module, arguments, output: seen.append(type(module).__name__))
    model.blur.note = "mine"
    converted = mz.convert(model, to="sparse", inplace=True, **QUICK)
    seen.clear()
    converted(image)
    assert seen == ["SparseKernelComplex2d"] and converted.blur.note == "mine" and not converted.blur.training
    assert set(dict(converted.blur.named_parameters())) == {"offsets", "weights", "bias"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(model, image, dtype):
    converted = mz.convert(model.to(dtype), to="sparse", **QUICK)
    assert converted.blur.offsets.dtype == dtype
    exact = model.blur.double()(image.double()[:, :2])
    found = converted.blur(image.to(dtype)[:, :2]).double()
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


def test_same_padding_of_timm(image):
    """As TensorFlow pads: at the right and the bottom, by the input's size."""
    conv = Conv2dSame(3, 3, 9, stride=2, groups=3)
    with torch.no_grad():
        conv.weight.copy_(targets.gaussian(2, 9).expand(3, 1, -1, -1))
    layer = build_layer("conv", conv, "sparse", {"samples": 12, "layers": 3})
    layer.fit(conv.weight, 300)
    wanted = conv(image)
    found = layer(image)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()


def depthwise(cls: type = nn.Conv2d, kernel: int = 9, **options) -> nn.Conv2d:
    return cls(4, 4, kernel, groups=4, **{"padding": 4, **options})


@pytest.mark.parametrize(
    "conv, reason",
    [
        (depthwise(dilation=2, padding=8), "dilation"),
        (depthwise(kernel=8), "not odd and square"),
        (depthwise(padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.Conv2d(4, 8, 9, groups=4), "not depthwise"),
        (depthwise(StdConv2d), "standardised"),
        (nn.utils.parametrizations.weight_norm(depthwise()), "its weight is computed"),
        (mz.nn.DeformConv2d(4, 4, 9, padding=4, groups=4), "its kernel is not fixed"),
    ],
    ids=["dilated", "even", "reflect", "dense", "standardised", "weight-norm", "deformable"],
)
def test_reasons(conv, reason):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), conv)
    with pytest.warns(UserWarning, match="nothing to swap"):
        converted = mz.convert(model, to="sparse", **QUICK)
    assert reason in mz.conversion_report(converted).skipped["1"]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"reads": 3}, MetricZooError, "kind 'sparse' has no option 'reads'"),
        ({"samples": 2}, MetricZooError, "samples=2"),
        ({"max_error": 0}, MetricZooError, "max_error=0"),
        ({"steps": 2.5}, MetricZooError, "steps=2.5"),
        ({"seed": "a"}, MetricZooError, "seed='a'"),
        ({"max_error": "x"}, MetricZooError, "max_error='x'"),
        ({"min_speedup": -1.0}, MetricZooError, "min_speedup=-1"),
        ({"init": "uniform"}, ConversionError, "init='uniform' would lose them"),
        ({"where": {"blur": "metric"}}, ConversionError, "'metric' in a conversion to 'sparse'"),
        ({"where": lambda node: "metric"}, ConversionError, "'metric' in a conversion to 'sparse'"),
        ({"where": ["noise"], "max_error": 0.01}, ConversionError, r"noise \(sparse kernels are off by"),
    ],
    ids=["option", "samples", "error", "steps", "seed", "text", "speedup", "init", "rules", "callable", "lost"],
)
def test_bad_arguments(model, options, error, message):
    with pytest.raises(error, match=message):
        mz.convert(model, to="sparse", **{**QUICK, **options})


def test_sparse_beside_other_kinds_and_without_values(model):
    with pytest.raises(ConversionError, match="'sparse' in a conversion to 'metric'"):
        mz.convert(model, where={"blur": "sparse"})
    with pytest.raises(ConversionError, match="no kernels to fit"):
        mz.convert(model.to("meta"), to="sparse")


def test_a_kind_that_is_unknown_is_still_unknown(model):
    with pytest.raises(MetricZooError, match="unknown kind 'sparce'"):
        select([], Selection("sparce"))


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_stays_so_and_nothing_else(model, frozen):
    """Also where the layer is tried and refused."""
    getattr(model.blur, frozen).requires_grad_(False)
    other = {"weight": "bias", "bias": "weight"}[frozen]
    with pytest.raises(ConversionError):
        mz.convert(model, to="sparse", where=["blur"], inplace=True, **{**QUICK, "min_speedup": 1e9})
    assert not getattr(model.blur, frozen).requires_grad and getattr(model.blur, other).requires_grad
    converted = mz.convert(model, to="sparse", where=["blur"], **QUICK)
    assert converted.blur.weights.requires_grad == (frozen == "bias")
    assert converted.blur.bias.requires_grad == (frozen == "weight")


def test_the_worst_channel_decides(model):
    """Noise in one small channel of a smooth filter: what follows may scale it up."""
    with torch.no_grad():
        model.blur.weight[1] = 0.01 * model.noise.weight[1]
    with pytest.raises(ConversionError, match=r"blur \(sparse kernels are off by"):
        mz.convert(model, to="sparse", where=["blur"], **QUICK)


def test_empty_kernels_are_exact_and_broken_ones_are_left(model, image):
    with torch.no_grad():
        model.blur.weight.zero_()
        model.noise.weight[0, 0, 3, 3] = torch.inf
    converted = mz.convert(model, to="sparse", **QUICK)
    report = mz.conversion_report(converted)
    assert report.approximations["blur"].kernel_error == 0
    assert report.skipped["noise"] == "its kernels are not finite"


def test_it_compiles_exports_and_has_shapes_without_values(model, image, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    converted = mz.convert(model, to="sparse", **QUICK)
    expected = converted(image)
    compiled = torch.compile(converted, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), expected)
    torch.testing.assert_close(torch.export.export(converted, (image,)).module()(image), expected)
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(converted, (image,), path, dynamo=True, opset_version=20, verbose=False,
                          custom_translation_table=mz.ops.onnx_translations())  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert converted.to("meta")(image.to("meta")).shape == expected.shape


def test_a_picture_smaller_than_the_kernel():
    layer = SparseKernelComplex2d(2, 15, 12, 3)
    with pytest.raises(MetricZooError, match=r"kernel of \(15, 15\) is larger than the padded input: \(7, 7\)"):
        layer(torch.zeros(1, 2, 7, 7))
