"""What InternImage is built of. Images are channels last in here, ``(B, H, W, C)``; keys are the published ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import DropPath, Mlp
from timm.models import checkpoint
from torch import Tensor, nn

from metric_zoo.nn.dcn.layout import channels_first, layer_norm, norm_to_last


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network share.

    Attributes:
        dcn: ``(channels, group=, device=, dtype=) -> `` a module on ``(B, H, W, channels)``.
        mlp_ratio: hidden channels of the MLPs, per channel.
        mlp_bias: whether their second layer has one.
        use_post_norm: norms after what they belong to, instead of before.
        layer_scale: where the factors on residuals start; None for no factors.
        drop_rate: of the MLPs.
        like: device and dtype.
    """

    dcn: Callable[..., nn.Module]
    mlp_ratio: float = 4.0
    mlp_bias: bool = True
    use_post_norm: bool = False
    layer_scale: float | None = None
    drop_rate: float = 0.0
    like: dict[str, Any] = field(default_factory=dict)


def stem(in_channels: int, channels: int, like: dict[str, Any]) -> nn.Sequential:
    """``(B, in_channels, H, W) -> (B, H/4, W/4, channels)``."""
    middle = channels // 2
    parts = {
        "conv1": nn.Conv2d(in_channels, middle, 3, stride=2, padding=1, **like),
        "norm1": nn.Sequential(*norm_to_last("LN", middle, like), channels_first()),
        "act": nn.GELU(),
        "conv2": nn.Conv2d(middle, channels, 3, stride=2, padding=1, **like),
        "norm2": norm_to_last("LN", channels, like),
    }
    return nn.Sequential(OrderedDict(parts))


def downsample(channels: int, like: dict[str, Any]) -> nn.Sequential:
    """``(B, H, W, channels) -> (B, H/2, W/2, 2 * channels)``."""
    parts = {
        "first": channels_first(),
        "conv": nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False, **like),
        "norm": norm_to_last("LN", 2 * channels, like),
    }
    return nn.Sequential(OrderedDict(parts))


def last_projection(channels: int, hidden: int, like: dict[str, Any]) -> nn.Sequential:
    """``(B, channels, H, W) -> (B, hidden, H, W)``, before the images are pooled."""
    norm = nn.Sequential(nn.BatchNorm2d(hidden, **like))
    return nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False, **like), norm, nn.GELU())


class Block(nn.Module):
    """A deformable convolution and an MLP, each a residual."""

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(self, channels: int, group: int, drop_path: float, options: BlockOptions) -> None:
        super().__init__()
        like, hidden = options.like, int(channels * options.mlp_ratio)
        self.use_post_norm = options.use_post_norm
        self.norm1 = nn.Sequential(layer_norm(channels, like))
        self.dcn = options.dcn(channels, group=group, **like)
        self.norm2 = nn.Sequential(layer_norm(channels, like))
        bias = (True, options.mlp_bias)
        self.mlp = Mlp(channels, hidden, bias=bias, drop=options.drop_rate, **like)  # pyright: ignore[reportArgumentType]
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        for name in ("gamma1", "gamma2"):
            start = options.layer_scale
            scale = None if start is None else nn.Parameter(torch.full((channels,), start, **like))
            self.register_parameter(name, scale)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C) -> `` the same."""
        x = x + self._residual(x, self.dcn, self.norm1, self.gamma1)
        return x + self._residual(x, self.mlp, self.norm2, self.gamma2)

    def _residual(self, x: Tensor, part: nn.Module, norm: nn.Module, scale: Tensor | None) -> Tensor:
        x = norm(part(x)) if self.use_post_norm else part(norm(x))
        return self.drop_path(x if scale is None else scale * x)


class Level(nn.Module):
    """The blocks of one resolution, and the way to the next one.

    Attributes:
        downsample: to the next level, which whoever has the features calls; an identity in the last one.
        grad_checkpointing: whether blocks are computed again in the backward pass, instead of stored.
    """

    def __init__(
        self, channels: int, group: int, drop_paths: Sequence[float], options: BlockOptions, last: bool
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.ModuleList(Block(channels, group, drop, options) for drop in drop_paths)
        self.norm = nn.Identity() if options.use_post_norm else nn.Sequential(layer_norm(channels, options.like))
        self.downsample = nn.Identity() if last else downsample(channels, options.like)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C) -> `` the level's features, of the same shape."""
        for block in self.blocks:
            x = checkpoint(block, x) if self.grad_checkpointing else block(x)
        return self.norm(x)
