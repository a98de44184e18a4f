"""torchvision's detectors enlarge every image; a proof needs no large one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def images_of(model: nn.Module, side: int | None) -> Iterator[None]:
    """For a while, a detector resizes its images to ``side`` pixels instead of its own size; None is its own size."""
    resizing = _resizing(model) if side is not None else []
    sizes = [(module, module.min_size, module.max_size) for module in resizing]
    for module in resizing:
        vars(module).update(min_size=(side,), max_size=side)
    try:
        yield
    finally:
        for module, least, most in sizes:
            module.min_size, module.max_size = least, most


def enlarges(model: nn.Module) -> bool:
    """Whether a model resizes its images, and can do with smaller ones."""
    return bool(_resizing(model))


def _resizing(model: nn.Module) -> list[nn.Module]:
    # By name: torchvision need not be loaded to ask. A fixed size belongs to the anchors (SSD).
    modules = (module for module in model.modules() if type(module).__name__ == "GeneralizedRCNNTransform")
    return [module for module in modules if getattr(module, "fixed_size", None) is None]
