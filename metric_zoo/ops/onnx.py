"""Export to ONNX: the operator as standard arithmetic, GridSample and Conv, or with one DeformConv.

Example:
    >>> import torch, metric_zoo as mz
    >>> layer, images = mz.nn.DeformConv2d(2, 4, 3, padding=1).eval(), torch.randn(1, 2, 8, 8)
    >>> standard = torch.onnx.export(layer, (images,), dynamo=True, verbose=False)
    >>> short = torch.onnx.export(layer, (images,), dynamo=True, verbose=False, opset_version=19,
    ...                           custom_translation_table=mz.ops.onnx_translations())
    >>> ["DeformConv" in {node.op_type for node in program.model.graph} for program in (standard, short)]
    [False, True]

The first is the way of every runtime; the exporter decomposes the operators by itself. The second needs opset 19, which
fewer runtimes know (onnxruntime on CPU from version 1.25 on), and stores no samples: DeformConv reads as the operator
does, corner by corner with zeros outside, but runtimes differ at offsets that are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.sampling import MIN_NORM, ball_samples, grid_offsets
from metric_zoo.geometry.star import LARGEST
from metric_zoo.ops import blended_op, custom_op  # noqa: F401  (they register the operators)
from metric_zoo.ops.blending import row_window
from metric_zoo.ops.rules import Form, Rule, rule_of

_DEFORM_CONV = 19
"""The opset that brought DeformConv."""


def onnx_translations() -> dict[Callable, Callable]:
    """The ``custom_translation_table`` with which `torch.onnx.export` writes this project's layers as DeformConv.

    Without it they are written as GridSample and Conv. Exporting raises a MetricZooError for an opset below 19.

    Raises:
        MetricZooError: if onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MetricZooError("ONNX export needs onnxscript: pip install 'metric-zoo[onnx]'") from error
    return {
        torch.ops.metric_zoo.sampled_conv2d.default: _deform_conv,
        torch.ops.metric_zoo.blended_conv2d.default: _blended_conv,
    }


