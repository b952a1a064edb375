"""The kernels of sine networks: samples and their sums, gradients, draws, fits, orthonormal bases; `triton` launches them."""

# Annotations of kernels are directions to Triton's compiler; its tensors have no static types.
# Their tuples grow by concatenation, which Triton unrolls.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .triton_network import (
    evaluate,
    first_layer,
    first_phase,
    hidden_layer,
    last_layer,
    mix,
    multiply,
    read_quantised,
    sine_and_cosine,
)


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
def reconstruct_kernel(
    out, share, unsound, limits, box, origin, extent, scale, mean, quantised, steps, start,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr, HALO: tl.constexpr,
    BITS: tl.constexpr, LARGEST: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Every ``num_programs(1)``-th tile of one block: added to the sums `out` and `share`, or without a halo stored."""
    D: tl.constexpr = WIDTHS[0]
    block = tl.program_id(0).to(tl.int64)
    if DEPTH > 0:
        quantised += block * OFFSETS[DEPTH + 1]
        layers = read_quantised(
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
            output = evaluate(points, layers, D, DEPTH, PRECISION, FAST)
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
def finish_kernel(out, total, share, limits, count, SAMPLES: tl.constexpr):
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
    h, c = sine_and_cosine(first_phase(points, first_layer(weights, WIDTHS, PADS), D))
    kept = ((h, c),)
    for i in tl.static_range(1, DEPTH):
        matrix, bias = hidden_layer(weights, i, WIDTHS, PADS, OFFSETS)
        h, c = sine_and_cosine(multiply(h, matrix, PRECISION) + bias[None, :])
        kept = kept + ((h, c),)
    row, bias = last_layer(weights, DEPTH, WIDTHS, PADS, OFFSETS)
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
        matrix, bias = hidden_layer(weights, DEPTH - 1 - k, WIDTHS, PADS, OFFSETS)
        old = sums[DEPTH - 1 - k]
        product = multiply(tl.trans(below[0]), g, PRECISION)
        added = ((old[0] + unit * product, old[1] + unit * tl.sum(g, axis=0)),) + added
        g = multiply(g, tl.trans(matrix), PRECISION) * below[1]
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
def gradients_kernel(
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
    stream = mix(mix(key ^ 0xA511E9B3) + step * 0x9E3779B9)
    for begin in range(0, OFFSETS[DEPTH + 1], CHUNK):
        number = begin + tl.arange(0, CHUNK)
        mask = number < OFFSETS[DEPTH + 1]
        u = mix(stream + number.to(tl.uint32) * 0x85EBCA77)
        uniform = (u >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08 - 0.5
        value = tl.load(weights + number, mask=mask) + uniform * _of_layer(noise, number, OFFSETS, DEPTH)
        tl.store(noisy + number, value, mask=mask)


@triton.jit
def _draw(samples, begin, box, shift, unit, stream, index, mask, D: tl.constexpr):
    """Voxels drawn by number: their coordinates and samples."""
    volume = tl.load(box).to(tl.uint32)
    for a in tl.static_range(1, D):
        volume *= tl.load(box + a).to(tl.uint32)
    u = mix(stream + index.to(tl.uint32) * 0x85EBCA77)
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
def draw_kernel(
    points, targets, samples, begin, box, shift, unit, key, step, count, D: tl.constexpr, CHUNK: tl.constexpr
):
    """A chunk of the points that one block sees in the step whose number is in device memory."""
    block = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    mask = index < count
    stream = mix(mix(_key(key, block)) + tl.load(step).to(tl.uint32) * 0x9E3779B9)
    first = tl.load(begin + block).to(tl.int64)
    at, target = _draw(samples, first, box + block * D, shift + block * D, unit + block * D, stream, index, mask, D)
    index += block * count
    tl.store(targets + index, target, mask=mask)
    for a in tl.static_range(D):
        tl.store(points + index * D + a, at[a], mask=mask)


@triton.jit
def disturb_kernel(
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
def fit_kernel(
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
        stream = mix(mix(block_key) + step * 0x9E3779B9)
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
def orthonormal_kernel(out, matrices, size, EDGE: tl.constexpr):
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
