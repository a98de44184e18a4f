"""Backward kernels: of the samples (hence of input, field and mask), and of the weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from metric_zoo.ops.backends.triton.taps import (
    BALL,
    LEAST_NORM,
    LEAST_SQUARE,
    RADIAL,
    at_least,
    block_of_pixels,
    field_offset,
    grid_place,
    image_offset,
    is_inside,
    load_corner,
    load_metric,
    load_numbers,
    load_ray,
    load_terms,
    mask_offset,
    output_offset,
    position,
    radius_of,
    sample,
    split,
    unit_norm,
)

LARGEST = tl.constexpr(6e4)  # of float16


class SampleGradients(NamedTuple):
    """What flows to the samples of one call, in float32, full of zeros; None is not wanted."""

    input: Any
    """As the input, channels last."""
    field: Any
    """``(parts, B, G, K or 1, n, Ho, Wo)``."""
    mask: Any
    """``(parts, B, G, K, Ho, Wo)``."""


@triton.jit
def column_gradient(
    p, grad, weight, at, exists, cell, group, channel, valid,
    DEPTHWISE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """The gradient of one cell's samples, (pixels, channels): upstream times weight. ``at`` is `output_offset`."""
    result = tl.zeros((BLOCK_M, BLOCK_K), dtype=tl.float32)
    if DEPTHWISE:
        for i in range(p.outputs):
            out = channel * p.outputs + i
            upstream = tl.load(
                grad + at[:, None] + out[None, :] * p.out_channel, mask=exists[:, None] & valid[None, :], other=0.0
            )
            weights = tl.load(weight + out * p.cells + cell, mask=valid, other=0.0)
            result += upstream.to(tl.float32) * weights.to(tl.float32)[None, :]
    else:
        own = cell * p.per_group + channel - group * p.per_group
        for first in range(0, p.outputs, BLOCK_O):
            out = first + tl.arange(0, BLOCK_O)
            valid_out = out < p.outputs
            out += group * p.outputs
            upstream = tl.load(
                grad + at[:, None] + out[None, :] * p.out_channel, mask=exists[:, None] & valid_out[None, :], other=0.0
            )
            weights = tl.load(
                weight + out[:, None] * (p.cells * p.per_group) + own[None, :],
                mask=valid_out[:, None] & valid[None, :], other=0.0,
            )  # fmt: skip
            result = tl.dot(upstream, weights, result, input_precision=PRECISION)
    return result


@triton.jit
def products(p, input, image, row, column, reads, channel, valid, gradient):
    """Of every sample's gradient with the pixel at one of its corners."""
    return tl.sum(gradient * load_corner(p, input, image, row, column, reads, channel, valid), 1)


@triton.jit
def sample_gradient(p, input, image, y, x, exists, channel, valid, gradient):
    """Derivatives by row, by column and by the mask of samples with these gradients. On a line of the grid, where a
    bilinear function has a kink, the derivative is the mean of its two sides."""
    top, part_y = split(y, p.height)
    left, part_x = split(x, p.width)
    rest_y, rest_x = 1 - part_y, 1 - part_x
    d00 = products(p, input, image, top, left, exists, channel, valid, gradient)
    d01 = products(p, input, image, top, left + 1, exists, channel, valid, gradient)
    d10 = products(p, input, image, top + 1, left, exists, channel, valid, gradient)
    d11 = products(p, input, image, top + 1, left + 1, exists, channel, valid, gradient)
    on_row, on_column = exists & (part_y == 0), exists & (part_x == 0)
    up0, up1, left0, left1 = d00, d01, d00, d10
    if tl.max((on_row | on_column).to(tl.int32), 0) > 0:
        up0 = products(p, input, image, top - 1, left, on_row, channel, valid, gradient)
        up1 = products(p, input, image, top - 1, left + 1, on_row & (part_x != 0), channel, valid, gradient)
        left0 = products(p, input, image, top, left - 1, on_column, channel, valid, gradient)
        left1 = products(p, input, image, top + 1, left - 1, on_column & (part_y != 0), channel, valid, gradient)
    by_row = tl.where(
        on_row,
        0.5 * (rest_x * (d10 - up0) + part_x * (d11 - up1)),
        rest_x * (d10 - d00) + part_x * (d11 - d01),
    )
    by_column = tl.where(
        on_column,
        0.5 * (rest_y * (d01 - left0) + part_y * (d11 - left1)),
        rest_y * (d01 - d00) + part_y * (d11 - d10),
    )
    by_mask = rest_y * (rest_x * d00 + part_x * d01) + part_y * (rest_x * d10 + part_x * d11)
    return by_row, by_column, by_mask


