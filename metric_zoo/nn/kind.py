"""What a kind of convolution says of itself. Whoever needs to know asks the kind, and none by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar, cast

from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.config import KindOptions

Layer = TypeVar("Layer", bound=type[nn.Module])


class Promise(Enum):
    """What a layer computes right after it has taken a convolution's place.

    One that approximates has two methods more: ``approximate(conv, options)``, which fits it, and
    ``kernel_error(kernels)``, how far off it then is, relative to their norm. Among the options of its conversion are
    ``max_error`` and ``min_speedup``, beyond which it is refused.
    """

    FUNCTION = "the convolution's function"
    APPROXIMATION = "an approximation of it, with its error"
    NOTHING = "another function"


@dataclass(frozen=True)
class Operator:
    """A functional operator, for whoever checks operators by themselves, with random fields.

    Attributes:
        draw: ``(random, batch, groups, (kh, kw), (Ho, Wo))`` -> ``field`` and perhaps ``mask``, by name;
            ``random(*shape)`` draws normal numbers in float64.
        run: ``(call, input, weight, field, bias, mask)`` -> the output; ``call`` has ``stride``, ``padding``,
            ``dilation``, ``groups``, ``sampling`` and ``fields``, the number of groups in the field.
        thorough: whether it meets every shape of a check; the others differ from those that do in the field alone.
    """

    draw: Callable[..., dict[str, Tensor]]
    run: Callable[..., Tensor]
    thorough: bool = False


class KindLayer(Protocol):
    """What a kind asks of the class that computes it, besides that it is a module; as the methods of `Kind` say."""

    kind: ClassVar[str]
    options: ClassVar[type[KindOptions]]

    @staticmethod
    def why_not(conv: nn.Module) -> str: ...

    @staticmethod
    def unwanted(node: Any, explicit: bool) -> str: ...

    @classmethod
    def replacing(cls, conv: nn.Conv2d, padding: Any, options: Mapping[str, Any]) -> nn.Module: ...

    def rule_parameters(self) -> list[nn.Parameter]: ...


@dataclass(frozen=True)
class Kind:
    """A kind of convolution.

    Attributes:
        name: by which `convert`, recipes and saved folders ask for it.
        layer: the class that computes it; None for the ordinary convolution, which stays as it is.
        config: the options that a layer has and that are saved with it.
        promise: what a conversion keeps.
        conversion: the options that `convert` takes; those of ``config`` and perhaps more.
        label, colour, marker: on boards and plots; a colour as ``#rrggbb``, a marker of matplotlib. Empty ones follow
            from the name.
        featured: whether demonstrations and sweeps show it without being asked for it.
        operator: the functional operator that it is the layer of; None where there is none of its own.
    """

    name: str
    layer: type[nn.Module] | None
    config: type[KindOptions]
    promise: Promise
    conversion: type[KindOptions]
    label: str
    colour: str
    marker: str
    featured: bool = False
    operator: Operator | None = None

    @property
    def _asked(self) -> type[KindLayer] | None:
        """The class, as what it answers; that a class is a module as well no type can say."""
        return cast("type[KindLayer] | None", self.layer)

    @property
    def lossless(self) -> bool:
        """Whether it can start as the convolution it replaces."""
        return self.promise is Promise.FUNCTION

    def why_not(self, conv: nn.Module) -> str:
        """What keeps a layer of this kind from taking the place of ``conv``, whatever is asked; empty for nothing."""
        return self._asked.why_not(conv) if self._asked else ""

    def unwanted(self, node: Any, explicit: bool) -> str:
        """Why the default policy leaves a convolution alone; empty where it does not.

        Args:
            node: a `metric_zoo.ConvNode`.
            explicit: whether the user's ``where`` has chosen it; then only what would be useless stays unwanted.
        """
        return self._asked.unwanted(node, explicit) if self._asked else ""

    def build(self, conv: nn.Conv2d, padding: Any, options: Mapping[str, Any]) -> nn.Module:
        """A fresh layer in the place of ``conv``: its size, device and dtype, its own parameter objects wherever it has
        them too, and a rule at its start. Nothing of ``conv`` is changed; hooks, buffers and mode are the caller's.

        Args:
            padding: of ``conv``, as `metric_zoo.nn.SampledConv2d` takes it.
            options: of ``config``.

        Raises:
            MetricZooError: where the options do not fit this convolution.
        """
        if self._asked is None:
            raise MetricZooError(f"kind {self.name!r} has no layer: the convolution stays as it is")
        return self._asked.replacing(conv, padding, options)

    def rule_parameters(self, layer: nn.Module) -> list[nn.Parameter]:
        """The parameters that decide where ``layer`` samples: they learn slowly."""
        return cast("KindLayer", layer).rule_parameters()


KINDS: dict[str, Kind] = {}
"""By name, in the order of their declaration."""


def declare(declared: Kind) -> None:
    """Enter a kind that has no class to decorate; `kind` is for those that have.

    Raises:
        MetricZooError: for a name that is taken, but by the same class, whose module is loaded again.
    """
    taken = KINDS.get(declared.name)
    if taken is not None and _identity(taken.layer) != _identity(declared.layer):
        raise MetricZooError(f"kind {declared.name!r} is taken by {_identity(taken.layer)}: give yours another name")
    KINDS[declared.name] = declared


def _identity(layer: type[nn.Module] | None) -> str:
    return "the ordinary convolution" if layer is None else f"{layer.__module__}.{layer.__qualname__}"


def kind(
    name: str,
    *,
    options: type[KindOptions],
    colour: str = "",
    marker: str = "",
    label: str | None = None,
    promise: Promise = Promise.FUNCTION,
    conversion: type[KindOptions] | None = None,
    featured: bool = False,
    operator: Operator | None = None,
) -> Callable[[Layer], Layer]:
    """Declare the class below as the layer of a kind: its ``kind`` becomes the name, its ``options`` the options.

    Args:
        name, promise, featured, operator, colour, marker: as of `Kind`.
        options: a frozen dataclass, every field with a default.
        conversion: of `Kind`; None is ``options``.
        label: of `Kind`; None is the name.

    Raises:
        MetricZooError: for a name that is taken.
    """

    def decorate(layer: Layer) -> Layer:
        accepted = conversion or options
        declare(Kind(name, layer, options, promise, accepted, label or name, colour, marker, featured, operator))
        named = cast("type[KindLayer]", layer)
        named.kind, named.options = name, options
        return layer

    return decorate


def kind_of(module: nn.Module) -> Kind | None:
    """The kind that a layer is of; None for every other module, and for the ordinary convolution."""
    name = getattr(type(module), "kind", None)
    found = KINDS.get(name) if isinstance(name, str) else None
    return found if found is not None and found.layer is not None and isinstance(module, found.layer) else None
