"""The errors that a user can cause. All are `MetricZooError`, so the command line can turn them into one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from metric_zoo.text import utf8


class MetricZooError(ValueError):
    """Something the caller gave cannot be used; the message names the value, what was expected and what to do.

    It can be written anywhere, though it names a file whose name is not UTF-8.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(utf8(message))


class ConversionError(MetricZooError):
    """A model cannot be converted, reverted, saved or loaded as asked. The model is left as it was."""


class RecipeError(MetricZooError):
    """A recipe is unreadable or asks for something impossible."""


class DataError(MetricZooError):
    """A data set is missing or unusable."""


class RecordError(MetricZooError):
    """A record is unreadable or breaks its schema."""


def suggest(value: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``value``, or an empty string."""
    near = difflib.get_close_matches(value, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