@triton.jit
def metric_gradient(p, s, at, exists, cell, by_row, by_column):
    """The chain from positions to the five numbers of the metric, for one cell."""
    x, y, u_x, u_y = load_ray(s, cell)
    square, root, norm = unit_norm(load_metric(p, s, at, exists), u_x, u_y, s.eps)
    length_square = u_x * u_x + u_y * u_y
    radius = 1 / at_least(LEAST_NORM, norm)
    by_norm = -(by_row * y + by_column * x) * radius * radius
    by_norm = tl.where(norm < LEAST_NORM, 0.0, by_norm)
    by_square = tl.where(square < LEAST_SQUARE, 0.0, by_norm / (2 * root * length_square))
    by_drift = by_norm / tl.sqrt(length_square)
    return by_square * u_x * u_x, by_square * 2 * u_x * u_y, by_square * u_y * u_y, by_drift * u_x, by_drift * u_y


@triton.jit
def formula_gradient(p, s, at, exists, cell, by_row, by_column, RULE: tl.constexpr, NUMBERS: tl.constexpr):
    """The chain from positions to the numbers of a formula, (pixels, NUMBERS), for one cell."""
    result = by_row[:, None] * load_terms(p, s, cell, 1, NUMBERS)[None, :]
    result += by_column[:, None] * load_terms(p, s, cell, 2, NUMBERS)[None, :]
    if RULE == RADIAL:
        _, slope = radius_of(p, s, load_numbers(p, s, at, exists, NUMBERS), cell, NUMBERS)
        grid_y, grid_x = grid_place(p, cell)
        by_exponent = slope * (by_row * grid_y + by_column * grid_x)
        result += by_exponent[:, None] * load_terms(p, s, cell, 0, NUMBERS)[None, :]
    return result


@triton.jit
def scatter_corner(p, grad_input, image, row, column, exists, channel, valid, values):
    at = image_offset(p, image, row, column)[:, None] + channel[None, :]
    hit = (exists & is_inside(p, row, column))[:, None] & valid[None, :]
    tl.atomic_add(grad_input + at, values, mask=hit, sem="relaxed")


@triton.jit
def scatter(p, grad_input, image, y, x, exists, channel, valid, gradient):
    """Hand gradients to the pixels that were read, one by one."""
    top, part_y = split(y, p.height)
    left, part_x = split(x, p.width)
    above, below = (1 - part_y)[:, None] * gradient, part_y[:, None] * gradient
    rest_x, part_x = (1 - part_x)[:, None], part_x[:, None]
    scatter_corner(p, grad_input, image, top, left, exists, channel, valid, above * rest_x)
    scatter_corner(p, grad_input, image, top, left + 1, exists, channel, valid, above * part_x)
    scatter_corner(p, grad_input, image, top + 1, left, exists, channel, valid, below * rest_x)
    scatter_corner(p, grad_input, image, top + 1, left + 1, exists, channel, valid, below * part_x)


@triton.jit
def hats(row, column, y, x):
    """(pixels of a tile, samples): the bilinear weight of every pixel in every sample. Gradients handed out are then a
    product of matrices."""
    by_row = 1 - tl.abs(row[:, None] - y[None, :])
    by_column = 1 - tl.abs(column[:, None] - x[None, :])
    return tl.where(by_row > 0, by_row, 0.0) * tl.where(by_column > 0, by_column, 0.0)


@triton.jit
def add_to(pointer, value, exists):
    """To memory that belongs to this program alone; whichever of its threads wrote there before has done so."""
    tl.debug_barrier()
    tl.store(pointer, tl.load(pointer, mask=exists, other=0.0) + value, mask=exists)


