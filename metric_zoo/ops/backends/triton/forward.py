"""Forward kernels: a product of samples and weights, and the weighted sum that a depthwise convolution is."""

from __future__ import annotations

import triton
import triton.language as tl

from metric_zoo.ops.backends.triton.taps import block_of_pixels, output_offset, sample


@triton.jit
def store_output(p, output, bias, sums, image, row, column, exists, channel, valid):
    if bias is not None:
        sums += tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    at = output_offset(p, image, row, column)[:, None] + channel[None, :] * p.out_channel
    tl.store(output + at, sums.to(output.dtype.element_ty), mask=exists[:, None] & valid[None, :])


@triton.jit
def forward_dense(
    p, tuning, s, input, weight, bias, output,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of pixels times one of output channels; neighbouring programs read the same pixels."""
    groups = p.channels // p.per_group
    blocks = tl.cdiv(p.outputs, BLOCK_N)
    block, part = tl.program_id(0) // (groups * blocks), tl.program_id(0) % (groups * blocks)
    group = part // blocks
    image, row, column, exists = block_of_pixels(p, block, BLOCK_M, 0)
    out = part % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    valid_out = out < p.outputs
    out += group * p.outputs
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    # One loop over runs of channels, cells and blocks of a run, so that loads of one step overlap with the last one's
    # product; positions are computed again for every block, which costs little beside reading it.
    per_run = tl.cdiv(p.run, BLOCK_K)
    for step in range(p.per_group // p.run * p.cells * per_run):
        cell = step // per_run % p.cells
        first = step // (per_run * p.cells) * p.run
        own = step % per_run * BLOCK_K + tl.arange(0, BLOCK_K)
        valid = own < p.run
        own += first
        channel = group * p.per_group + own
        field_group = (group * p.per_group + first) // p.per_field
        values = sample(p, s, input, image, row, column, exists, field_group, cell, channel, valid, RULE, NUMBERS)
        at = out[None, :] * (p.cells * p.per_group) + (cell * p.per_group + own)[:, None]
        weights = tl.load(weight + at, mask=valid[:, None] & valid_out[None, :], other=0.0)
        sums = tl.dot(values.to(weights.dtype), weights, sums, input_precision=PRECISION)
    store_output(p, output, bias, sums, image, row, column, exists, out, valid_out)


@triton.jit
def forward_depthwise(
    p, tuning, s, input, weight, bias, output,
    RULE: tl.constexpr, NUMBERS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A block of pixels and one of output channels, all of which share a field."""
    per_field = p.per_field * p.outputs
    blocks, fields = tl.cdiv(per_field, BLOCK_N), p.channels // p.per_field
    block, part = tl.program_id(0) // (fields * blocks), tl.program_id(0) % (fields * blocks)
    group = part // blocks
    image, row, column, exists = block_of_pixels(p, block, BLOCK_M, 0)
    out = part % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = out < per_field
    out += group * per_field
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for cell in range(p.cells):
        values = sample(p, s, input, image, row, column, exists, group, cell, out // p.outputs, valid, RULE, NUMBERS)
        weights = tl.load(weight + out * p.cells + cell, mask=valid, other=0.0).to(tl.float32)
        sums += values * weights[None, :]
    store_output(p, output, bias, sums, image, row, column, exists, out, valid)
