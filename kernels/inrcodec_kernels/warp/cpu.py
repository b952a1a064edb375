"""The warp and its adjoint in compiled loops, a frame to a thread."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from .layout import BEFORE, TAPS, WEIGHTS, Field, Place

Floats = NDArray[np.float32]


@njit(nogil=True, error_model="numpy", inline="always")
def _moved(nodes, shift, y, x):  # type: ignore[no-untyped-def]
    """Displacement of a sample along one axis, in sixteenths."""
    size, v, u = 1 << shift, y >> shift, x >> shift
    fy, fx = y & (size - 1), x & (size - 1)
    above = (size - fx) * nodes[v, u] + fx * nodes[v, u + 1]
    below = (size - fx) * nodes[v + 1, u] + fx * nodes[v + 1, u + 1]
    return ((size - fy) * above + fy * below + (1 << (2 * shift - 2))) >> (2 * shift - 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _frame(still, origin_y, origin_x, height, width, nodes, shift, weights, first_y, first_x, out):  # type: ignore[no-untyped-def]
    """Samples of a frame from `first` on; every sum has the same order whatever the box."""
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            y, x = first_y + r, first_x + c
            py, px = 16 * y + _moved(nodes[0], shift, y, x), 16 * x + _moved(nodes[1], shift, y, x)
            top, left, of_y, of_x = (py >> 4) - BEFORE, (px >> 4) - BEFORE, weights[py & 15], weights[px & 15]
            total = np.float32(0)
            if top >= 0 and top + TAPS <= height and left >= 0 and left + TAPS <= width:
                for i in range(TAPS):
                    line = np.float32(0)
                    for j in range(TAPS):
                        line += of_x[j] * still[top + i - origin_y, left + j - origin_x]
                    total += of_y[i] * line
            else:
                for i in range(TAPS):
                    row = min(max(top + i, 0), height - 1) - origin_y
                    line = np.float32(0)
                    for j in range(TAPS):
                        line += of_x[j] * still[row, min(max(left + j, 0), width - 1) - origin_x]
                    total += of_y[i] * line
            out[r, c] = total


@njit(nogil=True, cache=True, error_model="numpy")
def _back(gradients, nodes, shift, weights, out):  # type: ignore[no-untyped-def]
    """Add every sample's gradient where the sample was taken from."""
    height, width = out.shape
    for y in range(gradients.shape[0]):
        for x in range(gradients.shape[1]):
            py, px = 16 * y + _moved(nodes[0], shift, y, x), 16 * x + _moved(nodes[1], shift, y, x)
            top, left, of_y, of_x = (py >> 4) - BEFORE, (px >> 4) - BEFORE, weights[py & 15], weights[px & 15]
            inside = top >= 0 and top + TAPS <= height and left >= 0 and left + TAPS <= width
            for i in range(TAPS):
                share = of_y[i] * gradients[y, x]
                if inside:
                    for j in range(TAPS):
                        out[top + i, left + j] += share * of_x[j]
                else:
                    row = min(max(top + i, 0), height - 1)
                    for j in range(TAPS):
                        out[row, min(max(left + j, 0), width - 1)] += share * of_x[j]


def warp(still: Floats, origin: tuple[int, int], field: Field, start: Place, stop: Place) -> Floats:
    """As `inrcodec_kernels.warp.warp`."""
    out = np.empty([b - a for a, b in zip(start, stop, strict=True)], dtype=np.float32)
    whole, nodes = np.ascontiguousarray(still), np.ascontiguousarray(field.nodes[start[0] : stop[0]], np.int64)

    def work(t: int) -> None:
        _frame(whole[t], *origin, *field.still, nodes[t], field.shift, WEIGHTS, *start[1:], out[t])

    in_threads(work, range(len(out)))
    return out


def adjoint(gradients: Floats, field: Field) -> Floats:
    """As `inrcodec_kernels.warp.adjoint`; a frame's gradients stay within its still frame, so results do not depend on threads."""
    out = np.zeros((len(gradients), *field.still), dtype=np.float32)
    whole, nodes = np.ascontiguousarray(gradients), np.ascontiguousarray(field.nodes, np.int64)
    in_threads(lambda t: _back(whole[t], nodes[t], field.shift, WEIGHTS, out[t]), range(len(out)))
    return out
