"""Grad-CAM of several models side by side: which parts of an image decided for a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.explain.figure import panels, save, show
from metric_zoo.nn.evaluation import evaluation
from metric_zoo.nn.recorder import Call, on_calls


def grad_cam(model: nn.Module, input: Tensor, target: int | None = None, layer: str | None = None) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391) by the package grad-cam.

    Args:
        model: a classifier.
        input: ``(1, C, H, W)``.
        target: the class to explain; None is the model's answer.
        layer: whose output is weighted; None is the last module that answers with a map.

    Returns:
        ``(H, W)`` float32 in [0, 1].

    Raises:
        MetricZooError: without the package, for an unknown layer or class, or a model without maps or classes.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        raise MetricZooError("Grad-CAM needs a package: pip install 'metric-zoo[explain]'") from None
    modules = dict(model.named_modules())
    if layer is not None and layer not in modules:
        raise MetricZooError(f"no layer {layer!r}")
    # pytorch_grad_cam declares a list of modules, and calls what its own functions of an output are.
    targets: Any = None if target is None else [ClassifierOutputTarget(target)]
    try:
        with evaluation(model):
            _check_classes(model, model(input), target)
            chosen = modules[layer] if layer is not None else _last_map(model, input)
            with GradCAM(model=model, target_layers=[chosen]) as cam, torch.enable_grad():
                return cam(input_tensor=input, targets=targets)[0]
    finally:
        model.zero_grad(set_to_none=True)


def _check_classes(model: nn.Module, answers: object, target: int | None) -> None:
    if not isinstance(answers, Tensor) or answers.dim() != 2:
        raise MetricZooError(f"{type(model).__name__} does not answer with classes (B, classes)")
    if target is not None and not 0 <= target < answers.shape[1]:
        raise MetricZooError(f"target={target}, but there are {answers.shape[1]} classes")


def _last_map(model: nn.Module, input: Tensor) -> nn.Module:
    """The last module to answer with a map of more than one pixel: usually the last stage."""
    answered: list[nn.Module] = []

    def note(call: Call) -> None:
        output = call.output
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[-2:]) > 1:
            answered.append(call.module)

    with on_calls((module for module in model.modules() if module is not model), note):
        model(input)
    if not answered:
        raise MetricZooError(f"no module of {type(model).__name__} answers with a map (B, C, H, W)")
    return answered[-1]


def draw_cams(
    models: Mapping[str, nn.Module],
    input: Tensor,
    picture: Tensor,
    path: Path,
    target: int | None = None,
    layer: str | None = None,
) -> None:
    """The picture, and Grad-CAM of each model over it.

    Args:
        models: by what they are called in the figure.
        input: ``(1, C, H, W)`` as all of them want it.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1], the same image for the eye.
        path: of the figure; ``.png``, ``.svg`` or ``.pdf``.
        target, layer: as `grad_cam`.

    Raises:
        MetricZooError: as `grad_cam`.
    """
    figure, axes = panels(1, 1 + len(models), 2.6)
    show(axes[0, 0], picture, "image")
    for place, (name, model) in zip(axes[0, 1:], models.items(), strict=True):
        heat = grad_cam(model, input, target, layer)
        with torch.no_grad():
            answer = int(model(input)[0].argmax())
        show(place, picture, f"{name}: class {answer if target is None else target}")
        place.imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    save(figure, path)
