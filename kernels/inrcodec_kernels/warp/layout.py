"""Fields of displacements, and the whole numbers that follow from them: the same on every machine."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PHASES, TAPS = 16, 6
"""Positions between two samples, and samples that are weighted for one."""
BEFORE = TAPS // 2 - 1
"""Of the taps: those in front of the sample that a position is rounded down to."""
NODE_LIMIT = 1 << 17
"""Displacements are below this, in eighths: all sums fit 32 bits."""
MIN_SHIFT, MAX_SHIFT = 3, 6
"""Of `Field.shift`."""
Place = tuple[int, int, int]
Places = NDArray[np.int64]
# Lanczos windows of 3 lobes, 256ths, for 0/16 to 8/16 of a sample; each line sums to 256.
_HALF = (
    (0, 0, 256, 0, 0, 0), (3, -12, 255, 14, -4, 0), (5, -22, 250, 31, -8, 0),
    (7, -29, 240, 49, -12, 1), (8, -34, 228, 69, -17, 2), (8, -37, 213, 91, -22, 3),
    (8, -38, 196, 113, -27, 4), (7, -37, 177, 135, -31, 5), (6, -35, 157, 157, -35, 6),
)  # fmt: skip
WEIGHTS: NDArray[np.float32] = np.array([*_HALF, *(line[::-1] for line in _HALF[7:0:-1])], dtype=np.float32) / np.float32(256)


class Field(NamedTuple):
    """Where the samples of frames lie in still frames.

    Attributes
    ----------
    nodes : ndarray of int32, shape (n, 2, K_y, K_x)
        Displacements along y and x, in eighths of a sample, at every 2^shift-th sample of each frame.
    shift : int
        3..6.
    frame : tuple of 2 int
        Extents of a frame, (h, w); ``K_y = ((h - 1) >> shift) + 2``, and so for x.
    still : tuple of 2 int
        Extents of a still frame.
    """

    nodes: NDArray[np.int32]
    shift: int
    frame: tuple[int, int]
    still: tuple[int, int]


def nodes_of(extent: int, shift: int) -> int:
    """Nodes along an axis."""
    return ((extent - 1) >> shift) + 2


def positions(field: Field, start: Place, stop: Place) -> NDArray[np.int32]:
    """Positions of the samples of a box in the still frames, in sixteenths; shape (n, 2, h, w)."""
    return _positions(field, slice(start[0], stop[0]), *(np.arange(a, b) for a, b in zip(start[1:], stop[1:], strict=True)))


def _positions(field: Field, frames: slice, rows: Places, columns: Places) -> NDArray[np.int32]:
    """Those of the samples in some rows and columns."""
    size, nodes = 1 << field.shift, field.nodes[frames].astype(np.int64)
    (y, fy), (x, fx) = ((p >> field.shift, p & size - 1) for p in (rows, columns))
    along = nodes[:, :, y] * (size - fy)[:, None] + nodes[:, :, y + 1] * fy[:, None]
    sums = along[..., x] * (size - fx) + along[..., x + 1] * fx
    # A node's unit is two of those of positions.
    moved = (sums + (1 << 2 * field.shift - 2)) >> (2 * field.shift - 1)
    moved[:, 0] += PHASES * rows[:, None]
    moved[:, 1] += PHASES * columns
    return moved.astype(np.int32)


def seen(field: Field, start: Place, stop: Place) -> tuple[Place, Place]:
    """The box of still frames, first and end, that the samples of a box of frames depend on."""
    # Between four nodes positions are bilinear, so that none lies beyond those of the corners.
    rows, columns = (_corners(a, b, 1 << field.shift) for a, b in zip(start[1:], stop[1:], strict=True))
    whole = _positions(field, slice(start[0], stop[0]), rows, columns) >> 4
    low, high = whole.min(axis=(0, 2, 3)) - BEFORE, whole.max(axis=(0, 2, 3)) + TAPS - BEFORE
    ends = [(int(np.clip(a, 0, n - 1)), int(np.clip(b, 1, n))) for a, b, n in zip(low, high, field.still, strict=True)]
    (y0, y1), (x0, x1) = ends
    return (start[0], y0, x0), (stop[0], y1, x1)


def _corners(start: int, stop: int, size: int) -> Places:
    """First and last samples of [start, stop) between every two nodes."""
    first = np.arange(start // size * size, stop, size)
    return np.unique(np.clip(np.concatenate([first, first + size - 1]), start, stop - 1))


def check(field: Field) -> None:
    """Refuse a field that does not fit its frames.

    Raises
    ------
    ValueError
        If a number of it is out of its limits.
    """
    shape = (len(field.nodes), 2, *(nodes_of(n, field.shift) for n in field.frame))
    sound = MIN_SHIFT <= field.shift <= MAX_SHIFT and min(*field.frame, *field.still) > 0
    largest: Any = np.abs(field.nodes.astype(np.int64)).max(initial=0)
    if not sound or field.nodes.shape != shape or largest >= NODE_LIMIT:
        raise ValueError(
            f"expected nodes of shape {shape} below {NODE_LIMIT}, found {field.nodes.shape} up to {largest}; use the frames' field"
        )
