"""Sine networks on CUDA devices: samples, gradients, and fits of many blocks in one launch. README.md has the mathematics.

Triton decides when a kernel is decorated whether it is compiled or interpreted (``TRITON_INTERPRET=1``), so this module is
imported only when its backend has been chosen.
"""
# Annotations of kernels are directions to Triton's compiler; its tensors have no static types.
# Their tuples grow by concatenation, which Triton unrolls.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from inrcodec_kernels.backend import interpreted
from inrcodec_kernels.siren.reference import LARGEST

PRECISIONS = {"fp32": "ieee", "tf32": "tf32", "fp16": "fp16"}
"""How hidden layers are multiplied; sums are float32, and so are the first and the last layer and all sines."""
FRACTION_BITS = 20
"""Samples and shares are summed as integers of 2^-20: such sums do not depend on their order."""
SAMPLE_DTYPES = (torch.float32, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)

_TILES = 8  # tiles of a program, so that weights are read and dequantised once for as many
_PROGRAMS = 1024  # programs that fill any device; a constant, so that sums do not depend on the device
_CHUNK = 256  # parameters at once in Adam's update
_SAMPLES = 1024  # samples of a program of `finish`
_MOST_PARTS = 65535  # of a block, as CUDA's grids want

WIDEST, DEEPEST, AXES = 64, 6, (2, 4)
"""Neurons of a layer, sine layers, and axes that the kernels are made for."""


class Blocks(Protocol):
    """Boxes of one class: `origin` and `extent` (n, d) int32, in samples; `scale` and `mean` (n,) float32."""

    @property
    def origin(self) -> Tensor: ...
    @property
    def extent(self) -> Tensor: ...
    @property
    def scale(self) -> Tensor: ...
    @property
    def mean(self) -> Tensor: ...


class Networks(Protocol):
    """Quantised networks of one class; those of no widths are zero.

    `widths` of the sine layers; `quantised` (n, P) int32: all layers in raster order, the bias as last row; `steps`
    (n, L + 1) float32; `start` (n, (d + 1) w_1) float32, what is added to the first layer.
    """

    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def quantised(self) -> Tensor: ...
    @property
    def steps(self) -> Tensor: ...
    @property
    def start(self) -> Tensor: ...


# ---------------------------------------------------------------------------------------------------- arithmetic


@triton.jit
def _reduce(x):
    """``x = k pi + r``, ``|r| <= pi / 2``: r, and the sign ``(-1)^k`` as the highest bit of an integer.

    Adding 1.5 * 2^23 leaves k in the low bits of the float. 3217 / 1024 has 12 bits, so k times it is exact up to k = 4096,
    whether or not the compiler contracts the subtraction to a multiply-add.
    """
    shifted = x * 0.3183098861837907 + 12582912.0
    k = shifted - 12582912.0
    r = (x - k * 3.1416015625) - k * -8.90890987648163e-06
    return r, shifted.to(tl.int32, bitcast=True) << 31


