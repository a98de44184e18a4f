"""A backend answers for itself: one from outside is all there is to it, and every call settles on one once."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.ops import padding
from metric_zoo.ops.backends import BACKENDS
from metric_zoo.ops.backends.base import Backend
from metric_zoo.ops.backends.native import library, structs
from metric_zoo.ops.backends.torch import Torch

native = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())
OPERATOR = torch.ops.metric_zoo.sampled_conv2d.default


@pytest.fixture(autouse=True, params=[None])
def backend():
    with ops.use_backend(None):
        yield


class Sevens(Backend):
    """What it computes is seven everywhere, and its gradients count up."""

    name = "sevens"
    dtypes = (torch.float32,)
    differentiates_blended = True

    def __init__(self) -> None:
        self.inputs = []

    def forward(self, input, weight, bias, field, mask, sampling, window):
        self.inputs.append(input.dtype)
        return input.new_full((input.shape[0], weight.shape[0], *window.size), 7)

    def backward(self, grad, input, weight, field, mask, sampling, window, needs):
        tensors = zip((input, weight, field, mask), needs, strict=True)
        return tuple(torch.full_like(t, i) if need else None for i, (t, need) in enumerate(tensors))

    def forward_blended(self, input, weight, field, tables, grid, window):
        return torch.full_like(input, 7)

    def backward_blended(self, grad, input, weight, field, tables, grid, window, needs):
        tensors = zip((input, field, tables), needs, strict=True)
        return tuple(torch.full_like(t, i) if need else None for i, (t, need) in enumerate(tensors))


@pytest.fixture
def sevens(monkeypatch):
    backend = Sevens()
    monkeypatch.setitem(BACKENDS, "sevens", backend)
    with ops.use_backend("sevens"):
        yield backend


def call(input=None, **changes):
    input = torch.zeros(1, 2, 5, 5) if input is None else input
    given = {"weight": torch.ones(3, 2, 3, 3), "offset": torch.zeros(1, 18, 3, 3), **changes}
    return ops.deform_conv2d(input, given["offset"], given["weight"])


def raw(sampling="offset", field=(1, 1, 9, 2, 3, 3), weight=None):
    input, weight = torch.zeros(1, 2, 5, 5), torch.ones(3, 2, 3, 3) if weight is None else weight
    return OPERATOR(input, weight, None, torch.zeros(field), None, sampling, [1, 1], [0] * 4, [1, 1], 1)


def test_one_from_outside_is_asked_like_any_other(sevens):
    assert ops.backend() == ops.backend("cuda") == "sevens"
    leaves = {"input": torch.zeros(1, 2, 5, 5), "weight": torch.ones(3, 2, 3, 3), "offset": torch.zeros(1, 18, 3, 3)}
    output = call(**{name: leaf.requires_grad_() for name, leaf in leaves.items()})
    with ops.use_backend("torch"):
        output.sum().backward()
    assert bool((output == 7).all()) and [int(leaf.grad.unique()) for leaf in leaves.values()] == [0, 1, 2]
    assert bool((nn.MetricConv2d(2, 3, 3)(torch.zeros(1, 2, 5, 5)) == 7).all()) and bool((raw() == 7).all())


def test_one_from_outside_blends(sevens):
    leaves = [torch.zeros(size).requires_grad_() for size in ((1, 1, 4, 4), (1, 1, 4, 4), (2, 3, 2), (2, 3))]
    output = ops.blended_conv2d(*leaves)
    output.sum().backward()
    assert bool((output == 7).all()) and [int(leaf.grad.unique()) for leaf in leaves] == [0, 1, 2, 2]


def test_one_from_outside_says_what_it_can(sevens, monkeypatch):
    half = {name: torch.zeros(size).half() for name, size in (("weight", (3, 2, 3, 3)), ("offset", (1, 18, 3, 3)))}
    assert call(torch.zeros(1, 2, 5, 5).half(), **half).dtype == torch.float16 and sevens.inputs == [torch.float32]
    monkeypatch.setattr(Sevens, "device", "cuda")
    with pytest.raises(
        MetricZooError, match=r"input is on cpu, and use_backend\('sevens'\) was called, .*runs on cuda"
    ):
        call()
    with pytest.raises(MetricZooError, match="did you mean 'sevens'.*known: .*'torch', 'sevens'"):
        ops.use_backend("seven")
    monkeypatch.setattr(Sevens, "why_unavailable", lambda _: "it is broken")
    with pytest.raises(MetricZooError, match="backend 'sevens' is not available: it is broken"):
        ops.use_backend("sevens")


def test_a_compiled_program_calls_one_from_outside(sevens):
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    assert bool((compiled() == 7).all())


def test_one_that_is_composed_computes_what_is_asked(monkeypatch):
    class Counting(Torch):
        name, calls = "counting", 0

        def compose(self, *arguments):
            Counting.calls += 1
            return super().compose(*arguments)

    monkeypatch.setitem(BACKENDS, "counting", Counting())
    layer, x = nn.DeformConv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
    with ops.use_backend("counting"):
        found = layer(x)
    assert Counting.calls == 1
    torch.testing.assert_close(found, torch.nn.functional.conv2d(x, layer.weight, layer.bias))


def test_the_operator_itself_takes_a_backend_that_its_device_has(sevens, monkeypatch):
    """Not the one chosen, which does not run there; and torch's where there is no other."""
    monkeypatch.setattr(Sevens, "device", "cuda")
    assert not raw().any()
    monkeypatch.setattr(library, "_WHY", "no compiler")
    monkeypatch.setattr(BACKENDS["triton"], "device", "cuda")
    assert not raw().any()
    ball = {"sampling": "grid", "field": (1, 1, 1, 5, 3, 3)}
    weight = torch.ones(3, 2, 3, 3, requires_grad=True)
    with pytest.raises(MetricZooError, match="no backend on cpu has this gradient as an operator"):
        raw(weight=weight, **ball).sum().backward()


