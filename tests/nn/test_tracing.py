"""Layers under the framework's tracers and compilers: what is recorded serves other batches and sizes, and trains."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import fx
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor

import metric_zoo as mz
from metric_zoo import nn, ops
from tests.kinds import EVERY, SAMPLED

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")

COMPILED = [name for name in EVERY if name != "geodesic"]  # whose hundreds of operations take a compiler long
FREE = {
    0: torch.export.Dim("batch", max=64),
    2: torch.export.Dim("height", min=16, max=256),
    3: torch.export.Dim("width", min=16, max=256),
}
SIZES = ((2, 3, 16, 17), (5, 3, 31, 20), (3, 3, 33, 16))


def build(kind: str, padding: int | str = 1, stride: int = 2) -> torch.nn.Module:
    if kind == "sparse":
        return nn.SparseKernelComplex2d(3, 7, 5, 2, stride, padding if padding == "same" else 3)
    return SAMPLED[kind](3, 6, 3, stride, padding)


def moved(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def assert_alike(found, expected, sizes=SIZES) -> None:
    for size in sizes:
        x = torch.randn(size)
        torch.testing.assert_close(found(x), expected(x), rtol=1e-4, atol=2e-5)


class Counted:
    """A backend that compiles nothing, and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: fx.GraphModule, _) -> object:
        self.graphs += 1
        return graph.forward


# --- torch.fx


@pytest.mark.parametrize("root", ["network", "layer"])
@pytest.mark.parametrize("kind", EVERY)
def test_every_tracer_takes_a_layer_for_a_leaf(kind, root):
    layer = moved(build(kind, "same"))
    model = layer if root == "layer" else torch.nn.Sequential(layer, torch.nn.ReLU())
    traced = fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes].count("call_module") == (1 if root == "layer" else 2)
    traced.graph.lint()
    twins = [traced, copy.deepcopy(traced), fx.symbolic_trace(traced)]
    if root == "network" or torch.__version__ >= (2, 14):  # 2.11 pickles no annotations that are text
        twins.append(pickle.loads(pickle.dumps(traced)))
    for twin in twins:
        assert_alike(twin, model)
    x = torch.randn(SIZES[0])
    torch.testing.assert_close(fx.Interpreter(traced).run(x), model(x))
    traced(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["deformable", "sparse"])
def test_images_without_a_batch_and_keywords(kind):
    layer = moved(build(kind))
    traced = fx.symbolic_trace(torch.nn.Sequential(layer))
    x = torch.randn(3, 16, 17)
    torch.testing.assert_close(traced(x), layer(x))
    torch.testing.assert_close(layer(input=x), layer(x))


def test_hooks_run_once_and_see_tensors_alone():
    net = torch.nn.Sequential(moved(build("metric")))
    seen = []
    net[0].register_forward_pre_hook(lambda _, inputs: (seen.append(type(inputs[0])), (2 * inputs[0],))[1])
    net[0].register_forward_hook(lambda _, __, output: output + 1)
    traced = fx.symbolic_trace(net)
    assert not seen
    assert_alike(traced, net)
    assert set(seen) == {torch.Tensor}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=4, zero_init_last=False).eval()


@pytest.mark.parametrize("output", ["module", "graph"])
def test_torchvision_extracts_features(resnet, output):
    x = torch.randn(1, 3, 64, 64)
    model = moved(mz.convert(resnet, "metric", example_input=x, output=output))
    found = create_feature_extractor(model, ["layer2.0.conv1"])(x)
    seen = []
    model.get_submodule("layer2.0.conv1").register_forward_hook(lambda _, __, output: seen.append(output))
    model(x)
    torch.testing.assert_close(found["layer2.0.conv1"], seen[0])


def test_timm_extracts_features_through_its_own_tracer():
    mz.register()
    options = {"features_only": True, "feature_cls": "fx", "out_indices": (1, 3)}
    x = torch.randn(1, 3, 64, 64)
    found = timm.create_model("deformable_resnet10t", **options).eval()(x)
    plain = timm.create_model("resnet10t", **options).eval()(x)
    assert [f.shape for f in found] == [f.shape for f in plain]


def test_fusing_normalisations_keeps_the_function(resnet):
    """The framework's optimiser folds a BatchNorm into the convolution before it; ours are none of those it knows."""
    model = moved(mz.convert(resnet, "deformable", example_input=torch.randn(1, 3, 64, 64))).double().eval()
    fused = fuse(model)
    kinds = [type(m) for m in fused.modules()]
    assert kinds.count(torch.nn.BatchNorm2d) == kinds.count(nn.DeformConv2d) > 0
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-9, atol=1e-9)


# --- sizes that are left open


@pytest.mark.parametrize("kind", [name for name in COMPILED if name != "dilated"])
@pytest.mark.parametrize("way", ["compile", "export", "jit"])
def test_same_padding_follows_the_size(kind, way):
    """Of a fresh layer, which is the ordinary convolution; timm's, of TensorFlow's padding, is the oracle."""
    plain = Conv2dSame(3, 6, 3, stride=2).eval()
    layer = moved(build(kind, "same")) if kind == "sparse" else build(kind, "same")
    if kind != "sparse":
        layer.load_state_dict(plain.state_dict(), strict=False)
    expected = layer if kind == "sparse" else plain
    backend = Counted()
    x = torch.randn(SIZES[0])
    if way == "compile":
        torch._dynamo.reset()
        found = torch.compile(layer, backend=backend, dynamic=True, fullgraph=True)
    elif way == "jit":
        found = torch.jit.trace(layer, x, check_trace=False)
    else:
        found = torch.export.export(layer, (x,), dynamic_shapes=(FREE,)).module()
    assert_alike(found, expected)
    assert backend.graphs <= 2


