"""The kernels of chains: moments, derivatives by all layers, leaves of their own networks, leaves of a shared basis."""

# Annotations of kernels are directions to Triton's compiler; its tensors have no static types.
# Their tuples grow by concatenation, which Triton unrolls.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from ..siren.triton_network import first_layer, first_phase, read_row, sine, sine_and_cosine
from ..stored import stored

# WIDTHS = (d, w_1, ..., w_L); PADS the same, all but d rounded up to a power of two of at least 16, as tl.dot wants; OFFSETS
# the first parameter of each layer; JOINED whether it reads the point. What pads a weight is 0, so padded neurons are 0.


@triton.jit
def _matrix(layer, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAD_ROWS: tl.constexpr, PAD_COLUMNS: tl.constexpr):
    rows = tl.arange(0, PAD_ROWS)[:, None]
    columns = tl.arange(0, PAD_COLUMNS)[None, :]
    return tl.load(layer + rows * COLUMNS + columns, mask=(rows < ROWS) & (columns < COLUMNS), other=0.0)


@triton.jit
def _layer_matrix(weights, LAYER: tl.constexpr, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr):
    """Weights of the activations that layer LAYER + 1 of 2 ... L reads."""
    return _matrix(weights + OFFSETS[LAYER], WIDTHS[LAYER], WIDTHS[LAYER + 1], PADS[LAYER], PADS[LAYER + 1])


@triton.jit
def _tile(points, index, mask, D: tl.constexpr):
    tile = ()
    for a in tl.static_range(D):
        tile = tile + (tl.load(points + index * D + a, mask=mask, other=0.0),)
    return tile


@triton.jit
def _phase(
    h, points, weights, LAYER: tl.constexpr,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr,
):  # fmt: skip
    """Arguments of the sines of layer LAYER + 1 of 2 ... L."""
    D: tl.constexpr = WIDTHS[0]
    layer = weights + OFFSETS[LAYER]
    matrix = _layer_matrix(weights, LAYER, WIDTHS, PADS, OFFSETS)
    row: tl.constexpr = WIDTHS[LAYER]
    phase = tl.dot(h, matrix, input_precision="ieee")
    if JOINED[LAYER]:
        for a in tl.static_range(D):
            phase += points[a][:, None] * read_row(layer, row + a, WIDTHS[LAYER + 1], PADS[LAYER + 1])[None, :]
        phase += read_row(layer, row + D, WIDTHS[LAYER + 1], PADS[LAYER + 1])[None, :]
    else:
        phase += read_row(layer, row, WIDTHS[LAYER + 1], PADS[LAYER + 1])[None, :]
    return phase


