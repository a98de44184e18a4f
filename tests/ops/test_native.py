"""What holds for the native backend beyond its values: repeatability, threads, layouts, memory, errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.benchmarks.operators.calls import KINDS, Call, assert_alike
from metric_zoo.ops.backends.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())


@pytest.fixture(autouse=True, params=[None])
def backend():
    with ops.use_backend("native"):
        yield "native"


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


SHAPES = {
    "dense": {"channels": 48, "out_channels": 40, "size": (17, 13)},
    "sliced": {"channels": 300, "out_channels": 33},
    "few outputs": {"channels": 20, "out_channels": 2},
    "one channel": {"channels": 1, "out_channels": 1, "kernel": (7, 7), "padding": ((3, 3), (3, 3))},
    "grouped": {"channels": 48, "out_channels": 96, "groups": 3, "fields": 2},
    "depthwise": {"channels": 70, "out_channels": 70, "groups": 70},
}


@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set_computes_the_same(isa, kind, shape):
    """Against the torch backend; a set that this processor lacks is replaced by its best below."""
    call = Call(kind=kind, **SHAPES[shape])
    best = library.limit_isa()
    try:
        library.limit_isa(isa)
        ours = call.outcome("native")
    finally:
        library.limit_isa("avx512")
    assert library.limit_isa() == best
    assert_alike(ours, call.outcome("torch"), 2e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_bitwise_repeatable_for_a_number_of_threads(shape, count, threads):
    call = Call(kind="modulated", batch=3, **SHAPES[shape])
    threads(count)
    first, second = call.outcome("native"), call.outcome("native")
    assert all(torch.equal(first[name], second[name]) for name in first)
    threads(1)
    assert_alike(first, call.outcome("native"), 1e-5)


@pytest.mark.parametrize("shape", ["one channel", "grouped"])
def test_threads_that_call_at_once_do_not_disturb_each_other(shape):
    """Python's lock is let go while the library runs."""
    calls = [Call(kind="modulated", seed=seed, **SHAPES[shape]) for seed in range(4)]
    alone = [call.outcome("native") for call in calls]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: call.outcome("native"), calls * 5))
    for index, outcome in enumerate(together):
        assert all(torch.equal(outcome[name], alone[index % 4][name]) for name in outcome)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 8])
def test_layouts_are_those_of_conv2d(channels, channels_last):
    call = Call(channels=channels, channels_last=channels_last)
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    output = call.run(**leaves)
    expected = F.conv2d(leaves["input"], leaves["weight"], padding=1)
    assert output.stride() == expected.stride()
    output.sum().backward()
    assert leaves["input"].grad.stride() == leaves["input"].stride()


def test_weights_may_lie_channels_last():
    call = Call(channels=6, out_channels=9)
    leaves = call.leaves()
    expected = call.run(**leaves)
    weight = leaves["weight"].contiguous(memory_format=torch.channels_last).requires_grad_()
    output = call.run(**{**leaves, "weight": weight})
    output.sum().backward()
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_has_empty_gradients(kind):
    outcome = Call(kind=kind, batch=0).outcome("native")
    assert outcome["output"].shape == (0, 6, 9, 8)
    assert not outcome["weight"].any() and not outcome["bias"].any()


def test_frozen_tensors_get_no_gradient():
    call = Call(kind="modulated")
    for name in ("input", "weight", "field", "mask"):
        leaves = call.leaves()
        leaves[name].requires_grad_()
        call.run(**leaves).sum().backward()
        everything = {key: tensor.requires_grad_() for key, tensor in call.leaves().items()}
        call.run(**everything).sum().backward()
        torch.testing.assert_close(leaves[name].grad, everything[name].grad, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(dtype):
    call = Call(channels=8)
    half = {name: tensor.to(dtype) for name, tensor in call.leaves().items()}
    output = call.run(**half)
    expected = call.run(**{name: tensor.float() for name, tensor in half.items()})
    assert output.dtype == dtype and torch.equal(output, expected.to(dtype))


def test_autocast_returns_what_conv2d_returns():
    call = Call(channels=8)
    leaves = {name: tensor.requires_grad_() for name, tensor in call.leaves().items()}
    with torch.autocast("cpu", torch.bfloat16):
        output = call.run(**leaves)
        assert output.dtype == F.conv2d(leaves["input"], leaves["weight"]).dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves.values())


def raw_call(**changes):
    call = {
        "input": torch.zeros(1, 2, 5, 5),
        "weight": torch.zeros(3, 2, 3, 3),
        "bias": None,
        "field": torch.zeros(1, 1, 9, 2, 3, 3),
        "mask": None,
        "sampling": "offset",
        "stride": [1, 1],
        "padding": [0, 0, 0, 0],
        "dilation": [1, 1],
        "groups": 1,
    }
    return torch.ops.metric_zoo.sampled_conv2d(**{**call, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"field": torch.zeros(1, 1, 9, 2, 3, 3, dtype=torch.float64)},
        {"weight": torch.zeros(3, 2, 3, 3, dtype=torch.float64)},
        {"input": torch.zeros(1, 2, 5, 5, dtype=torch.float16)},
        {"bias": torch.zeros(4)},
        {"field": torch.zeros(1, 1, 9, 2, 2, 3)},
        {"field": torch.zeros(2, 1, 9, 2, 3, 3)},
        {"field": torch.zeros(1, 1, 8, 2, 3, 3)},
        {"field": torch.zeros(1, 1, 9, 3, 3, 3)},
        {"field": torch.zeros(1, 3, 9, 2, 3, 3)},
        {"mask": torch.zeros(1, 1, 8, 3, 3)},
        {"weight": torch.zeros(3, 1, 3, 3)},
        {"groups": 2},
        {"stride": [0, 1]},
        {"padding": [0, 0, -1, 0]},
        {"sampling": "grid"},
        {"sampling": "spiral", "field": torch.zeros(1, 1, 1, 5, 3, 3)},
    ],
    ids=str,
)
def test_the_operator_itself_refuses_what_would_read_other_memory(changes):
    """Whoever finds it in an exported graph may call it with anything."""
    with pytest.raises(MetricZooError):
        raw_call(**changes)


def test_images_beyond_the_counter_are_refused():
    x = torch.empty(1, 1, 1, 1).expand(1, 1, 2**16, 2**15)
    field = torch.zeros(1, 1, 1, 2, 1, 1)
    with pytest.raises(MetricZooError, match=r"2\^31"):
        raw_call(input=x, weight=torch.zeros(1, 1, 1, 1), field=field)


def test_without_the_library_the_torch_backend_serves(monkeypatch):
    ops.use_backend(None)
    monkeypatch.setattr(library, "_WHY", "no compiler")
    assert ops.backend() == "torch"
    assert nn.MetricConv2d(4, 4, 3, padding=1)(torch.randn(1, 4, 6, 6)).shape == (1, 4, 6, 6)
    with pytest.raises(MetricZooError, match="not available: no compiler"):
        ops.use_backend("native")


def test_a_block_ends_with_the_backend_that_was_before():
    with ops.use_backend("torch"):
        assert ops.backend() == "torch"
    assert ops.backend() == "native"
