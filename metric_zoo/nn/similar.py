"""Similar convolution layer: rotation, scale and a shift of the whole window, predicted per pixel."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.formula import FormulaConfig, FormulaConv2d
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.ops.affine import affine_conv2d


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": 0.5 * random(batch, 4 * groups, *size)}


def _run(call, input, weight, field, bias=None) -> Tensor:
    window = (call.stride, call.padding, call.dilation, call.groups)
    return affine_conv2d(input, field, weight, bias, *window, form="similar")


@kind("similar", options=FormulaConfig, colour="#7fb800", marker="d", operator=Operator(_draw, _run))
class SimilarConv2d(FormulaConv2d):
    r"""Convolution whose samples lie at :math:`A(p)\, g_i + t(p)`, A a rotation times a scale: four numbers a pixel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full``, ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        limit: bound of every predicted number x, as ``limit * tanh(x / limit)``; None leaves them free.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``4 * offset_groups`` channels:
        a, b, then t in (x, y), with A = [[1 + a, -b], [b, 1 + a]].

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    def _rule(self) -> str:
        return "similar"
