"""Which backend was chosen, and for whom: for the process, or for a block of one thread or task.

Blocks lie in a context variable, so that tasks that take turns in a thread keep theirs apart. The compiler follows
context variables in its newest versions alone: what it sees is a copy in a thread's storage, and a plain global.
"""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import NamedTuple

import torch


class _Entry(NamedTuple):
    owner: Block
    is_block: bool
    """Or a choice for the process that was made within a block, which ends with it here."""


class _Made(NamedTuple):
    by: weakref.ref[Chosen]
    name: str | None


_stack: ContextVar[tuple[_Entry, ...]] = ContextVar("metric_zoo_backend", default=())
_thread = threading.local()  # exactly this type: of a subclass the compiler reads the default
_traced: tuple[str | None, ...] = ()  # of a block within what is compiled
_process: str | None = None
_made: list[_Made] = []
_lock = threading.Lock()


def chosen() -> str | None:
    """The backend chosen here; None where nobody did, or for the default."""
    if torch.compiler.is_compiling():
        block = _traced or getattr(_thread, "block", ())
        return block[0] if block else _process
    stack = _stack.get()
    return stack[-1].owner.name if stack else _process


class Block:
    """A choice for the ``with`` blocks that it opens, in the thread or task that opens them.

    Attributes:
        name: of the backend; None for the default.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name

    def __enter__(self) -> None:
        global _traced
        if torch.compiler.is_compiling():
            self._outer, _traced = _traced, (self.name,)
        else:
            _set((*_stack.get(), _Entry(self, True)))

    def __exit__(self, *_: object) -> None:
        global _traced
        if torch.compiler.is_compiling():
            _traced = self._outer
            return
        stack = _stack.get()
        # Generators end their blocks in any order, and in any context.
        at = max((i for i, entry in enumerate(stack) if entry == (self, True)), default=len(stack))
        _set(stack[:at] + tuple(entry for entry in stack[at + 1 :] if entry.is_block))


class Chosen(Block):
    """A choice for the process, unless it opens a block: then it is one for that block alone.

    Between the two, for the microseconds of a ``with`` statement, other threads see it.
    """

    def __init__(self, name: str | None) -> None:
        global _process
        super().__init__(name)
        if torch.compiler.is_compiling():
            self._before, _process = _process, name
            return
        if _stack.get():
            _set((*_stack.get(), _Entry(self, False)))
        _publish(_Made(weakref.ref(self), name))

    def __enter__(self) -> None:
        global _process
        if torch.compiler.is_compiling():
            _process = self._before
        else:
            _set(tuple(entry for entry in _stack.get() if entry != (self, False)))
            _withdraw(self)
        super().__enter__()


def _set(stack: tuple[_Entry, ...]) -> None:
    _stack.set(stack)
    # No attribute, rather than an empty one, as in a thread that never had a block: the compiler tells them apart.
    _thread.__dict__.clear()
    if stack:
        _thread.block = (stack[-1].owner.name,)


def _publish(made: _Made) -> None:
    global _process
    with _lock:
        # Of what nobody can take back any more the last counts.
        final = max((i for i, former in enumerate(_made) if former.by() is None), default=0)
        _made[:] = [*_made[final:], made]
        _process = made.name


def _withdraw(choice: Chosen) -> None:
    global _process
    with _lock:
        kept = [made for made in _made if made.by() is not choice]
        if len(kept) < len(_made):
            _made[:] = kept
            _process = kept[-1].name if kept else None
