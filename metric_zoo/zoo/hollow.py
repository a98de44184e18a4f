"""Networks without storage, to be compared before memory is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


def hollow(build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` builds, with parameters on the meta device; what it raises if it fails."""
    try:
        with torch.device("meta"):  # no storage, no initialisation
            return build()
    except Exception:  # perhaps a constructor that computes its sizes with tensors
        with _emptied_parameters():
            return build()


@contextmanager
def _emptied_parameters() -> Iterator[None]:
    """Parameters lose their storage as soon as a module has them, before anything is written into it."""
    own = threading.get_ident()

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != own:
            return None
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    # torch declares hooks that return nothing, and takes the parameter that one returns, as its documentation says.
    handle = register_module_parameter_registration_hook(empty)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        handle.remove()
