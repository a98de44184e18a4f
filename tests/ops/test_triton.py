"""The triton backend, in triton's interpreter: values against float64, and its ways of summing against each other.

Whether the kernels compile is asked of the compiler itself, for GPUs that need not be there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metric_zoo import MetricZooError, ops
from metric_zoo.benchmarks.operators import gpu
from metric_zoo.benchmarks.operators.calls import KINDS, Blend, Call, assert_alike
from metric_zoo.benchmarks.operators.cases import Case
from metric_zoo.benchmarks.operators.check import BLENDS, TOLERANCES, WIDE, is_repeatable, relative_errors
from tests.conftest import interpreted

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

CPU = torch.device("cpu")
# As SHAPES of the check on a GPU, of a size that the interpreter manages.
SHAPES = {
    "dense": {"channels": 36, "out_channels": 18, "size": (7, 6), "channels_last": True},
    "strided": {"size": (9, 8), "stride": (2, 1), "dilation": (1, 2), "padding": ((2, 1), (0, 2))},
    "fields": {"batch": 1, "channels": 4, "fields": 2, "size": (6, 5)},
    "grouped": {"batch": 1, "channels": 6, "out_channels": 4, "groups": 2, "fields": 3, "size": (4, 5)},
    "depthwise": {"channels": 4, "out_channels": 8, "groups": 4, "fields": 2, "size": (5, 5)},
    "one channel": {"batch": 1, "channels": 1, "out_channels": 1, "kernel": (5, 5), "padding": ((2, 2), (2, 2))},
}


@pytest.fixture(autouse=True, params=[None])
def backend():
    with ops.use_backend("triton"):
        yield


def crossed() -> list:
    """Every kind on one shape, two kinds on every shape; the rest when there is time."""
    usual = {(kind, shape) for kind in KINDS for shape in SHAPES if shape == "dense" or kind in WIDE}
    pairs = [(kind, shape) for kind in KINDS for shape in SHAPES]
    return [pytest.param(*pair, marks=[] if pair in usual else pytest.mark.slow) for pair in pairs]


@interpreted
@pytest.mark.parametrize(("kind", "shape"), crossed())
def test_every_kind_and_shape_class(kind, shape):
    """The oracle is the torch backend in float64."""
    errors = relative_errors(Call(kind=kind, **SHAPES[shape]), CPU, "float32")
    assert max(errors.values()) <= TOLERANCES["float32"], errors


@interpreted
@pytest.mark.parametrize("shape", ["dense", "depthwise"])
def test_half_types(shape):
    errors = relative_errors(Call(kind="modulated", **SHAPES[shape]), CPU, "float16")
    assert max(errors.values()) <= TOLERANCES["float16"], errors


@interpreted
@pytest.mark.parametrize("sampling", ["polar", "onion"])
def test_samplings(sampling):
    errors = relative_errors(Call(sampling=sampling, batch=1), CPU, "float32")
    assert max(errors.values()) <= TOLERANCES["float32"], errors


@interpreted
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_blended_samples_against_float64(dtype):
    errors = relative_errors(BLENDS["one axis"], CPU, dtype)
    assert max(errors.values()) <= TOLERANCES[dtype], errors


@interpreted
@pytest.mark.parametrize("kind", ["metric", "modulated"])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_gathered_in_tiles(kind, stride):
    """Offsets of several pixels leave the tiles: those samples go one by one."""
    from metric_zoo.ops.backends.triton import configs
    from metric_zoo.ops.backends.triton.launch import blocks_from

    call = Call(kind=kind, batch=1, channels=5, size=(19, 11), stride=(stride, stride))
    with blocks_from(configs.tiled):
        found = call.outcome("triton")
    assert_alike(found, call.outcome("torch"), 2e-5)


@interpreted
def test_infinity_stays_where_it_is_in_tiles():
    """A product of matrices would spread it over the whole tile."""
    from metric_zoo.ops.backends.triton import configs
    from metric_zoo.ops.backends.triton.launch import blocks_from

    call = Call(batch=1, channels=2, out_channels=2, size=(8, 8))
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    spoiled = {}
    for name, blocks in (("tiled", configs.tiled), ("one by one", configs.fixed)):
        with blocks_from(blocks):
            output = call.run(**leaves)
            upstream = torch.ones_like(output)
            upstream[0, 0, 4, 4] = torch.inf
            (gradient,) = torch.autograd.grad(output, leaves["input"], upstream)
        spoiled[name] = ~gradient.isfinite()
    assert torch.equal(spoiled["tiled"], spoiled["one by one"]) and not spoiled["tiled"].all()


@interpreted
@pytest.mark.parametrize("kind", ["metric", "modulated", "shifted"])
def test_partial_sums(kind, monkeypatch):
    """A device of many processors shares the channels and the pixels of one block among programs."""
    from metric_zoo.ops.backends.triton import launch

    monkeypatch.setattr(launch, "_programs", lambda _: 200)
    call = Call(kind=kind, channels=100, out_channels=18, batch=1, size=(5, 5))
    assert_alike(call.outcome("triton"), call.outcome("torch"), 2e-5)


@interpreted
@pytest.mark.parametrize("shape", ["strided", "depthwise", pytest.param("grouped", marks=pytest.mark.slow)])
def test_deterministic_mode(shape):
    call = Call(kind="modulated", **SHAPES[shape])
    torch.use_deterministic_algorithms(True)
    try:
        found = call.outcome("triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert_alike(found, call.outcome("torch"), 2e-5)
    assert is_repeatable(Call(kind="modulated", batch=1, size=(5, 5)), CPU)


@interpreted
def test_a_bias_that_is_no_array_of_its_own():
    call = Call(batch=1, size=(4, 4), out_channels=3, bias=False)
    shared, spread = torch.ones(1).expand(3), torch.arange(6.0)[::2]
    for bias in (shared, spread):
        leaves = call.leaves()
        torch.testing.assert_close(call.run(**leaves, bias=bias), call.run(**leaves, bias=bias.contiguous()))


@interpreted
def test_an_empty_batch_and_frozen_tensors():
    outcome = Call(kind="modulated", batch=0).outcome("triton")
    assert outcome["output"].shape == (0, 6, 9, 8) and not outcome["weight"].any()
    call = Call(kind="modulated", batch=1, size=(4, 4))
    everything = call.outcome("triton")
    for name in ("input", "weight", "field", "mask"):
        leaves = call.leaves()
        leaves[name].requires_grad_()
        draw = torch.Generator().manual_seed(call.seed + 1)
        output = call.run(**leaves)
        output.backward(torch.randint(-8, 9, output.shape, generator=draw).to(output) / 4)
        torch.testing.assert_close(leaves[name].grad, everything[name], msg=name)


@interpreted
def test_opcheck():
    call = Call(kind="modulated", batch=1, size=(4, 3), channels=2, out_channels=2)
    leaves = call.leaves()
    field = leaves["field"].unflatten(1, (1, 9, 2)).requires_grad_()
    mask = leaves["mask"].unflatten(1, (1, 9)).requires_grad_()
    input, weight, bias = (leaves[name].requires_grad_() for name in ("input", "weight", "bias"))
    args = (input, weight, bias, field, mask, "offset", [1, 1], [1, 1, 1, 1], [1, 1], 1)
    torch.library.opcheck(torch.ops.metric_zoo.sampled_conv2d.default, args)


@interpreted
def test_one_graph_under_compile():
    call = Call(batch=1, size=(4, 4))
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    compiled = torch.compile(lambda: call.run(**leaves), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), call.run(**leaves))
    compiled().sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())


def test_errors():
    for dtype, message in ((torch.float64, "float64: the triton backend computes in"), (torch.bfloat16, "interpreter")):
        call = Call(dtype=dtype)
        with pytest.raises(MetricZooError, match=message):
            call.run(**call.leaves())


@interpreted
def test_gpu_check_writes_what_it_found(tmp_path, monkeypatch):
    """The command of a GPU on CPU, with a few checks; then with a tolerance that nothing can meet."""
    monkeypatch.setattr(
        "metric_zoo.benchmarks.operators.check.SHAPES", {"tiny": {"batch": 1, "size": (3, 3), "channels": 2}}
    )
    tiny = {"tiny": Blend(samples=2, batch=1, channels=1, size=(3, 3))}
    monkeypatch.setattr("metric_zoo.benchmarks.operators.check.BLENDS", tiny)
    monkeypatch.setattr(gpu, "SHAPES", {"tiny": {"batch": 1, "size": (3, 3), "channels": 2}})
    monkeypatch.setattr(gpu, "TILED", [(kind, "tiny", dtype) for kind, _, dtype in gpu.TILED])
    monkeypatch.setattr(gpu, "measure_cases", lambda *_: {})
    monkeypatch.setattr(gpu, "to_markdown", lambda _: "table")
    case = Case(1, 1, 1, 3, 3)
    assert gpu.gpu_check(tmp_path, "cpu", (case,)) == f"all {len(KINDS) + 5} checks passed\n\ntable"
    monkeypatch.setitem(TOLERANCES, "float16", 1e-12)
    with pytest.raises(MetricZooError, match=rf"2 of {len(KINDS) + 5} checks failed.*gpu.json"):
        gpu.gpu_check(tmp_path / "strict", "cpu", ())
    found = json.loads((tmp_path / "strict" / gpu.JSON).read_text())["checks"]
    assert [check["passed"] for check in found] == [True] * len(KINDS) + [False, True, False] + [True] * 2


def test_gpu_check_is_not_of_the_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "device_named", torch.device)
    monkeypatch.setattr(gpu, "INTERPRETED", True)
    with pytest.raises(MetricZooError, match="TRITON_INTERPRET is set, .*unset it"):
        gpu.gpu_check(tmp_path, "cuda")
    assert not list(tmp_path.iterdir())


def test_roofline_is_the_larger_of_products_and_traffic():
    ceiling = {"operations_per_second": 1e12, "bytes_per_second": 1e9}
    case = Case(2, 8, 4, 10, 3)  # 115,200 operations; 200 pixels of 12 numbers and 5 of the metric, 288 weights
    traffic = 4 * (200 * 12 + 288) + 4 * 5 * 200
    assert gpu.floor_seconds(case, False, torch.float32, ceiling) == pytest.approx(traffic / 1e9)
    slow = {**ceiling, "operations_per_second": 1e6}
    assert gpu.floor_seconds(case, True, torch.float32, slow) == pytest.approx(3 * 0.1152)


def test_kernels_compile_for_gpus():
    """By triton's compiler and NVIDIA's assembler, down to machine code."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", str(script), "80", "90"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = {
        *("forward_dense", "forward_depthwise", "backward_samples", "backward_input_owned"),
        *("backward_weight_dense", "backward_weight_depthwise", "forward_depthwise_blended"),
    }
    expected = {f"{name}-{capability}" for name in kernels for capability in (80, 90)}
    # Of rules that are formulas of up to 4, 8 and 16 numbers.
    both = ("backward_samples", "backward_input_owned")
    expected |= {f"{name}_of_{n}-90" for n in (4, 16) for name in ("forward_dense", "backward_weight_dense", *both)}
    expected |= {f"{name}_of_8-90" for name in ("forward_depthwise", "backward_weight_depthwise", *both)}
    assert set(done.stdout.split()) == expected
