"""How a model was built, remembered on the model so that it can be saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from torch import nn

from metric_zoo.nn.registry import list_layers
from metric_zoo.zoo.options import PREPROCESSING, SHAPING, WITHOUT_A_SHAPE

_ATTRIBUTE = "_metric_zoo_origin"
_OF_A_CLASSIFIER = {"num_classes", "classifier"}
"""Which a backbone of features does not have."""


@dataclass(frozen=True)
class ModelOrigin:
    """The call that builds the unconverted architecture.

    Attributes:
        source: ``"timm"`` or ``"torchvision"``.
        name: as its registry knows it, for timm possibly with a pretrained tag.
        options: keyword arguments of the constructor.
    """

    source: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)


def remember_origin(model: nn.Module, origin: ModelOrigin) -> None:
    """Attach ``origin`` to ``model``, without the options that say where its weights came from."""
    shaping = {name: value for name, value in origin.options.items() if name not in WITHOUT_A_SHAPE}
    setattr(model, _ATTRIBUTE, replace(origin, options=shaping))


def find_origin(model: nn.Module) -> ModelOrigin | None:
    """The remembered origin; else what a timm model tells of itself; else None.

    A timm model's tag belongs to its name: it may imply another architecture (classes, input size).
    """
    origin, given = getattr(model, _ATTRIBUTE, None), getattr(model, "_model_args", {})
    cfg = _pretrained_cfg(model)
    if origin is None:
        name = cfg.get("architecture")
        return _tagged(ModelOrigin("timm", name, _told(model, given)), cfg) if name else None
    if origin.source != "timm":
        return origin
    # timm notes what its methods change (set_input_size, reset_classifier), among what our entry points were given.
    ours = {option.name for kind in list_layers().values() for option in fields(kind.conversion)}
    noted = {name: value for name, value in given.items() if name in SHAPING - ours}
    return _tagged(replace(origin, options={**origin.options, **noted}), cfg)


def _told(model: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a model that timm built: what timm was given, and what its modules show."""
    options = {name: value for name, value in given.items() if name not in WITHOUT_A_SHAPE}
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        options.setdefault("in_chans", first.in_channels)
    if isinstance(getattr(model, "num_classes", None), int):
        options["num_classes"] = model.num_classes
    return options


def _tagged(origin: ModelOrigin, cfg: dict[str, Any]) -> ModelOrigin:
    import timm

    name = f"{origin.name.partition('.')[0]}.{cfg.get('tag')}"
    return replace(origin, name=name) if name in timm.models.get_arch_pretrained_cfgs(origin.name) else origin


def settings_of(model: nn.Module) -> dict[str, Any]:
    """Plain attributes of the model itself that are named like options: what a constructor kept of what it was given,
    and what was changed since (``reset_classifier``, ``drop_rate``)."""
    plain = {name: value for name, value in vars(model).items() if isinstance(value, (bool, int, float, str))}
    return {name: value for name, value in plain.items() if name in SHAPING}


def preprocessing_of(model: nn.Module) -> dict[str, Any]:
    """What a timm model asks of its images and says of its classes: the fields of `PREPROCESSING` that it can be asked.

    A field of None is one that the tag may have and the model has not.
    """
    cfg = _pretrained_cfg(model)
    if not cfg:
        return {}
    absent = set() if "num_classes" in cfg else _OF_A_CLASSIFIER
    return {name: cfg.get(name) for name in PREPROCESSING if name not in absent}


def _pretrained_cfg(model: nn.Module) -> dict[str, Any]:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return asdict(cfg) if is_dataclass(cfg) and not isinstance(cfg, type) else cfg if isinstance(cfg, dict) else {}
