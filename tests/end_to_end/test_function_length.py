"""Functions stay short: what a reader meets fits a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
LONGEST = 70
"""Lines, documentation included."""
MOST = 22
"""Lines, which nine of ten functions do not exceed."""


def lengths() -> Iterator[tuple[int, str]]:
    for folder in ("metric_zoo", "converters", "benchmarks", "leaderboards"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}: {node.name}"


def test_functions_are_short():
    found = list(lengths())
    assert [name for length, name in found if length > LONGEST] == []
    assert np.percentile([length for length, _ in found], 90) <= MOST
