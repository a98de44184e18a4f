"""Networks that timm and torchvision do not have, in timm's style."""

from __future__ import annotations

from importlib import import_module

_MODULES = ("internimage",)


def register_networks() -> None:
    """Enter them in timm's registry, which files a model where its module is imported."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
