"""Values between samples, linear along every axis, from the boxes of samples around them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ReadBox = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]

_SAMPLES = 1 << 22
"""Values made at a time."""
_CELL = 32
"""Points are evaluated together where they fall into the same cube of this edge."""


def on_grid(read: ReadBox, shape: tuple[int, ...], grids: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Values on a grid of positions.

    Parameters
    ----------
    read : callable
        ``read(start, stop)``: samples of a box.
    shape : tuple of int
        Of the signal.
    grids : list of ndarray
        Ascending positions along each axis, in voxel indices.
    """
    neighbours = [_neighbours(g, n) for g, n in zip(grids, shape, strict=True)]
    found = np.empty([len(g) for g in grids], dtype=np.float32)
    rows = max(1, _SAMPLES // max(1, math.prod(found.shape[1:])))
    for at in range(0, len(found), rows):
        here = [tuple(part[at : at + rows] for part in neighbours[0]), *neighbours[1:]]
        start = np.array([low.min() for low, _, _ in here])
        values = read(start, np.array([high.max() + 1 for _, high, _ in here]))
        for axis, (low, high, share) in enumerate(here):
            weight = share.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            first, second = values.take(low - start[axis], axis), values.take(high - start[axis], axis)
            values = first + weight * (second - first)
        found[at : at + rows] = values
    return found


def at_points(read: ReadBox, shape: tuple[int, ...], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at points (n, d); parameters as those of `on_grid`. Points near each other are evaluated together."""
    found = np.zeros(len(points))
    cells = np.clip(np.floor(points).astype(np.int64), 0, None) // _CELL
    for cell in np.unique(cells, axis=0):
        here = np.flatnonzero((cells == cell).all(axis=1))
        ends = [_neighbours(points[here, a], n) for a, n in enumerate(shape)]
        start = np.array([low.min() for low, _, _ in ends])
        values = read(start, np.array([high.max() + 1 for _, high, _ in ends]))
        for corner in itertools.product((0, 1), repeat=len(ends)):
            weight = np.prod([share if c else 1 - share for c, (_, _, share) in zip(corner, ends, strict=True)], axis=0)
            place = tuple(e[c] - s for c, e, s in zip(corner, ends, start, strict=True))
            found[here] += weight * values[place]
    return found


def _neighbours(
    positions: NDArray[np.float64], extent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The samples on either side of positions of an axis, and how far each lies towards the second; the edge goes on."""
    inside = np.clip(positions, 0, extent - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), max(extent - 2, 0))
    return low, np.minimum(low + 1, extent - 1), inside - low
