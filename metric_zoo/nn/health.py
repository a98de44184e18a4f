"""Whether sampling is healthy: how far layers read from the ordinary grid, and how much of it beside their image.

Offsets that explode are the best known failure of deformable convolution; a head that never learns only costs time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.field import centres
from metric_zoo.nn.recorder import Call, on_calls
from metric_zoo.nn.rule import Reading, SamplingRule, rule_of_module
from metric_zoo.ops.backends.torch import sample_positions
from metric_zoo.text import columns, size

if TYPE_CHECKING:
    import pandas

_HIGH = 0.99
_AT_ONCE = 2**17
"""Samples whose positions are held together."""
_STILL = 1e-6
"""Pixels. Positions this close are the same, as in `SampledConv2d.is_identity`."""


@dataclass(frozen=True)
class LayerHealth:
    """How one layer samples a batch. A displacement is the distance of a sample from its cell of the ordinary grid,
    which the kernel and its dilation make (of `DCNv3` and `DCNv4`, its ``offset_scale``, too), in pixels of the layer's
    input; also of a kind that does not start there.

    Attributes:
        kind: of the layer; of one that is of none, its class.
        input_size: (height, width) of what it reads, with padding that is not zeros.
        samples: number of them.
        mean, p99, maximum: displacement, its 99th percentile interpolated; not a number where a position is none.
        outside: share of the samples above -1 or H, left of -1 or right of W: bilinear reading finds nothing there. The
            ordinary grid has some, too, where a convolution is padded by more than a pixel.
        never_moved: whether the sampling rule is exactly where `SampledConv2d.reset_rule` leaves it; None where
            nothing is learned, or what is lies in another module, which gives a layer its offsets.
        learns: whether a parameter of the rule asks for a gradient.
    """

    kind: str
    input_size: tuple[int, int]
    samples: int
    mean: float
    p99: float
    maximum: float
    outside: float
    never_moved: bool | None
    learns: bool

    @property
    def passes_image(self) -> bool:
        """Whether a sample is further from its cell than the image is long, or nowhere."""
        return not self.maximum <= max(self.input_size)

    @property
    def is_stuck(self) -> bool:
        """Whether its rule is there to learn, and all samples are where they began."""
        return self.learns and (bool(self.never_moved) or self.maximum <= _STILL)


@dataclass(frozen=True)
class SamplingHealth:
    """How the layers of a model sample a batch.

    Attributes:
        layers: by name, in the model's order.
    """

    layers: dict[str, LayerHealth]

    @property
    def mean(self) -> float:
        """Displacement of all layers' samples, in pixels of each layer's input."""
        return self._mean("mean")

    @property
    def p99(self) -> float:
        """The largest 99th percentile of a layer's displacements."""
        return self._largest("p99")

    @property
    def maximum(self) -> float:
        """The largest displacement."""
        return self._largest("maximum")

    @property
    def outside(self) -> float:
        """Share of all layers' samples outside of their images."""
        return self._mean("outside")

    @property
    def never_moved(self) -> float | None:
        """Share of the layers whose sampling rule has not changed, among those that have one to learn."""
        told = [layer.never_moved for layer in self.layers.values() if layer.never_moved is not None]
        return sum(told) / len(told) if told else None

    def to_frame(self) -> pandas.DataFrame:
        """One row a layer: ``name``, then the attributes of `LayerHealth`; ``input_size`` is text, ``"56x56"``."""
        import pandas

        rows = [{"name": name, **asdict(layer)} for name, layer in self.layers.items()]
        return pandas.DataFrame(rows).assign(input_size=[size(layer.input_size) for layer in self.layers.values()])

    def __str__(self) -> str:
        heading = ["layer", "kind", "input", "mean px", "p99 px", "max px", "outside", ""]
        return columns([heading, *([name, *_cells(layer)] for name, layer in self.layers.items())])

    def _mean(self, name: str) -> float:
        layers = self.layers.values()
        return sum(getattr(layer, name) * layer.samples for layer in layers) / sum(layer.samples for layer in layers)

    def _largest(self, name: str) -> float:
        values = [getattr(layer, name) for layer in self.layers.values()]
        return math.nan if any(map(math.isnan, values)) else max(values)


def _cells(layer: LayerHealth) -> list[str]:
    """Of one line of a table."""
    figures = [f"{value:.3g}" for value in (layer.mean, layer.p99, layer.maximum)]
    remark = "never moved" if layer.never_moved else "passes the image" if layer.passes_image else ""
    return [layer.kind, size(layer.input_size), *figures, f"{layer.outside:.1%}", remark]


def sampling_health(model: nn.Module, *args: Any, **kwargs: Any) -> SamplingHealth:
    """How the sampling layers of a model read a batch, in evaluation mode: how far from the ordinary grid, how much of
    it outside of the image, and whether their rules have learned anything.

    The model is called once, and nothing of it changes. Each layer is measured in its first call, all its samples with
    a bounded memory. Of a model whose parameters `fully_shard` has spread over processes, all must call this, each with
    a batch of its own. Layers that are not called, or read no image, are missing.

    Args:
        model: converted, adopted, or with `DCNv3` or `DCNv4` in it; compiled or not. `SparseKernelComplex2d` has no
            grid, and is passed over, as are modules whose own code calls ``deform_conv2d`` (what `metric_zoo.adopt`
            reports under their own class's name): who computes the offsets there is not known.
        args, kwargs: what it is called with, images ``(B, C, H, W)`` for most.

    Raises:
        MetricZooError: if the model has no sampled layer, or calls none.

    Example:
        >>> import torch, metric_zoo as mz
        >>> layer = mz.nn.ShiftedConv2d(3, 8, 3, padding=1)
        >>> _ = torch.nn.init.constant_(layer.sampler.bias, 3.0)  # both components
        >>> health = mz.nn.sampling_health(torch.nn.Sequential(layer), torch.zeros(1, 3, 16, 16))
        >>> round(health.maximum, 4), health.never_moved
        (4.2426, 0.0)
    """
    return health_during(model, lambda: model(*args, **kwargs))


