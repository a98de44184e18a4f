"""Save and load converted models: ``config.json`` and ``model.safetensors``, never pickle."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from metric_zoo import __version__
from metric_zoo.converters.build import build_layer, swap
from metric_zoo.converters.layer_report import describe
from metric_zoo.converters.model_state import SHARED
from metric_zoo.converters.original import forget_original
from metric_zoo.converters.paper_resnet import atrous_layer4, is_atrous
from metric_zoo.converters.report import ConversionReport, attach, detach
from metric_zoo.errors import ConversionError, MetricZooError
from metric_zoo.files import check_regular, replacing
from metric_zoo.nn.base import SampledConv2d, current_key
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.registry import get_kind
from metric_zoo.reading import read_json
from metric_zoo.zoo.create import build_base
from metric_zoo.zoo.hollow import hollow
from metric_zoo.zoo.options import check_options, check_preprocessing, check_value
from metric_zoo.zoo.origin import ModelOrigin, find_origin, preprocessing_of, settings_of
from metric_zoo.zoo.registries import check_name
from metric_zoo.zoo.shards import gather, mesh_of, together, writes
from metric_zoo.zoo.unwrap import Bare, class_of, strip, unwrap

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_LARGEST_CONFIG = 2**24
"""Bytes; a network of 10,000 converted layers takes 3 million."""
_LARGEST_LAYER_OPTION = 2**12


def save(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a converted model to ``folder`` (made if missing).

    The architecture is remembered from `create_model` or the registries, or read off a timm model, with its options and
    preprocessing, and checked by building it again. Where that gives another network (it was changed after it was
    built) a warning says so, and `load` must be given the architecture.

    What is saved is the model inside of DataParallel, DistributedDataParallel, `torch.compile`, averaged models and
    activation checkpointing, also where a part of the model is wrapped. Of a model that `fully_shard` has spread over
    processes, all must call this; the shards are gathered, and one process writes.

    Args:
        model: converted or not.
        folder: receives ``config.json`` and ``model.safetensors``; both appear whole, or the folder stays as it was.

    Raises:
        ConversionError: if the folder cannot be written, or for a model that no folder holds (without values,
            quantized, with adapters, or with a parametrization on a converted layer). Nothing is written then.
    """
    bare = unwrap(model)
    layers: dict[str, Any] = {name: layer for name, layer in bare.modules.items() if kind_of(layer) is not None}
    described = {name: {"kind": layer.kind, "options": layer.config.to_dict()} for name, layer in layers.items()}
    preprocessing = _writable(preprocessing_of(bare.root))
    origin = find_origin(bare.root)
    if origin is not None:
        try:
            origin = _settled(bare, origin, described, preprocessing)
        except _NotRebuilt as why:
            warnings.warn(
                f"{why}; only mz.load(folder, model=...) with the same architecture will read this folder", stacklevel=2
            )
            origin = None
    config = {
        "format_version": FORMAT_VERSION,
        "metric_zoo_version": __version__,
        "model": asdict(origin) if origin else None,
        "preprocessing": preprocessing,
        "dtype": _dtype(bare.root),
        "atrous": is_atrous(bare.root),
        "layers": described,
    }
    mesh = mesh_of(bare.state)
    state = gather(bare.state, mesh)
    with together(mesh):
        if writes(mesh):
            _write(Path(folder), config, state)


class _State(nn.Module):
    """What `safetensors.torch.save_model`, which knows shared tensors, asks a model for."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self._state = state

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._state)


def _write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Both files, or none: they take their places after both have been written.

    Raises:
        ConversionError: if they cannot be written.
    """
    text = json.dumps(config, indent=2) + "\n"
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / CONFIG) as description, replacing(folder / WEIGHTS) as weights:
            description.write_text(text, encoding="utf-8")
            safetensors.torch.save_model(_State(state), str(weights))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        why = getattr(error, "strerror", None) or _one_line(error)
        raise ConversionError(f"{folder} cannot be written as a model's folder: {why}") from None


