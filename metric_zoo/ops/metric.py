"""Metric convolution (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.randers import PACKED_CHANNELS, RandersMetric
from metric_zoo.geometry.sampling import check_sampling
from metric_zoo.geometry.zermelo import ellipse
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.window import check_fields, window_for


def metric_conv2d(
    input: Tensor,
    weight: Tensor,
    metric: Tensor | RandersMetric,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    sampling: str = "grid",
) -> Tensor:
    r"""Convolution over the unit tangent ball of a metric: sample i lies at :math:`y_i = s_i u_i / F(u_i)`.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C/groups, kh, kw)``.
        metric: one metric per OUTPUT pixel and group of channels, packed ``(B, 5*G, Ho, Wo)`` as in `RandersMetric`,
            with G dividing C. It is taken as feasible (`RandersMetric.is_feasible`); it is not checked.
        bias: ``(O,)``.
        stride, padding, dilation, groups: as in `sampled_conv2d`.
        sampling: ``"grid"``, ``"zermelo"``, ``"polar"`` or ``"onion"`` (see `metric_zoo.geometry.ball_samples`).

    Returns:
        ``(B, O, Ho, Wo)``. For ``sampling="grid"`` or ``"zermelo"`` and the Euclidean metric this is
        `torch.nn.functional.conv2d`, up to the order of summation.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, or for an unknown sampling.

    Example:
        >>> import torch, metric_zoo as mz
        >>> x, w = torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3)
        >>> metric = mz.geometry.RandersMetric.identity(1, 1, 8, 8)
        >>> y = mz.ops.metric_conv2d(x, w, metric, padding=1)
        >>> torch.allclose(y, torch.conv2d(x, w, padding=1), atol=1e-5)
        True
    """
    window = window_for(input, weight, bias, stride, padding, dilation, groups)
    packed = metric.packed if isinstance(metric, RandersMetric) else metric
    metric_groups = check_fields("metric", packed, input, PACKED_CHANNELS, window)
    if not torch.compiler.is_compiling():
        check_sampling(sampling, window.kernel_size)
    numbers, rule = ball_field(packed, sampling)
    field = numbers.unflatten(1, (metric_groups, 1, PACKED_CHANNELS))
    return sampled(input, weight, bias, field, None, rule, window)


def ball_field(packed: Tensor, sampling: str) -> tuple[Tensor, str]:
    """What a sampling of a ball is for the operators: five numbers per metric, ``(B, 5*G, H, W)``, and their rule."""
    return (ellipse(at_least_float32(packed)), "symmetric") if sampling == "zermelo" else (packed, sampling)
