"""Large signals in parts: where they are cut, and the tiles of all parts as the blocks of one stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .tiles import Extents, TilePyramid

IntArray = NDArray[np.int64]

_GRAIN = 8
"""Cuts lie at multiples of so many samples, where parts have as many: three levels halve such a part without a rest."""


@dataclass(frozen=True)
class Cut:
    """A signal cut across one axis.

    Attributes
    ----------
    axis : int
    edges : tuple of int
        Where parts begin along the axis, and where the last one ends; shape (n + 1,).
    """

    axis: int
    edges: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of parts."""
        return len(self.edges) - 1

    def box(self, number: int, shape: Extents) -> tuple[slice, ...]:
        """A part of a signal of that shape."""
        here = slice(*self.edges[number : number + 2])
        return tuple(here if axis == self.axis else slice(0, n) for axis, n in enumerate(shape))

    def pieces(self, start: IntArray, stop: IntArray) -> Iterator[tuple[int, IntArray, IntArray]]:
        """The parts that a box [start, stop) meets, with what it has of each."""
        for number, (first, last) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            low, high = start.copy(), stop.copy()
            low[self.axis], high[self.axis] = max(start[self.axis], first), min(stop[self.axis], last)
            if low[self.axis] < high[self.axis]:
                yield number, low, high

    def origin(self, number: int, ndim: int) -> IntArray:
        """First sample of a part."""
        found = np.zeros(ndim, dtype=np.int64)
        found[self.axis] = self.edges[number]
        return found


def cut_of(shape: Extents, most: int, channels: bool = False) -> Cut:
    """As few parts of at most so many samples as can be, as equal as can be.

    They are cut across the slowest axis that allows it, so that whoever reads the signal in order meets one part after the other.

    Parameters
    ----------
    shape : tuple of int
    most : int
        Samples of a part. Parts have more only where one plane of the longest axis has.
    channels : bool
        Axis 0 holds channels, which stay together.
    """
    total, axes = math.prod(shape), range(1 if channels and len(shape) > 1 else 0, len(shape))
    choices = [(axis, grain) for grain in (_GRAIN, 1) for axis in axes if grain * (total // shape[axis]) <= most]
    axis, grain = choices[0] if choices else (max(axes, key=lambda a: shape[a]), 1)
    units = -(-shape[axis] // grain)
    count = -(-units // max(1, most // (grain * (total // shape[axis]))))
    return Cut(axis, (*(grain * (units * i // count) for i in range(count)), shape[axis]))


@dataclass(frozen=True)
class PartedTiles:
    """Tiles of all parts, those of each behind those of the part before.

    Attributes
    ----------
    cut : Cut
    parts : tuple of TilePyramid
    """

    cut: Cut
    parts: tuple[TilePyramid, ...]

    @cached_property
    def first(self) -> IntArray:
        """Number of each part's first tile, and of all tiles; shape (n + 1,)."""
        return np.cumsum([0, *(tiles.count for tiles in self.parts)], dtype=np.int64)

    @property
    def count(self) -> int:
        """Number of all tiles."""
        return int(self.first[-1])

    @property
    def shape(self) -> Extents:
        """Extents of the signal."""
        axis = self.cut.axis
        return (*self.parts[0].shape[:axis], self.cut.edges[-1], *self.parts[0].shape[axis + 1 :])

    def part_of(self, tile: int) -> int:
        """The part that has a tile."""
        return int(np.searchsorted(self.first, tile, side="right")) - 1

    @cached_property
    def origin(self) -> IntArray:
        """First sample under each tile, shape (B, d)."""
        return np.concatenate([tiles.origin + self.cut.origin(n, len(self.shape)) for n, tiles in enumerate(self.parts)])

    @cached_property
    def extent(self) -> IntArray:
        """Samples under each tile along each axis; shape (B, d)."""
        return np.concatenate([tiles.extent for tiles in self.parts])

    def overlapping(self, start: IntArray, stop: IntArray) -> IntArray:
        """Tiles of all levels over the samples [start, stop)."""
        low, high = np.array(start), np.array(stop)
        return np.flatnonzero(np.all((self.origin < high) & (self.origin + self.extent > low), axis=1))
