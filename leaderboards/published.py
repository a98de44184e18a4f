"""Figures that papers publish, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.benchmarks.record import Record
from metric_zoo.leaderboards.cells import section

PAPER = "Metric Convolutions (ICCV 2025)"


@dataclass(frozen=True)
class Published:
    """A test top-1 accuracy in percent, mean and standard deviation over five runs or more."""

    dataset: str
    model: str
    kind: str
    mean: float
    deviation: float
    setting: str
    source: str = PAPER


# Kernels learn (LKW), from ImageNet weights (TL): the setting of the recipe paper-cifar10. The paper does not say with
# which eps_omega the metric's figure was obtained.
_TRANSFER = "pretrained, kernels learn"
PUBLISHED = (
    Published("cifar10", "resnet18", "standard", 92.64, 0.18, _TRANSFER),
    Published("cifar10", "resnet18", "deformable", 93.10, 0.17, _TRANSFER),
    Published("cifar10", "resnet18", "shifted", 92.58, 0.28, _TRANSFER),
    Published("cifar10", "resnet18", "metric", 93.07, 0.13, _TRANSFER),
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
_METRIC = {"sampling": "polar", "scale": [0.1, 1.5]}


def published_for(record: Record) -> Published | None:
    """The figure that a run reproduces: the same data, network, protocol, kind, placement and start."""
    if not all(_holds(section(record, name), values) for name, values in _PROTOCOL.items()):
        return None
    kind = section(record, "kind")
    if kind.get("freeze_kernels") or kind.get("batch_mixed"):
        return None
    if record.kind != "standard" and (kind.get("where"), kind.get("init")) != ("paper", "uniform"):
        return None
    options = {key: value for key, value in record.options.items() if key != "eps_omega"}
    if options != (_METRIC if record.kind == "metric" else {}):
        return None
    named = (record.dataset.name, record.model, record.kind)
    return next((entry for entry in PUBLISHED if (entry.dataset, entry.model, entry.kind) == named), None)


def _holds(found: dict, wanted: dict) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())
