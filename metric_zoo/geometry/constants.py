"""Numbers that are part of a program, not its input."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch


def constants(options: Any) -> tuple[Any, ...]:
    """The values of a frozen dataclass, in the order of its fields.

    Asked for dynamic sizes a compiler takes every float that an object holds for an input of the program, with guards
    and operations of its own; what this returns it takes for what it is.
    """
    return tuple(getattr(options, field.name) for field in fields(options))


# As `torch.compiler.assume_constant_result` does, which would import the compiler. That of torch 2.11 takes no objects.
constants._dynamo_marked_constant = torch.__version__ >= "2.14"
