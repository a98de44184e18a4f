"""Metric convolution layer (Dagès, Lindenbaum, Bruckstein, *Metric Convolutions*, ICCV 2025,
https://arxiv.org/abs/2406.05400)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.parametrize import (
    DRIFTS,
    EPS,
    PARAMETRIZATIONS,
    MatrixOptions,
    get_parametrization,
    identity_raw,
    metric_from_raw,
)
from metric_zoo.geometry.randers import PACKED_CHANNELS, RandersMetric
from metric_zoo.geometry.sampling import LOSSLESS_SAMPLINGS, SAMPLINGS, ball_samples, check_sampling
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count, check_head, check_name, is_number
from metric_zoo.nn.field import Field
from metric_zoo.nn.head import PredictionHead
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.ops.metric import ball_field, metric_conv2d
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.predicted import predicted_metric


@dataclass(frozen=True)
class MetricConfig(KindOptions):
    """Options of `MetricConv2d`.

    Attributes:
        parametrization: how the head's channels become the matrix M.
        sampling: where the unit ball is sampled; only 'grid' and 'zermelo' start as the original
            convolution.
        drift: how the drift omega is kept feasible.
        eps_omega: the drift stays below 1 - eps_omega; 1 is Riemannian, omega = 0.
        eps_L: lower bound of the Cholesky, LDL^T and eigenvalue diagonals.
        scale: range of the scaled parametrizations' common factor.
        metric_groups: number of metrics per pixel; each serves an equal part of the channels.
        head_kernel_size: kernel of the metric head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
    """

    parametrization: str = "eigen_scaled"
    sampling: str = "grid"
    drift: str = "sigmoid_detach"
    eps_omega: float = 0.5
    eps_L: float = 0.01
    scale: tuple[float, float] = (0.1, 1.9)
    metric_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"

    def __post_init__(self) -> None:
        check_name("parametrization", self.parametrization, tuple(PARAMETRIZATIONS))
        check_name("sampling", self.sampling, SAMPLINGS)
        check_name("drift", self.drift, DRIFTS)
        if not is_number(self.eps_omega) or not 0 <= self.eps_omega <= 1:
            raise MetricZooError(f"eps_omega={self.eps_omega!r}: expected a number in [0, 1]")
        if not is_number(self.eps_L) or not self.eps_L > 0:
            raise MetricZooError(f"eps_L={self.eps_L!r}: expected a number > 0")
        pair = isinstance(self.scale, tuple) and len(self.scale) == 2 and all(map(is_number, self.scale))
        if not pair or not 0 < self.scale[0] <= self.scale[1]:
            raise MetricZooError(f"scale={self.scale!r}: expected (min, max) with 0 < min <= max")
        check_count("metric_groups", self.metric_groups)
        check_head(self.head, self.head_kernel_size)


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": metric_from_raw(random(batch, 7 * groups, *size)).packed}


def _run(call, input, weight, field, bias=None) -> Tensor:
    window = (call.stride, call.padding, call.dilation)
    return metric_conv2d(input, weight, field, bias, *window, call.groups, call.sampling)


@kind(
    "metric",
    options=MetricConfig,
    colour="#b055c4",
    marker="^",
    featured=True,
    operator=Operator(_draw, _run, thorough=True),
)
class MetricConv2d(SampledConv2d):
    r"""Convolution over unit tangent balls of a predicted Randers metric.

    The head, an ordinary convolution, predicts P raw channels per metric group; they become a metric (M, omega) at
    every output pixel, and the kernel's samples are spread over that metric's unit ball (section 4 of the paper).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        parametrization: ``cholesky``, ``ldlt``, ``eigen``, ``eigen_scaled`` or ``eigen_scaled_ratio``.
        sampling: ``grid`` (starts as the ordinary convolution), ``zermelo`` (the same ball as a translated ellipse,
            sampled by the linear map onto it; starts as the ordinary convolution, too), or the paper's ``polar`` and
            ``onion``.
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

    config: MetricConfig
    sampler: PredictionHead
    fits_metrics = True

    def metric(self, input: Tensor) -> RandersMetric:
        """The metric predicted for ``input (B, C, H, W)``, one per output pixel and metric group."""
        return self._metric(*self._padded(input))

    def reach(self) -> float:
        """Pixels that the radius of a unit ball stands for."""
        return float(self._samples().displacement.abs().amax())

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
        assert isinstance(head, PredictionHead)  # a metric has channels
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
        return eps_L, scale, 0.0 if sampling in LOSSLESS_SAMPLINGS else EPS

    def _samples(self):
        return ball_samples(self.config.sampling, self.kernel_size, self.dilation)

    def _packed(self, input: Tensor, pads: Pads) -> Tensor:
        parametrization, _, drift, eps_omega, *_ = constants(self.config)
        eps_L, scale, eps = self._matrix_numbers()
        return predicted_metric(self.sampler(input, pads), parametrization, drift, eps_omega, eps_L, scale, eps)

    def _metric(self, input: Tensor, pads: Pads) -> RandersMetric:
        return RandersMetric(self._packed(input, pads))

    def _field(self, input: Tensor, pads: Pads) -> Field:
        numbers, rule = ball_field(self._packed(input, pads), self.config.sampling)
        return Field(numbers.unflatten(1, (-1, 1, PACKED_CHANNELS)), None, rule)

    def _check_fit(self) -> None:
        super()._check_fit()
        check_sampling(self.config.sampling, self.kernel_size)
