"""The octree over a volume of any shape: cells, splits, and the leaves that become blocks.

Cells are grown from the finest level upwards: an axis doubles from level to level until one cell spans it, so thin
axes are not split into plates and no axis need divide by a power of two. Level 0 is one cell around everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Cells = tuple[tuple[int, ...], ...]
IntArray = NDArray[np.int64]

MAX_EDGE = 4096
"""Longest edge of a cell of the deepest level that a stream can name."""
MAX_BLOCK = 1 << 24
"""Most samples of a block that a decoder accepts."""
MAX_DEPTH = 12
"""Most levels at which a decoder accepts leaves."""


def cell_pyramid(shape: tuple[int, ...], finest: tuple[int, ...]) -> Cells:
    """Cell extents of every level, level 0 (one cell around the whole signal) first.

    Parameters
    ----------
    shape : tuple of int
        Extents of the signal in samples.
    finest : tuple of int
        Extents of a cell of the deepest level.
    """
    cells = [tuple(finest)]
    while any(edge < extent for edge, extent in zip(cells[-1], shape, strict=True)):
        cells.append(tuple(2 * e if e < n else e for e, n in zip(cells[-1], shape, strict=True)))
    return tuple(reversed(cells))


def finest_cell(shape: tuple[int, ...], edges: tuple[int, ...]) -> tuple[int, ...]:
    """Cell extents near `edges` (never above) that waste least beyond the border of `shape`."""

    def best(extent: int, edge: int) -> int:
        if extent <= edge:
            return extent
        choices = range(max(2, edge - edge // 4), edge + 1)
        return min(choices, key=lambda e: (-(-extent // e) * e, -e))

    return tuple(best(n, e) for n, e in zip(shape, edges, strict=True))


@dataclass(frozen=True)
class Octree:
    """Leaves of a partition in depth-first order, and the cells they are made of.

    Attributes
    ----------
    shape : tuple of int
        Extents of the signal.
    cells : tuple of tuple of int
        Cell extents per level, coarsest first; see `cell_pyramid`.
    top : int
        Shallowest level at which a leaf may lie; every cell above it is split.
    level, index : ndarray of int64, shapes (B,) and (B, d)
        Level of each leaf and its position in the grid of that level.
    """

    shape: tuple[int, ...]
    cells: Cells
    top: int
    level: IntArray
    index: IntArray

    @property
    def depth(self) -> int:
        """The deepest level."""
        return len(self.cells) - 1

    @property
    def count(self) -> int:
        """Number of leaves."""
        return len(self.level)

    def grid(self, level: int) -> tuple[int, ...]:
        """Number of cells of `level` along each axis."""
        return grid_of(self.shape, self.cells[level])

    def fan(self, level: int) -> tuple[int, ...]:
        """Into how many cells of the next level each axis of a cell of `level` is split: 1 or 2."""
        return fan_of(self.cells, level)

    @cached_property
    def extent(self) -> IntArray:
        """Extents of each leaf's cell, shape (B, d); border cells reach beyond the signal."""
        return np.asarray(self.cells, dtype=np.int64)[self.level]

    @cached_property
    def origin(self) -> IntArray:
        """First sample of each leaf, shape (B, d)."""
        return self.index * self.extent

    def ancestor(self, level: int) -> IntArray:
        """Raster number, in the grid of `level`, of the cell of that level that holds each leaf; shape (B,)."""
        index = self.origin // np.asarray(self.cells[level])
        return np.ravel_multi_index(tuple(index.T), self.grid(level)).astype(np.int64)

    def split_flags(self) -> list[NDArray[np.bool_]]:
        """For each level from `top` to the last but one: whether each cell present is split, in raster order.

        A cell is present when all its ancestors are split.
        """
        flags = []
        present = np.ones(self.grid(self.top), dtype=bool)
        for level in range(self.top, self.depth):
            split = present.copy()
            split[tuple(self.index[self.level == level].T)] = False
            flags.append(split[present])
            present = refine(split, self.fan(level), self.grid(level + 1))
        return flags

    def overlapping(self, start: IntArray, stop: IntArray) -> IntArray:
        """Numbers of the leaves that hold a sample of the box [start, stop)."""
        inside = np.all((self.origin < stop) & (self.origin + self.extent > start), axis=1)
        return np.flatnonzero(inside)

    def owner(self, points: NDArray[np.float64]) -> IntArray:
        """Number of the leaf that holds each point (n, d), in voxel indices with centres at integers."""
        nearest = np.clip(np.floor(points + 0.5).astype(np.int64), 0, np.array(self.shape) - 1)
        owner = np.full(len(points), -1, dtype=np.int64)
        for level in range(self.top, self.depth + 1):
            here = np.flatnonzero(self.level == level)
            if not len(here):
                continue
            number = np.ravel_multi_index(tuple(self.index[here].T), self.grid(level))
            order = np.argsort(number)
            wanted = np.ravel_multi_index(tuple((nearest // np.asarray(self.cells[level])).T), self.grid(level))
            place = np.minimum(np.searchsorted(number, wanted, sorter=order), len(here) - 1)
            found = number[order[place]] == wanted
            owner[found] = here[order[place[found]]]
        return owner


def grid_of(shape: tuple[int, ...], cell: tuple[int, ...]) -> tuple[int, ...]:
    """Cells needed along each axis to cover `shape`."""
    return tuple(-(-n // e) for n, e in zip(shape, cell, strict=True))


def fan_of(cells: Cells, level: int) -> tuple[int, ...]:
    """Children along each axis of a cell of `level`."""
    return tuple(a // b for a, b in zip(cells[level], cells[level + 1], strict=True))


def refine(values: np.ndarray, fan: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    """Copy each cell's value to its children; cells wholly outside the signal are dropped."""
    for axis, copies in enumerate(fan):
        values = np.repeat(values, copies, axis=axis)
    return values[tuple(slice(n) for n in grid)]


def coarsen(values: np.ndarray, fan: tuple[int, ...]) -> np.ndarray:
    """Sum each cell's children; missing children (outside the signal) count zero."""
    padded = np.pad(values, [(0, -n % f) for n, f in zip(values.shape, fan, strict=True)])
    split_shape = [v for n, f in zip(padded.shape, fan, strict=True) for v in (n // f, f)]
    return padded.reshape(split_shape).sum(axis=tuple(range(1, 2 * len(fan), 2)))


def build(shape: tuple[int, ...], cells: Cells, top: int, splits: list[np.ndarray]) -> Octree:
    """Build the tree from full-grid split decisions, one boolean array per level from `top` to the last but one."""
    depth = len(cells) - 1
    present = np.ones(grid_of(shape, cells[top]), dtype=bool)
    levels, indices = [], []
    for level in range(top, depth + 1):
        split = splits[level - top] & present if level < depth else np.zeros_like(present)
        leaves = np.argwhere(present & ~split)
        indices.append(leaves)
        levels.append(np.full(len(leaves), level))
        if level < depth:
            present = refine(split, fan_of(cells, level), grid_of(shape, cells[level + 1]))
    level_of, index_of = np.concatenate(levels), np.concatenate(indices)
    order = np.argsort(_depth_first_key(cells, level_of, index_of), kind="stable")
    return Octree(shape, cells, top, level_of[order].astype(np.int64), index_of[order].astype(np.int64))


def from_flags(shape: tuple[int, ...], cells: Cells, top: int, read_flags: Callable[[int, int], np.ndarray]) -> Octree:
    """Inverse of `Octree.split_flags`: ``read_flags(level, n)`` returns the n flags of a level."""
    present = np.ones(grid_of(shape, cells[top]), dtype=bool)
    splits = []
    for level in range(top, len(cells) - 1):
        split = np.zeros_like(present)
        split[present] = read_flags(level, int(present.sum()))
        splits.append(split)
        present = refine(split, fan_of(cells, level), grid_of(shape, cells[level + 1]))
    return build(shape, cells, top, splits)


def choose_splits(costs: list[np.ndarray], fans: list[tuple[int, ...]], flag_cost: float) -> list[np.ndarray]:
    """Bottom-up pruning: split a cell where its children, with the flag, cost less than the cell itself.

    Parameters
    ----------
    costs : list of ndarray
        Rate-distortion cost of every cell coded as a leaf, one full grid per level, coarsest first.
    fans : list of tuple of int
        Children per axis of each level but the last.
    flag_cost : float
        Cost of one split flag, in the units of `costs`.

    Returns
    -------
    list of ndarray of bool
        Split decisions, one full grid for each level but the last.
    """
    splits: list[np.ndarray] = []
    best = costs[-1]
    for cost, fan in zip(reversed(costs[:-1]), reversed(fans), strict=True):
        children = coarsen(best, fan) + flag_cost
        split = children < cost
        splits.append(split)
        best = np.where(split, children, cost)
    return splits[::-1]


def _depth_first_key(cells: Cells, level: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sort key that visits the leaves depth first, so that neighbours in space stay close in the file."""
    origin = index * np.asarray(cells)[level]
    digits = np.zeros(len(level), dtype=np.int64)
    for depth in range(1, len(cells)):
        fan = fan_of(cells, depth - 1)
        child = (origin // np.asarray(cells[depth])) % np.asarray(fan)
        digits = digits * int(np.prod(fan)) + np.ravel_multi_index(tuple(child.T), fan)
    return digits
