"""The derivative of a backward pass, where the forward pass is also written in operations that have derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, overload

import torch
from torch import Tensor


@overload
def leaves_of(saved: Sequence[Tensor]) -> list[Tensor]: ...
@overload
def leaves_of(saved: Sequence[Tensor | None]) -> list[Tensor | None]: ...
def leaves_of(saved: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Aliases of what has a graph, so that differentiation stops here and a further derivative finds the way on."""
    return [t if t is None else t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in saved]


def second_derivatives(
    function: Callable[..., Tensor],
    saved: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """What flows back through the gradients of ``function``; it can be differentiated in turn.

    Args:
        function: of the tensors but the first.
        saved: the gradient of its output, then its arguments.
        upstream: of every argument's gradient; None where that was not computed, or nothing arrived.
        wanted: for each that is saved, whether its own gradient is.

    Returns:
        One for each that is saved; None where it is not wanted, or nothing flows.
    """
    create_graph = torch.is_grad_enabled()
    used = [i for i, arrived in enumerate(upstream) if arrived is not None and saved[i + 1] is not None]
    asked = [i for i, want in enumerate(wanted) if want]
    result: list[Tensor | None] = [None] * len(saved)
    if not used or not asked:
        return result
    with torch.enable_grad():
        leaves = leaves_of(saved)
        grad, *arguments = leaves
        through = cast("list[Tensor]", [arguments[i] for i in used])
        arrived = cast("list[Tensor]", [upstream[i] for i in used])
        first = torch.autograd.grad(function(*arguments), through, grad, create_graph=True)
        wrt = cast("list[Tensor]", [leaves[i] for i in asked])  # of None no gradient is asked
        found = torch.autograd.grad(first, wrt, arrived, create_graph=create_graph, allow_unused=True)
    for i, gradient in zip(asked, found, strict=True):
        result[i] = gradient
    return result
