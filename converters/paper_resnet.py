"""ResNet's last layer at stride 1, with dilation: the network of the paper's experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from metric_zoo.converters.model_state import drop, keep
from metric_zoo.errors import ConversionError
from metric_zoo.nn.kind import kind_of

_ATTRIBUTE = "_metric_zoo_atrous"


@contextmanager
def atrous_layer4(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """If ``wanted``, run ``layer4`` at stride 1, with dilation 2 after its first block; undone if the block fails.

    As in *Metric Convolutions* (ICCV 2025, https://arxiv.org/abs/2406.05400, section 5) and DeepLab: the last maps keep
    the resolution of ``layer3``, and the later kernels see as far as before. A layer 4 without strides stays as it is.

    Raises:
        ConversionError: for a model without ``layer2`` to ``layer4``, or whose ``layer4`` also pools or is converted.
    """
    changed: list[tuple[nn.Conv2d, dict[str, tuple[int, int]]]] = []
    for module, values in (_changes(model) if wanted else {}).items():
        changed.append((module, {name: getattr(module, name) for name in values}))
        vars(module).update(values)
    if changed:
        keep(model, _ATTRIBUTE, True)
    try:
        yield
    except BaseException:
        for module, values in changed:
            vars(module).update(values)
        if changed:
            drop(model, _ATTRIBUTE)
        raise


def is_atrous(model: nn.Module) -> bool:
    """Whether `atrous_layer4` has changed this model."""
    return getattr(model, _ATTRIBUTE, False)


def _changes(model: nn.Module) -> dict[nn.Conv2d, dict[str, tuple[int, int]]]:
    for name in ("layer2", "layer3", "layer4"):
        if not isinstance(getattr(model, name, None), nn.Module):
            raise ConversionError(
                f"where='paper' is for ResNets, and {type(model).__name__} has no {name!r}: use where='all' or stages="
            )
    layer4 = model.get_submodule("layer4")
    blocks = list(layer4.children())
    if not any(_is_strided(m) for m in layer4.modules() if isinstance(m, nn.Conv2d)):
        return {}
    for name, module in layer4.named_modules():
        pools = next(module.children(), None) is None and not isinstance(module, nn.Conv2d)
        if kind_of(module) is not None:
            raise ConversionError(
                f"where='paper' changes layer4, but layer4.{name} is converted: revert the model first"
            )
        if pools and _is_strided(module):
            raise ConversionError(
                f"where='paper' runs layer4 at stride 1, but layer4.{name} ({type(module).__name__}) pools: build the "
                "model with output_stride=16 where it knows that option"
            )
    changes = {m: {"stride": (1, 1)} for m in layer4.modules() if isinstance(m, nn.Conv2d) and _is_strided(m)}
    for block in blocks[1:]:
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                changes.setdefault(module, {}).update(dilation=(2, 2), padding=(2, 2))
    return changes


def _is_strided(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return (max(stride) if isinstance(stride, tuple) else stride) > 1
