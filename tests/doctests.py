"""Run the examples of all docstrings, each as a user would type it: with nothing imported but what it imports."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import metric_zoo


def modules() -> Iterator[ModuleType]:
    """Of the package, those whose source has an example: importing the others would take longer than their examples."""
    for name in ("metric_zoo", *_names(metric_zoo.__path__, "metric_zoo.")):
        spec = find_spec(name)
        if spec and spec.origin and spec.origin.endswith(".py") and ">>>" in Path(spec.origin).read_text("utf-8"):
            yield importlib.import_module(name)


def _names(paths, prefix: str) -> Iterator[str]:
    for found in pkgutil.iter_modules(paths, prefix):
        yield found.name
        spec = find_spec(found.name) if found.ispkg else None
        if spec:
            yield from _names(spec.submodule_search_locations, f"{found.name}.")


def main() -> int:
    """How many examples fail, or 1 if there is none."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for module in modules():
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
            runner.run(test)
    tried, failed = runner.tries, runner.failures
    print(f"{tried} examples, {failed} failed")
    return failed if tried else 1


if __name__ == "__main__":
    sys.exit(min(main(), 1))
