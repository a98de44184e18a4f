"""What modules are called with while a model runs. The hooks go with the block, whatever happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes:
        module: that was called.
        args, kwargs: with these.
        output: what it answered, before other hooks have changed it; None while it has not.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    @property
    def input(self) -> Any:
        """The first argument, by place or by name."""
        return (*self.args, *self.kwargs.values())[0]


@contextmanager
def on_calls(modules: Iterable[nn.Module], tell: Callable[[Call], object], before: bool = False) -> Iterator[None]:
    """While the block runs, tell of every call of these modules.

    Args:
        modules: of any model.
        tell: called with each `Call`, in order; what it raises ends the model's run.
        before: tell before a module runs, which it may not survive, instead of after.
    """

    def after_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tell(Call(module, args, kwargs, output))

    def before_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell(Call(module, args, kwargs))

    handles = [
        module.register_forward_pre_hook(before_hook, with_kwargs=True)
        if before
        else module.register_forward_hook(after_hook, prepend=True, with_kwargs=True)
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def first_inputs(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What each module reads in its first call while the block runs, detached; who is not called is missing."""
    seen: dict[nn.Module, Tensor] = {}

    def note(call: Call) -> None:
        if call.module not in seen:
            seen[call.module] = call.input.detach()

    with on_calls(modules, note):
        yield seen
