"""Every architecture the two registries know, in an order in which any beginning is a fair sample."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.zoo.create import build_base
from metric_zoo.zoo.origin import ModelOrigin
from metric_zoo.zoo.registries import SOURCES, registry_names

# Words of a name, from small to large; what a name does not say counts as middling.
_SIZES = (
    ("atto", "femto", "pico", "zepto"),
    ("nano", "xxs", "mini", "xxt", "050", "035", "040"),
    ("tiny", "xs", "micro", "small", "s", "t", "mobile", "lite", "xxsmall"),
    (),
    ("medium", "m", "base", "b"),
    ("large", "l", "xl", "xlarge"),
    ("huge", "h", "xxl", "xxlarge", "giant", "gigantic", "enormous", "so400m", "so150m"),
)

_SMALL_IMAGES = {"min_size": 128, "max_size": 192}
"""Of detectors that enlarge every image, to 800 pixels otherwise."""


@dataclass(frozen=True)
class Architecture:
    """One name of one registry.

    Attributes:
        source: ``"timm"`` or ``"torchvision"``.
        name: in that registry.
        family: the module that defines it, such as ``"resnet"`` or ``"detection.faster_rcnn"``.
        options: of its constructor: a detector that would enlarge every image is told not to.
    """

    source: str
    name: str
    family: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def task(self) -> str:
        """``"classification"``, or what torchvision's module says: detection, segmentation, optical_flow, video."""
        task = self.family.split(".")[0]
        return task if "." in self.family and task != "quantization" else "classification"

    def build(self) -> nn.Module:
        """The model with random weights."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build_base(ModelOrigin(self.source, self.name, self.options))


def list_architectures(sources: Iterable[str] = SOURCES, sample: int | None = None) -> list[Architecture]:
    """Architectures, one of every family first, the smallest by its name, then a second of every family, and so on.

    Args:
        sources: registries.
        sample: how many; None is all.

    Raises:
        MetricZooError: for an unknown source or a sample that is not positive.
    """
    if sample is not None and sample < 1:
        raise MetricZooError(f"sample={sample}: expected a whole number >= 1")
    families: dict[tuple[str, str], list[Architecture]] = {}
    for source in sources:
        for architecture in _of_source(source):
            families.setdefault((source, architecture.family), []).append(architecture)
    columns = (sorted(members, key=lambda a: (_size(a.name), len(a.name), a.name)) for members in families.values())
    rounds = itertools.zip_longest(*columns)
    return [a for a in itertools.chain.from_iterable(rounds) if a is not None][:sample]


def _of_source(source: str) -> list[Architecture]:
    if source not in SOURCES:
        raise MetricZooError(f"source={source!r}: expected one of {SOURCES}{suggest(str(source), SOURCES)}")
    names = registry_names(source)  # first: it enters networks of this package
    families = _timm_families() if source == "timm" else _torchvision_families()
    return [Architecture(source, name, families[name], _options(families[name])) for name in names]


def _timm_families() -> dict[str, str]:
    import timm

    return {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}


def _torchvision_families() -> dict[str, str]:
    from torchvision import models

    prefix = f"{models.__name__}."
    return {name: models.get_model_builder(name).__module__.removeprefix(prefix) for name in models.list_models()}


def _options(family: str) -> dict[str, Any]:
    if family.endswith("_rcnn"):
        return {**_SMALL_IMAGES, "rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 32}
    if family in ("detection.retinanet", "detection.fcos"):
        return _SMALL_IMAGES
    # Their own initialisation draws truncated normal numbers one by one, for minutes.
    return {"init_weights": False} if family.split(".")[-1] in ("googlenet", "inception") else {}


def _size(name: str) -> int:
    words = set(re.findall(r"[a-z]+|\d+", name))
    return next((rank for rank, known in enumerate(_SIZES) if words & set(known)), _SIZES.index(()))
