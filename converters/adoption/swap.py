"""Give a module the class that computes with this project's operator, and its own class back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from metric_zoo.converters.adoption.recognise import Candidate
from metric_zoo.converters.original import NAME
from metric_zoo.errors import ConversionError
from metric_zoo.nn.adopted import Adopted, Compute, adopted_class, own_class


def take(module: nn.Module, compute: Compute) -> None:
    """Adopt a module; nothing but its class changes."""
    cast(Any, module).__class__ = adopted_class(type(module), compute)


def give_back(module: Adopted) -> None:
    """Undo `take`; whatever the module has learned or been given since stays."""
    cast(Any, module).__class__ = own_class(module)
    vars(module).pop(NAME, None)


def adopted_modules(model: nn.Module) -> dict[str, Adopted]:
    """Those of a model, by name.

    Raises:
        ConversionError: for one whose class has been derived from once more since: that could not be given back.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Adopted)}
    for name, module in found.items():
        if type(module) is not adopted_class(*module.metric_zoo_adoption):
            raise ConversionError(
                f"{name} has become a {type(module).__name__} since it was adopted: undo that first (parametrizations, "
                "fully_shard)"
            )
    return found


@contextmanager
def taken(wanted: Sequence[Candidate]) -> Iterator[None]:
    """Every module adopted, for good unless the block fails."""
    for each in wanted:
        take(each.module, each.compute)
    try:
        yield
    except BaseException:
        for each in wanted:
            give_back(cast(Adopted, each.module))
        raise
