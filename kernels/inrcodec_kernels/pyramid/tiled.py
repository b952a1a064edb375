"""A span's way forward and back as `networks.py` takes it, layers in the tile registers of the processor (`../tiles.py`).

Inputs of a layer are pairs of rows, rounded; its sums are written as rows, and what comes next to them, a bias and a leaky ReLU or its slope,
makes the pairs of the next layer in the same pass. What has one or two rows, the outputs and skips, stays in vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..tiles import (
    INPUTS,
    OUTPUTS,
    POSITIONS,
    TOGETHER,
    accumulate,
    added_back,
    halve,
    multiply,
    paired,
    turn,
    weights,
)
from ..vectors import INNER, LANES, aligned
from .layout import Floats
from .reference import SLOPE

BLOCK = POSITIONS * TOGETHER
_fine, _rounded = multiply(3), multiply(1)
_pair, _pair_rounded = paired("plain", 3), paired("plain", 1)
_pair_hidden, _pair_hidden_rounded = paired("hidden", 3, SLOPE), paired("hidden", 1, SLOPE)
_pair_gated, _keep_gated = paired("gated", 1, SLOPE, kept=False), paired("gated", 1, SLOPE)
_pair_of_one, _keep_of_one = paired("outer", 1, SLOPE, 1, kept=False), paired("outer", 1, SLOPE, 1)
_pair_of_two, _keep_of_two = paired("outer", 1, SLOPE, 2, kept=False), paired("outer", 1, SLOPE, 2)
_add_three_of_one, _add_three_of_two = added_back(3, 1), added_back(3, 2)
_add_one_of_one, _add_one_of_two = added_back(1, 1), added_back(1, 2)
_ALONG = 3
_halve, _turn, _turn_half, _accumulate = halve(), turn(32), turn(16), accumulate()
_CHUNK = 32
"""Positions of a tile of dot products."""


class Tiles(NamedTuple):
    """A network's matrices as tiles.

    Attributes
    ----------
    first, second : ndarray of uint16
        Of the way forward.
    second_turned, first_turned : ndarray of uint16
        Of the way back, which is rounded.
    fine : bool
        Whether the way forward is in float32's precision, about; otherwise it is rounded too.
    """

    first: NDArray[np.uint16]
    second: NDArray[np.uint16]
    second_turned: NDArray[np.uint16]
    first_turned: NDArray[np.uint16]
    fine: bool

    @classmethod
    def of(cls, first: Floats, second: Floats, fine: bool) -> Tiles:
        """Of matrices of shape (inputs, outputs)."""
        products = 3 if fine else 1
        return cls(weights(first.T, products), weights(second.T, products), weights(second, 1), weights(first, 1), fine)


class Room(NamedTuple):
    """What a span needs besides its rows.

    Attributes
    ----------
    raw : ndarray of int64
        Where rows of gradients begin before they are gated or added.
    every : ndarray of int64
        Where all rows begin.
    pairs : ndarray of uint32
        Pairs of rows: upper halves, then what these leave.
    halves, turned : ndarray of uint32
        Rows rounded, and tiles of rows turned, for dot products.
    first, second : ndarray of float32
        Tiles of sums of the gradients of both matrices.
    row : int
        Pitch of rows and of pairs.
    """

    raw: NDArray[np.int64]
    every: NDArray[np.int64]
    pairs: NDArray[np.uint32]
    halves: NDArray[np.uint32]
    turned: NDArray[np.uint32]
    first: Floats
    second: Floats
    row: int

    @classmethod
    def of(cls, inputs: int, thin: int, thick: int, raw: NDArray[np.int64], every: NDArray[np.int64], span: int, row: int) -> Room:
        """For layers of so many rows."""
        most = _padded(max(inputs, thin, thick), INPUTS)
        chunks = _padded(span, 2 * _CHUNK) // _CHUNK
        sizes = most * row, most * row // 2, _padded(max(thin, thick), OUTPUTS) * OUTPUTS * chunks
        pairs, halves, turned = (aligned(size).view(np.uint32) for size in sizes)
        first, second = (np.zeros(_padded(a, OUTPUTS) * _padded(b, OUTPUTS) * 2, np.float32) for a, b in ((inputs, thin), (thin, thick)))
        return cls(raw, every, pairs, halves, turned, first, second, row)


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def summed(sums: Floats, rows: int, columns: int) -> Floats:
    """Of tiles that `add_dots` adds to, shape (rows, columns)."""
    tiles = sums.reshape(_padded(rows, OUTPUTS) // OUTPUTS, -1, 2, OUTPUTS, POSITIONS).sum(2)
    whole: Floats = tiles.transpose(0, 2, 1, 3).reshape(_padded(rows, OUTPUTS), -1)[:rows, :columns]
    return whole


@njit(**INNER)
def forward(scratch, inputs, at, net, span):  # type: ignore[no-untyped-def]
    """Both hidden layers of a span."""
    tiles, ins, bias, room = net.tiles, net.ins, net.first_bias, scratch.room
    values, thin, thick, pairs, outs = scratch.values, scratch.thin, scratch.thick, room.pairs, scratch.outs
    row, low = room.row, len(pairs) // 2
    for k in range(0, len(ins), 2):
        one, other = at + ins[k], at + ins[min(k + 1, len(ins) - 1)]
        if tiles.fine:
            _pair(pairs, k // 2 * row, low, inputs, one, other, 0, 0, bias, outs, span)
        else:
            _pair_rounded(pairs, k // 2 * row, low, inputs, one, other, 0, 0, bias, outs, span)
    _product(values, thin[0], len(thin), tiles.first, len(ins), pairs, row, span, tiles.fine)
    for k in range(0, len(thin), 2):
        if tiles.fine:
            _pair_hidden(pairs, k // 2 * row, low, values, thin[k], thin[k + 1], k, k + 1, bias, outs, span)
        else:
            _pair_hidden_rounded(pairs, k // 2 * row, low, values, thin[k], thin[k + 1], k, k + 1, bias, outs, span)
    _product(values, thick[0], len(thick), tiles.second, len(thin), pairs, row, span, tiles.fine)
    for k in range(0, len(thick), 2):
        _pair_hidden_rounded(pairs, k // 2 * row, low, values, thick[k], thick[k + 1], k, k + 1, net.second_bias, outs, span)


@njit(**INNER)
def gradient_of_thick(scratch, net, span, kept):  # type: ignore[no-untyped-def]
    """Pairs of the gradient of the thick layer's sums, from that of the outputs; it takes the place of its results if it is kept."""
    values, thick, pairs, row, outs, last = scratch.values, scratch.thick, scratch.room.pairs, scratch.room.row, scratch.outs, net.last.reshape(-1)
    for k in range(0, len(thick), 2):
        if len(outs) == 2:
            if kept:
                _keep_of_two(pairs, k // 2 * row, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
            else:
                _pair_of_two(pairs, k // 2 * row, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
        elif kept:
            _keep_of_one(pairs, k // 2 * row, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
        else:
            _pair_of_one(pairs, k // 2 * row, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)


@njit(**INNER)
def gradient_of_thin(scratch, net, span, kept):  # type: ignore[no-untyped-def]
    """From those pairs to those of the thin layer's sums, which take the place of its results if they are kept."""
    values, thin, outs, room = scratch.values, scratch.thin, scratch.outs, scratch.room
    raw, pairs, row = room.raw, room.pairs, room.row
    _product(values, raw[0], len(thin), net.tiles.second_turned, len(scratch.thick), pairs, row, span, False)
    for k in range(0, len(thin), 2):
        if kept:
            _keep_gated(pairs, k // 2 * row, 0, values, thin[k], thin[k + 1], raw[k], raw[k + 1], net.first_bias, outs, span)
        else:
            _pair_gated(pairs, k // 2 * row, 0, values, thin[k], thin[k + 1], raw[k], raw[k + 1], net.first_bias, outs, span)


@njit(**INNER)
def add_by_inputs(scratch, gradient, at, net, span, count):  # type: ignore[no-untyped-def]
    """Add the gradients by inputs, from those pairs and by skips, where the inputs are, and nowhere else."""
    values, outs, plan, room = scratch.values, scratch.outs, net.plan, scratch.room
    raw, pairs, row = room.raw, room.pairs, room.row
    factors, first = net.first_turned, len(scratch.thin)
    _product(values, raw[0], len(net.ins), net.tiles.first_turned, first, pairs, row, span, False)
    for k in range(len(raw)):
        values[raw[k] + span : raw[k] + span + LANES] = 0
    for k in range(len(outs)):
        values[outs[k] + span : outs[k] + span + LANES] = 0
    for group in range(len(plan)):
        m, singles = group * _ALONG, plan[group, _ALONG]
        if singles == 0:
            n = (count + _ALONG - 1) // LANES * LANES
            if n and len(outs) == 2:
                _add_three_of_two(gradient, at + plan[group, 0], values, raw, m, outs, factors, first, n)
            elif n:
                _add_three_of_one(gradient, at + plan[group, 0], values, raw, m, outs, factors, first, n)
            for i in range(n, count + _ALONG - 1):
                for j in range(_ALONG):
                    gradient[at + plan[group, 0] + i] += _by_input(values, raw[m + j], outs, factors, first, m + j, i - j)
        for j in range(singles):
            n = count // LANES * LANES
            if n and len(outs) == 2:
                _add_one_of_two(gradient, at + plan[group, j], values, raw, m + j, outs, factors, first, n)
            elif n:
                _add_one_of_one(gradient, at + plan[group, j], values, raw, m + j, outs, factors, first, n)
            for i in range(n, count):
                gradient[at + plan[group, j] + i] += _by_input(values, raw[m + j], outs, factors, first, m + j, i)


@njit(**INNER)
def _by_input(values, row, outs, factors, first, k, i):  # type: ignore[no-untyped-def]
    found = values[row + i]
    for o in range(len(outs)):
        found += factors[first + o, k] * values[outs[o] + i]
    return found


@njit(**INNER)
def _product(out, start, outputs, tiles, inputs, pairs, row, span, fine):  # type: ignore[no-untyped-def]
    """Rows, from a start on, of a product with pairs of so many inputs; a multiple of `OUTPUTS` of them."""
    count, low = (inputs + INPUTS - 1) // INPUTS, len(pairs) // 2
    for first in range((outputs + OUTPUTS - 1) // OUTPUTS):
        to = start + first * OUTPUTS * row
        for p in range(0, span, BLOCK):
            if fine:
                _fine(out, to + p, row, tiles, first, count, pairs, p, row, low)
            else:
                _rounded(out, to + p, row, tiles, first, count, pairs, p, row, low)


@njit(**INNER)
def add_dots(sums, values, rights, room, left, lefts, at, span):  # type: ignore[no-untyped-def]
    """Dot products of rows of `left`, from `at` on, with rows of the span, which lie one after the other."""
    pitch, size, first = room.row // 2, OUTPUTS * POSITIONS, rights[0] // room.row
    for i in range(len(lefts)):
        _halve(room.halves, i * pitch, left, lefts[i] + at, span)
    columns, chunks = (len(rights) + POSITIONS - 1) // POSITIONS, (span + 2 * _CHUNK - 1) // (2 * _CHUNK) * 2
    for number in range(columns * chunks):
        column, here = first + number // chunks * POSITIONS, number % chunks * _CHUNK
        if span - here >= _CHUNK:
            _turn(room.turned, number * size, values, room.every, column, here)
        elif span > here:
            _turn_half(room.turned, number * size, values, room.every, column, here)
        else:
            room.turned[number * size : (number + 1) * size] = 0
    for i in range((len(lefts) + OUTPUTS - 1) // OUTPUTS):
        for column in range(columns):
            to = (i * columns + column) * 2 * size
            _accumulate(sums, to, room.halves, i * OUTPUTS * pitch, pitch, room.turned, column * chunks * size, chunks)
