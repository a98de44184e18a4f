"""Calls of `torchvision.ops.deform_conv2d`, wherever in a module's code they stand, on this project's operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metric_zoo.nn.adopted import Adopted, own_class
from metric_zoo.ops.deform import deform_conv2d


def is_torchvisions(operator: Any) -> bool:
    """Whether this is the operator to which `torchvision.ops.deform_conv2d` comes down."""
    published = getattr(torch.ops.torchvision, "deform_conv2d", None)
    return published is not None and (operator is published or operator is published.default)


class Substitution(TorchFunctionMode):
    """While it is entered, torchvision's operator is this project's, in this thread.

    What calls it is left alone: names, helpers and branches on values keep their meaning. A compiler and an exporter
    see the operator that is really run.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch asks for it."""
        call = ours if is_torchvisions(func) else func
        return call(*args, **(kwargs or {}))


def ours(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """`metric_zoo.ops.deform_conv2d`, with the arguments of torchvision's operator; both kinds of groups follow from
    the shapes, there as here."""
    grid = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    return deform_conv2d(input, offset, weight, bias, *grid, mask if use_mask else None)


def substituted(module: Adopted, *args: Any, **kwargs: Any) -> Any:
    """The published forward, on this project's operator."""
    with Substitution():
        return own_class(module).forward(module, *args, **kwargs)
