"""Where a layer reads when its network looks at a picture, in the picture's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.geometry.implicit import fit_randers
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.field import centres
from metric_zoo.nn.recorder import first_inputs
from metric_zoo.ops.padding import resolve_padding


@dataclass(frozen=True)
class Probe:
    """A layer's sampling of one image.

    Attributes:
        name, kind: of the layer.
        centres: ``(2, Ho, Wo)``, (x, y) of every window's centre, in pixels of the image (those of a network's padding
            lie outside).
        samples: ``(G, K, 2, Ho, Wo)``, relative to the centres, in pixels of the image.
        metric: one per output pixel: the layer's own, or of another kind of layer the Randers metric whose ball its
            samples cover (least squares).
        reach: pixels of the image, along x and along y, that the radius of the metric's unit ball stands for.
        own: whether the metric is the layer's own, and its balls are straight.
    """

    name: str
    kind: str
    centres: Tensor
    samples: Tensor
    metric: RandersMetric
    reach: tuple[float, float]
    own: bool


def sampled_layers(model: nn.Module) -> dict[str, SampledConv2d]:
    """The converted layers of a model by name.

    Raises:
        MetricZooError: if there is none.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, SampledConv2d)}
    if not found:
        raise MetricZooError(f"{type(model).__name__} has no sampled layer: convert it first")
    return found


def probe(model: nn.Module, input: Tensor, layer: str) -> Probe:
    """Run a model on one image and see where a layer reads.

    Args:
        model: converted.
        input: ``(1, C, H, W)``, prepared as the model wants it; its pixels are the unit of what comes out.
        layer: a converted layer's name.

    Raises:
        MetricZooError: for more than one image, an unknown layer, one that the model does not call or one with fewer
            than 6 cells that has no metric of its own.
    """
    if input.dim() != 4 or len(input) != 1:
        raise MetricZooError(f"input has shape {tuple(input.shape)}, expected (1, C, H, W)")
    layers = sampled_layers(model)
    if layer not in layers:
        raise MetricZooError(f"no sampled layer {layer!r}{suggest(layer, layers)}; there are: {', '.join(layers)}")
    module, seen = layers[layer], _input_of(model, layers[layer], input)
    if seen is None:
        raise MetricZooError(f"{layer} is not called on this input")
    with torch.no_grad():
        scales = [input.shape[axis] / seen.shape[axis] for axis in (-1, -2)]  # x, y
        positions = module.sample_positions(seen)
        metric = module.metric(seen)
        own = metric is not None and module.straight
        if metric is None:
            metric = fit_randers(positions, module.kernel_size, module.dilation).metric
        samples = positions[0].unflatten(0, (module._sample_groups(), -1))
        samples = samples * samples.new_tensor(scales)[:, None, None]
    reaches = (scales[0] * module.reach(), scales[1] * module.reach())
    return Probe(layer, module.kind, _centres(module, seen, *scales), samples, metric, reaches, own)


def _input_of(model: nn.Module, module: nn.Module, input: Tensor) -> Tensor | None:
    with first_inputs([module]) as seen, evaluation(model):
        model(input)
    return seen.get(module)


def _centres(module: SampledConv2d, seen: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """Pixel centres are at whole numbers in the layer and in the image, their corners half a pixel away."""
    size = (seen.shape[-2], seen.shape[-1])
    pads = resolve_padding(module.padding, size, module.kernel_size, module.stride, module.dilation)
    columns, rows = centres(size, module, pads)
    y, x = torch.meshgrid((rows + 0.5) * scale_y - 0.5, (columns + 0.5) * scale_x - 0.5, indexing="ij")
    return torch.stack((x, y))
