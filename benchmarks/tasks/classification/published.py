"""Top-1 accuracies that papers publish, and the protocol of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metric_zoo.benchmarks.tasks.figures import Published, PublishedFigures
from metric_zoo.benchmarks.tasks.protocol import METRIC_OPTIONS, PAPER, follows

if TYPE_CHECKING:
    from metric_zoo.benchmarks.record import Record

# Kernels learn (LKW), from ImageNet weights (TL): the setting of the recipe paper-cifar10. The paper does not say with
# which eps_omega the metric's figure was obtained.
_FIGURES = tuple(
    Published("cifar10", "resnet18", kind, mean, deviation, "pretrained, kernels learn", "test top-1, %", PAPER)
    for kind, mean, deviation in (
        ("standard", 92.64, 0.18),
        ("deformable", 93.10, 0.17),
        ("shifted", 92.58, 0.28),
        ("metric", 93.07, 0.13),
    )
)

_PROTOCOL = {
    "train": {
        "epochs": 240,
        "batch_size": 128,
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "schedule": "cosine",
    },
    "data": {"augment": "resized-crop-flip"},
    "model": {"pretrained": True, "small_image_stem": True, "options": {"output_stride": 16}},
}


def _find(record: Record) -> Published | None:
    """The figure that a run reproduces: the same data, network, protocol, kind, placement and start."""
    if not follows(record, _PROTOCOL):
        return None
    kind = record.section("kind")
    if kind.get("freeze_kernels") or kind.get("batch_mixed"):
        return None
    if record.kind != "standard" and (kind.get("where"), kind.get("init")) != ("paper", "uniform"):
        return None
    options = {key: value for key, value in record.options.items() if key != "eps_omega"}
    if options != (METRIC_OPTIONS if record.kind == "metric" else {}):
        return None
    assert record.dataset is not None, "the run went well"
    named = (record.dataset.name, record.model, record.kind)
    return next((entry for entry in _FIGURES if (entry.dataset, entry.model, entry.kind) == named), None)


PUBLISHED = PublishedFigures(
    heading="Published, %",
    meaning="Test top-1 that the paper publishes for this protocol: not measured here.",
    beside="test_top1",
    figures=_FIGURES,
    find=_find,
)
