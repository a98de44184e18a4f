"""What all kernels share: which pixels a block holds, where their samples lie, and the four corners each reads.

The formulas are those of native/csrc/taps.h. Sizes count elements, strides too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from metric_zoo.geometry.sampling import MIN_NORM
from metric_zoo.geometry.star import LARGEST
from metric_zoo.ops.rules import Form

OFFSET, BALL = tl.constexpr(Form.OFFSET.value), tl.constexpr(Form.BALL.value)
BLEND, RADIAL = tl.constexpr(Form.BLEND.value), tl.constexpr(Form.RADIAL.value)
# The least value of u^T M u (rounding of an extreme M must not give a root of a negative number) and of F.
LEAST_SQUARE, LEAST_NORM = tl.constexpr(1.17549435e-38), tl.constexpr(MIN_NORM)
LARGEST_EXPONENT = tl.constexpr(LARGEST)


class Problem(NamedTuple):
    """Sizes, strides and options of one call."""

    batch: int
    height: int
    width: int
    channels: int
    per_group: int
    """Channels that one output reads."""
    per_field: int
    """Channels that share one field."""
    run: int
    """Neighbouring channels that share a field and, unless depthwise, a group: no block of channels goes beyond."""
    outputs: int
    """Output channels of one group."""
    out_height: int
    out_width: int
    cells: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    middle_height: float
    """Row of the image in the middle of the first window."""
    middle_width: float
    field_batch: int
    field_group: int
    field_cell: int
    field_component: int
    field_row: int
    field_column: int
    numbers: int
    """Of the field, in one cell or, of rules that compute places, in one window."""
    tables_down: int
    """Of the grid that samples are blended from; 1 for a grid of one axis."""
    tables_across: int
    out_batch: int
    out_channel: int
    out_pixel: int


class Samples(NamedTuple):
    """What the samples of one call follow from; a kernel is compiled for what is None."""

    field: Any
    """As of `metric_zoo.ops.dispatch.sampled`, or places on the grid of tables."""
    mask: Any
    table: Any
    """Of a ball's rays (cells, 4), those that are blended (tables, cells, 3), or a formula's (cells, numbers, 3)."""
    eps: float
    """Added to the norm of a ball."""


@triton.jit
def block_of_pixels(p, block, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Image, row and column of every output pixel of a block, and whether it exists: in reading order, or, where
    COLUMNS is not 0, a rectangle of so many columns in one image."""
    i = tl.arange(0, BLOCK)
    if COLUMNS == 0:
        pixel = block * BLOCK + i
        area = p.out_height * p.out_width
        image, row, column = pixel // area, pixel % area // p.out_width, pixel % area % p.out_width
        exists = image < p.batch
    else:
        ROWS: tl.constexpr = BLOCK // COLUMNS
        across, down = tl.cdiv(p.out_width, COLUMNS), tl.cdiv(p.out_height, ROWS)
        image = i * 0 + block // (across * down)
        row = block // across % down * ROWS + i // COLUMNS
        column = block % across * COLUMNS + i % COLUMNS
        exists = (row < p.out_height) & (column < p.out_width)
    return image, row, column, exists


@triton.jit
def output_offset(p, image, row, column):
    """Of an output pixel's first channel."""
    return image.to(tl.int64) * p.out_batch + (row * p.out_width + column) * p.out_pixel


@triton.jit
def field_offset(p, image, row, column, group):
    """Of a pixel's first number in the field."""
    inside = group * p.field_group + row * p.field_row + column * p.field_column
    return image.to(tl.int64) * p.field_batch + inside


@triton.jit
def mask_offset(p, image, row, column, group):
    """Of a pixel's first cell in the mask, (B, G, K, Ho, Wo)."""
    area = p.out_height * p.out_width
    groups = p.channels // p.per_field
    return (image.to(tl.int64) * groups + group) * p.cells * area + row * p.out_width + column


@triton.jit
def load_metric(p, s, at, exists):
    """The five numbers of a packed metric; the Euclidean one where there is no pixel."""
    step = p.field_component
    m11 = tl.load(s.field + at, mask=exists, other=1.0)
    m12 = tl.load(s.field + at + step, mask=exists, other=0.0)
    m22 = tl.load(s.field + at + 2 * step, mask=exists, other=1.0)
    drift_x = tl.load(s.field + at + 3 * step, mask=exists, other=0.0)
    drift_y = tl.load(s.field + at + 4 * step, mask=exists, other=0.0)
    return m11, m12, m22, drift_x, drift_y


@triton.jit
def at_least(bound, value):
    """NaN stays."""
    return tl.where(value < bound, bound, value)


