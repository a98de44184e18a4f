"""The published programs of DCNv3, DCNv4 and their networks, from checkouts on this machine.

`INTERNIMAGE_CHECKOUT` names one of OpenGVLab/InternImage, `DCNV4_CHECKOUT` one of OpenGVLab/DCNv4; tests that ask for
another skip. Nothing is built: of DCNv3 they have a form in the framework's operations, in the place of DCNv4's kernel
comes torchvision's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tests import dcn
from tests.dcn import Window


def dcnv3(monkeypatch: pytest.MonkeyPatch) -> type[torch.nn.Module]:
    """The module in the framework's operations."""
    return _internimage_modules(monkeypatch).DCNv3_pytorch


def internimage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.nn.Module]:
    """The network, of that module."""
    _internimage_modules(monkeypatch)
    file = _checkout("INTERNIMAGE_CHECKOUT") / "classification/models/intern_image.py"
    return partial(_loaded(file, "intern_image").InternImage, "DCNv3_pytorch")


def dcnv4(monkeypatch: pytest.MonkeyPatch) -> type[torch.nn.Module]:
    """The module, without its kernel."""
    root = _checkout("DCNV4_CHECKOUT")
    core = types.SimpleNamespace(apply=_in_the_kernels_place)
    for name, content in {
        "DCNv4": {"__path__": []},
        "DCNv4.functions": {"DCNv4Function": core},
        "DCNv4.modules": {"__path__": []},
    }.items():
        monkeypatch.setitem(sys.modules, name, _module(name, **content))
    found = _loaded(root / "DCNv4_op/DCNv4/modules/dcnv4.py", "DCNv4.modules.dcnv4").DCNv4
    sys.modules["DCNv4"].DCNv4 = found
    return found


def flash_internimage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.nn.Module]:
    """The network, of that module."""
    dcnv4(monkeypatch)
    monkeypatch.setitem(sys.modules, "timm.models.layers", timm.layers)
    file = _checkout("DCNV4_CHECKOUT") / "classification/models/flash_intern_image.py"
    return _loaded(file, "flash_intern_image").FlashInternImage


def _internimage_modules(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    root = _checkout("INTERNIMAGE_CHECKOUT")
    version = types.SimpleNamespace(version="1.1")
    monkeypatch.setitem(sys.modules, "DCNv3", _module("DCNv3"))
    monkeypatch.setitem(sys.modules, "pkg_resources", _module("pkg_resources", get_distribution=lambda _: version))
    monkeypatch.setitem(sys.modules, "timm.models.layers", timm.layers)
    monkeypatch.setattr(sys, "path", [str(root / "classification"), *sys.path])
    return importlib.import_module("ops_dcnv3.modules")


def _in_the_kernels_place(input: Tensor, offset_mask: Tensor, kernel: int, _, *sizes: Any) -> Tensor:
    *_, group, _, scale, _, removed = sizes
    window = Window(group, kernel, sizes[4], scale, bool(removed))
    return dcn.aggregated(input, *dcn.split(offset_mask, window), window)


def _checkout(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no checkout of the published repository")
    return Path(os.environ[variable])


def _module(name: str, **content: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(content)
    return made


def _loaded(file: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