def named_layers(model: nn.Module) -> dict[nn.Module, str]:
    """The names of the modules of a model that tell where they read."""
    return {module: name for name, module in model.named_modules() if rule_of_module(module) is not None}


def health_during(model: nn.Module, run: Callable[[], object], most: int | None = None) -> SamplingHealth:
    """As `sampling_health`, which it is for.

    Args:
        model: as there.
        run: calls it.
        most: about so many samples of a layer are measured: some of the rows of windows, evenly apart. None is all.

    Raises:
        MetricZooError: as there.
    """
    names = named_layers(model)
    if not names:
        raise MetricZooError(
            f"{type(model).__name__} has no sampled layer: convert it first, or adopt its deformable layers (code that "
            "calls deform_conv2d does not tell where it reads)"
        )
    found: dict[str, LayerHealth] = {}

    def measure(call: Call) -> None:
        name, rule = names.get(call.module), rule_of_module(call.module)  # a replica is in no names
        if name is not None and rule is not None and name not in found and call.input.numel():
            found[name] = _health_of(rule, rule.read(*call.args, **call.kwargs), most)

    with _uncompiled(), on_calls(names, measure), evaluation(model):
        run()
    if not found:
        raise MetricZooError(f"{type(model).__name__} calls none of its {len(names)} sampled layers on this input")
    return SamplingHealth({name: found[name] for name in names.values() if name in found})


def _uncompiled() -> AbstractContextManager:
    """A program that is compiled calls no hooks that came after it, or is compiled again with them."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _health_of(rule: SamplingRule, reading: Reading, most: int | None) -> LayerHealth:
    """Of one call, while the model runs: where parameters are sharded, they are whole only then."""
    sampled = _Sampled(reading, most)
    found = _Displacements(sampled.samples)
    for positions, within in sampled.pieces():
        found.add(positions, within)
    largest = found.largest()
    return LayerHealth(
        kind=rule.name,
        input_size=reading.size,
        samples=sampled.samples,
        mean=found.total / sampled.samples,
        p99=found.high(largest),
        maximum=float(largest[0]),
        outside=found.outside / sampled.samples,
        never_moved=rule.is_fresh() if rule.parameters else None,
        learns=any(parameter.requires_grad for parameter in rule.parameters),
    )


class _Sampled:
    """The samples of one call, a few images or rows of windows at a time; of so many all, or about."""

    def __init__(self, reading: Reading, most: int | None) -> None:
        values, self._window, self._size = reading.field.values, reading.window, reading.size
        self._rule, self._grid = reading.field.rule, reading.grid[..., None, None]
        axes = centres(self._size, self._window, self._window.pads)
        self._columns, self._rows = (axis.to(values.device) for axis in axes)
        # What all share is spread out: a piece of it is a piece of every other.
        self._values = values.expand(reading.batch, *values.shape[1:4], len(self._rows), len(self._columns))
        if most is not None:
            apart = math.ceil(self.samples / most)
            self._rows, self._values = self._rows[::apart], self._values[..., ::apart, :]

    @property
    def samples(self) -> int:
        return len(self._values) * len(self._grid) * len(self._rows) * len(self._columns)

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Displacements in pixels, and whether each sample lies within the image or one pixel around it."""
        row = len(self._grid) * len(self._columns)
        rows = min(len(self._rows), max(1, _AT_ONCE // row))
        images = max(1, _AT_ONCE // (rows * row))
        for image in range(0, len(self._values), images):
            for first in range(0, len(self._rows), rows):
                values = self._values[image : image + images, ..., first : first + rows, :]
                yield self._piece(values, self._rows[first : first + rows])

    def _piece(self, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self._size
        window = self._window._replace(size=(len(rows), len(self._columns)))
        positions = sample_positions(values, self._rule, window)
        x, y = positions[:, :, 0] + self._columns.to(positions), positions[:, :, 1] + rows.to(positions)[:, None]
        within = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
        return torch.hypot(*(positions - self._grid.to(positions)).unbind(2)), within


class _Displacements:
    """Of so many samples, a piece at a time; the largest hundredth is kept, which the percentile is found from."""

    def __init__(self, samples: int) -> None:
        self._place = _HIGH * (samples - 1)
        self._kept = samples - math.floor(self._place)
        self._candidates: list[Tensor] = []
        self._least: Tensor | None = None
        self.total, self.outside = 0.0, 0

    def add(self, distance: Tensor, within: Tensor) -> None:
        self.total += float(distance.sum())
        self.outside += within.numel() - int(within.sum())
        # What is no number counts as larger than all.
        self._candidates.append(distance.flatten() if self._least is None else distance[~(distance <= self._least)])
        if sum(map(len, self._candidates)) > 2 * self._kept:
            self._candidates = [self.largest()]
            self._least = self._candidates[0][-1]

    def largest(self) -> Tensor:
        """In descending order."""
        found = torch.cat(self._candidates)
        return found.topk(min(self._kept, len(found))).values

    def high(self, largest: Tensor) -> float:
        """The percentile, linear between two samples."""
        return float(torch.lerp(largest[-1], largest[-2:][0], self._place - math.floor(self._place)))
