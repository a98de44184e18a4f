"""InternImage (Wang et al., CVPR 2023, https://arxiv.org/abs/2211.05778) and FlashInternImage (Xiong et al.,
*Efficient Deformable ConvNets*, CVPR 2024, https://arxiv.org/abs/2401.06197)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier, get_device_dtype, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from metric_zoo.nn.dcn.group import GroupAggregation
from metric_zoo.nn.dcn.v3 import DCNv3
from metric_zoo.nn.dcn.v4 import DCNv4
from metric_zoo.zoo.networks.stages import BlockOptions, Level, last_projection, stem

_HEAD_RATIO = 1.5
"""Channels that are pooled, per channel of the last level."""


class InternImage(nn.Module):
    """A backbone of deformable convolutions without kernels, and its classifier; keys of checkpoints as published.

    Args:
        in_chans: channels of the image.
        num_classes: 0 for no classifier.
        global_pool: of `timm.layers.SelectAdaptivePool2d`; ``""`` for none.
        channels: of the first level; every further one has twice as many.
        depths: blocks of each level.
        groups: of the convolutions of each level, dividing its channels.
        dcn, mlp_ratio, mlp_bias, use_post_norm, layer_scale: as in `BlockOptions`.
        drop_rate: before the classifier.
        proj_drop_rate: of the MLPs, and behind the stem.
        drop_path_rate: of the last block, rising evenly from 0 in the first one.

    Shape:
        ``(B, in_chans, H, W) -> (B, num_classes)``, for images of any size.

    Raises:
        MetricZooError: for groups that do not divide the channels.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        channels: int = 64,
        depths: Sequence[int] = (4, 4, 18, 4),
        groups: Sequence[int] = (4, 8, 16, 32),
        dcn: Callable[..., nn.Module] = DCNv3,
        mlp_ratio: float = 4.0,
        mlp_bias: bool = True,
        use_post_norm: bool = False,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        options = BlockOptions(dcn, mlp_ratio, mlp_bias, use_post_norm, layer_scale, proj_drop_rate, like)
        widths = [channels * 2**level for level in range(len(depths))]
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = widths[-1]
        self.head_hidden_size = int(_HEAD_RATIO * self.num_features)
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**level, "module": f"levels.{level}"}
            for level, width in enumerate(widths)
        ]
        self.patch_embed = stem(in_chans, channels, like)
        self.pos_drop = nn.Dropout(proj_drop_rate)
        drops = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        self.levels = nn.ModuleList(
            Level(width, group, drop.tolist(), options, width == widths[-1])
            for width, group, drop in zip(widths, groups, drops, strict=True)
        )
        self.conv_head = last_projection(self.num_features, self.head_hidden_size, like)
        self._build_head(global_pool, like)
        self.apply(_init_weights)

    def _each_level(self) -> list[Level]:
        return list(cast("Iterable[Level]", self.levels))

    def forward_features(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W) -> (B, num_features, H/32, W/32)``."""
        x = self.pos_drop(self.patch_embed(x))
        for level in self._each_level():
            x = level.downsample(level(x))
        return x.permute(0, 3, 1, 2)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """``(B, num_features, h, w) -> (B, num_classes)``, or ``(B, head_hidden_size)`` as the classifier sees them."""
        x = F.dropout(self.global_pool(self.conv_head(x)), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W) -> (B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The features of levels, as timm asks for them.

        Args:
            x: ``(B, in_chans, H, W)``.
            indices: of levels; a number is that many of the last, None all.
            norm: of no consequence: a level's features are normalised.
            stop_early: leave out the levels behind the last that is asked for.
            output_fmt: ``"NCHW"`` or ``"NHWC"``, of these features.
            intermediates_only: return the list alone, else (the last level's features, the list).
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r}: expected 'NCHW' or 'NHWC'")
        wanted, last = feature_take_indices(len(self.levels), indices)
        x, features = self.pos_drop(self.patch_embed(x)), []
        for index, level in enumerate(self._each_level()[: last + 1 if stop_early else None]):
            seen = level(x)
            x = level.downsample(seen)
            if index in wanted:
                features.append(seen.permute(0, 3, 1, 2) if output_fmt == "NCHW" else seen)
        return features if intermediates_only else (x.permute(0, 3, 1, 2), features)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the levels behind the last whose features are asked for; returns the levels asked for."""
        wanted, last = feature_take_indices(len(self.levels), indices)
        self.levels = self.levels[: last + 1]
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; ``global_pool=None`` keeps the pooling."""
        self.num_classes = num_classes
        self._build_head(self.global_pool.pool_type if global_pool is None else global_pool, get_device_dtype(self))

    def _build_head(self, pool: str, like: dict[str, Any]) -> None:
        parts = create_classifier(self.head_hidden_size, self.num_classes, pool, **like)
        self.global_pool, self.head = parts[0], parts[-1]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which group, by depth."""
        fine = [(r"^levels\.(\d+)\.blocks\.(\d+)", None), (r"^levels\.(\d+)\.(?:norm|downsample)", (99999,))]
        return {"stem": r"^patch_embed", "blocks": r"^levels\.(\d+)" if coarse else fine}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether blocks are computed again in the backward pass, instead of stored."""
        for level in self._each_level():
            level.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that never decay, beside those of one dimension: none, as published."""
        return set()


