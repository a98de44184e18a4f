"""Metric convolution (Metric Convolutions, ICCV 2025, section 4)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.geometry.randers import PACKED_CHANNELS, RandersMetric
from metric_zoo.geometry.sampling import ball_samples
from metric_zoo.ops.padding import Padding, output_size, pair, resolve_padding
from metric_zoo.ops.sampled import check_fields, check_kernel, sampled_conv2d


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
        sampling: ``"grid"``, ``"polar"`` or ``"onion"`` (see `metric_zoo.geometry.ball_samples`).

    Returns:
        ``(B, O, Ho, Wo)``. For ``sampling="grid"`` and the Euclidean metric this is `torch.nn.functional.conv2d`, up
        to the order of summation.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, or for an unknown sampling.

    Example:
        >>> x, w = torch.randn(1, 4, 8, 8), torch.randn(6, 4, 3, 3)
        >>> metric = RandersMetric.identity(1, 1, 8, 8)
        >>> torch.allclose(metric_conv2d(x, w, metric, padding=1), F.conv2d(x, w, padding=1), atol=1e-5)
        True
    """
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    kernel_size = check_kernel(input, weight, bias, groups)
    pads = resolve_padding(padding, tuple(input.shape[-2:]), kernel_size, stride, dilation)
    size = output_size(tuple(input.shape[-2:]), kernel_size, stride, pads, dilation)
    packed = metric.packed if isinstance(metric, RandersMetric) else metric
    check_fields("metric", packed, input, PACKED_CHANNELS, size)
    positions = ball_samples(sampling, kernel_size, dilation).positions(RandersMetric(packed))
    return sampled_conv2d(input, weight, positions, bias, stride, pads, dilation, groups)
