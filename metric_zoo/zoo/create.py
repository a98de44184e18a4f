"""Build a model by name and convert it."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import nn

from metric_zoo.converters import convert
from metric_zoo.converters.check_model import check_not_scripted
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.registry import KINDS, get_kind
from metric_zoo.zoo.origin import ModelOrigin, remember_origin

SOURCES = ("timm", "torchvision")
_NAME = re.compile(r"\w+(\.[\w-]+)?")

_CONVERT_OPTIONS = ("where", "stages", "resolution", "receptive_field", "example_input", "init", "output", "strict")


def create_model(
    name: str, to: str = "metric", *, source: str = "timm", pretrained: bool | str = False, **options: Any
) -> nn.Module:
    """Build a timm or torchvision model and convert it in one call.

    Args:
        name: the model's name in its registry, for timm with or without a pretrained tag (``"resnet50.a1_in1k"``).
        to: a kind of `list_kinds`; ``"standard"`` leaves the model as it is.
        source: ``"timm"`` or ``"torchvision"``.
        pretrained: load its weights (torchvision: True is ``"DEFAULT"``, or a name such as ``"IMAGENET1K_V2"``).
        options: of the conversion (``where``, ``stages``, ``init``, ``example_input``, ``strict`` and the kind's own)
            and of the model's constructor (``num_classes``, ``in_chans``, ...).

    Raises:
        ConversionError: for an unknown source or name, for ``scriptable=True`` (TorchScript cannot compile converted
            layers), or as `convert`.
    """
    conversion, model_options = split_options(to, options)
    if to != "standard" or conversion:
        check_not_scripted(options.get("scriptable"))
    model = build_base(ModelOrigin(source, name, model_options), pretrained)
    if to == "standard" and not conversion:
        return model
    return convert(model, to, inplace=True, **conversion)


def build_base(origin: ModelOrigin, pretrained: bool | str = False) -> nn.Module:
    """Build the unconverted model that ``origin`` names.

    Raises:
        ConversionError: for an unknown source or name, or an option that its constructor does not take.
    """
    build = builder(origin.source, origin.name)
    try:
        model = build(pretrained, **origin.options)
    except TypeError as error:
        unknown = next((name for name in origin.options if f"unexpected keyword argument '{name}'" in str(error)), None)
        if unknown is None:
            raise
        known = {option for kind in KINDS.values() for option in kind.config.__dataclass_fields__}
        raise ConversionError(
            f"neither {origin.source}'s {origin.name} nor the conversion has an option {unknown!r}"
            f"{suggest(unknown, known)} ({error})"
        ) from None
    remember_origin(model, replace(origin, options={**implied_options(origin, pretrained), **origin.options}))
    return model


def implied_options(origin: ModelOrigin, weights: Any) -> dict[str, Any]:
    """What torchvision's weights ask of the network beside its name: their classes, and an auxiliary head."""
    if origin.source != "torchvision" or not weights:
        return {}
    from torchvision.models import get_model_builder, get_model_weights

    found = get_model_weights(origin.name)
    name = "DEFAULT" if weights is True else getattr(weights, "name", str(weights)).rpartition(".")[2]
    categories = found[name].meta.get("categories")
    implied = {"num_classes": len(categories)} if categories else {}
    if "aux_loss" in inspect.signature(get_model_builder(origin.name)).parameters:
        implied["aux_loss"] = True
    return implied


def check_name(source: Any, name: Any) -> None:
    """Raise unless a registry has this very name, of an unconverted architecture; a tag must be one of its own.

    Raises:
        ConversionError: for another source or name, a path, or the address of a hub.
    """
    if not isinstance(source, str) or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConversionError(f"source={source!r:.40} has no model {name!r:.80}")
    builder(source, name)
    if is_registered_name(name.partition(".")[0]):
        raise ConversionError(f"{name!r} is converted already, expected the name of the original")


def builder(source: str, name: str) -> Callable[..., nn.Module]:
    """A function ``(pretrained, **options) -> model`` for one name of one registry.

    Raises:
        ConversionError: for an unknown source or name.
    """
    if source not in SOURCES:
        raise ConversionError(f"source={source!r}: expected one of {SOURCES}{suggest(source, SOURCES)}")
    return _timm_builder(name) if source == "timm" else _torchvision_builder(name)


def _timm_builder(name: str) -> Callable[..., nn.Module]:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        raise ConversionError(f"timm has no model {name!r}{suggest(architecture, timm.list_models())}")
    known = [each.partition(".")[2] for each in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and known and tag not in known:
        raise ConversionError(f"timm's {architecture} has no tag {tag!r}{suggest(tag, known)}; it has {known}")
    return lambda pretrained, **options: timm.create_model(name, pretrained=bool(pretrained), **options)


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    import torchvision

    names = torchvision.models.list_models()
    if name not in names:
        raise ConversionError(f"torchvision has no model {name!r}{suggest(name, names)}")
    function = torchvision.models.get_model_builder(name)

    def build(pretrained: bool | str, **options: Any) -> nn.Module:
        weights = {True: "DEFAULT", False: None}.get(pretrained, pretrained)
        known = ["DEFAULT", *torchvision.models.get_model_weights(function).__members__]
        if isinstance(weights, str) and weights.rpartition(".")[2] not in known:
            raise ConversionError(f"torchvision's {name} has no weights {weights!r}; expected one of {known}")
        # Without weights a detector would still fetch those of its backbone.
        if weights is None and "weights_backbone" in inspect.signature(function).parameters:
            options.setdefault("weights_backbone", None)
        return function(weights=weights, **options)

    return build


def split_options(kind: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the conversion's options, of every kind it asks for, from the model constructor's."""
    where = options.get("where")
    rules = where.values() if isinstance(where, Mapping) else ()
    kinds = {kind, *(rule for rule in rules if isinstance(rule, str))}
    known = {*_CONVERT_OPTIONS, *(f.name for k in kinds for f in fields(get_kind(k).config))}
    conversion = {name: value for name, value in options.items() if name in known}
    return conversion, {name: value for name, value in options.items() if name not in known}


def list_models(filter: str = "*", to: str = "metric", *, source: str = "timm") -> list[str]:
    """Names that `register` adds to a registry, sorted: ``list_models("resnet*")`` has ``"metric_resnet50"``.

    Args:
        filter: glob on the original name.
        to: a kind of `list_kinds`, not ``"standard"``: unconverted models keep their own names.
        source: ``"timm"`` or ``"torchvision"``.

    Raises:
        ConversionError: for an unknown source, or for ``to="standard"``; MetricZooError for an unknown kind.
    """
    if get_kind(to).layer is None:
        raise ConversionError(f"to={to!r}: unconverted models keep their own names, see timm.list_models")
    return [f"{to}_{name}" for name in fnmatch.filter(base_names(source), filter)]


def base_names(source: str) -> list[str]:
    """Unconverted image models of a registry, sorted; video models have no two-dimensional convolutions.

    Raises:
        ConversionError: for an unknown source.
    """
    names = registry_names(source)
    if source == "timm":
        return names
    from torchvision import models

    video = set(models.list_models(module=models.video))
    return [name for name in names if name not in video]


def registry_names(source: str) -> list[str]:
    """All unconverted models of a registry, sorted.

    Raises:
        ConversionError: for an unknown source.
    """
    if source not in SOURCES:
        raise ConversionError(f"source={source!r}: expected one of {SOURCES}{suggest(source, SOURCES)}")
    if source == "timm":
        from timm import list_models as names
    else:
        from torchvision.models import list_models as names
    return sorted(name for name in names() if not is_registered_name(name))


def is_registered_name(name: str) -> bool:
    """Whether `register` made this name."""
    from metric_zoo.zoo.register import registered

    return name in registered
