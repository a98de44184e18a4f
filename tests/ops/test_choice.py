"""For whom a backend is chosen: the process by a call, the thread or task alone by a block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.ops import choice
from metric_zoo.ops.backends import BACKENDS
from metric_zoo.ops.backends.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason=library.why_unavailable())


@pytest.fixture(autouse=True, params=[None])
def backend():
    """No block around a test; afterwards no choice is left, in the process or here."""
    ops.use_backend(None)
    yield
    assert choice._stack.get() == () and not hasattr(choice._thread, "block")
    ops.use_backend(None)


def elsewhere(function=ops.backend):
    """The result of a function in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_call_is_for_all_threads():
    ops.use_backend("torch")
    assert ops.backend() == elsewhere() == "torch"
    elsewhere(lambda: ops.use_backend("native"))
    assert ops.backend() == elsewhere() == "native"
    kept = ops.use_backend("torch")
    assert ops.backend() == elsewhere() == "torch" and kept.name == "torch"


def test_a_block_is_for_its_thread():
    with ops.use_backend("torch"):
        assert (ops.backend(), elsewhere()) == ("torch", "native")
    assert (ops.backend(), elsewhere()) == ("native", "native")


@pytest.mark.parametrize("order", ["first in, first out", "first in, last out"])
def test_blocks_of_two_threads_overlap(order):
    """The report's case, and that neither sees the other's."""
    steps = {name: threading.Event() for name in ("in", "both in", "out")}
    seen = []

    def one():
        with ops.use_backend("torch"):
            steps["in"].set()
            assert steps["both in"].wait(10)
            if order == "first in, last out":
                assert steps["out"].wait(10)
            seen.append(ops.backend())
        steps["out"].set()

    def other():
        assert steps["in"].wait(10)
        with ops.use_backend(None):
            steps["both in"].set()
            if order == "first in, first out":
                assert steps["out"].wait(10)
            seen.append(ops.backend())
        steps["out"].set()

    with ThreadPoolExecutor(2) as pool:
        for future in (pool.submit(one), pool.submit(other)):
            future.result()
    assert sorted(seen) == ["native", "torch"] and ops.backend() == elsewhere() == "native"


def test_blocks_of_many_threads_keep_theirs():
    """Thousands of blocks that overlap in every order leave the process as it was."""

    def work(name):
        seen = set()
        for _ in range(1000):
            with ops.use_backend(name):
                seen.add(ops.backend())
        return seen

    names = ("torch", "torch", "native")
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(work, names))
    assert found == [{name} for name in names] and ops.backend() == elsewhere() == "native"


def test_blocks_nest_and_end_with_what_was_before():
    ops.use_backend("torch")
    with ops.use_backend("native"):
        with ops.use_backend(None), ops.use_backend("torch"):
            assert ops.backend() == "torch"
        assert ops.backend() == "native"
    assert ops.backend() == elsewhere() == "torch"


def test_a_block_ends_by_an_error():
    with pytest.raises(KeyError), ops.use_backend("torch"):
        raise KeyError
    assert ops.backend() == elsewhere() == "native"


def test_a_refused_choice_changes_nothing():
    with ops.use_backend("torch"):
        with pytest.raises(MetricZooError, match="unknown backend"):
            ops.use_backend("natve")
        assert ops.backend() == "torch"
    assert ops.backend() == "native"


def test_a_call_within_a_block_counts_there_until_it_ends_and_for_the_process_on():
    with ops.use_backend("native"):
        with ops.use_backend(None):
            ops.use_backend("torch")
            assert ops.backend() == elsewhere() == "torch"
        assert (ops.backend(), elsewhere()) == ("native", "torch")
    assert ops.backend() == "torch"


def test_a_call_elsewhere_does_not_reach_a_block():
    with ops.use_backend("native"):
        elsewhere(lambda: ops.use_backend("torch"))
        assert ops.backend() == "native"
    assert ops.backend() == "torch"


