"""The metric that a head predicts, as one step of a compiler, and not the sixty that compute it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from metric_zoo.geometry.parametrize import MatrixOptions, get_parametrization, metric_from_raw
from metric_zoo.geometry.randers import PACKED_CHANNELS

_SCHEMA = "(Tensor raw, str parametrization, str drift, float eps_omega, float eps_L, float[] scale, float eps)"


def predicted_metric(
    raw: Tensor,
    parametrization: str,
    drift: str,
    eps_omega: float,
    eps_L: float,
    scale: tuple[float, float],
    eps: float,
) -> Tensor:
    """`metric_zoo.geometry.metric_from_raw`, packed.

    Args:
        raw: ``(B, P*G, H, W)``, P channels per metric group.
        parametrization, drift, eps_omega: as of `metric_from_raw`.
        eps_L, scale, eps: of its `MatrixOptions`.

    Returns:
        ``(B, 5*G, H, W)``, in float32 at least.

    Raises:
        MetricZooError: as `metric_from_raw`.
    """
    compiles = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    compute = torch.ops.metric_zoo.predicted_metric.default if compiles else _computed
    return compute(raw, parametrization, drift, eps_omega, eps_L, scale, eps)


def _computed(
    raw: Tensor,
    parametrization: str,
    drift: str,
    eps_omega: float,
    eps_L: float,
    scale: tuple[float, float],
    eps: float,
) -> Tensor:
    options = MatrixOptions(eps_L, (scale[0], scale[1]), eps)
    return metric_from_raw(raw, parametrization, drift, eps_omega, options).packed


def _composite(raw: Tensor, parametrization: str, *options) -> Tensor:
    """The operator is made of others, which a backend sees. While no values are computed, and no operations recorded,
    something of the same form and with the same need of a gradient will do."""
    if not is_fake(raw) or get_proxy_mode() is not None:
        return _computed(raw, parametrization, *options)
    channels = raw.shape[1] // get_parametrization(parametrization).channels * PACKED_CHANNELS
    like = torch.promote_types(raw.dtype, torch.float32)
    form = raw.new_empty((raw.shape[0], channels, raw.shape[2], raw.shape[3]), dtype=like)
    return form.requires_grad_(raw.requires_grad and torch.is_grad_enabled())


if not hasattr(torch.ops.metric_zoo, "predicted_metric"):  # a module that is reloaded registers once
    torch.library.define("metric_zoo::predicted_metric", f"{_SCHEMA} -> Tensor")
    for _key in ("CompositeImplicitAutograd", "FuncTorchBatchedDecomposition"):
        torch.library.impl("metric_zoo::predicted_metric", _key, _composite)