def _init_weights(module: nn.Module) -> None:
    """As published: linear layers small, but for those of deformable convolutions, which have a start of their own."""
    if isinstance(module, GroupAggregation):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The weights in a published checkpoint, which also holds the state of its training."""
    return state_dict.get("model", state_dict)


def _cfg(repository: str, file: str) -> dict[str, Any]:
    return {
        "hf_hub_id": f"OpenGVLab/{repository}",
        "hf_hub_filename": f"{file}.pth",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.conv1",
        "classifier": "head",
        "license": "mit",
        "paper_ids": "arXiv:2211.05778",
    }


default_cfgs = generate_default_cfgs(
    {
        "internimage_t_1k_224.in1k": _cfg("InternImage", "internimage_t_1k_224"),
        "internimage_s_1k_224.in1k": _cfg("InternImage", "internimage_s_1k_224"),
        "internimage_b_1k_224.in1k": _cfg("InternImage", "internimage_b_1k_224"),
        "flash_internimage_t_1k_224.in1k": _cfg("DCNv4", "flash_intern_image_t_1k_224"),
    }
)


def _build(variant: str, pretrained: bool, options: dict[str, Any], **architecture: Any) -> InternImage:
    return build_model_with_cfg(
        InternImage,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**architecture, **options},
    )


@register_model
def internimage_t_1k_224(pretrained: bool = False, **kwargs: Any) -> InternImage:
    """InternImage-T: 30 million parameters, 83.5 % on ImageNet-1k as published."""
    return _build("internimage_t_1k_224", pretrained, kwargs)


@register_model
def internimage_s_1k_224(pretrained: bool = False, **kwargs: Any) -> InternImage:
    """InternImage-S: 50 million parameters, 84.2 % on ImageNet-1k as published."""
    architecture = {"channels": 80, "depths": (4, 4, 21, 4), "groups": (5, 10, 20, 40)}
    return _build("internimage_s_1k_224", pretrained, kwargs, use_post_norm=True, layer_scale=1e-5, **architecture)


@register_model
def internimage_b_1k_224(pretrained: bool = False, **kwargs: Any) -> InternImage:
    """InternImage-B: 97 million parameters, 84.9 % on ImageNet-1k as published."""
    architecture = {"channels": 112, "depths": (4, 4, 21, 4), "groups": (7, 14, 28, 56)}
    return _build("internimage_b_1k_224", pretrained, kwargs, use_post_norm=True, layer_scale=1e-5, **architecture)


@register_model
def flash_internimage_t_1k_224(pretrained: bool = False, **kwargs: Any) -> InternImage:
    """FlashInternImage-T, of DCNv4: 30 million parameters, 83.6 % on ImageNet-1k as published."""
    dcn = partial(DCNv4, output_bias=False)
    return _build("flash_internimage_t_1k_224", pretrained, kwargs, dcn=dcn, mlp_bias=False)
