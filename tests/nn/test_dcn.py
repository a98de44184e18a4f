"""DCNv3 and DCNv4 as modules, against torchvision's deformable convolution."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import metric_zoo as mz
from tests import dcn, published
from tests.dcn import Window

V3 = {
    "published": {},
    "no centre": {"remove_center": True},
    "5x5, scaled, 2 groups": {"kernel_size": 5, "pad": 2, "group": 2, "offset_scale": 1.7},
    "dilated, SiLU": {"dilation": 2, "pad": 2, "offset_scale": 0.5, "act_layer": "SiLU"},
    "2x2": {"kernel_size": 2, "dilation": 2, "dw_kernel_size": 3},
    "centre's share": {"center_feature_scale": True, "dw_kernel_size": 5, "remove_center": True, "act_layer": "ReLU"},
}
V4 = {
    "published": {},
    "no centre": {"remove_center": True},
    "5x5, scaled, 2 groups": {"kernel_size": 5, "pad": 2, "group": 2, "offset_scale": 1.7, "output_bias": False},
    "depthwise head": {"dw_kernel_size": 5, "offset_scale": 0.5},
    "no projections": {"without_pointwise": True},
    "centre's share": {"center_feature_scale": True, "dw_kernel_size": 3, "remove_center": True},
}
MODULES = {"v3": (mz.nn.DCNv3, V3, dcn.dcnv3), "v4": (mz.nn.DCNv4, V4, dcn.dcnv4)}
CASES = [(version, case) for version, (_, cases, _) in MODULES.items() for case in cases]


def window_of(options: dict) -> Window:
    return Window(**{name: value for name, value in options.items() if name in Window._fields})


def built(version: str, options: dict, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """With parameters that take samples off the grid."""
    torch.manual_seed(0)
    module = MODULES[version][0](16, **options, dtype=dtype)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def results(run, x: torch.Tensor, weights: dict[str, torch.Tensor], grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output, and the gradients by name."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    x = x.clone().requires_grad_()
    output = run(x, weights)
    gradients = torch.autograd.grad(output, [x, *weights.values()], grad)
    return {"output": output.detach(), **dict(zip(["x", *weights], gradients, strict=True))}


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize(("version", "case"), CASES, ids=[" ".join(case) for case in CASES])
def test_they_are_torchvisions_deformable_convolution(version, case, backend):
    _, cases, oracle = MODULES[version]
    options = dict(cases[case])
    module = built(version, options)
    x, grad = torch.randn(2, 2, 7, 9, 16, dtype=torch.float64)
    weights = dict(module.named_parameters())
    extra = {"activation": options["act_layer"]} if "act_layer" in options else {}
    expected = results(lambda x, w: oracle(x, w, window_of(options), **extra), x, weights, grad)
    with mz.ops.use_backend(backend):
        found = results(lambda x, w: torch.func.functional_call(module, w, (x,)), x, weights, grad)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("version", MODULES)
def test_float32(version):
    module = built(version, {}, torch.float32)
    x = torch.randn(1, 12, 10, 16)
    expected = MODULES[version][2](x.double(), {k: v.double() for k, v in module.state_dict().items()}, Window())
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_batch_norm_is_the_frameworks():
    module = built("v3", {"norm_layer": "BN"}).eval()
    x = torch.randn(2, 6, 5, 16, dtype=torch.float64)
    conv, (batch_norm, _), _ = module.dw_conv
    expected = F.gelu(batch_norm(conv(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
    torch.testing.assert_close(module.dw_conv(x.permute(0, 3, 1, 2)), expected)
    assert {"dw_conv.1.0.running_mean", "dw_conv.1.0.weight"} < set(module.state_dict())


def test_v3_starts_as_a_mean_over_the_window():
    module = mz.nn.DCNv3(8, dtype=torch.float64)
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    mean = F.avg_pool2d(module.input_proj(x).permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=True)
    torch.testing.assert_close(module(x), module.output_proj(mean.permute(0, 2, 3, 1)))


def test_v4_starts_with_its_bias():
    module = mz.nn.DCNv4(8)
    torch.nn.init.normal_(module.output_proj.bias)
    torch.testing.assert_close(module(torch.randn(1, 4, 4, 8)), module.output_proj.bias.expand(1, 4, 4, 8))


# Of the published modules with 64 channels and 4 groups.
PUBLISHED = {
    "v3": {
        "dw_conv.0.weight": (64, 1, 3, 3),
        "dw_conv.0.bias": (64,),
        "dw_conv.1.1.weight": (64,),
        "dw_conv.1.1.bias": (64,),
        "offset.weight": (72, 64),
        "offset.bias": (72,),
        "mask.weight": (36, 64),
        "mask.bias": (36,),
        "input_proj.weight": (64, 64),
        "input_proj.bias": (64,),
        "output_proj.weight": (64, 64),
        "output_proj.bias": (64,),
    },
    "v4": {
        "offset_mask.weight": (112, 64),
        "offset_mask.bias": (112,),
        "value_proj.weight": (64, 64),
        "value_proj.bias": (64,),
        "output_proj.weight": (64, 64),
        "output_proj.bias": (64,),
    },
}


@pytest.mark.parametrize("version", PUBLISHED)
def test_parameters_are_the_published_ones(version):
    state = MODULES[version][0]().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == PUBLISHED[version]


@pytest.mark.parametrize(("points", "rows"), [(9, 56), (8, 48)], ids=["9 points", "8 points"])
def test_v4_rounds_its_channels_up_to_multiples_of_8(points, rows):
    module = mz.nn.DCNv4(16, group=2, remove_center=points == 8)
    assert module.offset_mask.out_features == rows


def test_v4_takes_rows_of_pixels():
    module, x = built("v4", {}), torch.randn(2, 6, 4, 16, dtype=torch.float64)
    torch.testing.assert_close(module(x.flatten(1, 2), (6, 4)), module(x).flatten(1, 2))
    square = x[:, :4]
    torch.testing.assert_close(module(square.flatten(1, 2)), module(square).flatten(1, 2))


@pytest.mark.parametrize("version", MODULES)
def test_layers_within_are_called(version):
    """So that hooks see them, and what replaces a linear layer (an adapter, a quantised one) is what runs."""
    module, x = built(version, {}), torch.randn(1, 5, 5, 16, dtype=torch.float64)
    expected = copy.deepcopy(module)
    for name in ("offset", "mask", "offset_mask"):
        if hasattr(module, name):
            getattr(module, name).register_forward_hook(lambda layer, args, output: output + 0.25)
            getattr(expected, name).bias.data += 0.25
    torch.testing.assert_close(module(x), expected(x))


def test_autocast_leaves_positions_their_precision():
    """Beside a grid of 4 pixels bfloat16 would take an offset of 0.01 for none."""
    module, x = mz.nn.DCNv3(16, kernel_size=9, pad=4), torch.randn(1, 12, 12, 16)
    torch.nn.init.constant_(module.offset.bias, 0.01)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        positions = module.points.positions(module.offset(x), module.group)
        assert module(x).dtype == torch.bfloat16
    torch.testing.assert_close(positions - positions.round(), torch.full_like(positions, 0.01), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("version", MODULES)
def test_they_compile_whole_export_and_trace(version):
    module = built(version, {}, torch.float32).eval()
    x = torch.randn(2, 6, 8, 16)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x), module(x))
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (x,), dynamic_shapes=dynamic)
    other = torch.randn(3, 9, 5, 16)
    torch.testing.assert_close(program.module()(other), module(other))
    torch.testing.assert_close(torch.jit.trace(module, (x,))(other), module(other))


BAD = {
    "groups": ({"channels": 10}, "group=4 does not divide channels=10"),
    "no channels": ({"channels": 0}, "channels=0: expected a whole number >= 1"),
    "stride": ({"stride": 2}, "stride=2: offsets are predicted at every pixel"),
    "pad": ({"pad": 0}, "pad=0 .* expected a pad of 1"),
    "even window": ({"kernel_size": 2, "dilation": 2, "remove_center": True}, "kernel_size=2: expected an odd"),
    "even depthwise": ({"dw_kernel_size": 4}, "dw_kernel_size=4: expected an odd"),
    "scale": ({"offset_scale": "1"}, "offset_scale='1': expected a number"),
}


@pytest.mark.parametrize("version", MODULES)
@pytest.mark.parametrize("case", BAD)
def test_bad_options(version, case):
    options, message = BAD[case]
    with pytest.raises(mz.MetricZooError, match=message):
        MODULES[version][0](**options)


def test_unknown_layers_are_named():
    with pytest.raises(mz.MetricZooError, match="act_layer='gelu': expected one of .*'GELU'"):
        mz.nn.DCNv3(act_layer="gelu")
    with pytest.raises(mz.MetricZooError, match="norm_layer='GN': expected one of"):
        mz.nn.DCNv3(norm_layer="GN")


@pytest.mark.parametrize("version", MODULES)
def test_bad_images(version):
    with pytest.raises(mz.MetricZooError, match=r"\(2, 16, 8, 8\), expected \(B, H, W, 16\): channels last"):
        MODULES[version][0](16)(torch.randn(2, 16, 8, 8))


def test_rows_of_pixels_that_are_no_image():
    module = mz.nn.DCNv4(16)
    with pytest.raises(mz.MetricZooError, match="24 pixels, which are no square"):
        module(torch.randn(1, 24, 16))
    with pytest.raises(mz.MetricZooError, match=r"24 pixels, expected 5\*5"):
        module(torch.randn(1, 24, 16), (5, 5))


@pytest.mark.parametrize(("version", "key"), [("v3", "offset.weight"), ("v4", "offset_mask.weight")])
def test_a_checkpoint_with_other_points_is_refused_with_the_key(version, key):
    others = MODULES[version][0](16, remove_center=True).state_dict()
    model = torch.nn.Sequential(MODULES[version][0](16))
    with pytest.raises(RuntimeError, match=f"0.{key} is of windows with 8 points, .* remove_center=True"):
        model.load_state_dict({f"0.{name}": value for name, value in others.items()}, strict=False)


def test_torchscript_is_refused():
    with pytest.raises(mz.MetricZooError, match="cannot compile DCNv3: use torch.jit.trace"):
        torch.jit.script(mz.nn.DCNv3(8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("version", "case"), CASES, ids=[" ".join(case) for case in CASES])
def test_they_are_the_published_modules(version, case, monkeypatch):
    """In float32, where alone the published DCNv3 keeps its coordinates."""
    ours, cases, _ = MODULES[version]
    other = {"v3": published.dcnv3, "v4": published.dcnv4}[version](monkeypatch)(64, **cases[case])
    torch.manual_seed(0)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module, x = ours(64, **cases[case]), torch.randn(2, 7, 9, 64)
    module.load_state_dict(other.state_dict(), strict=True)
    assert list(module.state_dict()) == list(other.state_dict())

    def run(model, x, weights):
        shaped = (x.flatten(1, 2), (7, 9)) if version == "v4" else (x,)
        return torch.func.functional_call(model, weights, shaped).reshape(x.shape)

    found, expected = (
        results(partial(run, model), x, dict(model.named_parameters()), torch.ones_like(x)) for model in (module, other)
    )
    for name, value in expected.items():
        assert (found[name] - value).norm() < 1e-5 * value.norm().clamp_min(1), name
