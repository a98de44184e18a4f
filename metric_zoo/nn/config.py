"""The options of a kind: a dataclass that checks them once, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from inspect import Parameter
from typing import Any

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.nn.head import HEADS


def is_number(value: Any) -> bool:
    """A number, which True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_count(name: str, value: Any) -> None:
    """Raise unless ``value`` is a whole number above 0.

    Raises:
        MetricZooError: with the name and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MetricZooError(f"{name}={value!r}: expected a whole number >= 1")


def check_name(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of some names.

    Raises:
        MetricZooError: with the nearest one.
    """
    if not isinstance(value, str) or value not in known:
        raise MetricZooError(f"{name}={value!r}: expected one of {known}{suggest(str(value), known)}")


def check_head(form: Any, size: Any) -> None:
    """Raise unless these are a form of `metric_zoo.nn.head.HEADS` and a kernel that it can have.

    Raises:
        MetricZooError: with the value.
    """
    check_name("head", form, ("auto", *HEADS))
    if size is None:
        return
    check_count("head_kernel_size", size)
    if form in ("pointwise", "bottleneck"):
        raise MetricZooError(f"head_kernel_size={size!r}: a {form!r} head has no window, leave it out")


class UnknownOption(MetricZooError, TypeError):
    """An option that a kind does not have, given to `metric_zoo.convert` or to a layer's constructor."""


@dataclass(frozen=True)
class KindOptions:
    """Base of all option sets: every field is an option, and has a default."""

    @classmethod
    def from_options(cls, kind: str, options: Mapping[str, Any]) -> KindOptions:
        """Build from keyword options.

        Raises:
            UnknownOption: for a name the kind does not have (with the nearest one).
            MetricZooError: for a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                listing = f"it takes {known}" if known else "it takes none"
                raise UnknownOption(f"kind {kind!r} has no option {name!r}{suggest(name, known)}; {listing}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a report or a configuration file."""
        return asdict(self)

    @classmethod
    def parameters(cls) -> list[Parameter]:
        """As keywords of a function."""
        only = Parameter.KEYWORD_ONLY
        return [Parameter(f.name, only, default=f.default, annotation=f.type) for f in fields(cls)]


def __getattr__(name: str) -> Any:
    """The options of kinds, which were in this file: layers that were pickled whole look for them here."""
    for options in KindOptions.__subclasses__():
        if options.__name__ == name:
            return options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
