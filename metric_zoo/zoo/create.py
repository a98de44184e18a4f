"""Build a model by name and convert it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import nn

from metric_zoo.converters import convert
from metric_zoo.converters.check_model import check_not_scripted
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.registry import get_kind, list_layers
from metric_zoo.zoo.origin import ModelOrigin, remember_origin
from metric_zoo.zoo.registries import base_names, builder, implied_options

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
    as_it_is = get_kind(to).layer is None and not conversion
    if not as_it_is:
        check_not_scripted(options.get("scriptable"))
    model = build_base(ModelOrigin(source, name, model_options), pretrained)
    return model if as_it_is else convert(model, to, inplace=True, **conversion)


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
        known = {option for kind in list_layers().values() for option in kind.conversion.__dataclass_fields__}
        raise ConversionError(
            f"neither {origin.source}'s {origin.name} nor the conversion has an option {unknown!r}"
            f"{suggest(unknown, known)} ({error})"
        ) from None
    remember_origin(model, replace(origin, options={**implied_options(origin, pretrained), **origin.options}))
    return model


def split_options(kind: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the conversion's options, of every kind it asks for, from the model constructor's."""
    where = options.get("where")
    rules = where.values() if isinstance(where, Mapping) else ()
    kinds = {kind, *(rule for rule in rules if isinstance(rule, str))}
    known = {*_CONVERT_OPTIONS, *(f.name for k in kinds for f in fields(get_kind(k).conversion))}
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