@triton.jit
def _signed(value, sign):
    return (value.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _odd(r, s):
    """sin r for ``|r| <= pi / 2``, ``s = r^2``; near-minimax, 2.7e-8."""
    p = s * 2.6347917180119736e-06 - 0.00019822754031328406
    p = p * s + 0.008333242283300943
    p = p * s - 0.16666665966041216
    return r + (r * s) * p


@triton.jit
def _sine(x, FAST: tl.constexpr):
    """sin x, absolute error at most 2.5e-7 for ``|x| <= 100``; with FAST the device's own unit, 5e-7."""
    r, sign = _reduce(x)
    if FAST:
        value = tl.inline_asm_elementwise("sin.approx.f32 $0, $1;", "=f,f", [r], dtype=tl.float32, is_pure=True, pack=1)
    else:
        value = _odd(r, r * r)
    return _signed(value, sign)


@triton.jit
def _sine_cosine(x):
    """sin x and cos x from one reduction."""
    r, sign = _reduce(x)
    s = r * r
    p = s * -2.629769733334465e-07 + 2.4774590202595235e-05
    p = p * s - 0.0013888651833040362
    p = p * s + 0.041666659370468824
    p = p * s - 0.49999999964046854
    return _signed(_odd(r, s), sign), _signed(p * s + 1.0, sign)


@triton.jit
def _mix(x):
    """Murmur3's finaliser, a bijection of 32-bit integers that leaves no visible pattern."""
    x ^= x >> 16
    x *= 0x85EBCA6B
    x ^= x >> 13
    x *= 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    if PRECISION == "fp16":
        product = tl.dot(a.to(tl.float16), b.to(tl.float16))
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


# ------------------------------------------------------------------------------------------------------- layers
#
# WIDTHS = (d, w_1, ..., w_L, 1); PADS the same, hidden ones rounded up to a power of two of at least 16, as tl.dot wants;
# OFFSETS the first parameter of each layer. What pads a weight is 0, so padded neurons are sin 0 = 0 and get no gradient.


@triton.jit
def _row(layer, row, WIDTH: tl.constexpr, PAD: tl.constexpr):
    columns = tl.arange(0, PAD)
    return tl.load(layer + row * WIDTH + columns, mask=columns < WIDTH, other=0).to(tl.float32)


@triton.jit
def _first_layer(weights, WIDTHS: tl.constexpr, PADS: tl.constexpr):
    """Its rows, one by one: so few coordinates are multiplied without tl.dot."""
    rows = ()
    for a in tl.static_range(WIDTHS[0] + 1):
        rows = rows + (_row(weights, a, WIDTHS[1], PADS[1]),)
    return rows


@triton.jit
def _hidden_layer(weights, LAYER: tl.constexpr, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr):
    """Matrix and bias of layer LAYER + 1 of 2 ... L."""
    layer = weights + OFFSETS[LAYER]
    rows = tl.arange(0, PADS[LAYER])[:, None]
    columns = tl.arange(0, PADS[LAYER + 1])[None, :]
    there = (rows < WIDTHS[LAYER]) & (columns < WIDTHS[LAYER + 1])
    matrix = tl.load(layer + rows * WIDTHS[LAYER + 1] + columns, mask=there, other=0).to(tl.float32)
    return matrix, _row(layer, WIDTHS[LAYER], WIDTHS[LAYER + 1], PADS[LAYER + 1])


@triton.jit
def _last_layer(weights, DEPTH: tl.constexpr, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr):
    layer = weights + OFFSETS[DEPTH]
    bias = tl.load(layer + WIDTHS[DEPTH]).to(tl.float32)
    return _row(layer, 0, WIDTHS[DEPTH], PADS[DEPTH]), bias


@triton.jit
def _first_phase(points, rows, D: tl.constexpr):
    phase = rows[D][None, :]
    for a in tl.static_range(D):
        phase = phase + points[a][:, None] * rows[a][None, :]
    return phase


# --------------------------------------------------------------------------------------------------- reconstruct


@triton.jit
def _dequantised(
    quantised, steps, start,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """All layers of a network: the first, the hidden ones, the last."""
    step = tl.load(steps)
    first = ()
    for a in tl.static_range(WIDTHS[0] + 1):
        row = _row(quantised, a, WIDTHS[1], PADS[1]) * step + _row(start, a, WIDTHS[1], PADS[1])
        first = first + (row,)
    hidden = ()
    for i in tl.static_range(1, DEPTH):
        matrix, bias = _hidden_layer(quantised, i, WIDTHS, PADS, OFFSETS)
        step = tl.load(steps + i)
        hidden = hidden + ((matrix * step, bias * step),)
    row, bias = _last_layer(quantised, DEPTH, WIDTHS, PADS, OFFSETS)
    step = tl.load(steps + DEPTH)
    return first, hidden, (row * step, bias * step)


@triton.jit
def _evaluate(points, layers, D: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, FAST: tl.constexpr):
    """Value of a network at a tile of points."""
    first, hidden, last = layers
    h = _sine(_first_phase(points, first, D), FAST)
    for i in tl.static_range(DEPTH - 1):
        h = _sine(_dot(h, hidden[i][0], PRECISION) + hidden[i][1][None, :], FAST)
    return tl.sum(h * last[0][None, :], axis=1) + last[1]


@triton.jit
def _axes(origin, extent, box, D: tl.constexpr, HALO: tl.constexpr):
    """Along each axis the block's first sample within the box and their number, its origin and extent; and the count."""
    axes = ()
    count = 1
    for a in tl.static_range(D):
        begin = tl.load(origin + a)
        samples = tl.load(extent + a)
        low = tl.maximum(begin - HALO, 0)
        size = tl.maximum(tl.minimum(begin + samples + HALO, box[a]) - low, 0)
        axes = axes + ((low, size, begin, samples),)
        count = count * size
    return axes, count


@triton.jit
def _samples(index, axes, box, D: tl.constexpr, HALO: tl.constexpr):
    """Local coordinates of a block's samples, their offsets in the box, and the weight of the blend."""
    points = ()
    offset = tl.zeros_like(index).to(tl.int64)
    ramp = tl.full(index.shape, 1.0, tl.float32)
    stride = tl.full((), 1, tl.int64)
    for k in tl.static_range(D):
        low, size, begin, samples = axes[D - 1 - k]
        position = low + index % size
        index = index // size
        offset += position * stride
        stride = stride * box[D - 1 - k]
        local = position - begin
        points = ((2 * local + 1).to(tl.float32) / samples.to(tl.float32) - 1.0,) + points
        if HALO > 0:
            inside = tl.minimum(local, samples - 1 - local).to(tl.float32) + 0.5
            ramp *= tl.minimum(tl.maximum(inside / (2 * HALO) + 0.5, 0.0), 1.0)
    return points, offset, ramp


@triton.jit
def _store_samples(out, offset, value, limits, mask):
    """Store float64 values in units of the file: as they are, or rounded half to even and clipped.

    Adding and subtracting 1.5 * 2^52 rounds a float64 to an integer as the device rounds everything.
    """
    value += tl.load(limits)
    if out.dtype.element_ty != tl.float32:
        value = tl.minimum(tl.maximum(value, tl.load(limits + 1)), tl.load(limits + 2))
        value = ((value + 6755399441055744.0) - 6755399441055744.0).to(tl.int32)
    tl.store(out + offset, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _reconstruct_kernel(
    out, share, unsound, limits, box, origin, extent, scale, mean, quantised, steps, start,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, HALO: tl.constexpr,
    BITS: tl.constexpr, LARGEST: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Every ``num_programs(1)``-th tile of one block: added to the sums `out` and `share`, or without a halo stored."""
    D: tl.constexpr = WIDTHS[0]
    block = tl.program_id(0).to(tl.int64)
    if DEPTH > 0:
        quantised += block * OFFSETS[DEPTH + 1]
        layers = _dequantised(
            quantised, steps + block * (DEPTH + 1), start + block * OFFSETS[1], WIDTHS, PADS, OFFSETS, DEPTH
        )
    found_unsound = 0
    block_scale, block_mean = tl.load(scale + block), tl.load(mean + block)
    axes, count = _axes(origin + block * D, extent + block * D, box, D, HALO)
    for begin in range(tl.program_id(1) * TILE, count, tl.num_programs(1) * TILE):
        index = begin + tl.arange(0, TILE)
        mask = index < count
        points, offset, ramp = _samples(index, axes, box, D, HALO)
        value = block_mean + tl.zeros_like(ramp)
        if DEPTH > 0:
            output = _evaluate(points, layers, D, DEPTH, PRECISION, FAST)
            # NaN is not below anything.
            found_unsound |= tl.max(tl.where((tl.abs(output) < LARGEST) | ~mask, 0, 1))
            value += block_scale * output
        if HALO > 0:
            # Beyond any sample; what hostile weights may give would not fit the sums.
            value = tl.minimum(tl.maximum(value, -4294967296.0), 4294967296.0)
            # The value is weighted with the rounded share, so that a constant stays that constant.
            weight = tl.floor(ramp * (1 << BITS) + 0.5)
            total = tl.floor(value.to(tl.float64) * weight.to(tl.float64) + 0.5).to(tl.int64)
            tl.atomic_add(out + offset, total, mask=mask, sem="relaxed")
            tl.atomic_add(share + offset, weight.to(tl.int32), mask=mask, sem="relaxed")
        else:
            _store_samples(out, offset, value.to(tl.float64), limits, mask)
    if DEPTH > 0:
        tl.store(unsound, 1, mask=found_unsound != 0)


@triton.jit(do_not_specialize=["count"])
def _finish_kernel(out, total, share, limits, count, SAMPLES: tl.constexpr):
    """Blended samples: sums over shares."""
    offset = tl.program_id(0).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
    mask = offset < count
    weights = tl.maximum(tl.load(share + offset, mask=mask, other=1), 1)
    value = tl.load(total + offset, mask=mask, other=0).to(tl.float64) / weights.to(tl.float64)
    _store_samples(out, offset, value, limits, mask)


# ----------------------------------------------------------------------------------------------------- gradients


@triton.jit
def _no_gradients(WIDTHS: tl.constexpr, PADS: tl.constexpr, DEPTH: tl.constexpr):
    """Zeros like what `_add_gradients` sums: rows of the first layer, (matrix, bias) of each hidden one, the last."""
    first = ()
    for _ in tl.static_range(WIDTHS[0] + 1):
        first = first + (tl.full((PADS[1],), 0.0, tl.float32),)
    sums = (first,)
    for i in tl.static_range(1, DEPTH):
        sums = sums + ((tl.full((PADS[i], PADS[i + 1]), 0.0, tl.float32), tl.full((PADS[i + 1],), 0.0, tl.float32)),)
    return sums + ((tl.full((PADS[DEPTH],), 0.0, tl.float32), tl.full((), 0.0, tl.float32)),)


@triton.jit
def _add_gradients(
    sums, points, target, mask, weights,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Forward and backward through one tile: its squared error, and `sums` plus half of its gradient."""
    D: tl.constexpr = WIDTHS[0]
    h, c = _sine_cosine(_first_phase(points, _first_layer(weights, WIDTHS, PADS), D))
    kept = ((h, c),)
    for i in tl.static_range(1, DEPTH):
        matrix, bias = _hidden_layer(weights, i, WIDTHS, PADS, OFFSETS)
        h, c = _sine_cosine(_dot(h, matrix, PRECISION) + bias[None, :])
        kept = kept + ((h, c),)
    row, bias = _last_layer(weights, DEPTH, WIDTHS, PADS, OFFSETS)
    residual = tl.where(mask, tl.sum(h * row[None, :], axis=1) + bias - target, 0.0)
    error = tl.sum(residual * residual)

    added = ((sums[DEPTH][0] + tl.sum(h * residual[:, None], axis=0), sums[DEPTH][1] + tl.sum(residual)),)
    g = residual[:, None] * row[None, :]
    unit = 1.0
    if PRECISION == "fp16":  # whose smallest normal number is 6e-5: a tile's largest gradient is brought to 1
        unit = tl.maximum(tl.max(tl.abs(g)), 1e-30)
        g = g / unit
    g = g * c
    for k in tl.static_range(DEPTH - 1):
        below = kept[DEPTH - 2 - k]
        matrix, bias = _hidden_layer(weights, DEPTH - 1 - k, WIDTHS, PADS, OFFSETS)
        old = sums[DEPTH - 1 - k]
        product = _dot(tl.trans(below[0]), g, PRECISION)
        added = ((old[0] + unit * product, old[1] + unit * tl.sum(g, axis=0)),) + added
        g = _dot(g, tl.trans(matrix), PRECISION) * below[1]
    first = ()
    for a in tl.static_range(D):
        first = first + (sums[0][a] + unit * tl.sum(points[a][:, None] * g, axis=0),)
    first = first + (sums[0][D] + unit * tl.sum(g, axis=0),)
    return error, (first,) + added


@triton.jit
def _store_row(layer, row, values, WIDTH: tl.constexpr, PAD: tl.constexpr):
    columns = tl.arange(0, PAD)
    tl.store(layer + row * WIDTH + columns, values, mask=columns < WIDTH)


@triton.jit
def _store_gradients(
    gradients, sums, factor, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr
):
    for a in tl.static_range(WIDTHS[0] + 1):
        _store_row(gradients, a, sums[0][a] * factor, WIDTHS[1], PADS[1])
    for i in tl.static_range(1, DEPTH):
        layer = gradients + OFFSETS[i]
        rows = tl.arange(0, PADS[i])[:, None]
        columns = tl.arange(0, PADS[i + 1])[None, :]
        there = (rows < WIDTHS[i]) & (columns < WIDTHS[i + 1])
        tl.store(layer + rows * WIDTHS[i + 1] + columns, sums[i][0] * factor, mask=there)
        _store_row(layer, WIDTHS[i], sums[i][1] * factor, WIDTHS[i + 1], PADS[i + 1])
    layer = gradients + OFFSETS[DEPTH]
    _store_row(layer, 0, sums[DEPTH][0] * factor, WIDTHS[DEPTH], PADS[DEPTH])
    tl.store(layer + WIDTHS[DEPTH], sums[DEPTH][1] * factor)


@triton.jit(do_not_specialize=["count", "per_split"])
def _gradients_kernel(
    errors, gradients, weights, points, targets, count, per_split,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Error and gradient over one range of a block's points, tile after tile."""
    D: tl.constexpr = WIDTHS[0]
    block, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    weights += block * OFFSETS[DEPTH + 1]
    points += block * count * D
    targets += block * count
    part = block * tl.num_programs(1) + split
    end = tl.minimum((split + 1) * per_split, count)
    sums = _no_gradients(WIDTHS, PADS, DEPTH)
    squares = 0.0
    for begin in range(split * per_split, end, TILE):
        index = begin + tl.arange(0, TILE)
        mask = index < end
        tile = ()
        for a in tl.static_range(D):
            tile = tile + (tl.load(points + index * D + a, mask=mask, other=0.0),)
        target = tl.load(targets + index, mask=mask, other=0.0)
        error, sums = _add_gradients(sums, tile, target, mask, weights, WIDTHS, PADS, OFFSETS, DEPTH, PRECISION)
        squares += error
    tl.store(errors + part, squares / count)
    _store_gradients(
        gradients + part * OFFSETS[DEPTH + 1], sums, 2.0 / count.to(tl.float32), WIDTHS, PADS, OFFSETS, DEPTH
    )


# ----------------------------------------------------------------------------------------------------------- fit


@triton.jit
def _of_layer(values, number, OFFSETS: tl.constexpr, DEPTH: tl.constexpr):
    """The value of each parameter's layer."""
    found = tl.load(values) + tl.zeros_like(number).to(tl.float32)
    for i in tl.static_range(1, DEPTH + 1):
        found = tl.where(number >= OFFSETS[i], tl.load(values + i), found)
    return found


@triton.jit
def _disturb(noisy, weights, noise, key, step, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr):
    """Weights plus uniform noise, as wide as the quantiser's step."""
    stream = _mix(_mix(key ^ 0xA511E9B3) + step * 0x9E3779B9)
    for begin in range(0, OFFSETS[DEPTH + 1], CHUNK):
        number = begin + tl.arange(0, CHUNK)
        mask = number < OFFSETS[DEPTH + 1]
        u = _mix(stream + number.to(tl.uint32) * 0x85EBCA77)
        uniform = (u >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08 - 0.5
        value = tl.load(weights + number, mask=mask) + uniform * _of_layer(noise, number, OFFSETS, DEPTH)
        tl.store(noisy + number, value, mask=mask)


@triton.jit
def _draw(samples, begin, box, shift, unit, stream, index, mask, D: tl.constexpr):
    """Voxels drawn by number: their coordinates and samples."""
    volume = tl.load(box).to(tl.uint32)
    for a in tl.static_range(1, D):
        volume *= tl.load(box + a).to(tl.uint32)
    u = _mix(stream + index.to(tl.uint32) * 0x85EBCA77)
    flat = tl.umulhi(u, volume + tl.zeros_like(u))
    target = tl.load(samples + begin + flat.to(tl.int64), mask=mask, other=0.0)
    points = ()
    for k in tl.static_range(D):
        extent = tl.load(box + D - 1 - k).to(tl.uint32)
        along = (flat % extent).to(tl.int32).to(tl.float32)
        flat = flat // extent
        points = ((along + tl.load(shift + D - 1 - k)) * tl.load(unit + D - 1 - k) - 1.0,) + points
    return points, target


@triton.jit
def _key(key, block):
    return tl.load(key + block).to(tl.uint32, bitcast=True)


@triton.jit(do_not_specialize=["count"])
def _draw_kernel(
    points, targets, samples, begin, box, shift, unit, key, step, count, D: tl.constexpr, CHUNK: tl.constexpr
):
    """A chunk of the points that one block sees in the step whose number is in device memory."""
    block = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    mask = index < count
    stream = _mix(_mix(_key(key, block)) + tl.load(step).to(tl.uint32) * 0x9E3779B9)
    first = tl.load(begin + block).to(tl.int64)
    at, target = _draw(samples, first, box + block * D, shift + block * D, unit + block * D, stream, index, mask, D)
    index += block * count
    tl.store(targets + index, target, mask=mask)
    for a in tl.static_range(D):
        tl.store(points + index * D + a, at[a], mask=mask)


@triton.jit
def _disturb_kernel(
    noisy, weights, noise, key, step, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr
):
    """All weights of one block with the noise of the step whose number is in device memory."""
    block = tl.program_id(0).to(tl.int64)
    parameters = block * OFFSETS[DEPTH + 1]
    _disturb(
        noisy + parameters, weights + parameters, noise + block * (DEPTH + 1), _key(key, block),
        tl.load(step).to(tl.uint32), OFFSETS, DEPTH, CHUNK,
    )  # fmt: skip


@triton.jit
def _adam(
    weights, moment, square, gradients, noise, price, start, rate, correction,
    OFFSETS: tl.constexpr, DEPTH: tl.constexpr, PRICED: tl.constexpr, BETA1: tl.constexpr, BETA2: tl.constexpr,
    EPSILON: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One step of Adam on all parameters, with the gradient of the rate ``price * log2(1 + |w - start| / step)``."""
    for begin in range(0, OFFSETS[DEPTH + 1], CHUNK):
        number = begin + tl.arange(0, CHUNK)
        mask = number < OFFSETS[DEPTH + 1]
        w = tl.load(weights + number, mask=mask, other=0.0)
        g = tl.load(gradients + number, mask=mask, other=0.0)
        if PRICED:
            change = w - tl.load(start + number, mask=number < OFFSETS[1], other=0.0)
            slope = _of_layer(price, number, OFFSETS, DEPTH) * 1.4426950408889634
            slope = slope / (_of_layer(noise, number, OFFSETS, DEPTH) + tl.abs(change))
            g += tl.where(change > 0, slope, tl.where(change < 0, -slope, 0.0))
        m = BETA1 * tl.load(moment + number, mask=mask, other=0.0) + (1.0 - BETA1) * g
        v = BETA2 * tl.load(square + number, mask=mask, other=0.0) + (1.0 - BETA2) * g * g
        tl.store(moment + number, m, mask=mask)
        tl.store(square + number, v, mask=mask)
        tl.store(weights + number, w - rate * m / (tl.sqrt(v) * correction + EPSILON), mask=mask)


@triton.jit(do_not_specialize=["first", "done", "steps", "all_steps", "count"])
def _fit_kernel(
    errors, weights, moment, square, gradients, noisy, samples, begin, box, shift, unit, key, schedule,
    noise, price, start, first, done, steps, all_steps, count,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr, NOISY: tl.constexpr, PRICED: tl.constexpr, BETA1: tl.constexpr, BETA2: tl.constexpr,
    EPSILON: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Steps `done` to ``done + steps`` of a call, for one block; its threads hand each other what they write in device memory."""
    D: tl.constexpr = WIDTHS[0]
    block = tl.program_id(0).to(tl.int64)
    parameters = block * OFFSETS[DEPTH + 1]
    weights += parameters
    moment += parameters
    square += parameters
    gradients += parameters
    noise += block * (DEPTH + 1)
    read = weights
    if NOISY:
        noisy += parameters
        read = noisy
    block_begin = tl.load(begin + block).to(tl.int64)
    block_key = _key(key, block)
    for s in range(done, done + steps):
        step = (first + s).to(tl.uint32)
        if NOISY:
            _disturb(noisy, weights, noise, block_key, step, OFFSETS, DEPTH, CHUNK)
            tl.debug_barrier()
        stream = _mix(_mix(block_key) + step * 0x9E3779B9)
        sums = _no_gradients(WIDTHS, PADS, DEPTH)
        squares = 0.0
        for tile in range(0, count, TILE):
            index = tile + tl.arange(0, TILE)
            mask = index < count
            points, target = _draw(
                samples, block_begin, box + block * D, shift + block * D, unit + block * D, stream, index, mask, D
            )
            error, sums = _add_gradients(sums, points, target, mask, read, WIDTHS, PADS, OFFSETS, DEPTH, PRECISION)
            squares += error
        tl.store(errors + block * all_steps + s, squares / count)
        _store_gradients(gradients, sums, 2.0 / count.to(tl.float32), WIDTHS, PADS, OFFSETS, DEPTH)
        tl.debug_barrier()
        _adam(
            weights, moment, square, gradients, noise, price + block * (DEPTH + 1), start + block * OFFSETS[1],
            tl.load(schedule + 2 * s), tl.load(schedule + 2 * s + 1),
            OFFSETS, DEPTH, PRICED, BETA1, BETA2, EPSILON, CHUNK,
        )  # fmt: skip
        tl.debug_barrier()


@triton.jit(do_not_specialize=["size"])
def _orthonormal_kernel(out, matrices, size, EDGE: tl.constexpr):
    """Q of one matrix's QR decomposition by Householder's reflections, which give a whole basis of any matrix."""
    first = tl.program_id(0).to(tl.int64) * size * size
    edge = tl.arange(0, EDGE)
    rows, columns = edge[:, None], edge[None, :]
    at, there = rows * size + columns, (rows < size) & (columns < size)
    x = tl.load(matrices + first + at, mask=there, other=0.0)
    x = x / tl.maximum(tl.max(tl.max(tl.abs(x), axis=1)), 1e-30)
    q = tl.where(rows == columns, 1.0, tl.zeros_like(x))
    for k in range(size):
        column = tl.sum(tl.where(columns == k, x, 0.0), axis=1)
        column = tl.where(edge >= k, column, 0.0)
        norm = tl.sqrt(tl.sum(column * column))
        head = tl.sum(tl.where(edge == k, column, 0.0))
        moved = tl.where(head < 0, head - norm, head + norm)
        # Of length sqrt(2), so that a reflection is x - v (v x); a column that vanishes needs none.
        scale = tl.where(norm > 1e-15, 1.0 / tl.sqrt(tl.maximum(norm * tl.abs(moved), 1e-30)), 0.0)
        v = tl.where(edge == k, moved, column) * scale
        x -= v[:, None] * tl.sum(v[:, None] * x, axis=0)[None, :]
        q -= tl.sum(q * v[None, :], axis=1)[:, None] * v[None, :]
    tl.store(out + first + at, q, mask=there)


# --------------------------------------------------------------------------------------------- what others call


class Voxels(NamedTuple):
    """Where the samples of each of n blocks are, and the coordinates they have.

    Attributes
    ----------
    samples : Tensor, float32
        All samples, flat.
    begin : Tensor, shape (n,), int32 or int64
        First sample of each block's box.
    box : Tensor, shape (n, d), int32
        Extents of the boxes, whose samples lie in raster order.
    shift, unit : Tensor, shape (n, d), float32
        Coordinate of sample i along an axis: ``(i + shift) * unit - 1``.
    """

    samples: Tensor
    begin: Tensor
    box: Tensor
    shift: Tensor
    unit: Tensor


class Quantiser(NamedTuple):
    """What a fit knows of the quantiser to come.

    Attributes
    ----------
    step : Tensor, shape (n, L + 1), float32
        Step of each layer; larger than 0 where `price` is.
    noise : bool
        Whether weights are disturbed in each step, uniformly within half a step.
    price : Tensor, shape (n, L + 1), float32, or None
        The loss grows by ``price * log2(1 + |w - start| / step)`` for each undisturbed weight.
    start : Tensor, shape (n, (d + 1) w_1), float32, or None
        What the first layer is coded against; 0 if None, as for all other layers.
    """

    step: Tensor
    noise: bool = True
    price: Tensor | None = None
    start: Tensor | None = None


def accumulate(
    total: Tensor, share: Tensor, blocks: Blocks, networks: Networks, halo: int, *, precision: str = "fp32",
    fast_sine: bool = False, unsound: Tensor | None = None, largest: int | None = None,
) -> None:  # fmt: skip
    """Add the weighted samples of blocks that overlap by a halo, and their weights, to a box; `finish` divides.

    Sums are integers, so they do not depend on the order in which the device takes the blocks.

    Parameters
    ----------
    total : Tensor, shape of the box (2 to 4 axes), int64
        Sums of ramp times value, in units of 2^-`FRACTION_BITS`.
    share : Tensor, same shape, int32
        Sums of the ramps, in the same units.
    blocks, networks
        Boxes in the box's coordinates, may reach beyond it; their networks.
    halo : int
        At least 1, in samples; without a halo, see `place`.
    precision : str
        One of `PRECISIONS`.
    fast_sine : bool
        The device's own sine, 5e-7 instead of 2.5e-7; ignored by the interpreter.
    unsound : Tensor, shape (1,), int32, or None
        Set to 1 where a network gives what is not finite or not below `LARGEST`; left alone otherwise. The samples are
        then of no use.
    largest : int or None
        Samples of the largest block with its halo; None has the device count them, and waits for it.

    Raises
    ------
    ValueError
        If shapes, dtypes, widths, halo or precision are not such.
    """
    if halo < 1:
        raise ValueError(f"expected a halo of at least 1 sample, found {halo}; use place")
    if total.dtype != torch.int64 or share.dtype != torch.int32 or total.shape != share.shape:
        found = f"{total.dtype} {tuple(total.shape)} and {share.dtype} {tuple(share.shape)}"
        raise ValueError(f"expected sums of int64 and shares of int32 of one shape, found {found}; make them such")
    _reconstruct(total, share, total, blocks, networks, halo, precision, fast_sine, unsound, largest)


def place(
    out: Tensor, blocks: Blocks, networks: Networks, offset: float, low: float, high: float, *, precision: str = "fp32",
    fast_sine: bool = False, unsound: Tensor | None = None, largest: int | None = None,
) -> None:  # fmt: skip
    """Reconstruct blocks that do not overlap straight into samples of the file.

    Parameters
    ----------
    out : Tensor, shape of the box (2 to 4 axes)
        One of `SAMPLE_DTYPES`; samples outside all blocks are left as they are.
    blocks, networks, precision, fast_sine, unsound, largest
        As in `accumulate`.
    offset : float
        Added to every value.
    low, high : float
        Integers are rounded half to even and clipped to these; float32 samples are stored as they are.

    Raises
    ------
    ValueError
        If shapes, dtypes, widths or precision are not such.
    """
    _check_samples(out)
    limits = _limits(out, offset, low, high)
    _reconstruct(out, out, limits, blocks, networks, 0, precision, fast_sine, unsound, largest)


def finish(total: Tensor, share: Tensor, offset: float, low: float, high: float, out: Tensor) -> None:
    """Make samples of the file from the sums of `accumulate`; where no block has added anything, the offset.

    Parameters
    ----------
    total, share : Tensor
        As in `accumulate`.
    offset, low, high
        As in `place`.
    out : Tensor, same shape
        One of `SAMPLE_DTYPES`.

    Raises
    ------
    ValueError
        If the dtype or the shape of `out` is not such.
    """
    _check_samples(out)
    if out.shape != total.shape:
        raise ValueError(f"expected samples of shape {tuple(total.shape)}, found {tuple(out.shape)}; make them such")
    with _on(out):
        _finish_kernel[(triton.cdiv(out.numel(), _SAMPLES),)](
            out, total, share, _limits(out, offset, low, high), out.numel(), SAMPLES=_SAMPLES
        )


def loss_and_gradients(
    weights: Sequence[Tensor], points: Tensor, targets: Tensor, *, precision: str = "fp32"
) -> tuple[Tensor, list[Tensor]]:
    """Mean squared error of n networks, and the gradient of their sum; no activation is ever stored.

    Parameters
    ----------
    weights : sequence of Tensor, shape (n, n_in + 1, n_out), float32
        All layers, the bias as last row; the last n_out is 1.
    points : Tensor, shape (n, N, d), float32
    targets : Tensor, shape (n, N), float32
    precision : str
        One of `PRECISIONS`.

    Returns
    -------
    errors : Tensor, shape (n,)
        ``mean_j (net_k(x_j) - t_j)^2``
    gradients : list of Tensor
        Of the errors' sum, shaped like `weights`. Sums are taken in one order: same input, same bits.

    Raises
    ------
    ValueError
        If widths or precision are not such.
    """
    nodes, count, axes = points.shape
    layout = _layout(axes, [w.shape[-1] for w in weights[:-1]])
    program = _program(layout, training=True)
    tiles = triton.cdiv(count, program["TILE"])
    splits = max(1, min(_PROGRAMS // nodes, triton.cdiv(tiles, _TILES)))
    per_split = triton.cdiv(tiles, splits) * program["TILE"]
    splits = triton.cdiv(count, per_split)
    packed = torch.cat([w.flatten(1) for w in weights], dim=1)
    errors = points.new_empty(nodes, splits)
    gradients = points.new_empty(nodes, splits, packed.shape[1])
    with _on(points):
        _gradients_kernel[(nodes, splits)](
            errors, gradients, packed, points.contiguous(), targets.contiguous(), count, per_split,
            **layout, **program, PRECISION=_precision(precision),
        )  # fmt: skip
    flat = gradients.sum(1).split([w[0].numel() for w in weights], dim=1)
    return errors.sum(1), [g.reshape(w.shape) for g, w in zip(flat, weights, strict=True)]


def draw(voxels: Voxels, key: Tensor, step: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The samples that a step of the fit sees of each block, see README.md.

    Parameters
    ----------
    voxels : Voxels
    key : Tensor, shape (n,), int32 or uint32
    step : Tensor, shape (1,), int32
        Number of the step, on the device: so a CUDA graph of the launch draws anew.
    count : int

    Returns
    -------
    points : Tensor, shape (n, count, d), float32
    targets : Tensor, shape (n, count), float32
    """
    nodes, axes = voxels.box.shape
    points, targets = (voxels.samples.new_empty(nodes, count, *shape) for shape in ((axes,), ()))
    with _on(points):
        _draw_kernel[(nodes, triton.cdiv(count, _CHUNK))](
            points, targets, *(tensor.contiguous() for tensor in voxels), key, step, count, D=axes, CHUNK=_CHUNK
        )
    return points, targets


def disturbed(weights: Tensor, widths: Sequence[int], axes: int, noise: Tensor, key: Tensor, step: Tensor) -> Tensor:
    """Weights plus the quantiser's noise of a step.

    Parameters
    ----------
    weights : Tensor, shape (n, P), float32
        As in `fit_adam`.
    widths : sequence of int
        Of the sine layers.
    axes : int
    noise : Tensor, shape (n, L + 1), float32
        Step of each layer.
    key, step
        As in `draw`.
    """
    layout = _layout(axes, widths)
    _check_contiguous(weights, noise)
    noisy = torch.empty_like(weights)
    with _on(weights):
        _disturb_kernel[(len(weights),)](
            noisy, weights, noise, key, step, OFFSETS=layout["OFFSETS"], DEPTH=layout["DEPTH"], CHUNK=_CHUNK
        )
    return noisy


def orthonormal(matrices: Tensor) -> Tensor:
    """Orthonormal columns of n square matrices, those of their QR decompositions; torch's solver takes one after the other.

    Parameters
    ----------
    matrices : Tensor, shape (n, r, r), float32
        r at most 128.
    """
    size = matrices.shape[-1]
    edge = max(16, triton.next_power_of_2(size))
    out = torch.empty_like(matrices, memory_format=torch.contiguous_format)
    with _on(out):
        _orthonormal_kernel[(len(matrices),)](
            out, matrices.contiguous(), size, EDGE=edge, num_warps=1 if edge < 32 else edge // 8
        )
    return out


def fit_adam(
    weights: Tensor, moment: Tensor, square: Tensor, widths: Sequence[int], voxels: Voxels, key: Tensor,
    rates: Sequence[float], *, points: int, first: int = 0, quantiser: Quantiser | None = None,
    betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8, precision: str = "fp32",
    steps_per_launch: int = 100,
) -> Tensor:  # fmt: skip
    """Fit n networks by Adam on voxels drawn anew in every step, many steps in one launch.

    Parameters
    ----------
    weights : Tensor, shape (n, P), float32
        All layers one after the other in raster order, the bias as last row; changed in place.
    moment, square : Tensor, same shape
        Adam's state, 0 before step 0; changed in place.
    widths : sequence of int
        Of the sine layers.
    voxels : Voxels
    key : Tensor, shape (n,), int32 or uint32
        Seeds of the blocks' draws, see README.md.
    rates : sequence of float
        Learning rate of each step of this call.
    points : int
        Voxels drawn for each block and step.
    first : int
        Number of the first step: those of earlier calls.
    quantiser : Quantiser or None
    betas, epsilon
        As in Kingma & Ba.
    precision : str
        One of `PRECISIONS`.
    steps_per_launch : int
        A launch of many steps saves the host's time, but a device that also draws a screen may not like long ones.

    Returns
    -------
    Tensor, shape (n, len(rates))
        Mean squared error over the voxels of each step, without the rate.

    Raises
    ------
    ValueError
        If shapes, widths or precision are not such.

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980.
    """
    nodes, axes = voxels.box.shape
    layout = _layout(axes, widths)
    if weights.shape != (nodes, layout["OFFSETS"][-1]):
        expected = (nodes, layout["OFFSETS"][-1])
        raise ValueError(f"expected weights of shape {expected}, found {tuple(weights.shape)}; pack all layers")
    _check_contiguous(weights, moment, square)
    noisy = quantiser is not None and quantiser.noise
    price = quantiser.price if quantiser else None
    start = quantiser.start if quantiser else None
    if start is None:
        start = weights.new_zeros(nodes, layout["OFFSETS"][1])
    step = quantiser.step.contiguous() if quantiser else weights
    gradients = torch.empty_like(weights)
    errors = weights.new_empty(nodes, len(rates))
    schedule = _schedule(rates, first, betas).to(weights.device)
    with _on(weights):
        for done in range(0, len(rates), steps_per_launch):
            _fit_kernel[(nodes,)](
                errors, weights, moment, square, gradients, torch.empty_like(weights) if noisy else weights,
                *(tensor.contiguous() for tensor in voxels), key, schedule,
                step, weights if price is None else price.contiguous(), start.contiguous(),
                first, done, min(steps_per_launch, len(rates) - done), len(rates), points,
                **layout, **_program(layout, training=True), PRECISION=_precision(precision), NOISY=noisy,
                PRICED=price is not None, BETA1=betas[0], BETA2=betas[1], EPSILON=epsilon, CHUNK=_CHUNK,
            )  # fmt: skip
    return errors


def _schedule(rates: Sequence[float], first: int, betas: tuple[float, float]) -> Tensor:
    """For each step ``rate / (1 - beta_1^t)`` and ``1 / sqrt(1 - beta_2^t)``, in float64 before they are rounded."""
    t = torch.arange(first + 1, first + 1 + len(rates), dtype=torch.float64)
    rate = torch.as_tensor(rates, dtype=torch.float64) / (1 - betas[0] ** t)
    return torch.stack([rate, (1 - betas[1] ** t).rsqrt()], dim=1).float()


def _reconstruct(
    out: Tensor, share: Tensor, limits: Tensor, blocks: Blocks, networks: Networks, halo: int, precision: str,
    fast_sine: bool, unsound: Tensor | None, largest: int | None,
) -> None:  # fmt: skip
    nodes, axes = blocks.origin.shape
    if out.ndim != axes:
        raise ValueError(f"expected a box of {axes} axes, as the blocks have, found {out.ndim}; reshape it")
    _check_contiguous(out, share)
    layout = _layout(axes, networks.widths, constant=not networks.widths)
    program = _program(layout, training=False)
    if largest is None:
        largest = int((blocks.extent.long() + 2 * halo).prod(1).max())
    parts = min(triton.cdiv(largest, program["TILE"] * _TILES), _MOST_PARTS)
    if unsound is None:
        unsound = out.new_empty(1, dtype=torch.int32)
    # Constants have no numbers: the kernel reads none.
    numbers = (networks.quantised, networks.steps, networks.start) if networks.widths else (blocks.mean,) * 3
    with _on(out):
        _reconstruct_kernel[(nodes, parts)](
            out, share, unsound, limits, tuple(out.shape),
            blocks.origin.contiguous(), blocks.extent.contiguous(), blocks.scale.contiguous(), blocks.mean.contiguous(),
            *(tensor.contiguous() for tensor in numbers), **layout, **program, HALO=halo, BITS=FRACTION_BITS,
            LARGEST=LARGEST, PRECISION=_precision(precision), FAST=fast_sine and not interpreted(),
        )  # fmt: skip


def lacking(axes: int, widths: Sequence[int]) -> str:
    """Why a class has no kernels; empty if it has."""
    if not AXES[0] <= axes <= AXES[1]:
        return f"expected {AXES[0]} to {AXES[1]} axes, found {axes}"
    if not 1 <= len(widths) <= DEEPEST or not all(2 <= width <= WIDEST for width in widths):
        return f"expected 1 to {DEEPEST} sine layers of 2 to {WIDEST} neurons, found {tuple(widths)}"
    return ""


def _layout(axes: int, widths: Sequence[int], constant: bool = False) -> dict[str, Any]:
    """The constants of a class, as kernels take them; of no layer at all if that is meant."""
    if reason := lacking(axes, (2,) if constant else widths):
        raise ValueError(f"{reason}; use another backend")
    if constant:
        return {"WIDTHS": (axes,), "PADS": (axes,), "OFFSETS": (0, 0), "DEPTH": 0}
    every = (axes, *widths, 1)
    sizes = [(a + 1) * b for a, b in itertools.pairwise(every)]
    return {
        "WIDTHS": every,
        "PADS": (axes, *(max(16, triton.next_power_of_2(width)) for width in widths), 1),
        "OFFSETS": (0, *itertools.accumulate(sizes)),
        "DEPTH": len(widths),
    }


def _program(layout: Mapping[str, Any], *, training: bool) -> dict[str, int]:
    """Points of a tile and warps: as many as registers hold without spilling, by ptxas' count (see README.md)."""
    widest = max(layout["PADS"])
    if training:
        return {"TILE": 16, "num_warps": widest // 8}
    return {"TILE": 32 if widest == 64 else 64, "num_warps": 8 if widest == 64 else 4}


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"expected a precision of {', '.join(PRECISIONS)}, found {name!r}; choose one of these")
    return PRECISIONS[name]


def _check_samples(out: Tensor) -> None:
    if out.dtype not in SAMPLE_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in SAMPLE_DTYPES)
        raise ValueError(f"expected samples of {names}, found {out.dtype}; convert afterwards")
    _check_contiguous(out)


def _check_contiguous(*tensors: Tensor) -> None:
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("expected contiguous tensors to write to, found strided ones; make them contiguous")


def _limits(out: Tensor, offset: float, low: float, high: float) -> Tensor:
    """As a tensor, because Triton rounds scalars to float32."""
    return torch.tensor([offset, low, high], dtype=torch.float64, device=out.device)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def compile_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    """Typical classes for a compiler without a device: name, kernel, types of the arguments, constants, warps.

    See ``bench/compile_report.py``.
    """
    classes = [((16, 16, 16), "fp32"), *(((32, 32, 32, 32), name) for name in PRECISIONS), ((64, 48, 40), "fp32")]
    every = [case for widths, name in classes for case in _class_cases(3, widths, name)]
    return [_finish_case(), _constants_case(3), *_step_cases(3, (32, 32, 32, 32)), *every]


def _class_cases(
    axes: int, widths: Sequence[int], precision: str
) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    floats = dict.fromkeys(("errors", "gradients", "weights", "points", "targets"), "*fp32")
    rebuilt = _rebuilt_types(axes)
    fitted = {
        **dict.fromkeys(("errors", "weights", "moment", "square", "gradients", "noisy", "schedule"), "*fp32"),
        **_VOXEL_TYPES,
        **dict.fromkeys(("noise", "price", "start"), "*fp32"),
        **dict.fromkeys(("first", "done", "steps", "all_steps", "count"), "i32"),
    }
    blend = _BLEND
    sharp = {"HALO": 0, "FAST": True}
    adam = {"NOISY": True, "PRICED": True, "BETA1": 0.9, "BETA2": 0.999, "EPSILON": 1e-8, "CHUNK": _CHUNK}
    layout = _layout(axes, widths)
    title = f"{axes}-{'-'.join(map(str, widths))}-1, {precision}"
    for name, kernel, types, constants, training in (
        ("accumulate", _reconstruct_kernel, {**rebuilt, "out": "*i64"}, blend, False),
        ("place, fast sine", _reconstruct_kernel, {**rebuilt, "out": "*u16"}, {**blend, **sharp}, False),
        ("loss_and_gradients", _gradients_kernel, {**floats, "count": "i32", "per_split": "i32"}, {}, True),
        ("fit_adam", _fit_kernel, fitted, adam, True),
    ):
        program = _program(layout, training=training)
        known = {**layout, **constants, "PRECISION": _precision(precision), "TILE": program["TILE"]}
        yield f"{name}, {title}", kernel, types, known, program["num_warps"]


_VOXEL_TYPES = {"samples": "*fp32", "begin": "*i64", "box": "*i32", "shift": "*fp32", "unit": "*fp32", "key": "*i32"}
_BLEND = {"BITS": FRACTION_BITS, "LARGEST": LARGEST, "HALO": 2, "FAST": False}


def _rebuilt_types(axes: int) -> dict[str, Any]:
    box = {"limits": "*fp64", "box": ("i32",) * axes, "share": "*i32", "unsound": "*i32"}
    blocks = {"origin": "*i32", "extent": "*i32", "scale": "*fp32", "mean": "*fp32"}
    return {**box, **blocks, "quantised": "*i32", "steps": "*fp32", "start": "*fp32"}


def _constants_case(axes: int) -> tuple[str, Any, dict[str, Any], dict[str, Any], int]:
    layout = _layout(axes, (), constant=True)
    program = _program(layout, training=False)
    types = {**_rebuilt_types(axes), "quantised": "*fp32", "out": "*i64"}
    known = {**layout, **_BLEND, "PRECISION": PRECISIONS["fp32"], "TILE": program["TILE"]}
    return "accumulate, constants", _reconstruct_kernel, types, known, program["num_warps"]


def _step_cases(
    axes: int, widths: Sequence[int]
) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    step = {"step": "*i32"}
    types = {**_VOXEL_TYPES, **step, "points": "*fp32", "targets": "*fp32", "count": "i32"}
    for edge, warps in ((32, 4), (64, 8), (128, 16)):
        arrays = {"out": "*fp32", "matrices": "*fp32", "size": "i32"}
        yield f"orthonormal, {edge}", _orthonormal_kernel, arrays, {"EDGE": edge}, warps
    yield "draw", _draw_kernel, types, {"D": axes, "CHUNK": _CHUNK}, 4
    layout = _layout(axes, widths)
    types = {**dict.fromkeys(("noisy", "weights", "noise"), "*fp32"), **step, "key": "*i32"}
    known = {"OFFSETS": layout["OFFSETS"], "DEPTH": layout["DEPTH"], "CHUNK": _CHUNK}
    yield "disturbed", _disturb_kernel, types, known, 4


def _finish_case() -> tuple[str, Any, dict[str, Any], dict[str, Any], int]:
    types = {"out": "*u16", "total": "*i64", "share": "*i32", "limits": "*fp64", "count": "i32"}
    return "finish", _finish_kernel, types, {"SAMPLES": _SAMPLES}, 4