@triton.jit
def unit_norm(metric, u_x, u_y, eps):
    """u^T M u, the root of its bounded value over \\|u\\|^2, and F(u / \\|u\\|) + eps. The roundings are those of IEEE:
    of the identity, every one of these is exactly 1."""
    m11, m12, m22, drift_x, drift_y = metric
    length_square = u_x * u_x + u_y * u_y
    square = m11 * (u_x * u_x) + m12 * (2 * u_x * u_y) + m22 * (u_y * u_y)
    root = tl.sqrt_rn(tl.div_rn(at_least(LEAST_SQUARE, square), length_square))
    length = tl.sqrt_rn(length_square)
    return square, root, root + tl.div_rn(drift_x * u_x + drift_y * u_y, length) + eps


@triton.jit
def load_ray(s, cell):
    """Displacement and direction of a cell, (x, y) each."""
    row = s.table + 4 * cell
    return tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)


@triton.jit
def place_on_axis(s, at, exists, tables):
    """The table before a pixel's coordinate on one axis, and the part of a step beyond it; NaN stays in the part."""
    place = tl.load(s.field + at, mask=exists, other=0.0)
    place = tl.where(place < 0, 0.0, place)
    place = tl.where(place > tables - 1, tables - 1.0, place)
    before = tl.where(place == place, tl.floor(place), 0.0).to(tl.int32)
    before = tl.where(before > tables - 2, tables - 2, before)
    return before, place - before


@triton.jit
def load_table(p, s, point, cell, component, weight):
    """One number of a cell in the table of every pixel, times its weight. A table of weight 0 is not read."""
    at = (point * p.cells + cell) * 3 + component
    return weight * tl.load(s.table + at, mask=weight != 0, other=0.0)


@triton.jit
def blended(p, s, at, exists, cell, component):
    """Row (0), column (1) or factor (2) of one cell's samples, interpolated between the tables around every pixel."""
    if p.tables_down > 1:
        down, part_down = place_on_axis(s, at, exists, p.tables_down)
        across, part_across = place_on_axis(s, at + p.field_component, exists, p.tables_across)
        first = down * p.tables_across + across
        below = first + p.tables_across
        value = load_table(p, s, first, cell, component, (1 - part_down) * (1 - part_across))
        value += load_table(p, s, first + 1, cell, component, (1 - part_down) * part_across)
        value += load_table(p, s, below, cell, component, part_down * (1 - part_across))
        value += load_table(p, s, below + 1, cell, component, part_down * part_across)
    else:
        first, part = place_on_axis(s, at, exists, p.tables_across)
        value = load_table(p, s, first, cell, component, 1 - part)
        value += load_table(p, s, first + 1, cell, component, part)
    return value


@triton.jit
def load_numbers(p, s, at, exists, NUMBERS: tl.constexpr):
    """(pixels, NUMBERS): the numbers of a formula at every pixel of a block, and zeros up to a power of two."""
    n = tl.arange(0, NUMBERS)
    mask = exists[:, None] & (n < p.numbers)[None, :]
    return tl.load(s.field + at[:, None] + n[None, :] * p.field_component, mask=mask, other=0.0)


@triton.jit
def load_terms(p, s, cell, component, NUMBERS: tl.constexpr):
    """What a unit of each number adds to a cell's exponent (0), y (1) or x (2)."""
    n = tl.arange(0, NUMBERS)
    return tl.load(s.table + (cell * p.numbers + n) * 3 + component, mask=n < p.numbers, other=0.0)


@triton.jit
def moved_by(p, s, numbers, cell, component, NUMBERS: tl.constexpr):
    """The sum of a formula's numbers times one of a cell's terms, one for every pixel of a block."""
    return tl.sum(numbers * load_terms(p, s, cell, component, NUMBERS)[None, :], 1)


@triton.jit
def radius_of(p, s, numbers, cell, NUMBERS: tl.constexpr):
    """By which a cell's place on the grid is multiplied; and its derivative by the exponent, 0 where a bound holds."""
    exponent = moved_by(p, s, numbers, cell, 0, NUMBERS)
    bounded = exponent > LARGEST_EXPONENT
    radius = tl.exp(tl.where(bounded, LARGEST_EXPONENT, exponent))
    return radius, tl.where(bounded, 0.0, radius)


