"""One operator, several implementations: where every public operator ends."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.backend import backend_for
from metric_zoo.ops.backends import torch as composed
from metric_zoo.ops.settled import run
from metric_zoo.ops.window import Window, cast_dtype


def sampled(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> Tensor:
    """Run the sampled convolution on the backend in use. The arguments have been checked.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C/groups, kh, kw)``; K = kh*kw.
        bias: ``(O,)``.
        field: what the samples' positions follow from, ``(B, G, K, n, Ho, Wo)``; any size but G and n may be 1, where
            all share one. For ``sampling="offset"`` n = 2, (dy, dx) in pixels from the ordinary grid; for
            ``"position"`` n = 2, (dy, dx) from the window's centre; for all others K = 1, and the n numbers are those
            of the rule: a packed metric, a map, steps, harmonics.
        mask: ``(B, G, K, Ho, Wo)``, a factor on every sample.
        sampling: of `metric_zoo.ops.rules.RULES`.
        window: of this input and weight.

    Returns:
        ``(B, O, Ho, Wo)`` in the weight's dtype, under autocast in autocast's, as of `torch.nn.functional.conv2d`.

    Raises:
        MetricZooError: under forward-mode differentiation.
    """
    refuse_forward_mode(input, weight, bias, field, mask)
    backend = backend_for(input)
    if backend.is_composed and not is_recorded(input):
        return backend.compose(input, weight, bias, field, mask, sampling, window)
    if not backend.differentiates(sampling):
        field, sampling = composed.given_field(field, sampling, window)
    out_dtype = cast_dtype(weight)
    computes = backend.dtypes is None or out_dtype in backend.dtypes
    compute = out_dtype if computes else at_least_float32(input).dtype
    precise = torch.promote_types(compute, torch.float32)
    tensors = (_in(compute, input), _in(compute, weight), _in(compute, bias), _in(precise, field), _in(precise, mask))
    # By its name, where a compiler finds it in one step.
    operator = torch.ops.metric_zoo.sampled_conv2d.default
    output: Tensor = run(operator, (*tensors, sampling, *window.as_lists()), backend, window)
    return _in(out_dtype, output)


@overload
def _in(dtype: torch.dtype, tensor: Tensor) -> Tensor: ...
@overload
def _in(dtype: torch.dtype, tensor: Tensor | None) -> Tensor | None: ...
def _in(dtype: torch.dtype, tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def is_recorded(input: Tensor) -> bool:
    """Whether a compiler or a tracer follows, which shall see one operator: its program then serves images of any size,
    while grid_sample needs sides that are powers of two."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or not isinstance(input.shape[-1], int)


def refuse_forward_mode(*tensors: Tensor | None) -> None:
    """No backend has a forward-mode derivative, and the framework would take it as zero.

    Raises:
        MetricZooError: if a tensor carries a tangent.
    """
    if forward_ad._current_level < 0:
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise MetricZooError("sampled convolutions have no forward-mode derivative (jvp): use reverse mode (vjp, grad)")
