"""What a kind of convolution says of itself. Whoever needs to know asks the kind, and none by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from torch import nn

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.config import KindOptions

Layer = TypeVar("Layer", bound=type[nn.Module])


class Promise(Enum):
    """What a layer computes right after it has taken a convolution's place."""

    FUNCTION = "the convolution's function"
    APPROXIMATION = "an approximation of it, with its error"
    NOTHING = "another function"


@dataclass(frozen=True)
class Kind:
    """A kind of convolution.

    Attributes:
        name: by which `convert`, recipes and saved folders ask for it.
        layer: the class that computes it; None for the ordinary convolution, which stays as it is.
        config: the options that a layer has and that are saved with it.
        promise: what a conversion keeps.
        conversion: the options that `convert` takes; those of ``config`` and perhaps more.
        label, colour, marker: on boards and plots; a colour as ``#rrggbb``, a marker of matplotlib.
    """

    name: str
    layer: type[nn.Module] | None
    config: type[KindOptions]
    promise: Promise
    conversion: type[KindOptions]
    label: str
    colour: str
    marker: str

    @property
    def lossless(self) -> bool:
        """Whether it can start as the convolution it replaces."""
        return self.promise is Promise.FUNCTION

    def why_not(self, conv: nn.Module) -> str:
        """What keeps a layer of this kind from taking the place of ``conv``, whatever is asked; empty for nothing."""
        return self.layer.why_not(conv) if self.layer else ""

    def unwanted(self, node: Any, explicit: bool) -> str:
        """Why the default policy leaves a convolution alone; empty where it does not.

        Args:
            node: a `metric_zoo.ConvNode`.
            explicit: whether the user's ``where`` has chosen it; then only what would be useless stays unwanted.
        """
        return self.layer.unwanted(node, explicit) if self.layer else ""

    def build(self, conv: nn.Conv2d, padding: Any, options: Mapping[str, Any]) -> nn.Module:
        """A fresh layer in the place of ``conv``: its size, device and dtype, its own parameter objects wherever it has
        them too, and a rule at its start. Nothing of ``conv`` is changed; hooks, buffers and mode are the caller's.

        Args:
            padding: of ``conv``, as `metric_zoo.nn.SampledConv2d` takes it.
            options: of ``config``.

        Raises:
            MetricZooError: where the options do not fit this convolution.
        """
        if self.layer is None:
            raise MetricZooError(f"kind {self.name!r} has no layer: the convolution stays as it is")
        return self.layer.replacing(conv, padding, options)

    def rule_parameters(self, layer: nn.Module) -> list[nn.Parameter]:
        """The parameters that decide where ``layer`` samples: they learn slowly."""
        return layer.rule_parameters()


KINDS: dict[str, Kind] = {}
"""By name, in the order of their declaration."""


def kind(
    name: str,
    *,
    options: type[KindOptions],
    label: str | None = None,
    colour: str,
    marker: str,
    promise: Promise = Promise.FUNCTION,
    conversion: type[KindOptions] | None = None,
) -> Callable[[Layer], Layer]:
    """Declare the class below as the layer of a kind; its ``kind`` becomes the name.

    Args: as of `Kind`; ``conversion`` is ``options`` unless given.

    Raises:
        MetricZooError: for a name that is taken.
    """

    def declare(layer: Layer) -> Layer:
        if name in KINDS:
            raise MetricZooError(f"kind {name!r} is taken by {KINDS[name].layer}")
        layer.kind = name
        KINDS[name] = Kind(name, layer, options, promise, conversion or options, label or name, colour, marker)
        return layer

    return declare


def kind_of(module: nn.Module) -> Kind | None:
    """The kind that a layer is of; None for every other module, and for the ordinary convolution."""
    name = getattr(type(module), "kind", None)
    found = KINDS.get(name) if isinstance(name, str) else None
    return found if found is not None and found.layer is not None and isinstance(module, found.layer) else None