def load(folder: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Read a model that `save` wrote. The folder may come from a stranger.

    A name of timm's or torchvision's registry and options that shape a network are all that a folder may ask for:
    nothing is opened, fetched or unpickled, and sizes are compared with the file before the network is built.

    Args:
        folder: with ``config.json`` and ``model.safetensors``. Unknown keys of the configuration, and other files, are
            ignored.
        model: the unconverted architecture, where the folder does not name one; it is converted in place.

    Returns:
        The model in evaluation mode, in the dtype it was saved in, on the CPU (or ``model``'s device). A timm model has
        the preprocessing it was saved with.

    Raises:
        ConversionError: if a file is missing, damaged, of a newer format, asks for what it may not, or does not fit the
            architecture. A ``model`` given stays as it was then.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    if model is None:
        if config["model"] is None:
            raise ConversionError(f"{folder} does not name its architecture: pass it, mz.load(folder, model=...)")
        model = _build(config, folder)
    else:
        _check_given(model)
    with atrous_layer4(model, wanted=config["atrous"]):
        model = _load(model, config, folder)
    _tell_preprocessing(model, config["preprocessing"])
    return model


def _tell_preprocessing(model: nn.Module, preprocessing: dict[str, Any]) -> None:
    """Give a timm model, whatever tag it was built with, the preprocessing of the one that was saved."""
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        return
    for name, value in preprocessing.items():
        if value is not None:
            cfg[name] = value
        elif name in cfg:
            cfg[name] = None


def _check_given(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ConversionError(f"model is a {type(model).__name__}, expected an nn.Module")
    if unwrap(model).wrapped:
        raise ConversionError("model is wrapped, or a part of it: load into the model itself, then wrap it")


def _load(model: nn.Module, config: dict[str, Any], folder: Path) -> nn.Module:
    replacements = _apply_layers(model, config["layers"], folder)
    try:
        dtypes = _check_fits(model, folder / WEIGHTS)
        model.to(getattr(torch, config["dtype"]))
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            tensor.data = tensor.data.to(dtypes.get(name, tensor.dtype))
        # What is missing is shared with what is there: that has been checked.
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS), strict=False)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        swap(model, {layer: conv for conv, layer in replacements.items()})
        detach(model)
        raise ConversionError(f"{folder / WEIGHTS} cannot be loaded: {_one_line(error)}") from None
    return model.eval()


def _check_fits(model: nn.Module, path: Path) -> dict[str, torch.dtype]:
    """Compare names, shapes and kinds of numbers before anything of ``model`` changes; return the file's dtypes.

    Raises:
        RuntimeError: naming what does not fit.
    """
    with _opened(path) as file:
        keys = {_current_key(model, name): name for name in file.keys()}  # noqa: SIM118, no dict
        tensors = model.state_dict()
        for key, name in keys.items():
            stored, own = tuple(file.get_slice(name).get_shape()), tensors.get(key)
            if own is None or stored != tuple(own.shape):
                there = None if own is None else tuple(own.shape)
                raise RuntimeError(f"{key} has shape {stored}, the architecture's is {there}")
        found = {tensors[key].untyped_storage()._cdata for key in keys}  # what is shared is stored once
        missing = [key for key, tensor in tensors.items() if tensor.untyped_storage()._cdata not in found]
        if missing:
            raise RuntimeError(f"{len(missing)} tensors of the architecture are missing, {missing[0]} the first")
        dtypes = {key: file.get_tensor(name).dtype for key, name in keys.items()}
    for key, dtype in dtypes.items():
        if dtype.is_floating_point != tensors[key].dtype.is_floating_point or dtype.is_complex:
            raise RuntimeError(f"{key} is {dtype}, the architecture's is {tensors[key].dtype}")
    return dtypes


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of tensors; a pipe is not waited for."""
    check_regular(path)
    with safetensors.safe_open(path, "pt") as file:
        yield file


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


def _build(config: dict[str, Any], folder: Path) -> nn.Module:
    """The architecture that a folder names, once a copy without storage has turned out to fit the weights.

    Raises:
        ConversionError: for a description of something else; whatever fails while it is built.
    """
    where = folder / CONFIG
    try:
        origin = _origin(config["model"])
        check_name(origin.source, origin.name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConversionError(
            f"{where}: 'model' does not describe an architecture ({_one_line(error)}); build it, and pass it, "
            "mz.load(folder, model=...)"
        ) from None
    try:
        _rehearse(origin, config, folder)
        return _build_as(origin, config["preprocessing"])
    except MetricZooError:
        raise
    except Exception as error:  # a constructor may fail in any way
        raise ConversionError(
            f"{where}: {origin.source}'s {origin.name!r} cannot be built with {origin.options} ({_one_line(error)})"
        ) from None


def _rehearse(origin: ModelOrigin, config: dict[str, Any], folder: Path) -> None:
    """Load without storage, so that absurd sizes end before memory is taken."""
    twin = hollow(lambda: _build_as(origin, config["preprocessing"]))
    with atrous_layer4(twin, wanted=config["atrous"]):
        _apply_layers(twin, config["layers"], folder)
    try:
        _check_fits(twin, folder / WEIGHTS)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ConversionError(f"{folder / WEIGHTS} cannot be loaded: {_one_line(error)}") from None


def _origin(description: dict[str, Any]) -> ModelOrigin:
    return ModelOrigin(description["source"], description["name"], check_options(description.get("options", {})))


def _build_as(origin: ModelOrigin, preprocessing: dict[str, Any]) -> nn.Module:
    """The architecture, with its preprocessing; options are remembered without it."""
    if origin.source != "timm" or not preprocessing:
        return build_base(origin)
    return build_base(replace(origin, options={**origin.options, "pretrained_cfg_overlay": preprocessing}))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path, _LARGEST_CONFIG)
        version = config["format_version"]
    except FileNotFoundError:
        raise ConversionError(f"{path} does not exist: expected a folder that mz.save wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{path} is not a configuration that mz.save wrote ({_one_line(error)})") from None
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
        raise ConversionError(f"{path} has format {version!r:.40}, this version reads up to {FORMAT_VERSION}: upgrade")
    config = {"model": None, "preprocessing": {}, "layers": {}, "dtype": "float32", "atrous": False, **config}
    for key, wanted in (("model", (dict, type(None))), ("layers", dict), ("dtype", str), ("atrous", bool)):
        if not isinstance(config[key], wanted):
            raise ConversionError(f"{path}: {key!r} is {config[key]!r:.80}, which mz.save does not write")
    dtype = getattr(torch, config["dtype"], None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConversionError(f"{path}: dtype {config['dtype']!r:.40} is unknown")
    try:
        return {**config, "preprocessing": check_preprocessing(config["preprocessing"])}
    except ValueError as error:
        raise ConversionError(f"{path}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _apply_layers(model: nn.Module, layers: dict[str, Any], where: object) -> dict[nn.Module, nn.Module]:
    """Convert exactly the layers that were; their weights are about to be loaded."""
    modules = dict(model.named_modules())
    report = ConversionReport(type(model).__name__, not_compared=f"read from {where}", atrous=is_atrous(model))
    replacements: dict[nn.Module, nn.Module] = {}
    for name, entry in layers.items():
        conv = modules.get(name)
        if not isinstance(conv, nn.Conv2d) or kind_of(conv) is not None:
            raise ConversionError(f"{where}: the architecture has no ordinary convolution {name!r}")
        kind, options = _kind_and_options(name, entry, where)
        try:
            layer = build_layer(name, conv, kind, options)
        except MetricZooError as error:
            raise ConversionError(f"{where}: {error}") from None
        forget_original(layer)  # what it has of its own is not in the file
        replacements[conv] = layer
        report.converted[name] = describe(layer, conv)
    swap(model, replacements)
    if layers:
        attach(model, report)
    return replacements


def _kind_and_options(name: str, entry: Any, where: object) -> tuple[str, dict[str, Any]]:
    """One layer's entry; options that this version does not know are left out."""
    options = entry.get("options", {}) if isinstance(entry, dict) else None
    if not isinstance(options, dict) or not isinstance(entry.get("kind"), str):
        raise ConversionError(f"{where}: layer {name!r} is {entry!r:.80}, expected its kind and options")
    try:
        config = _config_of(entry["kind"])
        known = {key: value for key, value in options.items() if key in config.__dataclass_fields__}
        for key, value in known.items():
            check_value(key, value, _LARGEST_LAYER_OPTION)
        return entry["kind"], config.from_options(entry["kind"], known).to_dict()
    except ValueError as error:
        raise ConversionError(f"{where}: layer {name!r}: {error}") from None


def _config_of(kind: str) -> type[KindOptions]:
    if get_kind(kind).layer is None:
        raise MetricZooError(f"kind {kind!r} has no layer of its own")
    return get_kind(kind).config


class _NotRebuilt(Exception):
    """Why the architecture cannot be built again from its name."""


def _settled(bare: Bare, origin: ModelOrigin, layers: dict[str, Any], preprocessing: dict[str, Any]) -> ModelOrigin:
    """The origin, with the settings that the model has now, if it builds the architecture: every module, name, shape.

    Raises:
        _NotRebuilt: if it does not.
    """
    options = _written_options(origin)
    ours = settings_of(bare.root)
    try:
        twin = _twin(replace(origin, options=options), preprocessing)
        changed = {name: value for name, value in settings_of(twin).items() if ours.get(name, value) != value}
        if changed:
            options |= {name: ours[name] for name in changed}
            twin = _twin(replace(origin, options=_written_options(replace(origin, options=options))), preprocessing)
        with atrous_layer4(twin, wanted=is_atrous(bare.root)):
            _apply_layers(twin, layers, origin.name)
    except _NotRebuilt:
        raise
    except Exception as error:
        raise _NotRebuilt(
            f"{origin.source}'s {origin.name!r} cannot be built again from its name and options ({_one_line(error)})"
        ) from None
    mine, theirs = _fingerprint(bare), _fingerprint(strip(twin))
    different = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if different:
        raise _NotRebuilt(
            f"{origin.source} builds {origin.name!r} with {options} differently, e.g. "
            f"{different[0] or 'the model itself'!r}"
        )
    return replace(origin, options=options)


def _written_options(origin: ModelOrigin) -> dict[str, Any]:
    """As JSON gives them back, if `load` will take them.

    Raises:
        _NotRebuilt: naming the option that it will not.
    """
    written = {}
    for name, value in origin.options.items():
        try:
            written |= check_options(json.loads(json.dumps({name: value})))
        except (TypeError, ValueError):
            raise _NotRebuilt(
                f"{origin.source} builds {origin.name!r} from what a folder may hold differently, without "
                f"{name}={value!r:.80}"
            ) from None
    return written


def _writable(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What can be written of a preprocessing; the rest is named in a warning."""
    written = {}
    for name, value in preprocessing.items():
        try:
            check_preprocessing({name: json.loads(json.dumps(value))})
            written[name] = value
        except (TypeError, ValueError) as error:
            warnings.warn(f"pretrained_cfg is not saved whole: {_one_line(error)}", stacklevel=3)
    return written


def _fingerprint(bare: Bare) -> dict[str, object]:
    """Class and constructor text of every module; name and shape of every tensor."""
    modules = {name: (class_of(module).__qualname__, module.extra_repr()) for name, module in bare.modules.items()}
    return {**modules, **{f"{name}:": tuple(tensor.shape) for name, tensor in bare.state.items()}}


def _twin(origin: ModelOrigin, preprocessing: dict[str, Any]) -> nn.Module:
    preprocessing = check_preprocessing(json.loads(json.dumps(preprocessing)))
    with SHARED, torch.random.fork_rng():
        return hollow(lambda: _build_as(origin, preprocessing))
