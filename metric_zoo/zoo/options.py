"""What a folder may ask of a registry: options that shape a network, and nothing that opens, loads or fetches.

A folder may come from a stranger. So this is a list of what is allowed, by name, with values that are plain and of a
plausible size; everything else needs ``mz.load(folder, model=...)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_SHAPING = """
aa_layer aa_stem_only abs_win_pos_embed act_layer always_partition anchor_sizes atrous_rates attention_dropout
attn_act_layer attn_drop_rate attn_groups attn_head_dim_reduction attn_layer attn_mlp attn_mlp_ratio
attn_pool_mlp_ratio attn_pool_num_heads attn_ratio attn_type attn_types aux_logits aux_loss avg_down base_dim
base_dims base_width bbox_reg_weights bg_iou_thresh bias block_reduce_first block_type bn_eps bn_momentum bn_size
bn_tf bottle_ratio bottleneck_width_ratio box_batch_size_per_image box_bg_iou_thresh box_detections_per_img
box_fg_iou_thresh box_nms_thresh box_positive_fraction box_score_thresh cardinality center_sampling_radius
channel_multiplier channels class_token cls_attn_layers cls_ratio conv_bias conv_mlp conv_ratio crop_scale
crpe_window deepen_factor depth depth_mult depths detections_per_img dim dims distillation distilled
down_kernel_size drop drop_block_rate drop_block_size drop_path_rate drop_rate dropout dropout_aux dynamic_img_pad
dynamic_img_size embed_dim embed_dims embed_norm_layer expand_groups expand_ratio expansion_ratio exportable
fc_act_layer fc_norm feature_cls feature_dim feature_location features_only ffn_ratio fg_iou_thresh final_norm
fix_init fix_stem flatten_sequential focal_levels focal_windows fork_feat global_att_blocks global_attn_indexes
global_block_counts global_pool groups growth_rate growth_rates head_bias head_conv head_dim head_dropout
head_hidden_size head_init_scale head_norm head_norm_first heads hidden_dim hidden_sizes image_mean image_size
image_std img_size in_channels in_chans inference_mode init_values init_weights inplanes kernel_size kernel_sizes
layer_scale layer_scale_init_value layer_scale_init_values layers legacy levels ls_init_value mask_unit_attn
mask_unit_size max_size mbconv_expand_ratio memory_efficient min_size mlp_bias mlp_dim mlp_dropout mlp_layer
mlp_ratio mlp_ratios nms_thresh no_embed_class no_jit no_rewrite norm_eps norm_layer num_anchors num_blocks
num_classes num_features num_heads num_init_features num_keypoints num_kv_heads num_layers num_reg_tokens
num_rnn_layers out_indices out_map output_fmt output_norm output_stride pad_type parallel_depth partition_size
patch_drop_rate patch_norm patch_size patch_sizes patch_stride pool_include_prefix pool_size pool_type pos_drop_rate
pos_embed pos_embed_grid_size positive_fraction pre_norm preact prior_probability proj_bias proj_drop_rate q_pool
q_stride qk_norm qkv_bias qkv_fused reduction reg_tokens rel_pos_dim rel_pos_type replace_stem_pool
replace_stride_with_dilation representation_size res_scale_init_values residual_with_cls_embed round_chs
round_nearest rpn_batch_size_per_image rpn_bg_iou_thresh rpn_fg_iou_thresh rpn_nms_thresh rpn_positive_fraction
rpn_post_nms_top_n_test rpn_post_nms_top_n_train rpn_pre_nms_top_n_test rpn_pre_nms_top_n_train rpn_score_thresh
scale score_thresh se_from_exp se_layer se_ratio small squeeze_ratio sr_ratios stem_bias stem_chs stem_kernel_size
stem_norm stem_size stem_stride stem_type stem_width stochastic_depth_prob strict_img_size stride strides
topk_candidates trainable_backbone_layers transform_input use_abs_pos use_abs_pos_emb use_checkpoint use_fc_norm
use_grn use_layer_scale use_naflex use_pos_embed use_post_norm use_rel_pos use_rel_pos_bias use_rope use_rot_pos_emb
use_shared_rel_pos_bias weight_init widen_factor width width_factor width_mult width_per_group widths window_ratio
window_size window_sizes with_fc zero_init_last zero_init_residual
"""
SHAPING = frozenset(_SHAPING.split())
"""Options of timm's and torchvision's constructors, and of timm's wrapper for features."""

