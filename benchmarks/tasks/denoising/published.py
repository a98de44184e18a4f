"""Errors and generalization gaps that papers publish, and the protocol of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from metric_zoo.benchmarks.tasks.figures import Published, PublishedFigures
from metric_zoo.benchmarks.tasks.protocol import METRIC_OPTIONS, PAPER, follows

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record

_FROZEN, _LEARNED = "k 5, noise 0.1, kernels frozen", "k 5, noise 0.1, kernels learn"
_ERRORS = tuple(
    Published(data, "single-layer", kind, mean, None, setting, "test MSE as published, 1e-4", PAPER)
    for data, kind, setting, mean in (
        ("bsds300", "deformable", _FROZEN, 1.12),
        ("bsds300", "deformable", _LEARNED, 1.72),
        ("bsds300", "metric, eps_omega 0.1", _FROZEN, 1.19),
        ("bsds300", "metric, eps_omega 0.1", _LEARNED, 1.64),
        ("voc", "deformable", _FROZEN, 0.859),
        ("voc", "deformable", _LEARNED, 1.02),
        ("voc", "metric, eps_omega 0.1", _FROZEN, 1.01),
        ("voc", "metric, eps_omega 0.1", _LEARNED, 1.06),
    )
)
_GAPS = tuple(
    Published("one image", "single-layer", kind, mean, None, f"k {size}, noise 0.3, kernels frozen", "gap δ", PAPER)
    for kind, means in (
        ("deformable", (265, 74, 28, 18, 6.6)),
        ("metric, eps_omega 0.9", (1.1, 0.9, 1.1, 0.8, 1.2)),
        ("metric, eps_omega 0.1", (1.3, 1.1, 1.3, 1.4, 1.5)),
    )
    for size, mean in zip((5, 11, 31, 51, 121), means, strict=True)
)

_PROTOCOL = {
    "train": {"epochs": 100, "batch_size": 32, "optimizer": "sgd"},
    "data": {"noise": 0.1, "image_size": 256, "channels": None},
    "model": {"name": "single-layer", "options": {"kernel_size": 5}},
    "kind": {"init": "uniform"},
}


def _find(record: Record) -> Published | None:
    """The figure that a run reproduces: the same data, network, protocol, kind and start."""
    kind, options = record.section("kind"), record.options
    if kind.get("per_pixel") or kind.get("batch_mixed") or not follows(record, _PROTOCOL):
        return None
    if record.kind == "metric" and options != {**METRIC_OPTIONS, "eps_omega": 0.1}:
        return None
    name = "metric, eps_omega 0.1" if record.kind == "metric" else record.kind if not options else ""
    assert record.dataset is not None, "the run went well"
    named = (record.dataset.name, name, _FROZEN if kind.get("freeze_kernels") else _LEARNED)
    return next((entry for entry in _ERRORS if (entry.dataset, entry.kind, entry.setting) == named), None)


PUBLISHED = PublishedFigures(
    heading="Published MSE, 1e-4",
    meaning="What the paper publishes for this protocol, on its own scale: not measured here.",
    beside="published_mse",
    figures=_ERRORS,
    find=_find,
    scale=1e4,
)
PUBLISHED_OF_ONE_IMAGE = replace(PUBLISHED, figures=_GAPS, find=lambda record: None)
"""The paper does not name its image: no run is known to reproduce them."""
