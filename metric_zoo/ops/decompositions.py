"""What the operators amount to in the framework's own operations, for exporters that have no translation of them."""

from __future__ import annotations

import torch
from torch._decomp import decomposition_table, register_decomposition

from metric_zoo.ops import blended, blended_op, custom_op  # noqa: F401  (the latter two register the operators)
from metric_zoo.ops.backends import torch as composed
from metric_zoo.ops.bilinear import grid_sample
from metric_zoo.ops.window import check_window


def _composed_conv2d(input, weight, bias, field, mask, sampling, stride, padding, dilation, groups):
    pads = (tuple(padding[:2]), tuple(padding[2:]))
    window = check_window(input, weight, bias, tuple(stride), pads, tuple(dilation), groups)
    return composed.sampled_conv2d(input, weight, bias, field, mask, sampling, window, read=grid_sample)


for _operator, _composed in {
    torch.ops.metric_zoo.sampled_conv2d.default: _composed_conv2d,
    torch.ops.metric_zoo.blended_conv2d.default: blended.composed,
}.items():
    if _operator not in decomposition_table:
        register_decomposition(_operator)(_composed)
        # Or shapes, too, would be found that way.
        register_decomposition(_operator, type="meta", unsafe=True)(_operator)
