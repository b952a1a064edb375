"""Contexts and coding of tiles compiled by Numba; `context` and `context_coder` say what every function computes."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..rans import CodedError, check_end, first_states, joined
from ..rans.cpu import _bits, _put_excess, _read_escape, encode, step
from ..vectors import INNER
from .context import (
    LARGEST,
    LIMIT,
    Extents,
    Flags,
    IntegerContext,
    Tile,
    check_extents,
    check_latents,
    check_tile,
)
from .context_tables import laplace_tables
from .context_walk import BLOCK, Ints, Layers, Walk, begin, enter, last_stage, prepare, row_length

MOST_PLAIN_BITS = 28
"""Of an escape: a sign, and 5 and up to 21 for a number of its size; one to spare."""


def parents(
    coarse: NDArray[np.int32], coarser_parents: NDArray[np.int16] | None, halved: Flags, shape: Extents, units: int
) -> tuple[NDArray[np.int16], NDArray[np.int16] | None]:
    """As `context.parents`."""
    check_extents(coarse, coarser_parents, halved, shape)
    flags = np.array(halved, dtype=np.int64)
    u = np.empty(shape, dtype=np.int16)
    _upsample(coarse, flags, LARGEST, units, u)
    if coarser_parents is None:
        return u, None
    v = np.empty(shape, dtype=np.int16)
    _upsample(coarser_parents.astype(np.int32), flags, LARGEST * units, 1, v)
    return u, v


def predictions(
    latents: NDArray[np.int32], tile: Tile, network: IntegerContext
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """As `context.predictions`."""
    order, centres, table, _ = _all_contexts(latents, tile, network)
    means, scales = np.empty(latents.size, dtype=np.int32), np.empty(latents.size, dtype=np.int32)
    units = network.units
    means[order] = units * centres + table % units - units // 2
    scales[order] = table // units
    return means.reshape(tile.shape), scales.reshape(tile.shape)


def tile_bits(latents: NDArray[np.int32], tile: Tile, network: IntegerContext) -> float:
    """As `context_coder.tile_bits`."""
    order, centres, table, _ = _all_contexts(latents, tile, network)
    if not latents.any():
        return 0.0
    return float(_count_bits(latents.ravel(), order, centres, table, laplace_tables(network.units)))


def encode_tile(latents: NDArray[np.int32], tile: Tile, network: IntegerContext, lanes: int) -> bytes:
    """As `context_coder.encode_tile`."""
    check_tile(tile, network)
    check_latents(latents, tile)
    if not latents.any():
        return b""
    order, centres, table, sizes = _all_contexts(latents, tile, network)
    laplace, flat = laplace_tables(network.units), latents.ravel()
    escapes = np.count_nonzero(np.abs(flat[order] - centres) > laplace.reach[table])
    intervals, lane = np.empty((2, latents.size), dtype=np.uint32), np.empty(latents.size, dtype=np.uint8)
    bits = np.empty(MOST_PLAIN_BITS * escapes, dtype=np.uint8)
    _fill_lanes(sizes, lanes, lane)
    used = _intervals(flat, order, centres, table, laplace, intervals, bits)
    return joined(encode(intervals, lane, lanes), bits[:used])


def decode_tile(data: NDArray[np.uint8], tile: Tile, network: IntegerContext, lanes: int) -> NDArray[np.int32]:
    """As `context_coder.decode_tile`."""
    check_tile(tile, network)
    found = np.zeros(tile.shape, dtype=np.int32)
    if not len(data):
        return found
    states = first_states(data, lanes)
    walk, layers = Walk.of(tile, network), Layers.of(network, tile)
    most = row_length(tile.shape)
    table, centres = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.int32)
    at, bit = _decode(data, states, found.ravel(), walk, layers, laplace_tables(network.units), table, centres)
    if bit < 0:
        raise CodedError
    check_end(len(data), at, bit, states)
    return found


def _all_contexts(
    latents: NDArray[np.int32], tile: Tile, network: IntegerContext
) -> tuple[Ints, NDArray[np.int32], NDArray[np.int32], Ints]:
    """Flat positions in coding order, the centres and tables there, and how many latents each stage has."""
    check_tile(tile, network)
    check_latents(latents, tile)
    order, room = np.empty(latents.size, dtype=np.int64), latents.size + BLOCK
    centres, table = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    walk, layers = Walk.of(tile, network), Layers.of(network, tile)
    sizes = np.zeros(last_stage(walk.shape) + 1, dtype=np.int64)
    _contexts(latents.ravel(), walk, layers, order, table, centres, sizes)
    return order, centres[: latents.size], table[: latents.size], sizes


@njit(nogil=True, cache=True)
def _contexts(latents, walk, layers, order, table, centres, sizes):  # type: ignore[no-untyped-def]
    """As `_all_contexts`, into the arrays given."""
    begin(walk, layers)
    segments, done, stride = walk.segments, 0, walk.shape[3] - 2
    values = np.empty(len(table), np.int32)
    for w in range(len(sizes)):
        found, sizes[w] = prepare(w, walk, layers, table[done:], centres[done:])
        at = done
        for s in range(found):
            for i in range(segments[3, s]):
                order[at + i] = segments[5, s] + i * stride
                values[at + i] = latents[segments[5, s] + i * stride]
            at += segments[3, s]
        enter(w, found, values[done:], walk)
        done = at


@njit(nogil=True, cache=True)
def _decode(data, states, latents, walk, layers, laplace, table, centres):  # type: ignore[no-untyped-def]
    """Fill `latents`; where the next word lies and how many plain bits were read, -1 if they are impossible."""
    begin(walk, layers)
    at, bit, segments, stride = 4 * len(states), 0, walk.segments, walk.shape[3] - 2
    values = np.empty(len(table), np.int32)
    for w in range(last_stage(walk.shape) + 1):
        found, count = prepare(w, walk, layers, table, centres)
        at, bit = _read_symbols(data, at, bit, states, count, table, centres, laplace, values)
        if bit < 0:
            return at, bit
        enter(w, found, values, walk)
        done = 0
        for s in range(found):
            for i in range(segments[3, s]):
                latents[segments[5, s] + i * stride] = values[done + i]
            done += segments[3, s]
    return at, bit


@njit(**INNER)
def _read_symbols(data, at, bit, states, count, table, centres, laplace, values):  # type: ignore[no-untyped-def]
    """The latents of a stage. Most are the centre itself, which needs no search."""
    starts, first = laplace.tables
    centre, reaches = laplace.centre, laplace.reach
    lane, lanes = 0, len(states)
    for i in range(count):
        number = table[i]
        state = states[lane]
        inside = (state & np.uint32(0xFFFF)) - centre[number, 0]
        if inside < centre[number, 1]:
            state = centre[number, 1] * (state >> np.uint32(16)) + inside
            if state < np.uint32(1 << 16):
                word = np.uint32(0)
                if at + 1 < len(data):
                    word = np.uint32(data[at]) | (np.uint32(data[at + 1]) << np.uint32(8))
                state = (state << np.uint32(16)) | word
                at += 2
            states[lane] = state
            values[i] = centres[i]
        else:
            symbol, at = step(data, at, states, lane, starts[number], first[number])
            reach = np.int64(reaches[number])
            value = centres[i] + symbol - reach
            if symbol > 2 * reach:
                value, bit = _read_escaped(data, bit, centres[i], reach)
                if bit < 0:
                    return at, bit
            values[i] = value
        lane = 0 if lane + 1 == lanes else lane + 1
    return at, bit


@njit(**INNER)
def _read_escaped(data, bit, centre, reach):  # type: ignore[no-untyped-def]
    """A latent beyond its table, and the position behind its plain bits, -1 if there is none."""
    below = _bits(data, bit, 1)
    if below < 0:
        return np.int64(0), np.int64(-1)
    excess, after = _read_escape(data, bit + 1)
    magnitude = reach + 1 + excess
    value = centre - magnitude if below else centre + magnitude
    if excess < 0 or abs(value) >= LIMIT:
        return np.int64(0), np.int64(-1)
    return value, np.int64(after)


@njit(nogil=True, cache=True)
def _fill_lanes(sizes, lanes, lane):  # type: ignore[no-untyped-def]
    """The lane of each latent in coding order: each stage begins with the first."""
    done = 0
    for size in sizes:
        at = 0
        for i in range(done, done + size):
            lane[i] = at
            at = 0 if at + 1 == lanes else at + 1
        done += size


@njit(nogil=True, cache=True)
def _intervals(latents, order, centres, table, laplace, intervals, bits):  # type: ignore[no-untyped-def]
    """Intervals of all symbols, and the plain bits; how many of these."""
    starts, reaches, used = laplace.tables.starts, laplace.reach, 0
    for i in range(len(order)):
        number = table[i]
        reach = np.int64(reaches[number])
        difference = np.int64(latents[order[i]]) - centres[i]
        symbol = difference + reach
        if abs(difference) > reach:
            symbol = 2 * reach + 1
            bits[used] = 1 if difference < 0 else 0
            used = _put_excess(bits, used + 1, abs(difference) - reach - 1)
        begin = starts[number, symbol]
        intervals[0, i], intervals[1, i] = begin, starts[number, symbol + 1] - begin
    return used


@njit(nogil=True, cache=True)
def _count_bits(latents, order, centres, table, laplace):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(order)):
        number = table[i]
        reach = np.int64(laplace.reach[number])
        difference = np.int64(latents[order[i]]) - centres[i]
        if abs(difference) <= reach:
            total += laplace.cost[number, difference + reach]
            continue
        total += laplace.cost[number, 2 * reach + 1] + np.float64(6)
        excess = abs(difference) - reach - 1
        while excess:
            total += 1.0
            excess >>= 1
    return total


@njit(nogil=True, cache=True, inline="always")
def _source(place, extent, halved):  # type: ignore[no-untyped-def]
    """The nearest and the second sample that a place lies between."""
    if not halved:
        return place, place
    return place >> 1, min(max((place >> 1) + 2 * (place & 1) - 1, 0), extent - 1)


@njit(nogil=True, cache=True)
def _upsample(coarse, halved, largest, unit, out):  # type: ignore[no-untyped-def]
    """As `context._upsampled`, line by line: the eight lines that one lies between are added first."""
    extents, shape = coarse.shape, out.shape
    bits = 2 * halved.sum()
    half = np.int32((1 << bits) >> 1)
    down, factor, most = np.int32(bits), np.int32(unit), np.int32(largest)
    line = np.empty(extents[3], np.int32)
    for t in range(shape[0]):
        ts = _source(t, extents[0], halved[0])
        for z in range(shape[1]):
            zs = _source(z, extents[1], halved[1])
            for y in range(shape[2]):
                ys = _source(y, extents[2], halved[2])
                line[:] = 0
                for corner in range(8):
                    a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                    if a > halved[0] or b > halved[1] or c > halved[2]:
                        continue
                    weight = np.int32(
                        (3 if halved[0] and not a else 1)
                        * (3 if halved[1] and not b else 1)
                        * (3 if halved[2] and not c else 1)
                    )
                    source = coarse[ts[a], zs[b], ys[c]]
                    for x in range(len(line)):
                        line[x] += weight * min(max(source[x], -most), most)
                _upsample_line(line, halved[3], factor, half, down, out[t, z, y])


@njit(nogil=True, cache=True)
def _upsample_line(line, halved, factor, half, down, out):  # type: ignore[no-untyped-def]
    if not halved:
        for x in range(len(out)):
            out[x] = (factor * line[x] + half) >> down
        return
    last = len(line) - 1
    three = np.int32(3)
    for i in range(len(line)):
        before, after = line[max(i - 1, 0)], line[min(i + 1, last)]
        out[2 * i] = (factor * (three * line[i] + before) + half) >> down
        if 2 * i + 1 < len(out):
            out[2 * i + 1] = (factor * (three * line[i] + after) + half) >> down
