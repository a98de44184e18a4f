"""What timm's and torchvision's registries have: names, and how a model of a name is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from metric_zoo.errors import ConversionError, suggest
from metric_zoo.zoo.networks import register_networks
from metric_zoo.zoo.origin import ModelOrigin

SOURCES = ("timm", "torchvision")
_NAME = re.compile(r"\w+(\.[\w-]+)?")

registered: set[str] = set()
"""Names of converted models that this process has added to a registry."""


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
    if name.partition(".")[0] in registered:
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

    register_networks()
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
        named: dict[bool | str, str | None] = {True: "DEFAULT", False: None}
        weights = named.get(pretrained, pretrained)
        known = ["DEFAULT", *torchvision.models.get_model_weights(function).__members__]
        if isinstance(weights, str) and weights.rpartition(".")[2] not in known:
            raise ConversionError(f"torchvision's {name} has no weights {weights!r}; expected one of {known}")
        # Without weights a detector would still fetch those of its backbone.
        if weights is None and "weights_backbone" in inspect.signature(function).parameters:
            options.setdefault("weights_backbone", None)
        return function(weights=weights, **options)

    return build


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

        register_networks()
    else:
        from torchvision.models import list_models as names
    return sorted(name for name in names() if name not in registered)
