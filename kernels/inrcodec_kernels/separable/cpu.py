"""Synthesis of leaves in compiled loops: one product per axis, leaf by leaf, straight into the box.

A leaf takes the frequencies that it has and no others. The first axes' products are made depth first, so that what lies
between them stays in the first-level cache; the last one runs along contiguous samples. Every sample is summed in the same
order whatever part of its leaf is wanted, so boxes agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from ..vectors import LANES, float32_limits, product

AXES = 4
ROWS, VECTORS = 4, 2
BLOCK = VECTORS * LANES
"""What a product makes at a time: a block of 4 x 16 numbers."""
PARTS = 16
"""Ranges of leaves that threads take: a few for each, so that none waits long for the others."""

_block = product(ROWS, VECTORS, "plain")


def synthesise(
    out: NDArray[Any],
    corner: NDArray[np.int64],
    values: NDArray[np.int32],
    lattice: NDArray[np.int64],
    bases: Sequence[NDArray[np.float32]],
    step: float,
    offset: float,
    low: int,
    high: int,
) -> None:
    """As `reference.synthesise`, of arrays."""
    missing = AXES - out.ndim
    box = out.reshape((1,) * missing + out.shape)
    places = np.ascontiguousarray(np.pad(corner, ((0, 0), (missing, 0))))
    index = np.ascontiguousarray(np.pad(lattice, ((0, 0), (missing, 0))))
    waves = tuple(_turned(basis) for basis in [np.ones((1, 1), dtype=np.float32)] * missing + list(bases))
    extents = np.array([1] * missing + [len(basis) for basis in bases])
    limits = float32_limits(low, high)
    rounded = out.dtype.kind != "f"
    coefficients = np.ascontiguousarray(values)
    bounds = np.linspace(0, len(values), min(PARTS, len(values)) + 1).astype(int).tolist()

    def work(part: int) -> None:
        begin, stop = bounds[part], bounds[part + 1]
        _leaves(box, places, extents, coefficients, index, waves, np.float32(step), np.float32(offset), rounded, *limits, begin, stop)

    in_threads(work, range(len(bounds) - 1))


def _turned(basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """The basis of an axis, frequency by frequency, with room for blocks that overrun."""
    return np.ascontiguousarray(np.pad(basis.T, ((0, 1), (0, BLOCK))), dtype=np.float32)


@njit(nogil=True, cache=True)
def _leaves(out, corner, extents, values, lattice, waves, step, offset, rounded, low, high, begin, stop):  # type: ignore[no-untyped-def]
    """Write the leaves [begin, stop)."""
    m = np.empty(4, np.int64)
    start, end = np.empty(4, np.int64), np.empty(4, np.int64)
    spectrum = np.empty(0, np.float32)
    for leaf in range(begin, stop):
        inside = True
        for axis in range(4):
            start[axis] = max(0, -corner[leaf, axis])
            end[axis] = min(extents[axis], out.shape[axis] - corner[leaf, axis])
            inside = inside and start[axis] < end[axis]
        if inside:
            last = _used(values[leaf], lattice, m)
            if len(spectrum) < m[0] * m[1] * m[2] * m[3] + BLOCK:
                spectrum = np.zeros(m[0] * m[1] * m[2] * m[3] + BLOCK, np.float32)
            _place(spectrum, values[leaf, :last], lattice, m, step)
            _leaf(out, corner[leaf], spectrum, m, waves, start, end, offset, rounded, low, high)


@njit(nogil=True, cache=True)
def _used(values, lattice, m):  # type: ignore[no-untyped-def]
    """How many coefficients come before the last that is not zero, it included; `m` gets the frequencies along each axis."""
    last = len(values)
    while last > 0 and values[last - 1] == 0:
        last -= 1
    m[:] = 1
    for w in range(last):
        if values[w] != 0:
            for axis in range(4):
                m[axis] = max(m[axis], lattice[w, axis] + 1)
    return last


@njit(nogil=True, cache=True)
def _place(spectrum, values, lattice, m, step):  # type: ignore[no-untyped-def]
    """Coefficients of a leaf on its grid of frequencies."""
    spectrum[: m[0] * m[1] * m[2] * m[3]] = 0
    for w in range(len(values)):
        if values[w] != 0:
            place = ((lattice[w, 0] * m[1] + lattice[w, 1]) * m[2] + lattice[w, 2]) * m[3] + lattice[w, 3]
            spectrum[place] = np.float32(values[w]) * step


@njit(nogil=True, cache=True)
def _leaf(out, corner, spectrum, m, waves, start, end, offset, rounded, low, high):  # type: ignore[no-untyped-def]
    """Write the part [start, end) of a leaf."""
    cube, plane, zero = m[1] * m[2] * m[3], m[2] * m[3], np.int64(0)
    cubes, planes = _room(waves[0].shape[1], cube), _room(waves[1].shape[1], plane)
    lines, samples = _room(m[3], waves[2].shape[1]), _room(waves[2].shape[1], waves[3].shape[1])
    _products(cubes, waves[0], spectrum, m[0], cube, start[0], end[0], zero, cube)
    for q0 in range(start[0], end[0]):
        _products(planes, waves[1], cubes[q0], m[1], plane, start[1], end[1], zero, plane)
        for q1 in range(start[1], end[1]):
            weights = planes[q1, :plane].reshape(m[2], m[3])
            _products(lines, weights, waves[2].ravel(), m[2], waves[2].shape[1], zero, m[3], start[2], end[2])
            _products(samples, lines, waves[3].ravel(), m[3], waves[3].shape[1], start[2], end[2], start[3], end[3])
            for q2 in range(start[2], end[2]):
                row = out[corner[0] + q0, corner[1] + q1, corner[2] + q2, corner[3] + start[3] : corner[3] + end[3]]
                _write(row, samples[q2, start[3] : end[3]], offset, rounded, low, high)


@njit(nogil=True, cache=True)
def _room(rows, columns):  # type: ignore[no-untyped-def]
    """An array that blocks may overrun."""
    return np.empty((rows + ROWS, columns + BLOCK), np.float32)


@njit(nogil=True, cache=True)
def _products(out, weights, inputs, count, pitch, first, last, begin, end):  # type: ignore[no-untyped-def]
    """``out[m, n] = sum_k weights[k, m] inputs[k pitch + n]`` for m in [first, last), n in [begin, end), blocks overrunning."""
    outs, ins = np.arange(out.shape[0]) * out.shape[1], np.arange(count) * pitch
    flat = out.ravel()
    for m in range(first, last, ROWS):
        for n in range(begin, end, BLOCK):
            _block(flat, outs, n, weights, flat, m, inputs, ins, n)


@njit(nogil=True, cache=True)
def _write(row, line, offset, rounded, low, high):  # type: ignore[no-untyped-def]
    if rounded:
        for i in range(len(row)):
            row[i] = np.int32(min(max(np.rint(line[i] + offset), low), high))
    else:
        for i in range(len(row)):
            row[i] = line[i] + offset