@triton.jit
def grid_place(p, cell):
    """y and x of a cell of the ordinary grid."""
    y = (cell // p.kernel_width - (p.cells // p.kernel_width - 1) * 0.5) * p.dilation_height
    x = (cell % p.kernel_width - (p.kernel_width - 1) * 0.5) * p.dilation_width
    return y, x


@triton.jit
def position(p, s, at, row, column, exists, cell, RULE: tl.constexpr, NUMBERS: tl.constexpr):
    """Row and column in the image of one cell's samples, one for every pixel of a block."""
    if RULE == BALL:
        x, y, u_x, u_y = load_ray(s, cell)
        _, _, norm = unit_norm(load_metric(p, s, at, exists), u_x, u_y, s.eps)
        radius = tl.div_rn(1.0, at_least(LEAST_NORM, norm))
        y, x = y * radius, x * radius
    elif RULE == BLEND:
        y = blended(p, s, at, exists, cell, 0)
        x = blended(p, s, at, exists, cell, 1)
    elif NUMBERS > 0:
        numbers = load_numbers(p, s, at, exists, NUMBERS)
        y = moved_by(p, s, numbers, cell, 1, NUMBERS)
        x = moved_by(p, s, numbers, cell, 2, NUMBERS)
        grid_y, grid_x = grid_place(p, cell)
        if RULE == RADIAL:
            radius, _ = radius_of(p, s, numbers, cell, NUMBERS)
            y, x = y + radius * grid_y, x + radius * grid_x
        else:
            y, x = y + grid_y, x + grid_x
    else:
        own = at + cell * p.field_cell
        y = tl.load(s.field + own, mask=exists, other=0.0)
        x = tl.load(s.field + own + p.field_component, mask=exists, other=0.0)
    centre_y, centre_x = row * p.stride_height + p.middle_height, column * p.stride_width + p.middle_width
    if RULE == OFFSET:
        grid_y, grid_x = grid_place(p, cell)
        y, x = y + grid_y, x + grid_x
    return y + centre_y, x + centre_x


@triton.jit
def split(value, size):
    """The pixel before a coordinate, and the part of a pixel beyond it. Whatever lies two pixels outside reads zero
    like anything further out; a NaN lies there and leaves its part NaN."""
    value = tl.where(value < -2, -2.0, value)
    value = tl.where(value > size + 1, size + 1.0, value)
    before = tl.where(value == value, tl.floor(value), -2.0)
    return before.to(tl.int32), value - before


@triton.jit
def is_inside(p, row, column):
    return (row >= 0) & (row < p.height) & (column >= 0) & (column < p.width)


@triton.jit
def image_offset(p, image, row, column):
    """Of a pixel's first channel; the image lies channels last."""
    return (image.to(tl.int64) * p.height * p.width + row * p.width + column) * p.channels


@triton.jit
def load_corner(p, input, image, row, column, reads, channel, valid):
    """(pixels, channels) in float32, zero outside the image and wherever ``reads`` is false."""
    at = image_offset(p, image, row, column)[:, None] + channel[None, :]
    reads = (reads & is_inside(p, row, column))[:, None] & valid[None, :]
    return tl.load(input + at, mask=reads, other=0.0).to(tl.float32)


@triton.jit
def gather(p, input, image, y, x, exists, channel, valid):
    """Bilinear samples (pixels, channels). No corner of weight 0 is read: beside a pixel that is read exactly,
    infinity does not matter."""
    top, part_y = split(y, p.height)
    left, part_x = split(x, p.width)
    rest_y, rest_x = 1 - part_y, 1 - part_x
    w00, w01, w10, w11 = rest_y * rest_x, rest_y * part_x, part_y * rest_x, part_y * part_x
    value = w00[:, None] * load_corner(p, input, image, top, left, exists & (w00 != 0), channel, valid)
    value += w01[:, None] * load_corner(p, input, image, top, left + 1, exists & (w01 != 0), channel, valid)
    value += w10[:, None] * load_corner(p, input, image, top + 1, left, exists & (w10 != 0), channel, valid)
    value += w11[:, None] * load_corner(p, input, image, top + 1, left + 1, exists & (w11 != 0), channel, valid)
    return value


@triton.jit
def sample(
    p, s, input, image, row, column, exists, group, cell, channel, valid, RULE: tl.constexpr, NUMBERS: tl.constexpr
):
    """Samples of one cell, (pixels, channels), times their mask."""
    at = field_offset(p, image, row, column, group)
    y, x = position(p, s, at, row, column, exists, cell, RULE, NUMBERS)
    value = gather(p, input, image, y, x, exists, channel, valid)
    if RULE == BLEND:
        value *= blended(p, s, at, exists, cell, 2)[:, None]
    if s.mask is not None:
        at = mask_offset(p, image, row, column, group) + cell * p.out_height * p.out_width
        value *= tl.load(s.mask + at, mask=exists, other=0.0)[:, None]
    return value
