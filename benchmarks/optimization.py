"""What a recipe's training options mean: optimiser, learning rate, moving average."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from metric_zoo.benchmarks.recipe_sections import TrainConfig
from metric_zoo.nn.training import parameter_groups


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimiser; sampling heads learn at ``head_lr_scale`` of the rate."""
    groups = parameter_groups(model, config.lr, config.head_lr_scale)
    for group in groups:
        group.pop("name")
        group["peak_lr"] = group["lr"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(groups, lr=config.lr, weight_decay=config.weight_decay)


def rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step as a share of its peak; steps are counted from 0 through the whole run."""
    warmup, steps = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    if config.schedule == "step":
        return config.decay ** sum(step // steps_per_epoch >= milestone for milestone in config.milestones)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its peak rate times ``share``: no state to save, none to lose."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and running statistics."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