def _deform_conv(
    input: Any,
    weight: Any,
    bias: Any,
    field: Any,
    mask: Any,
    sampling: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """``metric_zoo::sampled_conv2d`` in ONNX operators; tensors are the exporter's symbolic values."""
    op = _operators()

    _check_opset()
    kernel_size = (int(weight.shape[2]), int(weight.shape[3]))
    cells, fields = kernel_size[0] * kernel_size[1], int(field.shape[1])
    offset = _offsets(field, sampling, kernel_size, (dilation[0], dilation[1]))
    # One value may serve all images, cells or pixels; DeformConv wants each its own.
    size = [_output_side(input, axis, kernel_size, stride, padding, dilation) for axis in (0, 1)]
    offset = op.Expand(offset, _shape([_side(input, 0), fields, cells, 2, *size]))
    top, bottom, left, right = padding
    return op.DeformConv(
        input,
        weight,
        op.Reshape(offset, _shape([_side(input, 0), 2 * fields * cells, *size])),
        bias,
        None if mask is None else op.Reshape(mask, _shape([_side(input, 0), fields * cells, *size])),
        dilations=list(dilation),
        group=groups,
        kernel_shape=list(kernel_size),
        offset_group=fields,
        pads=[top, left, bottom, right],
        strides=list(stride),
    )


def _operators() -> Any:
    """Of ONNX, by name. What their annotations ask for are onnxscript's tensors; the exporter's values are others."""
    from onnxscript import opset19

    return opset19


def _check_opset() -> None:
    """The exporter would write DeformConv into files of any opset, where runtimes do not know it."""
    from onnxscript import evaluator

    recorder: Any = evaluator.default()  # the exporter's, which has an opset
    version = recorder.opset.version
    if version < _DEFORM_CONV:
        raise MetricZooError(
            f"opset_version={version} has no DeformConv: ask for {_DEFORM_CONV} or more, or export without "
            "custom_translation_table"
        )


def _offsets(field: Any, sampling: str, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Any:
    """Offsets (dy, dx) from the ordinary grid, ``(B, G, K, 2, Ho, Wo)`` or 1 where shared."""
    op = _operators()

    rule = rule_of(sampling)
    if rule.form is Form.OFFSET:
        return field
    dtype = field.dtype.numpy()
    grid = _per_cell(grid_offsets(kernel_size, dilation).numpy()[:, ::-1])
    if rule.form is Form.POSITION:
        return op.Sub(field, _constant(grid, dtype))
    if rule.form is Form.BALL:
        positions = _ball_positions(field, ball_samples(sampling, kernel_size, dilation), dtype)
        return op.Sub(positions, _constant(grid, dtype))
    table = rule.table(kernel_size, dilation, int(field.shape[3]))
    assert table is not None
    return _formula_offsets(field, rule, table.numpy(), grid, dtype)


def _formula_offsets(field: Any, rule: Rule, table: np.ndarray, grid: np.ndarray, dtype: np.dtype) -> Any:
    """Of the linear and radial forms; `Rule.table` documents the table."""
    op = _operators()

    def times(columns: np.ndarray) -> Any:
        return op.Einsum(field, _constant(columns, dtype), equation="bgznhw,knc->bgkchw")

    moved = times(table[:, :, 1:])
    if rule.form is not Form.RADIAL:
        return moved
    radius = op.Exp(op.Min(times(table[:, :, :1]), _constant(LARGEST, dtype)))
    return op.Add(op.Mul(op.Sub(radius, _constant(1, dtype)), _constant(grid, dtype)), moved)


def _ball_positions(field: Any, samples: Any, dtype: np.dtype) -> Any:
    """`BallSamples.positions`, (y, x), in the same order of operations: a Euclidean metric stays exact."""
    op = _operators()

    x, y = (_per_cell(column[:, None]) for column in samples.direction.numpy().astype(dtype).T)
    square = x * x + y * y
    m11, m12, m22, omega_x, omega_y = op.Split(field, axis=3, num_outputs=5)

    def combine(*terms: tuple[Any, np.ndarray]) -> Any:
        total, *others = (op.Mul(value, _constant(factor, dtype)) for value, factor in terms)
        for other in others:
            total = op.Add(total, other)
        return total

    quadratic = combine((m11, x * x), (m12, 2 * x * y), (m22, y * y))
    quadratic = op.Max(quadratic, _constant(np.finfo(dtype).tiny, dtype))
    norm = op.Sqrt(op.Div(quadratic, _constant(square, dtype)))
    norm = op.Add(norm, op.Div(combine((omega_x, x), (omega_y, y)), _constant(np.sqrt(square), dtype)))
    norm = op.Add(norm, _constant(samples.eps, dtype))
    radius = op.Reciprocal(op.Max(norm, _constant(MIN_NORM, dtype)))
    return op.Mul(radius, _constant(_per_cell(samples.displacement.numpy()[:, ::-1]), dtype))


def _blended_conv(input: Any, coordinates: Any, offsets: Any, weights: Any) -> Any:
    """``metric_zoo::blended_conv2d``: the weights of the interpolation times the tables, and one DeformConv."""
    op = _operators()

    _check_opset()
    *grid, samples = (int(n) for n in weights.shape)
    channels, dtype = int(input.shape[1]), input.dtype.numpy()
    alpha = _multilinear(coordinates, grid, dtype)
    ((_, _), (before, after)), shift = row_window(samples)
    ordinary = grid_offsets((1, samples), (1, 1)).numpy() + np.array([[shift, 0.0]])  # (x, y), as the tables are
    tables = op.Sub(op.Reshape(offsets, _constant([-1, samples, 2], np.int64)), _constant(ordinary, dtype))
    by_row = op.Gather(tables, _constant([1, 0], np.int64), axis=2)
    points = math.prod(grid)

    def blend(table: Any, numbers: int) -> Any:
        flat = op.Reshape(table, _constant([points, numbers], np.int64))
        one = op.Einsum(alpha, flat, equation="bphw,pn->bnhw")
        return op.Expand(one, _shape([_side(input, 0), numbers, _side(input, 2), _side(input, 3)]))

    return op.DeformConv(
        input,
        _constant(np.ones((channels, 1, 1, samples)), dtype),
        blend(by_row, 2 * samples),
        None,
        blend(weights, samples),
        group=channels,
        kernel_shape=[1, samples],
        offset_group=1,
        pads=[0, before, 0, after],
    )


def _multilinear(coordinates: Any, grid: Sequence[int], dtype: np.dtype) -> Any:
    """`metric_zoo.ops.blending.multilinear`, but for slopes: a table counts for what is less than a step away."""
    op = _operators()

    alpha = None
    for axis, size in enumerate(grid):
        place = op.Clip(
            op.Slice(coordinates, *(_constant([n], np.int64) for n in (axis, axis + 1, 1))),
            _constant(0, dtype),
            _constant(size - 1, dtype),
        )
        steps = _constant(np.arange(size).reshape(1, size, 1, 1), dtype)
        along = op.Relu(op.Sub(_constant(1, dtype), op.Abs(op.Sub(place, steps))))
        if alpha is None:
            alpha = along
            continue
        both = op.Mul(op.Unsqueeze(alpha, _constant([2], np.int64)), op.Unsqueeze(along, _constant([1], np.int64)))
        shape = [_side(coordinates, 0), math.prod(grid), _side(coordinates, 2), _side(coordinates, 3)]
        alpha = op.Reshape(both, _shape(shape))
    return alpha


def _per_cell(table: np.ndarray) -> np.ndarray:
    """``(K, n) -> (1, 1, K, n, 1, 1)``."""
    return table.reshape(1, 1, *table.shape, 1, 1)


def _side(value: Any, axis: int) -> Any:
    """A size: a number where the exporter knows it, else a one-element tensor."""
    op = _operators()

    size = value.shape[axis]
    return size if isinstance(size, int) else op.Shape(value, start=axis, end=axis + 1)


def _output_side(
    input: Any,
    axis: int,
    kernel_size: tuple[int, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Any:
    op = _operators()

    side = _side(input, 2 + axis)
    grown = padding[2 * axis] + padding[2 * axis + 1] - dilation[axis] * (kernel_size[axis] - 1) - 1
    if isinstance(side, int):
        return (side + grown) // stride[axis] + 1
    whole = op.Div(op.Add(side, _constant([grown], np.int64)), _constant([stride[axis]], np.int64))
    return op.Add(whole, _constant([1], np.int64))


def _shape(sizes: Sequence[Any]) -> Any:
    op = _operators()

    if all(isinstance(size, int) for size in sizes):
        return _constant(sizes, np.int64)
    return op.Concat(*(_constant([s], np.int64) if isinstance(s, int) else s for s in sizes), axis=0)


def _constant(values: Any, dtype: Any) -> Any:
    import onnx_ir

    op = _operators()

    return op.Constant(value=onnx_ir.tensor(np.array(values, dtype=dtype)))