def test_one_object_opens_several_blocks():
    kept = ops.use_backend("torch")
    assert ops.backend() == "torch"
    for _ in range(2):
        with kept, kept:
            assert (ops.backend(), elsewhere()) == ("torch", "native")
        assert ops.backend() == elsewhere() == "native"
    with contextlib.ExitStack() as stack:
        stack.enter_context(kept)
        assert ops.backend() == "torch"
    assert ops.backend() == "native"


def test_a_choice_taken_back_uncovers_the_one_before():
    first, second = ops.use_backend("torch"), ops.use_backend("native")
    with first:
        assert (ops.backend(), elsewhere()) == ("torch", "native")
    with second:
        assert (ops.backend(), elsewhere()) == ("native", "native")
    assert ops.backend() == "native"


def test_calls_leave_nothing_behind():
    for _ in range(100):
        ops.use_backend("torch")
    assert len(choice._made) <= 2


def test_blocks_of_generators_end_in_any_order():
    def hold(name):
        with ops.use_backend(name):
            yield

    one, two = hold("torch"), hold("native")
    next(one), next(two)
    one.close()
    assert ops.backend() == "native"
    two.close()
    assert ops.backend() == "native" and choice._stack.get() == ()


def test_tasks_that_take_turns_keep_theirs():
    async def work(name):
        with ops.use_backend(name):
            for _ in range(3):
                await asyncio.sleep(0)
                assert ops.backend() == (name or "native")
                assert await asyncio.to_thread(ops.backend) == (name or "native")

    async def main():
        await asyncio.gather(work("torch"), work("native"), work(None), work("torch"))
        assert ops.backend() == "native"

    asyncio.run(main())


@pytest.fixture
def layer():
    layer = nn.DeformConv2d(3, 4, 3, padding=1)
    torch.nn.init.normal_(layer.sampler.weight, std=0.3)
    return layer


@pytest.fixture
def ran(monkeypatch):
    """The backends whose forward pass ran, one after the other."""
    names = []
    for name, backend in BACKENDS.items():
        record = lambda *a, name=name, run=backend.forward: (names.append(name), run(*a))[1]  # noqa: E731
        monkeypatch.setattr(backend, "forward", record)
    return names


def test_what_is_compiled_follows_the_choice(layer, ran):
    """Compiled without a break, once for each, and not again for a second block."""
    x, counter = torch.randn(1, 3, 6, 6), CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    expected = layer(x)
    ran.clear()
    torch.testing.assert_close(compiled(x), expected)
    for _ in range(2):
        with ops.use_backend("torch"):
            torch.testing.assert_close(compiled(x), expected)
        compiled(x)
    ops.use_backend("torch")
    compiled(x)
    elsewhere(lambda: compiled(x))
    assert ran == ["native", "torch", "native", "torch", "native", "torch", "torch"] and counter.frame_count <= 3


def test_a_block_may_be_compiled(layer):
    """Without a break; and it ends."""
    x, counter = torch.randn(1, 3, 6, 6), CompileCounter()

    def run(x):
        with ops.use_backend("torch"), ops.use_backend(None):
            return layer(x)

    torch.testing.assert_close(torch.compile(run, backend=counter, fullgraph=True)(x), layer(x))
    assert counter.frame_count == 1 and ops.backend() == elsewhere() == "native"


def test_the_backward_pass_runs_where_the_forward_pass_did(monkeypatch):
    """Also after the block, and in another thread, as a GPU's does."""
    pytest.importorskip("metric_zoo.ops.backends.triton.launch")
    ran = []
    for name, backend in BACKENDS.items():
        record = lambda *a, name=name, run=backend.backward: (ran.append(name), run(*a))[1]  # noqa: E731
        monkeypatch.setattr(backend, "backward", record)
    x = torch.randn(1, 1, 2, 2, requires_grad=True)
    call = lambda: ops.deform_conv2d(x, torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 1, 1)).sum()  # noqa: E731
    with ops.use_backend("triton"):
        inside = call()
    outside = call()
    inside.backward()
    with ops.use_backend("triton"):
        outside.backward()
    with ops.use_backend("triton"):
        again = call()
    elsewhere(again.backward)
    assert ran == ["triton", "native", "triton"]
