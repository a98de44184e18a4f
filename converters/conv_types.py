"""The convolution classes that can be replaced, and what each does besides convolving.

timm's classes are named, not imported: a model that uses them has imported them, another needs no timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from metric_zoo.nn.head import PredictionHead
from metric_zoo.nn.standardize import WeightStandardization, standardization_of
from metric_zoo.ops.padding import Padding


@dataclass(frozen=True)
class Behaviour:
    """Attributes:
    padding: the padding, resolved from the input's size when it is ``"same"``.
    standardization: how the weight is standardised at every call, or None.
    """

    padding: Padding
    standardization: WeightStandardization | None = None


# class name -> whether it pads dynamically
_TIMM = {
    "Conv2dSame": True,
    "Conv2dSameExport": True,
    "StdConv2d": False,
    "StdConv2dSame": True,
    "ScaledStdConv2d": False,
    "ScaledStdConv2dSame": True,
}


_OTHER_RANK = {
    nn.Conv1d: "one-dimensional",
    nn.Conv3d: "three-dimensional",
    nn.ConvTranspose1d: "transposed",
    nn.ConvTranspose2d: "transposed",
    nn.ConvTranspose3d: "transposed",
}


def find_convolutions(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution of a model by name, of whatever class, but for those inside a sampled layer's head."""
    found: dict[str, nn.Module] = {}
    heads: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, PredictionHead):
            heads = (*heads, f"{name}.")
        elif _is_convolution(module) and not name.startswith(heads):
            found[name] = module
    return found


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) or _is_quantized(module) or _is_conditional(module)


def _is_quantized(module: nn.Module) -> bool:
    cls = type(module)
    return ".quantized." in f"{cls.__module__}." and "Conv" in cls.__name__ and hasattr(module, "kernel_size")


def _is_conditional(module: nn.Module) -> bool:
    return type(module).__name__ == "CondConv2d" and type(module).__module__.startswith("timm.layers.")


def unsupported_reason(conv: nn.Module) -> str:
    """Why this convolution cannot be replaced faithfully, or an empty string."""
    cls = type(conv)
    if _is_quantized(conv):
        return f"quantized ({cls.__name__}): convert the float model, then quantize"
    if _is_conditional(conv):
        return "its kernel is mixed anew for every image (CondConv2d)"
    other = next((text for base, text in _OTHER_RANK.items() if isinstance(conv, base)), None)
    if other:
        return f"{other} ({cls.__name__})"
    if "forward" in vars(conv):
        return "its forward was replaced on this object (hooks of accelerate): remove that first"
    for name in ("weight", "bias"):
        if getattr(conv, name) is not None and conv._parameters.get(name) is None:
            return f"its {name} is computed (weight norm, pruning or a parametrization), not a parameter"
    if cls is nn.Conv2d or _is_timm(cls):
        return ""
    return f"unknown convolution class {cls.__module__}.{cls.__qualname__}"


def behaviour(conv: nn.Conv2d) -> Behaviour:
    """How a supported convolution pads and standardises."""
    padding = cast(Padding, conv.padding)  # torch declares more than two sides
    if not _is_timm(type(conv)):
        return Behaviour(padding)
    # The Same classes with weight standardisation fall back to fixed padding when it suffices.
    same = _TIMM[type(conv).__name__] and getattr(conv, "same_pad", True)
    return Behaviour("same" if same else padding, standardization_of(conv))


def _is_timm(cls: type) -> bool:
    return cls.__module__.startswith("timm.layers.") and cls.__name__ in _TIMM
