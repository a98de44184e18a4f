"""Metric convolution layer (Dagès, Lindenbaum, Bruckstein, *Metric Convolutions*, ICCV 2025)."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.parametrize import EPS, MatrixOptions, get_parametrization, identity_raw
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import ball_samples, check_sampling
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import MetricConfig
from metric_zoo.nn.head import PredictionHead
from metric_zoo.ops.metric import metric_conv2d
from metric_zoo.ops.padding import Padding, Pads
from metric_zoo.ops.predicted import predicted_metric


class MetricConv2d(SampledConv2d):
    r"""Convolution over unit tangent balls of a predicted Randers metric.

    The head, an ordinary convolution, predicts P raw channels per metric group; they become a metric (M, omega) at
    every output pixel, and the kernel's samples are spread over that metric's unit ball (section 4 of the paper).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        parametrization: ``cholesky``, ``ldlt``, ``eigen``, ``eigen_scaled`` or ``eigen_scaled_ratio``.
        sampling: ``grid`` (starts as the ordinary convolution), or the paper's ``polar`` and ``onion``.
        drift: ``sigmoid``, ``sigmoid_detach`` or ``clip_detach``.
        eps_omega: in [0, 1]; 1 is Riemannian, near 0 allows strong asymmetry.
        eps_L: lower bound of the diagonals of M's factors.
        scale: range of the common factor of the scaled parametrizations; the published range is (0.1, 1.5).
        metric_groups: metrics per pixel; each serves ``in_channels / metric_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``, the size of the ordinary convolution.

    Raises:
        MetricZooError: for an unknown name, a value out of range or groups that do not divide the channels.

    Example:
        >>> import torch, metric_zoo as mz
        >>> layer = mz.nn.MetricConv2d(8, 16, 3, padding=1)
        >>> layer(torch.randn(2, 8, 12, 12)).shape
        torch.Size([2, 16, 12, 12])
    """

    kind = "metric"
    config: MetricConfig

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        parametrization: str = "eigen_scaled",
        sampling: str = "grid",
        drift: str = "sigmoid_detach",
        eps_omega: float = 0.5,
        eps_L: float = 0.01,
        scale: tuple[float, float] = (0.1, 1.9),
        metric_groups: int = 1,
        head_kernel_size: int | None = None,
        head: str = "full",
        device=None,
        dtype=None,
    ) -> None:
        config = MetricConfig(
            parametrization, sampling, drift, eps_omega, eps_L, scale, metric_groups, head_kernel_size, head
        )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            config=config,
            device=device,
            dtype=dtype,
        )
        check_sampling(sampling, self.kernel_size)

    def metric(self, input: Tensor) -> RandersMetric:
        """The metric predicted for ``input (B, C, H, W)``, one per output pixel and metric group."""
        return self._metric(*self._padded(input))

    def reset_rule_as_published(self) -> None:
        """The published start: rows of the head at ``1 / (k^2 C_in)``, at 1e-6, or at the framework's default."""
        self.sampler.reset_as_framework()
        mean = 1 / self.sampler.weight[0].numel()
        rows = get_parametrization(self.config.parametrization).paper_rows * self.config.metric_groups
        with torch.no_grad():
            for index, row in enumerate(rows):
                if row is not None:
                    self.sampler.weight[index] = mean if row == "mean" else EPS
                    self.sampler.bias[index] = 0

    def _build_head(self, device, dtype) -> PredictionHead:
        """One that rests at the Euclidean metric: the bias at which M = I and omega = 0.

        The direction's bias is (1, 0), not 0: an orientation has no gradient to speak of at the origin. Where no such
        bias exists (a ``scale`` without 1) the head rests at zeros.
        """
        head = super()._build_head(device, dtype)
        with suppress(MetricZooError):
            row = identity_raw(self.config.parametrization, MatrixOptions(*self._matrix_numbers()))
            head.resting = row * self.config.metric_groups
        return head

    def _head_channels(self) -> int:
        return get_parametrization(self.config.parametrization).channels * self.config.metric_groups

    def _sample_groups(self) -> int:
        return self.config.metric_groups

    def _matrix_numbers(self) -> tuple[float, tuple[float, float], float]:
        _, sampling, _, _, eps_L, scale, *_ = constants(self.config)
        # The grid is exact: the paper's guards would move every sample off the pixels by a millionth.
        return eps_L, scale, 0.0 if sampling == "grid" else EPS

    def _samples(self):
        return ball_samples(self.config.sampling, self.kernel_size, self.dilation)

    def _packed(self, input: Tensor, pads: Pads) -> Tensor:
        parametrization, _, drift, eps_omega, *_ = constants(self.config)
        eps_L, scale, eps = self._matrix_numbers()
        return predicted_metric(self.sampler(input, pads), parametrization, drift, eps_omega, eps_L, scale, eps)

    def _metric(self, input: Tensor, pads: Pads) -> RandersMetric:
        return RandersMetric(self._packed(input, pads))

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        return self._samples().positions(self._metric(input, pads))

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        return metric_conv2d(
            input,
            self.kernel(),
            self._packed(input, pads),
            groups=self.groups,
            sampling=self.config.sampling,
            **self._call_options(pads),
        )
