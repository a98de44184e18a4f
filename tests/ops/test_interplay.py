"""What the framework's own tools make of the operator."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.benchmarks.operators.calls import KINDS, Call, assert_alike
from metric_zoo.ops.backends.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())


@pytest.fixture(autouse=True, params=[None])
def backend():
    with ops.use_backend("native"):
        yield


def arguments(call: Call) -> tuple:
    """The call as the registered operator takes it."""
    recorded = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.metric_zoo.sampled_conv2d.default:
                recorded.append(args)
            return function(*args, **(kwargs or {}))

    with Record():
        call.run(**call.leaves())
    return recorded[0]


SMALL = {"batch": 2, "size": (5, 4), "channels": 2, "out_channels": 2}
OPCHECKED = {
    "metric": Call(**SMALL),
    "deformable, channels last, no bias": Call(kind="deformable", channels_last=True, bias=False, **SMALL),
    "modulated, one channel": Call(kind="modulated", **{**SMALL, "channels": 1, "out_channels": 1}),
    "shifted, one pixel": Call(kind="shifted", channels_last=True, **{**SMALL, "size": (1, 1)}),
    "active": Call(kind="active", **SMALL),
    "star": Call(kind="star", **SMALL),
}


sized = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"),
    reason=f"torch {torch.__version__} fails in its own double backward of a convolution of free sizes: 2.13 is right",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=sized if name in ("metric", "active", "star") else ()) for name in OPCHECKED],
)
def test_opcheck(name):
    args = arguments(OPCHECKED[name])
    tensors = [t.clone().requires_grad_() if isinstance(t, torch.Tensor) else t for t in args]
    torch.library.opcheck(torch.ops.metric_zoo.sampled_conv2d.default, tuple(tensors))
    input, weight, _, *rest = tensors
    grad = torch.ops.metric_zoo.sampled_conv2d(*tensors).detach()
    for needs in ([True] * 4, [False, True, False, False]):  # also of a mask that is not there
        torch.library.opcheck(torch.ops.metric_zoo.sampled_conv2d_backward.default, (grad, input, weight, *rest, needs))


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives_are_finite_differences(kind):
    call = Call(kind=kind, **SMALL, dtype=torch.float64)
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    function = lambda *tensors: call.run(**dict(zip(leaves, tensors, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()), fast_mode=True)


def test_third_derivatives_are_the_torch_backends():
    layer = nn.MetricConv2d(2, 2, 3).double()
    torch.nn.init.normal_(layer.sampler.weight, std=0.3)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for name in ("native", "torch"):
        with ops.use_backend(name):
            value = layer(x).pow(2).sum()
            for _ in range(3):
                (value,) = torch.autograd.grad(value.pow(2).sum(), x, create_graph=True)
            found.append(value.detach())
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    assert found[0].any()


@pytest.mark.parametrize("way", ["dual tensors", "func.jvp", "func.jvp of weights"])
def test_forward_mode_is_refused_instead_of_zero(way):
    layer, x = nn.DeformConv2d(2, 2, 3), torch.randn(1, 2, 6, 6)
    with pytest.raises(MetricZooError, match="forward.mode"):
        if way == "dual tensors":
            with forward_ad.dual_level():
                layer(forward_ad.make_dual(x, torch.ones_like(x)))
        elif way == "func.jvp":
            torch.func.jvp(layer, (x,), (torch.ones_like(x),))
        else:
            weight = layer.weight.detach()
            run = lambda w: torch.func.functional_call(layer, {"weight": w}, (x,))  # noqa: E731
            torch.func.jvp(run, (weight,), (torch.ones_like(weight),))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batched", ["input", "weight", "field", "all"])
def test_vmap_is_a_loop(kind, batched):
    calls = [
        Call(kind=kind, channels=4, out_channels=4, groups=2 if kind != "shifted" else 1, seed=s) for s in range(3)
    ]
    each = [call.leaves() for call in calls]
    shared = each[0]
    names = list(shared)
    dims = [0 if batched in (name, "all") else None for name in names]
    stacked = [
        torch.stack([e[n] for e in each], d) if d is not None else shared[n] for n, d in zip(names, dims, strict=True)
    ]
    run = lambda *tensors: calls[0].run(**dict(zip(names, tensors, strict=True)))  # noqa: E731
    together = torch.vmap(run, tuple(dims))(*stacked)
    for index, one in enumerate(each):
        mixed = [one[n] if d is not None else shared[n] for n, d in zip(names, dims, strict=True)]
        torch.testing.assert_close(together[index], run(*mixed), rtol=1e-5, atol=1e-5)


def test_gradients_per_sample():
    layer, images = nn.MetricConv2d(3, 4, 3), torch.randn(5, 3, 7, 7)
    torch.nn.init.normal_(layer.sampler.weight, std=0.3)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(layer, parameters, (image[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, images)
    for index, image in enumerate(images):
        layer.zero_grad()
        layer(image[None]).square().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_a_break(kind):
    call = Call(kind=kind, channels=6, fields=2, channels_last=True)
    expected = call.outcome("native")
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    compiled = torch.compile(lambda tensors: call.run(**tensors).relu(), backend="aot_eager", fullgraph=True)
    output = compiled(leaves)
    torch.testing.assert_close(output, expected["output"].relu())
    output.sum().backward()
    eager = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    call.run(**eager).relu().sum().backward()
    assert_alike(*({name: leaf.grad for name, leaf in some.items()} for some in (leaves, eager)), 1e-6)


def test_inductor_trains_a_layer(monkeypatch):
    """Also where the environment names CI: there, inductor refuses operators with a decomposition it was not given."""
    monkeypatch.setenv("CI", "true")
    layer, x = nn.MetricConv2d(3, 4, 3, padding=1), torch.randn(2, 3, 8, 8)
    torch.nn.init.normal_(layer.sampler.weight, std=0.3)
    layer(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    torch.compile(layer, fullgraph=True)(x).square().sum().backward()
    assert_alike({name: p.grad for name, p in layer.named_parameters()}, expected, 1e-4)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("sampling", ["grid", "polar"])
def test_export(strict, sampling, tmp_path):
    """Also before any eager call: nothing made while tracing may stay behind."""
    layer, x = nn.MetricConv2d(3, 4, 5, padding=2, sampling=sampling).eval(), torch.randn(2, 3, 9, 9)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(layer, (x,), strict=strict, dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    x = torch.randn(5, 3, 9, 9)
    torch.testing.assert_close(loaded(x), layer(x))


def test_flops_are_those_of_a_convolution():
    """Bilinear reads aside: the product is a dense convolution's, and a backward pass has two of them."""
    x, weight = torch.randn(2, 6, 8, 8, requires_grad=True), torch.randn(4, 6, 3, 3, requires_grad=True)
    offset = torch.zeros(2, 18, 8, 8, requires_grad=True)
    totals = []
    for operator in (
        lambda: torch.nn.functional.conv2d(x, weight, padding=1),
        lambda: ops.deform_conv2d(x, offset, weight, padding=1),
    ):
        with FlopCounterMode(display=False) as counter:
            output = operator()
            forward = counter.get_total_flops()
            output.sum().backward()
        totals.append((forward, counter.get_total_flops()))
    assert totals[0] == totals[1] and totals[0][0] > 0


@pytest.mark.parametrize("wrong", ["weight", "bias", "offset"])
def test_a_compiler_refuses_what_eager_refuses(wrong):
    """Types are checked before they are cast."""
    arguments = {"offset": torch.zeros(1, 18, 6, 6), "weight": torch.randn(4, 4, 3, 3), "bias": torch.zeros(4)}
    arguments[wrong] = arguments[wrong].long() if wrong == "offset" else arguments[wrong].double()
    for function in (ops.deform_conv2d, torch.compile(ops.deform_conv2d, backend="eager")):
        with pytest.raises(Exception, match=f"{wrong} (has dtype )?torch"):
            function(torch.randn(1, 4, 8, 8), **arguments)