_WITHOUT_A_SHAPE = """
cache_dir checkpoint_path device dtype pretrained_cfg pretrained_cfg_overlay pretrained_model_args pretrained_strict
progress scriptable weights weights_backbone
"""
WITHOUT_A_SHAPE = frozenset(_WITHOUT_A_SHAPE.split())
"""Options that say where weights come from or go to: what they did is in the weights and in the preprocessing."""

_WORD = re.compile(r"[\w.+ -]{0,64}")
_REPEATED = ("depth", "depths", "layers", "levels", "num_blocks", "num_layers", "num_rnn_layers", "parallel_depth")
_LARGEST = {"num_classes": 2**24, **dict.fromkeys(_REPEATED, 256)}
_LARGEST_ELSEWHERE = 2**16
_LONGEST, _DEEPEST = 256, 3


def check_options(options: Any) -> dict[str, Any]:
    """The options of a folder, if every one of them shapes a network and is of a plausible size.

    Raises:
        ValueError: naming the first that does not, or is not.
    """
    if not isinstance(options, dict):
        raise ValueError(f"'options' is {_shown(options)}, expected names and values")
    for name, value in options.items():
        if name not in SHAPING:
            raise ValueError(f"{_shown(name)} is not among the options that shape a network")
        check_value(name, value, _LARGEST.get(name, _LARGEST_ELSEWHERE))
    return dict(options)


def check_value(name: str, value: Any, largest: int = _LARGEST_ELSEWHERE, depth: int = 0) -> None:
    """Raise unless a value is a truth, a plausible number, a word, or a short list of these.

    Raises:
        ValueError: with the name and the value.
    """
    if isinstance(value, (list, tuple)) and len(value) <= _LONGEST and depth < _DEEPEST:
        for each in value:
            check_value(name, each, largest, depth + 1)
    elif not (value is None or isinstance(value, bool) or _is_word(value) or _is_plausible(value, largest)):
        raise ValueError(f"{name}={_shown(value)}: expected numbers up to {largest}, words, or short lists of them")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def _is_plausible(value: Any, largest: int) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= largest  # which no NaN is


def _shown(value: Any) -> str:
    """Short, on one line; digits of a huge number cost time."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a whole number of more than 30 digits"
    return f"{value!r:.80}"


def _numbers(value: Any, count: int | None = None) -> bool:
    """A list of so many (or 1 to 16) finite numbers."""
    fits = isinstance(value, (list, tuple)) and (len(value) == count if count else 1 <= len(value) <= 16)
    return fits and all(_is_plausible(v, _LARGEST_ELSEWHERE) and not isinstance(v, bool) for v in value)


def _whole(value: Any, count: int) -> bool:
    return _numbers(value, count) and all(isinstance(v, int) and v > 0 for v in value)


def _words(value: Any) -> bool:
    return _is_word(value) or (isinstance(value, (list, tuple)) and all(map(_is_word, value)))


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _labels(value: Any) -> bool:
    return isinstance(value, dict) and _texts(list(value.values()))


def _number(value: Any) -> bool:
    return _is_plausible(value, _LARGEST["num_classes"]) and not isinstance(value, bool)


PREPROCESSING: dict[str, Callable[[Any], bool]] = {
    "input_size": lambda value: _whole(value, 3),
    "test_input_size": lambda value: _whole(value, 3),
    "min_input_size": lambda value: _whole(value, 3),
    "fixed_input_size": lambda value: isinstance(value, bool),
    "interpolation": _is_word,
    "crop_pct": _number,
    "test_crop_pct": _number,
    "crop_mode": _is_word,
    "mean": _numbers,
    "std": _numbers,
    "num_classes": _number,
    "label_offset": _number,
    "label_names": _texts,
    "label_descriptions": _labels,
    "pool_size": lambda value: _whole(value, 2),
    "test_pool_size": lambda value: _whole(value, 2),
    "first_conv": _words,
    "classifier": _words,
}
"""Fields of timm's pretrained_cfg that say what a network takes and gives, not where weights are; what each may be."""


def check_preprocessing(fields: Any) -> dict[str, Any]:
    """The fields of a folder's preprocessing, lists as tuples, which timm compares with; unknown ones are left out.

    Raises:
        ValueError: naming the first that holds something else.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"'preprocessing' is {_shown(fields)}, expected names and values")
    known = {name: value for name, value in fields.items() if name in PREPROCESSING}
    for name, value in known.items():
        if value is not None and not PREPROCESSING[name](value):
            raise ValueError(f"preprocessing: {name}={_shown(value)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
