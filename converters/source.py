"""The convolution classes that can be replaced, and what each does besides convolving.

timm's classes are named, not imported: a model that uses them has imported them, another needs no timm.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from metric_zoo.nn.standardize import WeightStandardization
from metric_zoo.ops.padding import Padding


@dataclass(frozen=True)
class Behaviour:
    """Attributes:
    padding: the padding, resolved from the input's size when it is ``"same"``.
    standardization: how the weight is standardised at every call, or None.
    """

    padding: Padding
    standardization: WeightStandardization | None = None


# class name -> (pads dynamically?, standardises?)
_TIMM = {
    "Conv2dSame": (True, False),
    "Conv2dSameExport": (True, False),
    "StdConv2d": (False, True),
    "StdConv2dSame": (True, True),
    "ScaledStdConv2d": (False, True),
    "ScaledStdConv2dSame": (True, True),
}


def unsupported_reason(conv: nn.Conv2d) -> str:
    """Why this convolution cannot be replaced faithfully, or an empty string."""
    cls = type(conv)
    if "weight" not in conv._parameters:
        return "its weight is computed (weight norm or a parametrization), not a parameter"
    if cls is nn.Conv2d or _is_timm(cls):
        return ""
    return f"unknown convolution class {cls.__module__}.{cls.__qualname__}"


def behaviour(conv: nn.Conv2d) -> Behaviour:
    """How a supported convolution pads and standardises."""
    if not _is_timm(type(conv)):
        return Behaviour(conv.padding)
    same, standardised = _TIMM[type(conv).__name__]
    # The Same classes with weight standardisation fall back to fixed padding when it suffices.
    same = same and getattr(conv, "same_pad", True)
    rule = WeightStandardization(conv.eps, getattr(conv, "scale", 1.0)) if standardised else None
    return Behaviour("same" if same else conv.padding, rule)


def _is_timm(cls: type) -> bool:
    return cls.__module__.startswith("timm.layers.") and cls.__name__ in _TIMM
