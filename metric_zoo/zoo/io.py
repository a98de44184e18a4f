"""Save and load converted models: ``config.json`` and ``model.safetensors``, never pickle."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from metric_zoo import __version__
from metric_zoo.converters.atrous import atrous_layer4, is_atrous
from metric_zoo.converters.original import CONVERTED
from metric_zoo.converters.report import ConversionReport, attach, describe, detach
from metric_zoo.converters.rewrite import build_layer, swap
from metric_zoo.converters.sparse import build_sparse
from metric_zoo.errors import ConversionError, MetricZooError
from metric_zoo.files import replacing
from metric_zoo.nn.base import SampledConv2d, current_key
from metric_zoo.nn.config import KindOptions, SparseConfig
from metric_zoo.nn.registry import get_kind
from metric_zoo.nn.sparse import SparseKernelComplex2d, why_not_sparse
from metric_zoo.zoo.create import build_base
from metric_zoo.zoo.origin import ModelOrigin, find_origin

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a converted model to ``folder`` (made if missing).

    The architecture is remembered from `create_model` or the registries, or read off a timm model, and checked by
    building it again. Where that gives another network (it was changed after it was built, or its pretrained weights
    imply other options) a warning says so, and `load` must be given the architecture.

    Args:
        model: converted or not.
        folder: receives ``config.json`` and ``model.safetensors``; each file appears whole or not at all.

    Raises:
        ConversionError: if the folder cannot be written.
    """
    origin = find_origin(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, CONVERTED)}
    described = {name: {"kind": layer.kind, "options": layer.config.to_dict()} for name, layer in layers.items()}
    if origin is not None:
        why = _why_not_rebuilt(model, origin, described)
        if why:
            warnings.warn(f"{why}; only mz.load(folder, model=...) will read this folder", stacklevel=2)
            origin = None
    config = {
        "format_version": FORMAT_VERSION,
        "metric_zoo_version": __version__,
        "model": asdict(origin) if origin else None,
        "dtype": _dtype(model),
        "atrous": is_atrous(model),
        "layers": described,
    }
    folder = Path(folder)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConversionError("a model on the meta device has no values to save")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as path:
            safetensors.torch.save_model(model, str(path))
        with replacing(folder / CONFIG) as path:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConversionError(f"{folder} cannot be written as a model's folder: {error.strerror or error}") from None


