"""Make every converted model available under the registries' own functions."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from metric_zoo.converters import convert
from metric_zoo.converters.check_model import check_not_scripted
from metric_zoo.nn.registry import list_layers
from metric_zoo.zoo.checkpoint import accept_plain_checkpoints
from metric_zoo.zoo.create import split_options
from metric_zoo.zoo.origin import ModelOrigin, remember_origin
from metric_zoo.zoo.registries import base_names, implied_options, registered

_known: set[str] = set()
"""Kinds whose names this process has added."""


def register() -> None:
    """Add ``<kind>_<model>`` to timm's and torchvision's registries, for every kind and every image model.

    Afterwards ``timm.create_model("metric_resnet50", pretrained=True, num_classes=10)``,
    ``timm.list_models("metric_*")`` and ``torchvision.models.get_model("deformable_resnet50", weights="DEFAULT")``
    build the converted models; options of the conversion are keyword arguments, pretrained tags those of the original
    (``"metric_resnet50.a1_in1k"``, listed by `timm.list_pretrained`). ``checkpoint_path`` may hold the weights of the
    original or those of a converted model. Calling it again adds what kinds have been declared since.

    The networks of this package (``"internimage_t_1k_224"``) become known to timm, too, converted and as they are.
    """
    new = [kind for kind in list_layers() if kind not in _known]
    if not new:
        return
    import timm.models
    from torchvision.models._api import register_model as register_in_torchvision  # exported nowhere else

    names = {source: base_names(source) for source in ("timm", "torchvision")}
    for kind in new:
        module = _module(kind)
        for name in names["timm"]:
            timm.models.register_model(_timm_entrypoint(name, kind, module.__name__))
        for name in names["torchvision"]:
            function = _torchvision_entrypoint(name, kind, module.__name__)
            register_in_torchvision(f"{kind}_{name}")(function)
        registered.update(f"{kind}_{name}" for source in names.values() for name in source)
        _known.add(kind)
    _list_tags(names["timm"], new)


def _module(kind: str) -> types.ModuleType:
    """A module per kind holds the entry points: timm files models by module, so ``module="metric"`` lists ours."""
    name = f"metric_zoo.zoo.names.{kind}"
    return sys.modules.setdefault(name, types.ModuleType(name, f"Entry points of the {kind} models."))


def _list_tags(names: Sequence[str], kinds: Sequence[str]) -> None:
    """Give our names the pretrained tags of timm's models, which `timm.list_pretrained` and others then know.

    timm's own way, a table in the module of the entry point, copies every tag's description: 25,000 of them, which
    takes five times as long as all the rest.
    """
    from timm.models import _registry as registry

    described, pretrained = registry._model_pretrained_cfgs, registry._model_has_pretrained
    for name in names:
        tags = registry._model_with_tags.get(name, [])
        own = [each.removeprefix(name) for each in (name, *tags)]
        descriptions = {tag: described[name + tag] for tag in own if name + tag in described}
        weighted = [tag for tag in own if name + tag in pretrained]
        for kind in kinds:
            ours = f"{kind}_{name}"
            described.update({ours + tag: found for tag, found in descriptions.items()})
            pretrained.update([ours + tag for tag in weighted])
            if name in registry._model_default_cfgs:
                registry._model_default_cfgs[ours] = registry._model_default_cfgs[name]
                registry._model_with_tags[ours] = [f"{kind}_{tag}" for tag in tags]


def _timm_entrypoint(name: str, kind: str, module: str) -> Callable[..., nn.Module]:
    def entrypoint(pretrained: bool = False, **options: Any) -> nn.Module:
        import timm

        check_not_scripted()
        conversion, model_options = split_options(kind, options)
        model = timm.models.model_entrypoint(name)(pretrained=pretrained, **model_options)
        flags = {"exportable": timm.layers.is_exportable(), "no_jit": timm.layers.is_no_jit()}
        remember_origin(model, ModelOrigin("timm", name, {**model_options, **{k: v for k, v in flags.items() if v}}))
        return accept_plain_checkpoints(convert(model, kind, inplace=True, **conversion))

    entrypoint.__name__ = entrypoint.__qualname__ = f"{kind}_{name}"
    entrypoint.__module__ = module
    return entrypoint


def _torchvision_entrypoint(name: str, kind: str, module: str) -> Callable[..., nn.Module]:
    import torchvision

    function = torchvision.models.get_model_builder(name)

    # The signature is kept: torchvision finds a model's weights by the annotation of its argument.
    @functools.wraps(function)
    def entrypoint(*args: Any, **options: Any) -> nn.Module:
        conversion, model_options = split_options(kind, options)
        model = function(*args, **model_options)
        weights = args[0] if args else options.get("weights")
        implied = implied_options(ModelOrigin("torchvision", name), weights)
        remember_origin(model, ModelOrigin("torchvision", name, {**implied, **model_options}))
        return convert(model, kind, inplace=True, **conversion)

    entrypoint.__name__ = entrypoint.__qualname__ = f"{kind}_{name}"
    entrypoint.__module__ = module
    return entrypoint
