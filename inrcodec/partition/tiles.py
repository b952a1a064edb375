"""Tiles of a pyramid of lattices: the blocks of a stream that has no octree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .octree import grid_of

Extents = tuple[int, ...]


@dataclass(frozen=True)
class TilePyramid:
    """Every level's lattice, cut into tiles that are numbered in raster order, the coarsest level's first.

    Attributes
    ----------
    shape : tuple of int
        Extents of the signal.
    lattices : tuple of tuple of int
        Extents of each level's lattice, the finest first.
    strides : tuple of tuple of int
        Samples of the signal from one latent of a level to the next, along each axis.
    edge : int
        Largest extent of a tile along any axis.
    """

    shape: Extents
    lattices: tuple[Extents, ...]
    strides: tuple[Extents, ...]
    edge: int

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.lattices)

    @property
    def reach(self) -> Extents:
        """Samples under a tile of the finest level along each axis."""
        return tuple(self.edge * stride for stride in self.strides[0])

    def grid(self, level: int) -> Extents:
        """Tiles of a level along each axis."""
        return grid_of(self.lattices[level], (self.edge,) * len(self.shape))

    @cached_property
    def first(self) -> tuple[int, ...]:
        """Number of each level's first tile, the finest level's first."""
        counts = [int(np.prod(self.grid(level))) for level in range(self.levels)]
        return tuple(sum(counts[level + 1 :]) for level in range(self.levels))

    @cached_property
    def count(self) -> int:
        """Number of all tiles."""
        return self.first[0] + int(np.prod(self.grid(0)))

    @cached_property
    def level(self) -> NDArray[np.int64]:
        """Level of each tile, shape (B,)."""
        return np.repeat(np.arange(self.levels)[::-1], [int(np.prod(self.grid(k))) for k in reversed(range(self.levels))])

    def box(self, tile: int) -> tuple[Extents, Extents]:
        """First latent of a tile, and the one after its last, along each axis of its lattice."""
        level = int(self.level[tile])
        place = np.unravel_index(tile - self.first[level], self.grid(level))
        start = tuple(int(p) * self.edge for p in place)
        return start, tuple(min(s + self.edge, n) for s, n in zip(start, self.lattices[level], strict=True))

    def within(self, level: int, start: Extents, stop: Extents) -> NDArray[np.int64]:
        """Tiles of a level that meet the latents [start, stop)."""
        spans = [np.arange(a // self.edge, (b - 1) // self.edge + 1) for a, b in zip(start, stop, strict=True)]
        places = np.meshgrid(*spans, indexing="ij")
        found: NDArray[np.int64] = np.ravel_multi_index(tuple(places), self.grid(level)).ravel() + self.first[level]
        return found

    @cached_property
    def origin(self) -> NDArray[np.int64]:
        """First sample under each tile, shape (B, d)."""
        return np.array([self.box(tile)[0] for tile in range(self.count)]) * self._strides

    @cached_property
    def extent(self) -> NDArray[np.int64]:
        """Samples under each tile along each axis, those beyond the signal not counted; shape (B, d)."""
        ends = np.array([self.box(tile)[1] for tile in range(self.count)]) * self._strides
        return np.minimum(ends, self.shape) - self.origin

    @property
    def _strides(self) -> NDArray[np.int64]:
        return np.array(self.strides)[self.level]

    def overlapping(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tiles of all levels over the samples [start, stop)."""
        low, high = np.array(start), np.array(stop)
        return np.flatnonzero(np.all((self.origin < high) & (self.origin + self.extent > low), axis=1))
