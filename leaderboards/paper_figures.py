"""Figures that papers publish, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.benchmarks.record import Record
from metric_zoo.leaderboards.cells import section

PAPER = "Metric Convolutions (ICCV 2025)"


@dataclass(frozen=True)
class Published:
    """A figure: its mean, and its standard deviation (over five runs or more) where the paper gives one."""

    dataset: str
    model: str
    kind: str
    mean: float
    deviation: float | None
    setting: str
    quantity: str = "test top-1, %"
    source: str = PAPER


# Kernels learn (LKW), from ImageNet weights (TL): the setting of the recipe paper-cifar10. The paper does not say with
# which eps_omega the metric's figure was obtained.
_TRANSFER = "pretrained, kernels learn"
_TOP1 = (
    Published("cifar10", "resnet18", "standard", 92.64, 0.18, _TRANSFER),
    Published("cifar10", "resnet18", "deformable", 93.10, 0.17, _TRANSFER),
    Published("cifar10", "resnet18", "shifted", 92.58, 0.28, _TRANSFER),
    Published("cifar10", "resnet18", "metric", 93.07, 0.13, _TRANSFER),
)
_FROZEN, _LEARNED = "k 5, noise 0.1, kernels frozen", "k 5, noise 0.1, kernels learn"
_ERROR = "test MSE as published, 1e-4"
_ERRORS = tuple(
    Published(data, "single-layer", kind, mean, None, setting, _ERROR)
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
    Published("one image", "single-layer", kind, mean, None, f"k {size}, noise 0.3, kernels frozen", "gap δ")
    for kind, means in (
        ("deformable", (265, 74, 28, 18, 6.6)),
        ("metric, eps_omega 0.9", (1.1, 0.9, 1.1, 0.8, 1.2)),
        ("metric, eps_omega 0.1", (1.3, 1.1, 1.3, 1.4, 1.5)),
    )
    for size, mean in zip((5, 11, 31, 51, 121), means, strict=True)
)
PUBLISHED = (*_TOP1, *_ERRORS, *_GAPS)

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
    """The figure that a run reproduces: the same data, network, protocol, kind, placement and start.

    Of denoising none of a single image: the paper does not name it.
    """
    if record.task == "denoising":
        return _error_for(record)
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
    return next((entry for entry in _TOP1 if (entry.dataset, entry.model, entry.kind) == named), None)


_DENOISING = {
    "train": {"epochs": 100, "batch_size": 32, "optimizer": "sgd"},
    "data": {"noise": 0.1, "image_size": 256, "channels": None},
    "model": {"name": "single-layer", "options": {"kernel_size": 5}},
    "kind": {"init": "uniform"},
}


def _error_for(record: Record) -> Published | None:
    kind, options = section(record, "kind"), record.options
    if kind.get("per_pixel") or kind.get("batch_mixed"):
        return None
    if not all(_holds(section(record, name), values) for name, values in _DENOISING.items()):
        return None
    if record.kind == "metric" and options != {**_METRIC, "eps_omega": 0.1}:
        return None
    name = "metric, eps_omega 0.1" if record.kind == "metric" else record.kind if not options else ""
    named = (record.dataset.name, name, _FROZEN if kind.get("freeze_kernels") else _LEARNED)
    return next((entry for entry in _ERRORS if (entry.dataset, entry.kind, entry.setting) == named), None)


def _holds(found: dict, wanted: dict) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())
