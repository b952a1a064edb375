"""Compiled loops: a few blocks side by side, all their axes while they are in the cache. See README.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads

_PART = 1 << 17
"""Samples that a thread takes at a time."""
_LANES = 32
"""Blocks side by side, so that the innermost loops are long enough for vector instructions."""
_LANES_LARGE, _LARGE = 16, 1024
"""Of blocks of more samples: what is at work stays in the second cache."""


def project(
    blocks: np.ndarray, bases: Sequence[np.ndarray], place: NDArray[np.int64]
) -> np.ndarray:
    """See `inrcodec_kernels.projection.project`."""
    out = np.empty((len(blocks), len(place)), dtype=np.result_type(blocks, *bases))
    flat = np.concatenate([basis.ravel() for basis in bases]).astype(out.dtype)
    extents = np.array([basis.shape for basis in bases], dtype=np.int64)
    lanes = _LANES if blocks.shape[1] <= _LARGE else _LANES_LARGE
    count = lanes * max(1, _PART // (lanes * blocks.shape[1]))
    blocks = np.ascontiguousarray(blocks, dtype=out.dtype)

    def work(at: int) -> None:
        _project(blocks[at : at + count], flat, extents, place, lanes, out[at : at + count])

    in_threads(work, range(0, len(blocks), count))
    return out


# No fast arithmetic: results must be those of the definition.
@njit(nogil=True, cache=True)
def _project(blocks, bases, extents, place, lanes, out):  # type: ignore[no-untyped-def]
    most = size = blocks.shape[1]
    for axis in range(len(extents)):
        size = size // extents[axis, 0] * extents[axis, 1]
        most = max(most, size)
    source, result = np.empty(most * lanes, dtype=out.dtype), np.empty(most * lanes, dtype=out.dtype)
    for block in range(0, len(blocks), lanes):
        _interleave(blocks, block, source.reshape(most, lanes))
        lead, tail, used = 1, blocks.shape[1], 0
        for axis in range(len(extents)):
            n, m = extents[axis]
            tail //= n
            run = tail * lanes
            basis = bases[used : used + n * m].reshape(n, m)
            _along(source, basis, lead, run, result)
            source, result = result, source
            lead, used = lead * m, used + n * m
        for lane in range(min(lanes, len(blocks) - block)):
            for w in range(len(place)):
                out[block + lane, w] = source[place[w] * lanes + lane]


@njit(nogil=True, cache=True)
def _interleave(blocks, first, sides):  # type: ignore[no-untyped-def]
    """Blocks from `first` on side by side; behind the end, the last one again."""
    for lane in range(sides.shape[1]):
        row = blocks[min(first + lane, len(blocks) - 1)]
        for i in range(len(row)):
            sides[i, lane] = row[i]


@njit(nogil=True, cache=True)
def _along(source, basis, lead, run, result):  # type: ignore[no-untyped-def]
    """``result[l, q, t] = sum_p basis[p, q] source[l, p, t]`` for t below `run`, term by term."""
    n, m = basis.shape
    length = np.uint64(run)
    for i in range(lead):
        for q in range(m):
            target = np.uint64((i * m + q) * run)
            _clear(result, target, length)
            p = 0
            while p + 8 <= n:
                _add_8(result, target, source, np.uint64((i * n + p) * run), length, basis, p, q)
                p += 8
            while p < n:
                _add(result, target, source, np.uint64((i * n + p) * run), length, basis[p, q])
                p += 1


# Unsigned places: what might count from an array's end cannot be vectorised.
@njit(nogil=True, cache=True)
def _clear(result, target, length):  # type: ignore[no-untyped-def]
    for t in range(length):
        result[target + t] = 0


@njit(nogil=True, cache=True)
def _add_8(result, target, source, a, run, basis, p, q):  # type: ignore[no-untyped-def]
    """Eight terms of the sums of one run, in registers."""
    b = a + run
    c = b + run
    d = c + run
    e = d + run
    f = e + run
    g = f + run
    h = g + run
    f0, f1, f2, f3 = basis[p, q], basis[p + 1, q], basis[p + 2, q], basis[p + 3, q]
    f4, f5, f6, f7 = basis[p + 4, q], basis[p + 5, q], basis[p + 6, q], basis[p + 7, q]
    for t in range(run):
        total = ((result[target + t] + f0 * source[a + t]) + f1 * source[b + t]) + f2 * source[c + t]
        total = ((total + f3 * source[d + t]) + f4 * source[e + t]) + f5 * source[f + t]
        result[target + t] = (total + f6 * source[g + t]) + f7 * source[h + t]


@njit(nogil=True, cache=True)
def _add(result, target, source, row, length, factor):  # type: ignore[no-untyped-def]
    for t in range(length):
        result[target + t] += factor * source[row + t]
