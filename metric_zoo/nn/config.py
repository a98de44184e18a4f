"""The options of every kind, one dataclass each. They are checked here, once, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.geometry.parametrize import DRIFTS, PARAMETRIZATIONS
from metric_zoo.geometry.sampling import SAMPLINGS
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


def _check_name(name: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise MetricZooError(f"{name}={value!r}: expected one of {known}{suggest(str(value), known)}")


def _check_head(form: Any, size: Any) -> None:
    _check_name("head", form, ("auto", *HEADS))
    if size is None:
        return
    check_count("head_kernel_size", size)
    if form in ("pointwise", "bottleneck"):
        raise MetricZooError(f"head_kernel_size={size!r}: a {form!r} head has no window, leave it out")


@dataclass(frozen=True)
class KindOptions:
    """Base of all option sets."""

    @classmethod
    def from_options(cls, kind: str, options: Mapping[str, Any]) -> KindOptions:
        """Build from keyword options.

        Raises:
            MetricZooError: for a name the kind does not have (with the nearest one), or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                listing = f"it takes {known}" if known else "it takes none"
                raise MetricZooError(f"kind {kind!r} has no option {name!r}{suggest(name, known)}; {listing}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a report or a configuration file."""
        return asdict(self)


@dataclass(frozen=True)
class MetricConfig(KindOptions):
    """Options of `MetricConv2d`.

    Attributes:
        parametrization: how the head's channels become the matrix M.
        sampling: where the unit ball is sampled; only 'grid' starts as the original convolution.
        drift: how the drift omega is kept feasible.
        eps_omega: the drift stays below 1 - eps_omega; 1 is Riemannian, omega = 0.
        eps_L: lower bound of the Cholesky, LDL^T and eigenvalue diagonals.
        scale: range of the scaled parametrizations' common factor.
        metric_groups: number of metrics per pixel; each serves an equal part of the channels.
        head_kernel_size: kernel of the metric head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
    """

    parametrization: str = "eigen_scaled"
    sampling: str = "grid"
    drift: str = "sigmoid_detach"
    eps_omega: float = 0.5
    eps_L: float = 0.01
    scale: tuple[float, float] = (0.1, 1.9)
    metric_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"

    def __post_init__(self) -> None:
        _check_name("parametrization", self.parametrization, tuple(PARAMETRIZATIONS))
        _check_name("sampling", self.sampling, SAMPLINGS)
        _check_name("drift", self.drift, DRIFTS)
        if not is_number(self.eps_omega) or not 0 <= self.eps_omega <= 1:
            raise MetricZooError(f"eps_omega={self.eps_omega!r}: expected a number in [0, 1]")
        if not is_number(self.eps_L) or not self.eps_L > 0:
            raise MetricZooError(f"eps_L={self.eps_L!r}: expected a number > 0")
        pair = isinstance(self.scale, tuple) and len(self.scale) == 2 and all(map(is_number, self.scale))
        if not pair or not 0 < self.scale[0] <= self.scale[1]:
            raise MetricZooError(f"scale={self.scale!r}: expected (min, max) with 0 < min <= max")
        check_count("metric_groups", self.metric_groups)
        _check_head(self.head, self.head_kernel_size)


@dataclass(frozen=True)
class DeformConfig(KindOptions):
    """Options of `DeformConv2d`, `ModulatedDeformConv2d` and `ShiftedConv2d`.

    Attributes:
        offset_groups: number of offset fields; each serves an equal part of the channels.
        head_kernel_size: kernel of the offset head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
    """

    offset_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)
        _check_head(self.head, self.head_kernel_size)


@dataclass(frozen=True)
class ActiveConfig(KindOptions):
    """Options of `ActiveConv2d`.

    Attributes:
        offset_groups: number of offset tables; each serves an equal part of the channels.
    """

    offset_groups: int = 1

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)


@dataclass(frozen=True)
class DilatedConfig(KindOptions):
    """Options of `DilatedConv2d`.

    Attributes:
        factor: the kernel's grid is stretched by this much around its centre.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        if not is_number(self.factor) or not self.factor > 0:
            raise MetricZooError(f"factor={self.factor!r}: expected a number > 0")


@dataclass(frozen=True)
class SparseConfig(KindOptions):
    """Sizes of `SparseKernelComplex2d`.

    Attributes:
        samples: reads of each layer.
        layers: that are applied one after the other.
    """

    samples: int = 24
    layers: int = 4

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        check_count("layers", self.layers)


@dataclass(frozen=True)
class StandardConfig(KindOptions):
    """The ordinary convolution has no options."""
