"""Parameters by the rate at which they learn: sampling rules learn slower than kernels."""

from __future__ import annotations

from typing import Any

from torch import nn

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.rule import rule_of_module


def parameter_groups(model: nn.Module, lr: float, head_lr_scale: float = 0.1) -> list[dict[str, Any]]:
    """Split trainable parameters for an optimiser; what decides where layers sample gets ``head_lr_scale * lr``.

    These are the heads and offset tables of converted layers, ``offset`` of `DCNv3`, ``offset_mask`` of `DCNv4`, and
    ``conv_offset`` of mmcv's packs that `metric_zoo.adopt` has adopted. Of a torchvision ``DeformConv2d``, or a call of
    its function, nobody knows which module predicts its offsets: give those a group of their own.

    Offsets that explode are the best known failure of deformable convolution; a slower head is its usual cure
    (Deformable ConvNets, ICCV 2017, https://arxiv.org/abs/1703.06211, trains the added layers at 0.1 of the base rate;
    InternImage's program has ``DCN_LR_MUL`` for its offsets, https://github.com/OpenGVLab/InternImage).

    Args:
        model: converted or not.
        lr: the learning rate, > 0.
        head_lr_scale: factor for the sampling rules' own parameters, >= 0.

    Returns:
        One or two groups with ``params``, ``lr`` and ``name`` (``"backbone"``, ``"heads"``).

    Raises:
        MetricZooError: for a rate out of range.
    """
    if not lr > 0 or not head_lr_scale >= 0:
        raise MetricZooError(f"lr={lr!r}, head_lr_scale={head_lr_scale!r}: expected lr > 0 and head_lr_scale >= 0")
    heads = {id(p): p for p in _rule_parameters(model)}
    backbone = [p for p in model.parameters() if p.requires_grad and id(p) not in heads]
    trained = [p for p in heads.values() if p.requires_grad]
    groups = [{"params": backbone, "lr": lr, "name": "backbone"}]
    if trained:
        groups.append({"params": trained, "lr": lr * head_lr_scale, "name": "heads"})
    return groups


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that decide where converted layers sample: heads, tables of offsets, whatever their kinds say."""
    kinds = [(kind_of(layer), layer) for layer in model.modules()]
    return [parameter for kind, layer in kinds if kind is not None for parameter in kind.rule_parameters(layer)]


def _rule_parameters(model: nn.Module) -> list[nn.Parameter]:
    """`head_parameters`, and those of modules that sample without being of a kind."""
    rules = [rule_of_module(module) for module in model.modules() if kind_of(module) is None]
    others = [parameter for rule in rules if rule is not None for parameter in rule.parameters]
    return [*head_parameters(model), *others]
