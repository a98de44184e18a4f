"""Whether a run follows what a paper says it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record

PAPER = "Metric Convolutions (ICCV 2025)"
METRIC_OPTIONS = {"sampling": "polar", "scale": [0.1, 1.5]}
"""Of the paper's metric convolutions, ``eps_omega`` aside."""


def follows(record: Record, protocol: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every section of the configuration holds the protocol's values."""
    return all(
        record.section(name).get(key) == value for name, values in protocol.items() for key, value in values.items()
    )