def test_the_blended_operator_without_a_compiled_library(monkeypatch):
    """Every sample lies one pixel to the right: the image moves to the left."""
    monkeypatch.setattr(library, "_WHY", "no compiler")
    image, offsets = torch.randn(2, 3, 5, 6), torch.zeros(2, 1, 2)
    offsets[..., 0] = 1
    given = (image, torch.rand(1, 1, 5, 6), offsets, torch.full((2, 1), 2.0))
    output = torch.ops.metric_zoo.blended_conv2d(*given)
    torch.testing.assert_close(output[..., :-1], 2 * image[..., 1:])
    assert not output[..., -1].any()


@native
def test_a_call_settles_once(monkeypatch):
    """Where it runs, its backward pass too, and what its padding is."""
    counts = {"chosen": 0, "pair": 0}

    def counted(module, function):
        def count(*arguments):
            counts[function] += 1
            return original(*arguments)

        original = getattr(module, function)
        monkeypatch.setattr(module, function, count)

    layer = nn.DeformConv2d(2, 3, 3, padding=1)
    counted(sys.modules["metric_zoo.ops.backend"], "chosen")
    counted(padding, "pair")
    output = layer(torch.zeros(1, 2, 5, 5))
    assert counts == {"chosen": 1, "pair": 1}
    output.sum().backward()
    assert counts["chosen"] == 1


@native
def test_what_hooks_change_between_the_passes_is_refused():
    """Saved in half the size, and handed back so."""
    field = torch.zeros(1, 18, 3, 3, requires_grad=True)
    halved = lambda tensor: tensor.half() if tensor.dim() == 6 else tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(halved, lambda tensor: tensor):
        output = call(offset=field)
    with pytest.raises(MetricZooError, match="field has dtype torch.float16"):
        output.sum().backward()


@native
def test_what_a_call_settled_is_for_no_other():
    """The operator is called again, on the way to it, with padding that its field does not fit."""

    class Again(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is OPERATOR:
                OPERATOR(*args[:7], [1, 1, 1, 1], *args[8:])
            return function(*args, **(kwargs or {}))

    with Again(), pytest.raises(MetricZooError, match="field has shape"):
        call()


LAYOUTS = {
    "another size": (lambda lines: ["Problem 8", *lines[1:]], "'Problem 8' where this version has 'Problem "),
    "a field moved": (lambda lines: [*lines[:3], "Problem.width 24", *lines[4:]], "'Problem.width 24' where"),
    "a field less": (lambda lines: lines[:-1], "'nothing' where this version has 'Stencil.threads 72'"),
    "a field more": (lambda lines: [*lines, "Stencil.more 80"], "'Stencil.more 80' where this version has 'nothing'"),
    "none": (lambda lines: None, "undefined symbol: metric_zoo_layout"),
}


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
@pytest.mark.parametrize("case", LAYOUTS)
def test_a_library_with_other_structures_is_refused(case, tmp_path):
    """In one line, before anything is written into it."""
    change, expected = LAYOUTS[case]
    lines = change(structs.layout())
    text = f"int metric_zoo_interface() {{ return {library._INTERFACE}; }}\n"
    if lines is not None:
        text += 'const char* metric_zoo_layout() { return "' + r"\n".join(lines) + '"; }\n'
    source, compiled = tmp_path / "stale.cpp", tmp_path / "stale.so"
    source.write_text(f'extern "C" {{ {text} }}\n')
    subprocess.run(["c++", "-shared", "-fPIC", "-o", compiled, source], check=True)
    loaded, why = library._open(compiled)
    assert loaded is None and expected in why and why.startswith("stale.so") and "\n" not in why
