"""How a model was built, remembered on the model so that it can be saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

_ATTRIBUTE = "_metric_zoo_origin"


@dataclass(frozen=True)
class ModelOrigin:
    """The call that builds the unconverted architecture.

    Attributes:
        source: ``"timm"`` or ``"torchvision"``.
        name: as its registry knows it, for timm possibly with a pretrained tag.
        options: keyword arguments of the constructor, JSON values only.
    """

    source: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


def remember_origin(model: nn.Module, origin: ModelOrigin) -> None:
    """Attach ``origin`` to ``model``."""
    setattr(model, _ATTRIBUTE, origin)


def _current_classes(model: nn.Module, origin: ModelOrigin) -> dict[str, Any]:
    """The options, with the number of classes a timm model has now: `reset_classifier` may have changed it."""
    classes = getattr(model, "num_classes", None)
    if origin.source != "timm" or not isinstance(classes, int):
        return origin.options
    return {**origin.options, "num_classes": classes}


def find_origin(model: nn.Module) -> ModelOrigin | None:
    """The remembered origin; else what a timm model tells of itself; else None."""
    origin = getattr(model, _ATTRIBUTE, None)
    if origin is not None:
        return replace(origin, options=_current_classes(model, origin))
    cfg = getattr(model, "pretrained_cfg", None) or {}
    name = cfg.get("architecture")
    if not name:
        return None
    options: dict[str, Any] = {}
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        options["in_chans"] = first.in_channels
    origin = ModelOrigin("timm", name, options)
    return replace(origin, options=_current_classes(model, origin))