@triton.jit
def tile_around(p, row, column, BLOCK_M: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr):
    """The first row and column of the tile whose middle a rectangle of output pixels reads."""
    margin_y = (TILE - (BLOCK_M // COLUMNS - 1) * p.stride_height - 1) // 2
    margin_x = (TILE - (COLUMNS - 1) * p.stride_width - 1) // 2
    first_y = (tl.min(row, 0) * p.stride_height + p.middle_height).to(tl.int32) - margin_y
    first_x = (tl.min(column, 0) * p.stride_width + p.middle_width).to(tl.int32) - margin_x
    return first_y, first_x


@triton.jit
def add_to_tile(tile, first_y, first_x, weight, y, x, exists, gradient, PRECISION: tl.constexpr, TILE: tl.constexpr):
    """The tile with what its pixels get of the samples within it; and which samples reach beyond."""
    pixel = tl.arange(0, TILE * TILE)
    fits_y = (y >= first_y) & (y <= first_y + TILE - 1)
    fits = fits_y & (x >= first_x) & (x <= first_x + TILE - 1)
    # A product would spread infinity and NaN over the tile, and half precision makes them of less.
    fits &= tl.max(tl.abs(gradient), 1) <= LARGEST
    inner = tl.where(fits[:, None], gradient, 0.0).to(weight.dtype.element_ty)
    shares = hats(first_y + pixel // TILE, first_x + pixel % TILE, y, x).to(weight.dtype.element_ty)
    return tl.dot(shares, inner, tile, input_precision=PRECISION), exists & ~fits


@triton.jit
def store_tile(p, grad_input, image, first_y, first_x, channel, valid, tile, TILE: tl.constexpr):
    pixel = tl.arange(0, TILE * TILE)
    row, column = first_y + pixel // TILE, first_x + pixel % TILE
    scatter_corner(p, grad_input, pixel * 0 + tl.min(image, 0), row, column, pixel >= 0, channel, valid, tile)


@triton.jit
def store_sums(pointer, step, sums, exists, RULE: tl.constexpr):
    """Of a field that all cells share: its two or five numbers, ``step`` apart."""
    d0, d1, d2, d3, d4 = sums
    tl.store(pointer, d0, mask=exists)
    tl.store(pointer + step, d1, mask=exists)
    if RULE == BALL:
        tl.store(pointer + 2 * step, d2, mask=exists)
        tl.store(pointer + 3 * step, d3, mask=exists)
        tl.store(pointer + 4 * step, d4, mask=exists)


@triton.jit
def store_totals(p, pointer, step, totals, exists, NUMBERS: tl.constexpr):
    """Of a formula's numbers, (pixels, NUMBERS), ``step`` apart."""
    n = tl.arange(0, NUMBERS)
    tl.store(pointer[:, None] + n[None, :] * step, totals, mask=exists[:, None] & (n < p.numbers)[None, :])


@triton.jit
def backward_samples(
    p, tuning, parts, s, grad, input, weight, into,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, DEPTHWISE: tl.constexpr, SHARED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A block of pixels, one field, and every ``parts``-th block of the channels that share it; `SampleGradients`.

    With TILE > 0 the block is a rectangle, and what its samples hand to the tile of TILE x TILE pixels around it is
    gathered there by a product of matrices and added to memory once; only samples that reach beyond go one by one.
    """
    fields, area = p.channels // p.per_field, p.out_height * p.out_width
    block, rest = tl.program_id(0) // (fields * parts), tl.program_id(0) % (fields * parts)
    group, part = rest // parts, rest % parts
    image, row, column, exists = block_of_pixels(p, block, BLOCK_M, COLUMNS)
    at_field, at_mask = field_offset(p, image, row, column, group), mask_offset(p, image, row, column, group)
    at_grad = output_offset(p, image, row, column)
    own = ((part * p.batch + image.to(tl.int64)) * fields + group) * area
    own_mask = own * p.cells + row * p.out_width + column
    own_field = own * p.numbers * (1 if SHARED else p.cells) + row * p.out_width + column
    zero = tl.zeros((BLOCK_M,), dtype=tl.float32)
    d0, d1, d2, d3, d4 = zero, zero, zero, zero, zero
    totals = tl.zeros((BLOCK_M, NUMBERS if NUMBERS > 0 else 1), dtype=tl.float32)
    if TILE > 0:
        first_y, first_x = tile_around(p, row, column, BLOCK_M, COLUMNS, TILE)
    per_run = tl.cdiv(p.run, BLOCK_K)
    for step in range(part, p.per_field // p.run * per_run, parts):
        first = group * p.per_field + step // per_run * p.run
        channel = step % per_run * BLOCK_K + tl.arange(0, BLOCK_K)
        valid = channel < p.run
        channel += first
        if TILE > 0:
            tile = tl.zeros((TILE * TILE, BLOCK_K), dtype=tl.float32)
        for cell in range(p.cells):
            y, x = position(p, s, at_field, row, column, exists, cell, RULE, NUMBERS)
            gradient = column_gradient(
                p, grad, weight, at_grad, exists, cell, first // p.per_group, channel, valid,
                DEPTHWISE, PRECISION, BLOCK_M, BLOCK_K, BLOCK_O,
            )  # fmt: skip
            if into.field is not None or into.mask is not None:
                by_row, by_column, by_mask = sample_gradient(p, input, image, y, x, exists, channel, valid, gradient)
                if into.mask is not None:
                    add_to(into.mask + own_mask + cell * area, by_mask, exists)
            factor = 1.0
            if s.mask is not None:
                factor = tl.load(s.mask + at_mask + cell * area, mask=exists, other=0.0)
                gradient *= factor[:, None]
            if into.field is not None:
                by_row, by_column = by_row * factor, by_column * factor
                if RULE == BALL:
                    e0, e1, e2, e3, e4 = metric_gradient(p, s, at_field, exists, cell, by_row, by_column)
                    d0, d1, d2, d3, d4 = d0 + e0, d1 + e1, d2 + e2, d3 + e3, d4 + e4
                elif NUMBERS > 0:
                    totals += formula_gradient(p, s, at_field, exists, cell, by_row, by_column, RULE, NUMBERS)
                elif SHARED:
                    d0, d1 = d0 + by_row, d1 + by_column
                else:
                    add_to(into.field + own_field + 2 * cell * area, by_row, exists)
                    add_to(into.field + own_field + (2 * cell + 1) * area, by_column, exists)
            if into.input is not None:
                beyond = exists
                if TILE > 0:
                    tile, beyond = add_to_tile(tile, first_y, first_x, weight, y, x, exists, gradient, PRECISION, TILE)
                if tl.max(beyond.to(tl.int32), 0) > 0:
                    scatter(p, into.input, image, y, x, beyond, channel, valid, gradient)
        if into.input is not None and TILE > 0:
            store_tile(p, into.input, image, first_y, first_x, channel, valid, tile, TILE)
    if into.field is not None and NUMBERS > 0:
        store_totals(p, into.field + own_field, area, totals, exists, NUMBERS)
    elif into.field is not None and (RULE == BALL or SHARED):
        store_sums(into.field + own_field, area, (d0, d1, d2, d3, d4), exists, RULE)


@triton.jit
def backward_input_owned(
    p, s, grad, weight, grad_input,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, DEPTHWISE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_O: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The gradient of the input without atomic additions, hence repeatable: a program owns TILE x TILE pixels and a
    block of channels, and searches all samples of the image for those that read them."""
    per_run = tl.cdiv(p.run, BLOCK_K)
    steps = p.channels // p.run * per_run
    across, down = tl.cdiv(p.width, TILE), tl.cdiv(p.height, TILE)
    step, tile_number = tl.program_id(0) % steps, tl.program_id(0) // steps
    first = step // per_run * p.run
    channel = step % per_run * BLOCK_K + tl.arange(0, BLOCK_K)
    valid = channel < p.run
    channel += first
    group = first // p.per_field
    pixel = tl.arange(0, TILE * TILE)
    first_y, first_x = tile_number // across % down * TILE, tile_number % across * TILE
    tile_row, tile_column = first_y + pixel // TILE, first_x + pixel % TILE
    tile_image = tile_number // (across * down)
    blocks = tl.cdiv(p.out_width, COLUMNS) * tl.cdiv(p.out_height, BLOCK_M // COLUMNS)
    tile = tl.zeros((TILE * TILE, BLOCK_K), dtype=tl.float32)
    for block in range(blocks):
        image, row, column, exists = block_of_pixels(p, tile_image * blocks + block, BLOCK_M, COLUMNS)
        at_field, at_mask = field_offset(p, image, row, column, group), mask_offset(p, image, row, column, group)
        for cell in range(p.cells):
            y, x = position(p, s, at_field, row, column, exists, cell, RULE, NUMBERS)
            hit = exists & (y > first_y - 1) & (y < first_y + TILE) & (x > first_x - 1) & (x < first_x + TILE)
            if tl.max(hit.to(tl.int32), 0) > 0:
                gradient = column_gradient(
                    p, grad, weight, output_offset(p, image, row, column), hit, cell, first // p.per_group, channel,
                    valid, DEPTHWISE, PRECISION, BLOCK_M, BLOCK_K, BLOCK_O,
                )  # fmt: skip
                if s.mask is not None:
                    at = at_mask + cell * p.out_height * p.out_width
                    gradient *= tl.load(s.mask + at, mask=hit, other=0.0)[:, None]
                tile = tl.dot(hats(tile_row, tile_column, y, x), gradient, tile, input_precision=PRECISION)
    at = image_offset(p, pixel * 0 + tile_image, tile_row, tile_column)[:, None] + channel[None, :]
    owns = is_inside(p, tile_row, tile_column)[:, None] & valid[None, :]
    tl.store(grad_input + at, tile.to(grad_input.dtype.element_ty), mask=owns)


@triton.jit
def backward_weight_dense(
    p, tuning, splits, s, grad, input, grad_weight,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One cell, a block of input and one of output channels, over every ``splits``-th block of pixels, into
    ``(splits, O, K, C/groups)``."""
    per_run, blocks_out = tl.cdiv(p.run, BLOCK_K), tl.cdiv(p.outputs, BLOCK_N)
    steps = p.channels // p.run * per_run
    rest = tl.program_id(0)
    part_out, rest = rest % blocks_out, rest // blocks_out
    step, rest = rest % steps, rest // steps
    cell, split_number = rest % p.cells, rest // p.cells
    first = step // per_run * p.run
    channel = step % per_run * BLOCK_K + tl.arange(0, BLOCK_K)
    valid = channel < p.run
    channel += first
    group = first // p.per_group
    out = part_out * BLOCK_N + tl.arange(0, BLOCK_N)
    valid_out = out < p.outputs
    out += group * p.outputs
    sums = tl.zeros((BLOCK_K, BLOCK_N), dtype=tl.float32)
    for block in range(split_number, tl.cdiv(p.batch * p.out_height * p.out_width, BLOCK_M), splits):
        image, row, column, exists = block_of_pixels(p, block, BLOCK_M, 0)
        field_group = first // p.per_field
        values = sample(p, s, input, image, row, column, exists, field_group, cell, channel, valid, RULE, NUMBERS)
        at = output_offset(p, image, row, column)[:, None] + out[None, :] * p.out_channel
        upstream = tl.load(grad + at, mask=exists[:, None] & valid_out[None, :], other=0.0)
        sums = tl.dot(tl.trans(values.to(upstream.dtype)), upstream, sums, input_precision=PRECISION)
    outputs = p.channels // p.per_group * p.outputs
    at = (split_number.to(tl.int64) * outputs + out)[None, :] * (p.cells * p.per_group)
    at += (cell * p.per_group + channel - group * p.per_group)[:, None]
    tl.store(grad_weight + at, sums, mask=valid[:, None] & valid_out[None, :])


@triton.jit
def backward_weight_depthwise(
    p, tuning, splits, s, grad, input, grad_weight,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One cell and a block of output channels, over every ``splits``-th block of pixels, into ``(splits, O, K)``."""
    per_field = p.per_field * p.outputs
    blocks, fields = tl.cdiv(per_field, BLOCK_N), p.channels // p.per_field
    part, rest = tl.program_id(0) % (fields * blocks), tl.program_id(0) // (fields * blocks)
    cell, split_number = rest % p.cells, rest // p.cells
    group = part // blocks
    out = part % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = out < per_field
    out += group * per_field
    sums = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for block in range(split_number, tl.cdiv(p.batch * p.out_height * p.out_width, BLOCK_M), splits):
        image, row, column, exists = block_of_pixels(p, block, BLOCK_M, 0)
        values = sample(p, s, input, image, row, column, exists, group, cell, out // p.outputs, valid, RULE, NUMBERS)
        at = output_offset(p, image, row, column)[:, None] + out[None, :] * p.out_channel
        upstream = tl.load(grad + at, mask=exists[:, None] & valid[None, :], other=0.0)
        sums += tl.sum(values * upstream.to(tl.float32), 0)
    at = (split_number.to(tl.int64) * p.channels * p.outputs + out) * p.cells + cell
    tl.store(grad_weight + at, sums, mask=valid)
