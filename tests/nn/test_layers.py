"""Every kind of layer: it starts as the ordinary convolution, and then it is more."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, nn
from metric_zoo.nn.registry import get_kind
from tests.kinds import EVERY, LOSSLESS, SAMPLED, disturb, options_of, stand_in

OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2, "bias": False},
    {"kernel_size": (3, 5), "padding": (1, 2), "dilation": (1, 2), "stride": (2, 1)},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 7, "padding": 3, "groups": 4},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "stride": 2},
    {"kernel_size": 5, "padding": "same", "padding_mode": "circular"},
]


SMALL = {"sparse": {"samples": 3, "layers": 2}}
"""Options where the usual ones would take long, or reach far."""


def short(options) -> str:
    return "-".join(f"{k}{v}".replace(" ", "") for k, v in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=short)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_starts_as_the_ordinary_convolution(kind, options):
    plain = torch.nn.Conv2d(4, 8, **options)
    layer = SAMPLED[kind](4, 8, **options)
    missing = layer.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    x = torch.randn(2, 4, 11, 10)
    expected = plain(x)
    y = layer(x)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert layer.is_identity()
    torch.testing.assert_close(layer(x[0]), y[0])


@pytest.mark.parametrize("options", OPTIONS, ids=short)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_parameter_learns(kind, options):
    layer = disturb(SAMPLED[kind](4, 8, **options))
    assert not layer.is_identity()
    layer(torch.randn(2, 4, 11, 10)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_fresh_rule_receives_a_gradient(kind):
    layer = SAMPLED[kind](4, 8, 3, padding=1)
    layer(torch.randn(2, 4, 11, 10)).square().sum().backward()
    rule = get_kind(kind).rule_parameters(layer)[0]
    assert rule.grad.isfinite().all() and rule.grad.abs().max() > 0


@pytest.mark.parametrize("kind", EVERY)
def test_images_of_a_batch_do_not_mix(kind):
    layer = disturb(stand_in(kind, dtype=torch.float64))
    x = torch.randn(5, 4, 9, 9, dtype=torch.float64)
    alone = torch.cat([layer(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(layer(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind != "stn"])  # whose map turns about the image's centre
def test_shift_equivariance_away_from_the_border(kind):
    layer = disturb(stand_in(kind, 3, 4, dtype=torch.float64, **SMALL.get(kind, {})), 0.02)
    x = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    moved = layer(torch.roll(x, (3, 2), (2, 3)))[..., 10:18, 10:18]
    torch.testing.assert_close(moved, torch.roll(layer(x), (3, 2), (2, 3))[..., 10:18, 10:18], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", EVERY)
def test_gradcheck(kind):
    # The detaching rules drop a part on purpose.
    options = {"drift": "sigmoid"} if "drift" in options_of(kind) else SMALL.get(kind, {})
    layer = disturb(stand_in(kind, 2, 2, dtype=torch.float64, **options))
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))


@pytest.mark.parametrize("kind", SAMPLED)
def test_positions_have_the_documented_shape(kind):
    groups = {name: 2 for name in options_of(kind) if name.endswith("_groups")}
    layer = SAMPLED[kind](4, 8, 3, stride=2, padding=1, **groups)
    assert layer.sample_positions(torch.randn(2, 4, 9, 9)).shape[1:] == (9 * (2 if groups else 1), 2, 5, 5)


@pytest.mark.parametrize("kind", EVERY)
def test_copies_prints_and_saves(kind, tmp_path):
    layer = disturb(stand_in(kind))
    x = torch.randn(1, 4, 8, 8)
    torch.save(layer, tmp_path / "layer.pt")
    loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
    for twin in (copy.deepcopy(layer), loaded):
        assert torch.equal(twin(x), layer(x))
    assert f"kernel_size={layer.kernel_size}" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_half_precision_starts_as_the_convolution(kind, dtype):
    layer = SAMPLED[kind](4, 8, 3, padding=1).to(dtype)
    x = torch.randn(2, 4, 9, 9).to(dtype)
    expected = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1)
    assert layer(x).dtype == dtype
    assert (layer(x).float() - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("kind", EVERY)
def test_autocast(kind):
    layer = disturb(stand_in(kind))
    x = torch.randn(2, 4, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and y.isfinite().all()
    y.float().sum().backward()


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2], OPTIONS[4]], ids=short)
def test_head_of_another_size_reads_the_same_windows(size, options):
    """A head with one weight at its centre predicts the input at each window's centre, whatever its size."""
    layer = nn.ShiftedConv2d(4, 8, **options, head_kernel_size=size)
    with torch.no_grad():
        layer.sampler.weight[:, 0, size // 2, size // 2] = 1
    x = torch.randn(1, 4, 11, 10)
    kernel = torch.zeros(1, 4, *layer.kernel_size)
    kernel[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
    padding = options.get("padding")
    centre = F.conv2d(x, kernel, None, layer.stride, padding, layer.dilation)
    shift = layer.sample_positions(x)[:, layer.kernel_size[0] * layer.kernel_size[1] // 2]
    torch.testing.assert_close(shift, centre.expand(-1, 2, -1, -1))


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 4])
def test_dilated_by_whole_factors_is_conv2d(factor, kernel):
    layer = nn.DilatedConv2d(4, 8, kernel, padding=1, factor=factor)
    x = torch.randn(1, 4, 12, 12)
    growth = (kernel - 1) * (factor - 1)
    if growth % 2:  # the stretched centre lies between pixels: the mean of the four around it
        wide = F.pad(x, [growth // 2 + 2] * 4)
        wide = F.avg_pool2d(wide, 2, stride=1)[..., :, :]
        expected = F.conv2d(wide, layer.weight, layer.bias, 1, 0, factor)
        assert layer(x).shape[-2:] == (11, 11)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    else:
        expected = F.conv2d(x, layer.weight, layer.bias, 1, 1 + growth // 2, factor)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_dilated_by_a_fraction_interpolates():
    layer = nn.DilatedConv2d(1, 1, 3, padding=1, factor=1.5, bias=False)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 1, 2] = 1  # reads 1.5 pixels to the right
    x = torch.arange(25.0).view(1, 1, 5, 5)
    assert layer(x)[0, 0, 2, 1].item() == pytest.approx((x[0, 0, 2, 2] + x[0, 0, 2, 3]).item() / 2)


def test_same_padding_with_stride_is_tensorflows():
    """ceil(size / stride) pixels, the surplus at the bottom right."""
    layer = nn.MetricConv2d(2, 3, 3, stride=2, padding="same")
    x = torch.randn(1, 2, 8, 7)
    expected = F.conv2d(F.pad(x, (1, 1, 0, 1)), layer.weight, layer.bias, 2)
    assert layer(x).shape[-2:] == (4, 4)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parametrization", ["cholesky", "ldlt", "eigen", "eigen_scaled", "eigen_scaled_ratio"])
def test_published_start(parametrization):
    """Rows of the head as in the reference program; kernels constant."""
    layer = nn.MetricConv2d(4, 8, 3, padding=1, parametrization=parametrization, sampling="polar", scale=(0.1, 1.5))
    layer.reset_uniform()
    assert (layer.weight == 1 / 36).all() and not layer.bias.any()
    mean, tiny = torch.tensor(1 / 36), torch.tensor(1e-6)
    rows = {"cholesky": [mean, tiny, mean, tiny, tiny], "ldlt": [tiny, mean, mean, tiny, tiny]}
    if parametrization in rows:
        for index, value in enumerate(rows[parametrization]):
            assert (layer.sampler.weight[index] == value).all()
    elif parametrization.startswith("eigen_scaled"):
        assert (layer.sampler.weight[2:] == tiny).all() and not layer.sampler.bias[2:].any()
        radius = layer.metric(torch.rand(1, 4, 6, 6)).unit_ball(8).norm(dim=3)
        torch.testing.assert_close(radius, torch.full_like(radius, 0.8**-0.5), rtol=1e-3, atol=0)


BAD = [
    (lambda: nn.MetricConv2d(4, 8, 3, parametrization="eig"), "parametrization='eig'"),
    (lambda: nn.MetricConv2d(4, 8, 3, sampling="disc"), "sampling='disc'"),
    (lambda: nn.MetricConv2d(4, 8, (3, 5), sampling="polar"), "square kernel"),
    (lambda: nn.MetricConv2d(4, 8, 3, drift="clip"), "drift='clip'"),
    (lambda: nn.MetricConv2d(4, 8, 3, eps_omega=1.5), "eps_omega=1.5"),
    (lambda: nn.MetricConv2d(4, 8, 3, scale=(2.0, 1.0)), r"scale=\(2.0, 1.0\)"),
    (lambda: nn.MetricConv2d(4, 8, 3, scale=5), "scale=5"),
    (lambda: nn.MetricConv2d(4, 8, 3, eps_omega="high"), "eps_omega='high'"),
    (lambda: nn.MetricConv2d(4, 8, 3, metric_groups=3), "3 sampling groups do not divide in_channels=4"),
    (lambda: nn.GeodesicConv2d(4, 8, 3, eps_omega=0.01), "eps_omega=0.01: geodesic balls need"),
    (lambda: nn.DeformConv2d(4, 8, 3, offset_groups=0), "offset_groups=0"),
    (lambda: nn.ShiftedConv2d(4, 8, 3, head_kernel_size=2), r"head_kernel_size=\(2, 2\)"),
    (lambda: nn.DeformConv2d(4, 8, 3, max_offset=0), "max_offset=0: expected pixels"),
    (lambda: nn.ShiftedConv2d(4, 8, 3, max_offset=float("nan")), "max_offset=nan"),
    (lambda: nn.ModulatedDeformConv2d(4, 8, 3, max_offset=10**400), "max_offset=1000000"),
    (lambda: nn.DeformConv2d(4, 8, 3, max_offset=True), "max_offset=True"),
    (lambda: nn.DeformConv2d(4, 8, 3, max_offset="8"), "max_offset='8'"),
    (lambda: nn.DilatedConv2d(4, 8, 3, factor=-1), "factor=-1"),
    (lambda: nn.ActiveConv2d(4, 8, 3, padding="some"), "padding is 'some'"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:24] for _, message in BAD])
def test_errors_name_the_value(make, message):
    with pytest.raises(MetricZooError, match=message):
        make()


@pytest.mark.parametrize("kind", EVERY)
def test_an_empty_batch_is_an_empty_result(kind):
    layer = stand_in(kind, 4, 4)
    y = layer(torch.zeros(0, 4, 9, 9))
    assert y.shape == torch.nn.Conv2d(4, 4, 3, padding=1)(torch.zeros(0, 4, 9, 9)).shape
    y.sum().backward()


@pytest.mark.parametrize("sampling", ["grid", "zermelo"])
def test_an_exploding_head_gives_numbers(sampling):
    layer = nn.MetricConv2d(16, 8, 3, padding=1, sampling=sampling)
    torch.nn.init.normal_(layer.sampler.weight, std=3.0)
    x = torch.randn(2, 16, 12, 12, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in (x, *layer.parameters()))


@pytest.mark.parametrize("kind", SAMPLED)
def test_options_are_shown_with_their_defaults(kind):
    """The oracle is the signature of the framework's layer, and the dataclass of options."""
    parameters = inspect.signature(SAMPLED[kind]).parameters
    theirs = inspect.signature(torch.nn.Conv2d).parameters
    positional = [p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert positional == [name for name in theirs if name not in ("device", "dtype")]
    keywords = {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    options = dataclasses.asdict(get_kind(kind).config())
    assert keywords == {**options, "device": None, "dtype": None}
    told = "".join(cls.__doc__ for cls in SAMPLED[kind].__mro__[:2])  # of a subclass, its base's too
    assert all(f"{name}:" in told for name in options)
    assert set(inspect.signature(SAMPLED[kind](2, 2, 3)).parameters) == {"args", "kwargs"}, "of a call, not of a layer"


@pytest.mark.parametrize("error", [MetricZooError, TypeError])
def test_an_unknown_option_is_named_with_the_nearest(error):
    with pytest.raises(error, match="'metric' has no option 'parametrisation'; did you mean 'parametrization'"):
        nn.MetricConv2d(4, 8, 3, parametrisation="eigen")
