"""Shared fixtures: seeded randomness, and the folder of golden numbers where there is one."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from packaging.version import Version

# The compiler's cache on disk does not see how an operator is registered, so a change of ours could go untested.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
# Before anything imports triton, or the package, which asks for it: kernels run in triton's interpreter, on CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")


def interpreter_fault() -> str:
    """Why triton's interpreter cannot run the kernels here; empty if it can."""
    try:
        triton, numpy = version("triton"), version("numpy")
    except PackageNotFoundError:
        return "triton is not installed"
    if Version(triton) >= Version("3.7") or Version(numpy) < Version("2.4"):
        return ""
    return (
        f"the interpreter of triton {triton} asks numpy {numpy} for the int() of an array, a loop's bound, which "
        "numpy refuses from 2.4 on: triton 3.7 is right"
    )


interpreted = pytest.mark.skipif(bool(interpreter_fault()), reason=interpreter_fault())
"""Marks what runs kernels in triton's interpreter."""

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Among several workers a file stays with one, which builds its fixtures once; the harness's tests, which launch
    processes that speak to each other and measure memory, all stay with one."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder == "benchmarks" else str(item.path)))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    """The compiler remembers, for code that all layers share, what it gave up on in an earlier test."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def golden_cases() -> list[dict]:
    """The manifest of golden files; empty where the folder is absent (the tests then skip)."""
    manifest = SHARED / "golden" / "manifest.json"
    return json.loads(manifest.read_text()) if manifest.exists() else []


@pytest.fixture(
    params=golden_cases() or [None], ids=lambda case: case["file"].removesuffix(".npz") if case else "absent"
)
def golden(request):
    """One golden case: its settings and its float64 tensors."""
    if request.param is None:
        pytest.skip("the golden numbers (../shared/golden) are not beside this checkout")
    import numpy as np

    with np.load(SHARED / "golden" / request.param["file"]) as arrays:
        return request.param, {name: torch.from_numpy(arrays[name]) for name in arrays}