def load(folder: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Read a model that `save` wrote.

    Args:
        folder: with ``config.json`` and ``model.safetensors``. Unknown keys of the configuration are ignored.
        model: the unconverted architecture, where the folder does not name one; it is converted in place.

    Returns:
        The model in evaluation mode, in the dtype it was saved in, on the CPU (or ``model``'s device).

    Raises:
        ConversionError: if a file is missing, damaged, of a newer format, or does not fit the architecture. A
            ``model`` given keeps its convolutions then.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    if model is None:
        if config["model"] is None:
            raise ConversionError(f"{folder} does not name its architecture: pass it, mz.load(folder, model=...)")
        model = _build(config["model"], folder)
    with atrous_layer4(model, wanted=bool(config.get("atrous"))):
        return _load(model, config, folder)


def _load(model: nn.Module, config: dict[str, Any], folder: Path) -> nn.Module:
    replacements = _apply_layers(model, config["layers"], folder)
    try:
        dtypes = _check_fits(model, folder / WEIGHTS)
        model.to(getattr(torch, config["dtype"]))
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            tensor.data = tensor.data.to(dtypes.get(name, tensor.dtype))
        safetensors.torch.load_model(model, folder / WEIGHTS)
    except (OSError, SafetensorError, RuntimeError) as error:
        swap(model, {layer: conv for conv, layer in replacements.items()})
        detach(model)
        raise ConversionError(f"{folder / WEIGHTS} cannot be loaded: {str(error)[:500]}") from None
    return model.eval()


def _check_fits(model: nn.Module, path: Path) -> dict[str, torch.dtype]:
    """Compare names and shapes before anything of ``model`` changes; return the file's dtypes.

    Raises:
        RuntimeError: naming what does not fit.
    """
    with safetensors.safe_open(path, "pt") as file:
        stored = {_current_key(model, name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, tensor in stored.items():
        if shapes.get(name) != tuple(tensor.shape):
            raise RuntimeError(f"{name} has shape {tuple(tensor.shape)}, the architecture's is {shapes.get(name)}")
    return {name: tensor.dtype for name, tensor in stored.items()}


def _current_key(model: nn.Module, key: str) -> str:
    """A key of a folder that an earlier version may have written."""
    layer, former, _ = key.rpartition(".head.")
    try:
        sampled = isinstance(model.get_submodule(layer), SampledConv2d) if former else False
    except AttributeError:
        return key
    return current_key(key, f"{layer}.") if sampled else key


def _dtype(model: nn.Module) -> str:
    """The dtype of the model's floating-point parameters, such as ``"bfloat16"``."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return str(dtype).removeprefix("torch.")


def _build(description: dict[str, Any], folder: Path) -> nn.Module:
    try:
        origin = ModelOrigin(description["source"], description["name"], dict(description.get("options", {})))
        return build_base(origin)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConversionError(f"{folder / CONFIG}: 'model' does not describe an architecture ({error})") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format_version"]
    except FileNotFoundError:
        raise ConversionError(f"{path} does not exist: expected a folder that mz.save wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{path} is not a configuration that mz.save wrote ({error})") from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ConversionError(f"{path} has format {version!r}, this version reads up to {FORMAT_VERSION}: upgrade")
    config = {"model": None, "layers": {}, "dtype": "float32", **config}
    for key, wanted in (("model", (dict, type(None))), ("layers", dict), ("dtype", str)):
        if not isinstance(config[key], wanted):
            raise ConversionError(f"{path}: {key!r} is {config[key]!r:.80}, which mz.save does not write")
    dtype = getattr(torch, config["dtype"], None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConversionError(f"{path}: dtype {config['dtype']!r} is unknown")
    return config


def _apply_layers(model: nn.Module, layers: dict[str, Any], where: object) -> dict[nn.Module, nn.Module]:
    """Convert exactly the layers that were; their weights are about to be loaded."""
    modules = dict(model.named_modules())
    report = ConversionReport(type(model).__name__, not_compared=f"read from {where}", atrous=is_atrous(model))
    replacements: dict[nn.Module, nn.Module] = {}
    for name, entry in layers.items():
        conv = modules.get(name)
        if not isinstance(conv, nn.Conv2d) or isinstance(conv, SampledConv2d):
            raise ConversionError(f"{where}: the architecture has no ordinary convolution {name!r}")
        kind, options = _kind_and_options(name, entry, where)
        try:
            layer = _build_layer(name, conv, kind, options)
        except MetricZooError as error:
            raise ConversionError(f"{where}: {error}") from None
        replacements[conv] = layer
        report.converted[name] = describe(layer, conv)
    swap(model, replacements)
    if layers:
        attach(model, report)
    return replacements


def _build_layer(name: str, conv: nn.Conv2d, kind: str, options: dict[str, Any]) -> nn.Module:
    if kind != SparseKernelComplex2d.kind:
        return build_layer(name, conv, kind, options)
    why = why_not_sparse(conv)
    if why:
        raise MetricZooError(f"{name}: a sparse kernel complex cannot take its place: {why}")
    layer = build_sparse(conv, **options)
    del layer._origin  # the kernel that it approximates is not in the file
    return layer


def _kind_and_options(name: str, entry: Any, where: object) -> tuple[str, dict[str, Any]]:
    """One layer's entry; options that this version does not know are left out."""
    options = entry.get("options", {}) if isinstance(entry, dict) else None
    if not isinstance(options, dict) or not isinstance(entry.get("kind"), str):
        raise ConversionError(f"{where}: layer {name!r} is {entry!r:.80}, expected its kind and options")
    try:
        config = _config_of(entry["kind"])
        known = {key: value for key, value in options.items() if key in config.__dataclass_fields__}
        return entry["kind"], config.from_options(entry["kind"], known).to_dict()
    except MetricZooError as error:
        raise ConversionError(f"{where}: layer {name!r}: {error}") from None


def _config_of(kind: str) -> type[KindOptions]:
    if kind == SparseKernelComplex2d.kind:
        return SparseConfig
    if get_kind(kind).layer is None:
        raise MetricZooError(f"kind {kind!r} has no layer of its own")
    return get_kind(kind).config


def _why_not_rebuilt(model: nn.Module, origin: ModelOrigin, layers: dict[str, Any]) -> str:
    """What is saved must load: build the architecture again and compare every module, name and shape."""
    try:
        json.dumps(asdict(origin))
        twin = _twin(origin)
        with atrous_layer4(twin, wanted=is_atrous(model)):
            _apply_layers(twin, layers, origin.name)
    except (MetricZooError, TypeError, ValueError) as error:
        return f"{origin.source}'s {origin.name!r} cannot be built again from its name and options ({error})"
    ours, theirs = _fingerprint(model), _fingerprint(twin)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not different:
        return ""
    options = f"{origin.name!r} with {origin.options}"
    return f"{origin.source} builds {options} differently, e.g. {different[0] or 'the model itself'!r}"


def _fingerprint(model: nn.Module) -> dict[str, object]:
    """Class and constructor text of every module; name and shape of every tensor."""
    modules = {name: (type(module).__qualname__, module.extra_repr()) for name, module in model.named_modules()}
    return {**modules, **{f"{name}:": tuple(tensor.shape) for name, tensor in model.state_dict().items()}}


def _twin(origin: ModelOrigin) -> nn.Module:
    try:
        with torch.device("meta"):  # no storage, no initialisation
            return build_base(origin)
    except MetricZooError:
        raise
    except Exception:  # a constructor that computes with its weights
        with torch.random.fork_rng():
            return build_base(origin)
