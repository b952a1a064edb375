"""A span's way forward and back as `networks.py` takes it, layers in products of bfloat16 (`../tiles.py`): in tile registers of the processor, or in vectors.

Inputs of a layer are pairs of rows, rounded; its sums are written as rows, and what comes next to them, a bias and a leaky ReLU or its slope,
makes the pairs of the next layer in the same pass. What has one or two rows, the outputs and skips, stays in vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..pairs import halve, paired, turn
from ..tiles import INPUTS, OUTPUTS, POSITIONS, TOGETHER, accumulate, multiply, weights
from ..vectors import INNER, LANES, aligned, padded
from .blocks import NEIGHBOURS, ROW, SPAN, add_group
from .layout import Floats
from .reference import SLOPE

BLOCK = POSITIONS * TOGETHER
_fine, _rounded = multiply(3, ROW), multiply(1, ROW)
_pair, _pair_rounded = paired("plain", 3), paired("plain", 1)
_pair_hidden, _pair_hidden_rounded, _hidden = (paired("hidden", products, SLOPE) for products in (3, 1, 0))
_pair_gated, _keep_gated = paired("gated", 1, SLOPE, kept=False), paired("gated", 1, SLOPE)
_pair_of_one, _keep_of_one = paired("outer", 1, SLOPE, 1, kept=False), paired("outer", 1, SLOPE, 1)
_pair_of_two, _keep_of_two = paired("outer", 1, SLOPE, 2, kept=False), paired("outer", 1, SLOPE, 2)
_halve, _turn, _turn_half, _accumulate = halve(), turn(32, ROW), turn(16, ROW), accumulate(ROW // 2)
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
    pairs : ndarray of uint32
        Pairs of rows: upper halves, then what these leave.
    halves, turned : ndarray of uint32
        Rows rounded, and tiles of rows turned, for dot products.
    """

    pairs: NDArray[np.uint32]
    halves: NDArray[np.uint32]
    turned: NDArray[np.uint32]

    @classmethod
    def of(cls, thin: int, thick: int, inputs: int) -> Room:
        """For layers of so many rows."""
        most = padded(max(inputs, thin, thick), INPUTS)
        tiles = padded(max(thin, thick), OUTPUTS) * padded(SPAN, 2 * _CHUNK) // _CHUNK
        pairs, halves, turned = (aligned(size).view(np.uint32) for size in (most * ROW, most * ROW // 2, tiles * OUTPUTS))
        return cls(pairs, halves, turned)


def sums(rows: int, columns: int) -> int:
    """How many numbers those take that dot products are added to."""
    return 2 * padded(rows, OUTPUTS) * padded(columns, POSITIONS)


def summed(sums: Floats, rows: int, columns: int) -> Floats:
    """Of these, shape (rows, columns)."""
    tiles = sums.reshape(padded(rows, OUTPUTS) // OUTPUTS, -1, 2, OUTPUTS, POSITIONS).sum(2)
    whole: Floats = tiles.transpose(0, 2, 1, 3).reshape(padded(rows, OUTPUTS), -1)[:rows, :columns]
    return whole


@njit(**INNER)
def forward(scratch, inputs, at, net, span):  # type: ignore[no-untyped-def]
    """Both hidden layers of a span."""
    tiles, ins, bias, room = net.tiles, net.ins, net.first_bias, scratch.room
    values, thin, thick, pairs, outs = scratch.values, scratch.thin, scratch.thick, room.pairs, scratch.outs
    low = len(pairs) // 2
    for k in range(0, len(ins), 2):
        one, other = at + ins[k], at + ins[min(k + 1, len(ins) - 1)]
        if tiles.fine:
            _pair(pairs, k // 2 * ROW, low, inputs, one, other, 0, 0, bias, outs, span)
        else:
            _pair_rounded(pairs, k // 2 * ROW, low, inputs, one, other, 0, 0, bias, outs, span)
    _product(values, thin[0], len(thin), tiles.first, len(ins), pairs, span, tiles.fine)
    for k in range(0, len(thin), 2):
        if tiles.fine:
            _pair_hidden(pairs, k // 2 * ROW, low, values, thin[k], thin[k + 1], k, k + 1, bias, outs, span)
        else:
            _pair_hidden_rounded(pairs, k // 2 * ROW, low, values, thin[k], thin[k + 1], k, k + 1, bias, outs, span)
    _product(values, thick[0], len(thick), tiles.second, len(thin), pairs, span, tiles.fine)
    for k in range(0, len(thick), 2):
        _hidden(pairs, 0, 0, values, thick[k], thick[k + 1], k, k + 1, net.second_bias, outs, span)


# What follows is compiled where `networks.py` takes it for the same in vectors.
def gate_thick(scratch, unused, net, span, kept):  # type: ignore[no-untyped-def]
    """Pairs of the gradient of the thick layer's sums, from that of the outputs; it takes the place of its results if it is kept."""
    values, thick, pairs, outs, last = scratch.values, scratch.thick, scratch.room.pairs, scratch.outs, net.last.reshape(-1)
    for k in range(0, len(thick), 2):
        if len(outs) == 2:
            if kept:
                _keep_of_two(pairs, k // 2 * ROW, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
            else:
                _pair_of_two(pairs, k // 2 * ROW, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
        elif kept:
            _keep_of_one(pairs, k // 2 * ROW, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)
        else:
            _pair_of_one(pairs, k // 2 * ROW, 0, values, thick[k], thick[k + 1], k, k + 1, last, outs, span)


def gate_thin(scratch, unused, net, span, kept):  # type: ignore[no-untyped-def]
    """From those pairs to those of the thin layer's sums, which take the place of its results if they are kept."""
    values, thin, raw, outs = scratch.values, scratch.thin, scratch.by_inputs, scratch.outs
    pairs = scratch.room.pairs
    _product(values, raw[0], len(thin), net.tiles.second_turned, len(scratch.thick), pairs, span, False)
    for k in range(0, len(thin), 2):
        if kept:
            _keep_gated(pairs, k // 2 * ROW, 0, values, thin[k], thin[k + 1], raw[k], raw[k + 1], net.first_bias, outs, span)
        else:
            _pair_gated(pairs, k // 2 * ROW, 0, values, thin[k], thin[k + 1], raw[k], raw[k + 1], net.first_bias, outs, span)


def add_by_inputs(scratch, unused, gradient, at, net, span, count):  # type: ignore[no-untyped-def]
    """Add the gradients by inputs, from those pairs and by skips, to where the inputs are."""
    values, rows, outs, first = scratch.values, scratch.by_inputs, scratch.outs, len(scratch.thin)
    _product(values, rows[0], len(net.ins), net.tiles.first_turned, first, scratch.room.pairs, span, False)
    for k in range(len(outs)):
        values[outs[k] + span : outs[k] + span + LANES] = 0
    for group in range(len(net.plan)):
        add_group(gradient, at, values, rows, group * NEIGHBOURS, net.plan[group], span, count, outs, net.first_turned, first)


def add_dots_of_second(scratch, span):  # type: ignore[no-untyped-def]
    """Add the gradient of the second matrix."""
    _add_dots(scratch.second, scratch.values, scratch.thick, scratch.room, scratch.values, scratch.thin, 0, span)


def add_dots_of_first(scratch, inputs, at, net, span):  # type: ignore[no-untyped-def]
    """Add the gradient of the first matrix."""
    _add_dots(scratch.first, scratch.values, scratch.thin, scratch.room, inputs, net.ins, at, span)


@njit(**INNER)
def _product(out, start, outputs, tiles, inputs, pairs, span, fine):  # type: ignore[no-untyped-def]
    """Rows, from a start on, of a product with pairs of so many inputs; some more may be written, up to a multiple of `OUTPUTS`."""
    low = len(pairs) // 2
    for first in range((outputs + OUTPUTS - 1) // OUTPUTS):
        to = start + first * OUTPUTS * ROW
        for p in range(0, span, BLOCK):
            if fine:
                _fine(out, to + p, outputs, tiles, first, inputs, pairs, p, low)
            else:
                _rounded(out, to + p, outputs, tiles, first, inputs, pairs, p, low)


@njit(**INNER)
def _add_dots(sums, values, rights, room, left, lefts, at, span):  # type: ignore[no-untyped-def]
    """Dot products of rows of `left`, from `at` on, with rows of the span, which lie one after the other."""
    pitch, size = ROW // 2, OUTPUTS * POSITIONS
    for i in range(len(lefts)):
        _halve(room.halves, i * pitch, left, lefts[i] + at, span)
    columns, chunks = (len(rights) + POSITIONS - 1) // POSITIONS, (span + 2 * _CHUNK - 1) // (2 * _CHUNK) * 2
    for number in range(columns * chunks):
        here = number % chunks * _CHUNK
        start = rights[0] + number // chunks * POSITIONS * ROW + here
        if span - here >= _CHUNK:
            _turn(room.turned, number * size, values, start)
        elif span > here:
            _turn_half(room.turned, number * size, values, start)
        else:
            room.turned[number * size : (number + 1) * size] = 0
    for i in range((len(lefts) + OUTPUTS - 1) // OUTPUTS):
        for column in range(columns):
            to = (i * columns + column) * 2 * size
            _accumulate(sums, to, room.halves, i * OUTPUTS * pitch, room.turned, column * chunks * size, chunks)
