"""metric-zoo: metric, deformable and shifted convolutions for any timm or torchvision model.

The names below load on first use, so that importing the package costs no torch, timm or torchvision import.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from metric_zoo.operators import register_with_torch

# ruff: noqa: F401
if TYPE_CHECKING:
    from metric_zoo import explain, geometry, nn, ops, sparse
    from metric_zoo.converters import ConversionReport, ConvNode, adopt, conversion_report, convert, revert
    from metric_zoo.errors import ConversionError, DataError, MetricZooError, RecipeError, RecordError
    from metric_zoo.nn.registry import list_kinds
    from metric_zoo.nn.training import parameter_groups
    from metric_zoo.zoo import create_model, list_models, load, register, save

try:
    __version__ = version("metric-zoo")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_MODULES = ("explain", "geometry", "nn", "ops", "sparse")
_NAMES = {
    "ConversionReport": "converters",
    "ConvNode": "converters",
    "adopt": "converters",
    "conversion_report": "converters",
    "convert": "converters",
    "parameter_groups": "nn.training",
    "revert": "converters",
    "ConversionError": "errors",
    "DataError": "errors",
    "MetricZooError": "errors",
    "RecipeError": "errors",
    "RecordError": "errors",
    "list_kinds": "nn.registry",
    "create_model": "zoo",
    "list_models": "zoo",
    "load": "zoo",
    "register": "zoo",
    "save": "zoo",
}
__all__ = ["__version__", *sorted([*_MODULES, *_NAMES])]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"metric_zoo.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"metric_zoo.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'metric_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


register_with_torch()
