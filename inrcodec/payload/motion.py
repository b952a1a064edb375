"""The section MOVE: where the samples of frames lie in still frames. Byte layout: docs/container.md."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.warp import MAX_SHIFT, MIN_SHIFT, NODE_LIMIT, Field, nodes_of

from ..coding.displacements import read_grids, write_grids
from ..coding.parameters import read_parameters
from .sections import check_extents

TAG, VERSION = "MOVE", 1
MOST_NODES = 1 << 22
"""Numbers of all nodes."""
MOST_STILL = 16
"""Samples of a still frame over those of a frame, at most."""
_COARSEST_UNIT = 3
"""Binary logarithm of the eighths that displacements may be multiples of."""
_FIXED = struct.Struct("<BBII")
Nodes = NDArray[np.int64]


def pack(field: Field) -> bytes:
    """Pack a field."""
    nodes = field.nodes.astype(np.int64)
    unit = next(u for u in range(_COARSEST_UNIT, -1, -1) if not (nodes & (1 << u) - 1).any())
    coded = write_grids(np.diff(nodes >> unit, axis=0, prepend=0))
    return _FIXED.pack(VERSION, field.shift, *field.still) + bytes([unit]) + coded


def unpack(data: bytes, shape: tuple[int, ...]) -> Field:
    """Inverse of `pack` for frames of a shape, (n, h, w).

    Raises
    ------
    ContainerError
        If a value is out of its limits.
    """
    if len(data) < _FIXED.size or len(shape) != 3:
        raise ContainerError("expected a complete MOVE section of frames, found another; get a fresh copy of the file")
    version, shift, *still = _FIXED.unpack_from(data)
    if version > VERSION:
        raise ContainerError(f"expected version {VERSION} of MOVE, found {version}; get a newer inrcodec")
    count, *frame = shape
    check_extents((count, *still))
    if not MIN_SHIFT <= shift <= MAX_SHIFT or not 0 < math.prod(still) <= MOST_STILL * math.prod(frame):
        raise ContainerError("expected still frames of sound extents in MOVE, found others; get a fresh copy of the file")
    grid = (count, 2, *(nodes_of(n, shift) for n in frame))
    if math.prod(grid) > MOST_NODES:
        raise ContainerError(f"expected at most {MOST_NODES} numbers in MOVE, found {math.prod(grid)}; get a fresh copy of the file")
    read = _read if version else _read_first_version
    nodes = read(data[_FIXED.size :], grid)
    if np.abs(nodes).max() >= NODE_LIMIT:
        raise ContainerError(f"expected displacements below {NODE_LIMIT} in MOVE, found larger ones; get a fresh copy of the file")
    return Field(nodes.astype(np.int32), shift, (frame[0], frame[1]), (still[0], still[1]))


def _read(coded: bytes, grid: tuple[int, ...]) -> Nodes:
    unit = coded[0] if coded else _COARSEST_UNIT + 1
    if unit > _COARSEST_UNIT:
        raise ContainerError("expected displacements in known units in MOVE, found others; get a fresh copy of the file")
    return np.cumsum(read_grids(coded[1:], grid), axis=0) << unit


def _read_first_version(coded: bytes, grid: tuple[int, ...]) -> Nodes:
    """Each node as what it has more than the median of neighbours before it."""
    corners, rest = read_parameters(coded, [grid[:2], grid])
    if corners.exponent or rest.exponent or rest.values[:, :, 0, 0].any():
        raise ContainerError("expected whole displacements in MOVE, found others; get a fresh copy of the file")
    steps = rest.values
    steps[:, :, 0, 0] = corners.values
    for v, u in _diagonals(grid[2:]):
        steps[:, :, v, u] += _foreseen(steps, v, u)
    return np.cumsum(steps, axis=0)


def _diagonals(grid: tuple[int, ...]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the nodes of every diagonal but the first, which need those of the two before alone."""
    rows, columns = grid
    for number in range(1, rows + columns - 1):
        v = np.arange(max(0, number - columns + 1), min(number + 1, rows))
        yield v, number - v


def _foreseen(values: Nodes, v: NDArray[np.intp], u: NDArray[np.intp]) -> Nodes:
    """The median of the node before, the one above, and the plane through both; one of them along the first row and column."""
    before, above = values[:, :, v, u - 1], values[:, :, v - 1, u]
    plane = before + above - values[:, :, v - 1, u - 1]
    median = np.clip(plane, np.minimum(before, above), np.maximum(before, above))
    return np.where(v == 0, before, np.where(u == 0, above, median))