@triton.jit
def _activations(
    points, weights,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of the last layer, at a tile of points."""
    h = sine(first_phase(points, first_layer(weights, WIDTHS, PADS), WIDTHS[0]), False)
    for i in tl.static_range(1, DEPTH):
        h = sine(_phase(h, points, weights, i, WIDTHS, PADS, OFFSETS, JOINED), False)
    return h


@triton.jit(do_not_specialize=["count", "per_split"])
def moments_kernel(
    found, weights, points, targets, count, per_split,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Sums over one range of a chain's points: Gram matrix, its first column, and products with the targets as the last."""
    D: tl.constexpr = WIDTHS[0]
    N: tl.constexpr = WIDTHS[DEPTH]
    PAD: tl.constexpr = PADS[DEPTH]
    block, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    weights += block * OFFSETS[DEPTH]
    targets += block * count
    end = tl.minimum((split + 1) * per_split, count)
    gram = tl.full((PAD, PAD), 0.0, tl.float64)
    sums = tl.full((PAD,), 0.0, tl.float64)
    products = tl.full((PAD,), 0.0, tl.float64)
    total = tl.full((), 0.0, tl.float64)
    for begin in range(split * per_split, end, TILE):
        index = begin + tl.arange(0, TILE)
        mask = index < end
        h = _activations(_tile(points, index, mask, D), weights, WIDTHS, PADS, OFFSETS, JOINED, DEPTH)
        wide = tl.where(mask[:, None], h, 0.0).to(tl.float64)
        target = tl.load(targets + index, mask=mask, other=0.0).to(tl.float64)
        gram = tl.dot(tl.trans(wide), wide, acc=gram, out_dtype=tl.float64)
        sums += tl.sum(wide, axis=0)
        products += tl.sum(wide * target[:, None], axis=0)
        total += tl.sum(target)
    found += (block * tl.num_programs(1) + split) * (N + 1) * (N + 2)
    rows = tl.arange(0, PAD)
    there = rows < N
    at = (rows[:, None] + 1) * (N + 2) + rows[None, :] + 1
    tl.store(found + at, gram, mask=there[:, None] & there[None, :])
    tl.store(found + (rows + 1) * (N + 2), sums, mask=there)
    tl.store(found + (rows + 1) * (N + 2) + N + 1, products, mask=there)
    tl.store(found, (end - split * per_split).to(tl.float64))
    tl.store(found + N + 1, total)


@triton.jit
def _no_gradients(WIDTHS: tl.constexpr, PADS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr):
    """Zeros like what `_add_gradients` sums: of each layer its matrix, which the first has not, and its other rows."""
    D: tl.constexpr = WIDTHS[0]
    sums = ()
    for i in tl.static_range(DEPTH):
        rows = (tl.full((PADS[i + 1],), 0.0, tl.float32),)
        if JOINED[i]:
            for _ in tl.static_range(D):
                rows = rows + (tl.full((PADS[i + 1],), 0.0, tl.float32),)
        matrix = tl.full((PADS[i], PADS[i + 1]), 0.0, tl.float32) if i > 0 else 0
        sums = sums + ((matrix, rows),)
    return sums


@triton.jit
def _added_rows(rows, points, g, D: tl.constexpr, READS: tl.constexpr):
    """Sums of a layer's rows that are no activations': the bias's first, then the coordinates'."""
    found = (rows[0] + tl.sum(g, axis=0),)
    if READS:
        for a in tl.static_range(D):
            found = found + (rows[1 + a] + tl.sum(points[a][:, None] * g, axis=0),)
    return found


@triton.jit
def _add_gradients(
    sums, points, target, mask, weights, head,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Forward and backward through one tile."""
    D: tl.constexpr = WIDTHS[0]
    N: tl.constexpr = WIDTHS[DEPTH]
    PAD: tl.constexpr = PADS[DEPTH]
    h, c = sine_and_cosine(first_phase(points, first_layer(weights, WIDTHS, PADS), D))
    kept = ((h, c),)
    for i in tl.static_range(1, DEPTH):
        h, c = sine_and_cosine(_phase(h, points, weights, i, WIDTHS, PADS, OFFSETS, JOINED))
        kept = kept + ((h, c),)
    g = tl.dot(h, _matrix(head, N, N, PAD, PAD), input_precision="ieee")
    g += target[:, None] * read_row(head, N, N, PAD)[None, :] + read_row(head, N + 1, N, PAD)[None, :]
    g = tl.where(mask[:, None], g, 0.0) * c
    added = ()
    for k in tl.static_range(DEPTH - 1):
        below = kept[DEPTH - 2 - k]
        old = sums[DEPTH - 1 - k]
        product = old[0] + tl.dot(tl.trans(below[0]), g, input_precision="ieee")
        added = ((product, _added_rows(old[1], points, g, D, JOINED[DEPTH - 1 - k])),) + added
        matrix = _layer_matrix(weights, DEPTH - 1 - k, WIDTHS, PADS, OFFSETS)
        g = tl.dot(g, tl.trans(matrix), input_precision="ieee") * below[1]
    return ((sums[0][0], _added_rows(sums[0][1], points, g, D, True)),) + added


@triton.jit
def _store_row(layer, row, values, WIDTH: tl.constexpr, PAD: tl.constexpr):
    columns = tl.arange(0, PAD)
    tl.store(layer + row * WIDTH + columns, values, mask=columns < WIDTH)


@triton.jit
def _store_rows(layer, rows, first, WIDTH: tl.constexpr, PAD: tl.constexpr, D: tl.constexpr, READS: tl.constexpr):
    """A layer's rows from number `first` on: the coordinates' if it reads them, and the bias's."""
    if READS:
        for a in tl.static_range(D):
            _store_row(layer, first + a, rows[1 + a], WIDTH, PAD)
        _store_row(layer, first + D, rows[0], WIDTH, PAD)
    else:
        _store_row(layer, first, rows[0], WIDTH, PAD)


@triton.jit
def _store_gradients(
    gradients, sums,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    _store_rows(gradients, sums[0][1], 0, WIDTHS[1], PADS[1], WIDTHS[0], True)
    for i in tl.static_range(1, DEPTH):
        layer = gradients + OFFSETS[i]
        rows = tl.arange(0, PADS[i])[:, None]
        columns = tl.arange(0, PADS[i + 1])[None, :]
        there = (rows < WIDTHS[i]) & (columns < WIDTHS[i + 1])
        tl.store(layer + rows * WIDTHS[i + 1] + columns, sums[i][0], mask=there)
        _store_rows(layer, sums[i][1], WIDTHS[i], WIDTHS[i + 1], PADS[i + 1], WIDTHS[0], JOINED[i])


@triton.jit(do_not_specialize=["count", "per_split"])
def pullback_kernel(
    gradients, weights, points, targets, head, count, per_split,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Gradient over one range of a chain's points, tile after tile."""
    D: tl.constexpr = WIDTHS[0]
    N: tl.constexpr = WIDTHS[DEPTH]
    block, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    weights += block * OFFSETS[DEPTH]
    targets += block * count
    head += block * (N + 2) * N
    end = tl.minimum((split + 1) * per_split, count)
    sums = _no_gradients(WIDTHS, PADS, JOINED, DEPTH)
    for begin in range(split * per_split, end, TILE):
        index = begin + tl.arange(0, TILE)
        mask = index < end
        tile = _tile(points, index, mask, D)
        target = tl.load(targets + index, mask=mask, other=0.0)
        sums = _add_gradients(sums, tile, target, mask, weights, head, WIDTHS, PADS, OFFSETS, JOINED, DEPTH)
    gradients += (block * tl.num_programs(1) + split) * OFFSETS[DEPTH]
    _store_gradients(gradients, sums, WIDTHS, PADS, OFFSETS, JOINED, DEPTH)


@triton.jit
def _offsets(index, known, corner, box, stride, cell):
    """Where samples `index` of leaves lie in a box of four axes, and whether they do."""
    offset = tl.zeros_like(index).to(tl.int64)
    for k in tl.static_range(4):
        at = tl.load(corner + 3 - k) + index % cell[3 - k]
        index = index // cell[3 - k]
        known &= (at >= 0) & (at < box[3 - k])
        offset += at.to(tl.int64) * stride[3 - k]
    return offset, known


@triton.jit
def _store_samples(out, offset, value, known, low, high, INTEGER: tl.constexpr):
    if INTEGER:
        tl.store(out + offset, stored(value, low, high).to(out.dtype.element_ty), mask=known)
    else:
        tl.store(out + offset, value, mask=known)


@triton.jit(do_not_specialize=["count", "offset", "low", "high"])
def write_kernel(
    out, corner, box, stride, cell, weights, points, readouts, count, offset, low, high,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, JOINED: tl.constexpr, DEPTH: tl.constexpr,
    TILE: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """Every ``num_programs(1)``-th tile of one leaf."""
    N: tl.constexpr = WIDTHS[DEPTH]
    leaf = tl.program_id(0).to(tl.int64)
    weights += leaf * OFFSETS[DEPTH]
    readouts += leaf * (N + 1)
    constant, row = tl.load(readouts), read_row(readouts + 1, 0, N, PADS[DEPTH])
    for begin in range(tl.program_id(1) * TILE, count, tl.num_programs(1) * TILE):
        index = begin + tl.arange(0, TILE)
        mask = index < count
        h = _activations(_tile(points, index, mask, WIDTHS[0]), weights, WIDTHS, PADS, OFFSETS, JOINED, DEPTH)
        value = tl.sum(h * row[None, :], axis=1) + constant + offset
        there, known = _offsets(index, mask, corner + leaf * 4, box, stride, cell)
        _store_samples(out, there, value, known, low, high, INTEGER)


@triton.jit(do_not_specialize=["count", "width", "leaves", "offset", "low", "high"])
def mix_kernel(
    out, corner, box, stride, cell, basis, coefficients, count, width, leaves, offset, low, high,
    LEAVES: tl.constexpr, POINTS: tl.constexpr, COLUMNS: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """A tile of points of several leaves: a product of their coefficients with rows of the basis."""
    leaf = tl.program_id(0) * LEAVES + tl.arange(0, LEAVES)
    index = tl.program_id(1) * POINTS + tl.arange(0, POINTS)
    samples = tl.full((LEAVES, POINTS), 0.0, tl.float32)
    rows = leaf.to(tl.int64)[:, None] * width
    lines = index.to(tl.int64)[None, :] * width
    for begin in range(0, width, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        own = tl.load(coefficients + rows + column[None, :], mask=(leaf < leaves)[:, None] & (column < width)[None, :], other=0.0)
        wave = tl.load(basis + lines + column[:, None], mask=(index < count)[None, :] & (column < width)[:, None], other=0.0)
        samples = tl.dot(own, wave, samples, input_precision="ieee")
    known = (leaf < leaves)[:, None] & (index < count)[None, :]
    offsets = tl.zeros((LEAVES, POINTS), dtype=tl.int64)
    for k in tl.static_range(4):
        at = tl.load(corner + leaf * 4 + 3 - k, mask=leaf < leaves, other=0)[:, None] + (index % cell[3 - k])[None, :]
        index = index // cell[3 - k]
        known &= (at >= 0) & (at < box[3 - k])
        offsets += at.to(tl.int64) * stride[3 - k]
    _store_samples(out, offsets, samples + offset, known, low, high, INTEGER)
