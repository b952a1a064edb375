"""The walk of compiled loops through a tile, stage by stage, and what the network says of each stage.

Latents of a stage, ``8 t + 4 z + 2 y + x = w``, lie in a *layer*, each at its (t, z, y): x follows from w. Along y
they are neighbours, and so are all their neighbours that a tap meets, in the layer of another w: a stage's inputs are
copies of short pieces of layers. Only the latest layers are kept, in a ring that stays in the cache. The network is
evaluated as products in float32 (`..vectors`), which are exact because `context.check` bounds their sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..vectors import INNER, LANES, product
from .context import (
    LARGEST,
    MOST_SCALE,
    SLOPE_SHIFT,
    WEIGHTS,
    Extents,
    IntegerContext,
    Tile,
    causal_taps,
    cross_taps,
    ring_of,
)

CHANNELS, VECTORS = 4, 3
"""Rows of a hidden layer that are made together, and vectors of each."""
BLOCK = VECTORS * LANES
OWN_LAYERS = 16
"""Taps reach back 12 stages at most, to t - 1 and z - 1, wide ones 11, to z - 2; the ring's size is a power of two."""
COARSE_LAYERS = 32
"""Taps of the coarser level reach 8 stages back and ahead."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_rows, _rows_narrow = product(CHANNELS, VECTORS, "plain"), product(CHANNELS, 1, "plain")
_pair, _pair_more = product(2, VECTORS, "plain"), product(2, VECTORS, "added")


class Layers(NamedTuple):
    """A network as the loops take it, for one level: taps of own latents, which are not held in units, have the units' weight.

    Attributes
    ----------
    first, second, last, skip : ndarray of float32
        As in `IntegerContext`.
    biases : ndarray of float32, shape (2, H)
    last_bias : ndarray of float32, shape (2,)
    scales : ndarray of float32, shape (4,)
        2 to the negative shifts.
    limits : ndarray of float32, shape (3,)
        The largest magnitudes of a hidden number and of a mean, and the bits of a unit.
    """

    first: Floats
    second: Floats
    last: Floats
    skip: Floats
    biases: Floats
    last_bias: Floats
    scales: Floats
    limits: Floats

    @classmethod
    def of(cls, network: IntegerContext, tile: Tile) -> Layers:
        """Turn the numbers into float32, all of them exactly."""
        unit = np.ones((len(network.first), 1), dtype=np.int64)
        unit[: len(causal_taps(tile.present, network.wide))] = network.units
        biases = np.stack([network.level_bias[tile.level], network.second_bias])
        scales = np.ldexp(1.0, -np.array(network.shifts))
        parts = (
            network.first * unit,
            network.second,
            network.last,
            network.skip * unit,
            biases,
            network.last_bias,
            scales,
            np.array([network.hidden, network.input, network.unit_bits]),
        )
        return cls(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))


class Walk(NamedTuple):
    """Where a tile lies, and the buffers of its walk.

    Attributes
    ----------
    shape, start, ring : ndarray of int64, shape (4,)
        Of the tile; `ring`: sites around the tile that a layer has room for, as far as taps reach.
    ahead : int
        Stages that a tap of the coarser level reaches ahead.
    u, v : ndarray of int16
        Whole lattices, or of extent 1 and zero.
    taps : ndarray of int64, shape (4, n)
        Of the own level, then of the coarser one: stages ahead, places in a layer, first layer and size of the ring.
    sources : ndarray of int64, shape (n,)
        Where the taps of the current stage lie.
    layers : ndarray of float32, flat
        The rings of layers: `OWN_LAYERS`, then `COARSE_LAYERS`.
    size : int
        From layer to layer.
    segments : ndarray of int64, shape (6, n)
        Pieces of the current stage: t, z, the first y, their lengths, where they begin in a layer and in the tile.
    rows : ndarray of float32, flat
        The inputs of a stage, each `row_length` numbers.
    ins : ndarray of int64, shape (n_in,)
        Where each input's row begins.
    thin, thick, out : ndarray of float32, flat
        A block of the hidden layers and of the last.
    thins : ndarray of int64
        Where their rows begin.
    quiet : ndarray of int32, shape (2,)
        Table and centre of a latent that sees nothing but zeros; -1 before they are known.
    """

    shape: Ints
    start: Ints
    ring: Ints
    ahead: int
    u: NDArray[np.int16]
    v: NDArray[np.int16]
    taps: Ints
    sources: Ints
    layers: Floats
    size: int
    segments: Ints
    rows: Floats
    ins: Ints
    thin: Floats
    thick: Floats
    out: Floats
    thins: Ints
    quiet: NDArray[np.int32]

    @classmethod
    def of(cls, tile: Tile, network: IntegerContext) -> Walk:
        """Make the buffers for a network."""
        ring, shape = np.array(ring_of(tile.present, network.wide), dtype=np.int64), np.array(tile.shape, dtype=np.int64)
        padded, width = (shape + 2 * ring)[:3], len(network.second)
        size, row = int(padded.prod()) + LANES, row_length(tile.shape)
        taps = _placed_taps(tile, np.array([padded[1] * padded[2], padded[2], 1, 0]), network.wide)
        count = taps.shape[1]
        nothing = np.zeros((1, 1, 1, 1), dtype=np.int16)
        return cls(
            shape,
            np.array(tile.start, dtype=np.int64),
            ring,
            int((cross_taps(tile.present) @ np.array(WEIGHTS)).max()),
            nothing if tile.u is None else np.ascontiguousarray(tile.u),
            nothing if tile.v is None else np.ascontiguousarray(tile.v),
            taps,
            np.empty(count, dtype=np.int64),
            np.zeros((OWN_LAYERS + COARSE_LAYERS) * size, dtype=np.float32),
            size,
            np.empty((6, tile.shape[0] * tile.shape[1]), dtype=np.int64),
            np.zeros((count + 1) * row, dtype=np.float32),
            np.arange(count + 1) * row,
            np.zeros(width * BLOCK, dtype=np.float32),
            np.zeros(width * BLOCK, dtype=np.float32),
            np.zeros(2 * BLOCK, dtype=np.float32),
            np.arange(width) * BLOCK,
            np.full(2, -1, dtype=np.int32),
        )


def _placed_taps(tile: Tile, pitch: Ints, wide: bool) -> Ints:
    """As `Walk.taps`."""
    causal, cross = causal_taps(tile.present, wide), cross_taps(tile.present)
    both = np.concatenate([causal, cross])
    first, many = np.zeros(len(both), dtype=np.int64), np.full(len(both), OWN_LAYERS)
    first[len(causal) :], many[len(causal) :] = OWN_LAYERS, COARSE_LAYERS
    return np.stack([both @ np.array(WEIGHTS), both @ pitch, first, many])


def row_length(shape: Extents) -> int:
    """Room for a stage: the most latents that one can have, whole blocks, and what a copy writes beyond its end.

    An odd number of cache lines, for rows a power of two apart would share their places in the cache.
    """
    most = shape[0] * shape[1] * min(shape[2], (shape[3] + 1) // 2)
    lines = -(-(-(-most // BLOCK) * BLOCK + LANES) // 16)
    return 16 * (lines + 1 - lines % 2)


def _copier() -> Any:
    """Make ``f(out, to, source, at)``: copy `LANES` numbers of float32 between flat arrays; nothing is checked."""

    @intrinsic
    def copy(typing, out, to, source, at):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), LANES).as_pointer()

            def place(array: int, index: int) -> Any:
                data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
                return builder.bitcast(builder.gep(data, [arguments[index]]), vector)

            builder.store(builder.load(place(2, 3), align=4), place(0, 1), align=4)
            return context.get_dummy_value()

        return types.void(out, to, source, at), generate

    return copy


_copy = _copier()


@njit(nogil=True, cache=True, inline="always")
def last_stage(shape):  # type: ignore[no-untyped-def]
    return 8 * (shape[0] - 1) + 4 * (shape[1] - 1) + 2 * (shape[2] - 1) + shape[3] - 1


@njit(nogil=True, cache=True, inline="always")
def _lines(rest, extents, row, column):  # type: ignore[no-untyped-def]
    """The range of y whose x = rest - 2 y lies within the extents and rings of `row` and `column` sites."""
    least = max(-row, (rest - (extents[3] - 1 + column) + 1) >> 1)
    return least, min(extents[2] - 1 + row, (rest + column) >> 1) + 1


@njit(**INNER)
def _find_segments(w, shape, ring, segments):  # type: ignore[no-untyped-def]
    """Pieces of a stage, in raster order; how many, and how many latents."""
    found, count = 0, 0
    for t in range(shape[0]):
        rest = w - 8 * t
        first = max(0, (rest - (2 * (shape[2] - 1) + shape[3] - 1) + 3) >> 2)
        for z in range(first, min(shape[1] - 1, rest >> 2) + 1):
            least, end = _lines(rest - 4 * z, shape, 0, 0)
            if end > least:
                segments[0, found], segments[1, found] = t, z
                segments[2, found], segments[3, found] = least, end - least
                segments[4, found] = _place(shape, ring, t, z, least)
                # The next y of the stage lies the last extent less 2 further on.
                segments[5, found] = ((t * shape[1] + z) * shape[2] + least) * shape[3] + rest - 4 * z - 2 * least
                found += 1
                count += end - least
    return found, count


@njit(nogil=True, cache=True, inline="always")
def _place(shape, ring, t, z, y):  # type: ignore[no-untyped-def]
    """Of a site in a layer."""
    return ((t + ring[0]) * (shape[1] + 2 * ring[1]) + z + ring[1]) * (shape[2] + 2 * ring[2]) + y + ring[2]


@njit(**INNER)
def _take_line(lattice, t, z, rest, y, count, start, out, at):  # type: ignore[no-untyped-def]
    """The lattice at (t, z, y + i, rest - 2 (y + i)) of the tile; beyond the lattice, its nearest site."""
    extents = lattice.shape
    plane = lattice[min(max(start[0] + t, 0), extents[0] - 1), min(max(start[1] + z, 0), extents[1] - 1)]
    row, column = start[2] + y, start[3] + rest - 2 * y
    for i in range(count):
        out[at + i] = plane[min(max(row + i, 0), extents[2] - 1), min(max(column - 2 * i, 0), extents[3] - 1)]


@njit(**INNER)
def _fill_coarse(w, walk):  # type: ignore[no-untyped-def]
    """The layer w of the coarser level, with its ring."""
    shape, ring, start, u, layers = walk.shape, walk.ring, walk.start, walk.u, walk.layers
    base = (OWN_LAYERS + (w & (COARSE_LAYERS - 1))) * walk.size
    for t in range(-ring[0], shape[0] + ring[0]):
        for z in range(-ring[1], shape[1] + ring[1]):
            rest = w - 8 * t - 4 * z
            least, end = _lines(rest, shape, ring[2], ring[3])
            if end > least:
                _take_line(u, t, z, rest, least, end - least, start, layers, base + _place(shape, ring, t, z, least))


@njit(**INNER)
def _gather(w, found, walk):  # type: ignore[no-untyped-def]
    """The inputs of a stage."""
    taps, sources, layers, rows, ins = walk.taps, walk.sources, walk.layers, walk.rows, walk.ins
    segments, v, start = walk.segments, walk.v, walk.start
    for k in range(len(sources)):
        sources[k] = (taps[2, k] + ((w + taps[0, k]) & (taps[3, k] - 1))) * walk.size + taps[1, k]
    at = 0
    for s in range(found):
        count, place = segments[3, s], segments[4, s]
        for k in range(len(sources)):
            to, source = ins[k] + at, sources[k] + place
            for i in range(0, count, LANES):
                _copy(rows, to + i, layers, source + i)
        t, z = segments[0, s], segments[1, s]
        _take_line(v, t, z, w - 8 * t - 4 * z, segments[2, s], count, start, rows, ins[len(sources)] + at)
        at += count


@njit(**INNER)
def enter(w, found, values, walk):  # type: ignore[no-untyped-def]
    """The latents of a stage become known to others."""
    layers, segments, most = walk.layers, walk.segments, np.int32(LARGEST)
    base, done = (w & (OWN_LAYERS - 1)) * walk.size, 0
    layers[base : base + walk.size] = 0
    for s in range(found):
        count, place = segments[3, s], base + segments[4, s]
        source, target = values[done : done + count], layers[place : place + count]
        for i in range(len(target)):
            target[i] = min(max(source[i], -most), most)
        done += count


@njit(**INNER)
def _hidden(out, outs, matrix, bias, scale, most, inputs, ins, at, narrow):  # type: ignore[no-untyped-def]
    """A block of a hidden layer; of a narrow one, only the first vector is made."""
    for m in range(0, len(bias), CHANNELS):
        if narrow:
            _rows_narrow(out, outs, 0, matrix, bias, m, inputs, ins, at)
        else:
            _rows(out, outs, 0, matrix, bias, m, inputs, ins, at)
    for m in range(len(bias)):
        if narrow:
            _requantise(out[m * BLOCK : m * BLOCK + LANES], bias[m], scale, most)
        else:
            _requantise(out[m * BLOCK : (m + 1) * BLOCK], bias[m], scale, most)


@njit(nogil=True, cache=True, inline="always")
def _requantise(row, bias, scale, most):  # type: ignore[no-untyped-def]
    below = scale * np.float32(2.0**-SLOPE_SHIFT)
    for i in range(len(row)):
        total = row[i] + bias
        row[i] = min(max(np.floor(max(total * scale, total * below)), -most), most)


@njit(**INNER)
def _evaluate(count, walk, layers, table, centres):  # type: ignore[no-untyped-def]
    """Tables and centres of a stage whose inputs are gathered, whole blocks of them."""
    rows, ins, thin, thick, out, thins = walk.rows, walk.ins, walk.thin, walk.thick, walk.out, walk.thins
    first, second, last, skip = layers.first, layers.second, layers.last, layers.skip
    biases, last_bias, scales, hidden = layers.biases, layers.last_bias, layers.scales, layers.limits[0]
    whole, quiet_table, quiet_centre = rows.view(np.int32), walk.quiet[0], walk.quiet[1]
    for at in range(0, count, BLOCK):
        if quiet_table >= 0 and _sees_nothing(whole, ins, at):
            # Most of a sparse tile: all that it takes is looking.
            table[at : at + BLOCK], centres[at : at + BLOCK] = quiet_table, quiet_centre
            continue
        narrow = count - at <= LANES
        _hidden(thin, thins, first, biases[0], scales[0], hidden, rows, ins, at, narrow)
        _hidden(thick, thins, second, biases[1], scales[1], hidden, thin, thins, 0, narrow)
        _pair(out, thins, 0, skip, last_bias, 0, rows, ins, at)
        _pair_more(out, thins, 0, last, last_bias, 0, thick, thins, 0)
        _split(out, layers, table[at : at + BLOCK], centres[at : at + BLOCK])


@njit(**INNER)
def _sees_nothing(rows, ins, at):  # type: ignore[no-untyped-def]
    """Whether all inputs of a block are zero; `rows` are the numbers as integers, of which zero is zero too."""
    for k in range(len(ins)):
        seen = np.int32(0)
        for number in rows[ins[k] + at : ins[k] + at + BLOCK]:
            seen |= number
        if seen:
            return False
    return True


@njit(**INNER)
def _split(out, layers, table, centres):  # type: ignore[no-untyped-def]
    bias, scales, most, last = layers.last_bias, layers.scales, layers.limits[1], np.float32(MOST_SCALE)
    bits = np.int32(layers.limits[2])
    units = np.int32(1) << bits
    means, numbers = out[:BLOCK], out[BLOCK:]
    for i in range(min(BLOCK, len(table))):
        mean = np.int32(min(max(np.floor((means[i] + bias[0]) * scales[2]), -most), most))
        scale = np.int32(min(max(np.floor((numbers[i] + bias[1]) * scales[3]), np.float32(0)), last))
        centre = (mean + (units >> np.int32(1))) >> bits
        centres[i] = centre
        table[i] = units * (scale - centre) + mean + (units >> np.int32(1))


@njit(**INNER)
def prepare(w, walk, layers, table, centres):  # type: ignore[no-untyped-def]
    """Everything of a stage but its latents: how many pieces and latents, their tables and centres."""
    found, count = _find_segments(w, walk.shape, walk.ring, walk.segments)
    _fill_coarse(w + walk.ahead, walk)
    _gather(w, found, walk)
    _evaluate(count, walk, layers, table, centres)
    return found, count


@njit(**INNER)
def begin(walk, layers):  # type: ignore[no-untyped-def]
    """What there is to do before the first stage: the layers that it sees, and the answer to no inputs."""
    _evaluate(1, walk, layers, walk.quiet[:1], walk.quiet[1:])
    for w in range(-walk.ahead, walk.ahead):
        _fill_coarse(w, walk)
