"""Build the model of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metric_zoo.benchmarks.ablations import mix_batches
from metric_zoo.benchmarks.per_pixel import learn_fields
from metric_zoo.benchmarks.recipe_sections import UNCONVERTED, ConvolutionConfig, ModelConfig
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.benchmarks.single_layer import get_network
from metric_zoo.converters import convert
from metric_zoo.errors import RecipeError
from metric_zoo.nn import freeze_kernels
from metric_zoo.zoo.create import build_base
from metric_zoo.zoo.origin import ModelOrigin

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""Memory formats by the recipe's word."""


def placed(model: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """A model on a device, in a memory format."""
    return model.to(device, memory_format=layout)  # pyright: ignore[reportCallIssue] - torch takes both, undeclared


def build_model(run: Run, data: DatasetInfo) -> nn.Module:
    """What a run is of, sized for its data.

    Raises:
        RecipeError: if it does not fit the data; ConversionError as `convert`.
    """
    return run.learner.build(run, data)


def build_network(run: Run, data: DatasetInfo) -> nn.Module:
    """The architecture, sized for the data, its stem adapted, its convolutions converted; as `build_model`."""
    convolution = run.convolution
    model, where = _base(run, data)
    if run.model.small_image_stem:
        small_image_stem(model)
    if _is_left_alone(convolution):
        return model
    example = torch.zeros(1, *data.image_shape).uniform_(generator=torch.Generator().manual_seed(0))
    model = convert(
        model,
        convolution.kind,
        where=where,
        example_input=example,
        init=convolution.init,
        inplace=True,
        **convolution.options,
    )
    if convolution.batch_mixed:
        mix_batches(model)
    if convolution.per_pixel:
        learn_fields(model, example)
    return freeze_kernels(model) if convolution.freeze_kernels else model


def _base(run: Run, data: DatasetInfo) -> tuple[nn.Module, Any]:
    """The network, and which of its convolutions are to be swapped."""
    model, where = run.model, run.convolution.where
    if model.source == "metric-zoo":
        network = get_network(model.name)
        try:
            return network.build(data.image_shape[0], **model.options), network.where if where is None else where
        except TypeError as error:
            raise RecipeError(f"{model.name}: {error}") from None
    return build_base(ModelOrigin(model.source, model.name, _options(model, data)), model.pretrained), where


def _is_left_alone(kind: ConvolutionConfig) -> bool:
    return kind.kind == UNCONVERTED and kind.init == "pretrained" and not kind.batch_mixed


def _options(model: ModelConfig, data: DatasetInfo) -> dict:
    options = {"num_classes": data.classes, **model.options}
    channels = data.image_shape[0]
    if model.source == "timm":
        options.setdefault("in_chans", channels)
    elif channels != 3:
        raise RecipeError(
            f"torchvision's {model.name} reads 3 channels, the data have {channels}: set data.channels: 3"
        )
    return options


def small_image_stem(model: nn.Module) -> None:
    """Give a ResNet a 3x3 stride-1 stem without max-pool, as the metric-convolution paper does for small images.

    Raises:
        RecipeError: if the model has no ``conv1`` and ``maxpool``.
    """
    stem, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    convs = [m for m in stem.modules() if isinstance(m, nn.Conv2d)] if isinstance(stem, nn.Module) else []
    if not convs or not isinstance(pool, nn.Module):
        raise RecipeError(f"small_image_stem: {type(model).__name__} has no 'conv1' and 'maxpool' as a ResNet has")
    model.conv1 = nn.Conv2d(convs[0].in_channels, convs[-1].out_channels, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