@pytest.mark.parametrize("size, stride, kernel", [(12, 4, 3), (13, 4, 3), (14, 4, 3), (8, 3, 1), (9, 2, 5)])
def test_a_trace_also_serves_sizes_without_padding(size, stride, kernel):
    """Where a window is smaller than the stride some sizes are padded, and others are not."""
    layer = nn.DeformConv2d(3, 6, kernel, stride, "same")
    plain = Conv2dSame(3, 6, kernel, stride=stride)
    layer.load_state_dict(plain.state_dict(), strict=False)
    traced = torch.jit.trace(layer, torch.randn(1, 3, size, size), check_trace=False)
    assert_alike(traced, plain, [(2, 3, n, n + 1) for n in (11, 12, 13, 14, 15)])


@pytest.mark.parametrize("kind", ["deformable", "modulated", "metric", "active"])
@pytest.mark.parametrize("way", ["compile", "export", "strict export", "jit"])
def test_the_torch_backend_records_one_operator_for_all_sizes(kind, way):
    layer, backend, x = moved(build(kind)), Counted(), torch.randn(SIZES[0])
    torch._dynamo.reset()
    with ops.use_backend("torch"):
        if way == "compile":
            found = torch.compile(layer, backend=backend, dynamic=True, fullgraph=True)
        elif way == "jit":
            found = torch.jit.trace(layer, x, check_trace=False)
        else:
            program = torch.export.export(layer, (x,), dynamic_shapes=(FREE,), strict=way == "strict export")
            found = program.module()
        assert_alike(found, layer)
    assert backend.graphs <= 1


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["deformable", "modulated", "metric", "active", "dilated"])
def test_the_torch_backend_trains_compiled_as_it_does_otherwise(kind, groups):
    """Composed of the framework's differentiable operations it is the oracle of the operator's own gradients."""
    own = "metric_groups" if kind == "metric" else "offset_groups"
    options = {"factor": 1.5} if kind == "dilated" else {own: groups}
    layer = moved(SAMPLED[kind](4, 6, 3, 2, 1, groups=groups, **options).double())
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    with ops.use_backend("torch"):
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        results = [
            torch.autograd.grad(function(x).sin().sum(), [x, *layer.parameters()]) for function in (layer, compiled)
        ]
    for name, eager, found in zip(["input", *names], *results, strict=True):
        torch.testing.assert_close(found, eager, rtol=1e-9, atol=1e-9, msg=name)


# --- geodesics


def test_geodesic_gradients_per_sample():
    layer = nn.GeodesicConv2d(2, 2, 3, padding=1).double()
    torch.nn.init.normal_(layer.sampler.weight, std=0.3)
    images = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(layer, parameters, (image[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, images)
    for index, image in enumerate(images):
        layer.zero_grad()
        layer(image[None]).square().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad, rtol=1e-8, atol=1e-8, msg=name)


def test_a_geodesic_trace_serves_other_batches():
    layer = moved(build("geodesic"))
    assert_alike(torch.jit.trace(layer, torch.randn(SIZES[0]), check_trace=False), layer)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "sampling"), [("compile", "grid"), ("export", "grid"), ("compile", "zermelo")])
def test_geodesics_compile_for_all_sizes(way, sampling):
    layer, backend = moved(nn.GeodesicConv2d(3, 6, 3, 2, 1, sampling=sampling)), Counted()
    if way == "compile":
        torch._dynamo.reset()
        found = torch.compile(layer, backend=backend, dynamic=True, fullgraph=True)
    else:
        found = torch.export.export(layer, (torch.randn(SIZES[0]),), dynamic_shapes=(FREE,)).module()
    assert_alike(found, layer)
    assert backend.graphs <= 1


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_function_transforms_compile(transform):
    """The oracle is the same without a compiler, where the framework composes them."""
    if transform == "grad" and torch.__version__ < (2, 14):
        pytest.skip("torch 2.11 compiles no gradient of a custom operator's")
    layer, x = moved(build("metric")), torch.randn(3, 3, 9, 9)

    def run(x):
        if transform == "vmap":
            return torch.func.vmap(lambda image: layer(image[None])[0])(x)
        return torch.func.grad(lambda x: layer(x).square().sum())(x)

    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(run, backend="aot_eager")(x), run(x), rtol=1e-4, atol=1e-5)


# --- saved programs


ASKED = "import metric_zoo, importlib.util; importlib.util.find_spec('torch'); import torch"  # as transformers asks
IMPORTS = ["import torch, metric_zoo", "import metric_zoo, torch", ASKED]


@pytest.mark.parametrize("imports", IMPORTS, ids=["after torch", "before torch", "torch was asked for"])
def test_a_saved_program_loads_after_a_plain_import(imports, tmp_path):
    layer, x = moved(build("deformable")).eval(), torch.randn(SIZES[0])
    path = tmp_path / "layer.pt2"
    torch.export.save(torch.export.export(layer, (x,)), path)
    torch.save((x, layer(x).detach()), tmp_path / "expected.pt")
    code = (
        f"{imports}\nx, y = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        f"torch.testing.assert_close(torch.export.load({str(path)!r}).module()(x), y); print('loaded')"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "loaded", run.stderr
