"""The operators are known to torch as soon as it and this package are imported, whichever comes first.

Programs that `torch.export.save` wrote name the operators, and load only where they are known.
"""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def register_with_torch() -> None:
    """Now, where torch is imported; else right after it will be. It costs no import of torch."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorch())
    elif hasattr(sys.modules["torch"], "ops"):
        _register()


def _register() -> None:
    # An installation that cannot load them says so where they are used, not where torch is imported.
    with contextlib.suppress(Exception):
        import_module("metric_zoo.ops")


class _BeforeTorch(MetaPathFinder):
    """Finds torch as all other finders do, and has the operators follow it. It stays until torch is really imported:
    many libraries only ask whether torch is there."""

    def __init__(self) -> None:
        self._asks = False

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name != "torch" or self._asks:
            return None
        self._asks = True
        try:
            spec = find_spec(name)
        finally:
            self._asks = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenOperators(spec.loader, self)
        return spec


class _ThenOperators(Loader):
    """A loader's module, and then the operators; the module keeps its own loader."""

    def __init__(self, loader: Loader, finder: _BeforeTorch) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register()
