"""Real architectures, with weights that let every layer be seen."""

from __future__ import annotations

import timm
import torch
import torchvision
from torch import nn

TIMM = (
    "resnet18",
    "resnet50",
    "convnext_tiny",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "mobilenetv3_large_100",
    "regnety_004",
    "densenet121",
    "vgg11_bn",
    "nf_regnet_b1",
    "repvgg_a0",
    "coatnet_nano_rw_224",
)
TORCHVISION = (
    "resnet18",
    "mobilenet_v2",
    "googlenet",
    "deeplabv3_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_fpn",
)
NAMES = [*(f"timm/{name}" for name in TIMM), *(f"torchvision/{name}" for name in TORCHVISION)]


def build(name: str) -> nn.Module:
    source, name = name.split("/")
    if source == "timm":
        return enliven(timm.create_model(name))
    backbone = {"weights_backbone": None} if "rcnn" in name or "deeplab" in name else {}
    extra = {"init_weights": True} if name == "googlenet" else {}
    return enliven(torchvision.models.get_model(name, weights=None, **backbone, **extra))


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """Undo initialisations that hide layers: residual branches at gamma 0, layer scales of 1e-6, tiny kernels.

    Branches that began at zero become weak ones, as training leaves them: at full gain a deep random network amplifies
    rounding by itself, and how much then depends on the processor.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(weight, nn.Parameter) and weight.dim() == 1:
            weight.uniform_(*((0.2, 0.5) if not weight.any() else (0.5, 1.5)))
        gamma = getattr(module, "gamma", None)
        if isinstance(gamma, nn.Parameter):
            gamma.uniform_(0.2, 0.5)
        gain = getattr(module, "gain", None)
        if isinstance(gain, nn.Parameter):
            gain.uniform_(0.5, 1.5)
    # Running statistics of these weights, as a trained network has: without them activations grow from layer to layer
    # until the network amplifies rounding by itself.
    model.train()
    (model.backbone if hasattr(model, "rpn") else model)(images(2))
    return model.eval()


def images(count: int, size: int = 224) -> torch.Tensor:
    """Random images with structure at every scale: unlike white noise, they differ from each other after pooling."""
    octaves = (torch.randn(count, 3, side, side) for side in (2, 7, 28, size))
    return sum(nn.functional.interpolate(octave, (size, size), mode="bilinear") for octave in octaves) / 2


def output(model: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """What a model computes before any step whose shape depends on the data."""
    with torch.no_grad():
        result = model.backbone(image) if hasattr(model, "rpn") else model(image)
    leaves = torch.utils._pytree.tree_leaves(dict(result) if isinstance(result, dict) else result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
