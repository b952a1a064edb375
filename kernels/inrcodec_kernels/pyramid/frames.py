"""Lattices in memory as the loops want them: flat, with a ring as wide as taps reach, so that a tap is a shift."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..vectors import LANES
from .layout import CENTRE, Box, Floats, Layout, Place

VECTORS = 3
"""Vectors of a block of positions that are made together."""
BLOCK = VECTORS * LANES
SLAB, _LEAST_SLAB, _FEW = 1 << 15, 1 << 12, 8
"""Positions of a slab, about, and of one of a small lattice, of which there are so many: enough that a call does not count, few enough that every thread gets some."""


class Frame(NamedTuple):
    """Where the samples of a box of a lattice lie in a flat array.

    Attributes
    ----------
    extents : tuple of 4 int
        Of the box.
    ring : tuple of 4 int
        Samples before and after the box along every axis, 0 where the signal has no such axis.
    strides : tuple of 4 int
    first : int
        Where the first sample lies.
    size : int
        Length of the array, with what blocks of positions read beyond the last one.
    """

    extents: Place
    ring: Place
    strides: Place
    first: int
    size: int

    @classmethod
    def of(cls, extents: Sequence[int], ring: Place) -> Frame:
        """The frame of a box, `Layout.context_reach` or `Layout.synthesis_reach` around it."""
        t, z, y, x = extents
        outer = [n + 2 * r for n, r in zip((t, z, y, x), ring, strict=True)]
        strides = (math.prod(outer[1:]), outer[2] * outer[3], outer[3], 1)
        first = sum(r * s for r, s in zip(ring, strides, strict=True))
        return cls((t, z, y, x), ring, strides, first, math.prod(outer) + 2 * BLOCK)

    @classmethod
    def bare(cls, extents: Sequence[int]) -> Frame:
        """The frame of a plain array in C order."""
        t, z, y, x = extents
        return cls((t, z, y, x), CENTRE, (z * y * x, y * x, x, 1), 0, t * z * y * x)

    def ringed(self, flat: Floats) -> Floats:
        """The box with its ring, a view."""
        outer = [n + 2 * r for n, r in zip(self.extents, self.ring, strict=True)]
        return flat[: math.prod(outer)].reshape(outer)

    def inside(self, flat: Floats) -> Floats:
        """The box, a view."""
        return self.ringed(flat)[tuple(slice(r, r + n) for r, n in zip(self.ring, self.extents, strict=True))]

    def shift(self, tap: Sequence[int]) -> int:
        """Distance of a tap's sample."""
        return sum(step * stride for step, stride in zip(tap, self.strides, strict=True))

    def repeat_edge(self, flat: Floats) -> None:
        """Write the ring: every sample of it is that of the edge."""
        ringed = self.ringed(flat)
        for axis, r in enumerate(self.ring):
            if r:
                along = np.moveaxis(ringed, axis, 0)
                along[:r], along[-r:] = along[r], along[-r - 1]

    def fold_edge(self, flat: Floats) -> None:
        """Adjoint of `repeat_edge`: gradients of the ring are those of the edge."""
        ringed = self.ringed(flat)
        for axis, r in enumerate(self.ring):
            along = np.moveaxis(ringed, axis, 0)
            for place in range(r):
                along[r] += along[place]
                along[-r - 1] += along[-place - 1]


class Thinning(NamedTuple):
    """Of every `of` lines, by the sums of their places along axes, the one whose number it is, from 0."""

    axes: tuple[int, ...]
    of: int
    number: int


class Slab(NamedTuple):
    """Positions that a thread takes: runs of one length. Its taps reach the two slabs beside it, and no others.

    Attributes
    ----------
    begins : ndarray of int64
        Where the runs begin.
    mask : ndarray of float32
        1 where a position of a run is a sample, 0 where it belongs to the ring; padded with zeros.
    length : int
        Of a run.
    """

    begins: NDArray[np.int64]
    mask: Floats
    length: int

    def thinned(self, frame: Frame, by: Thinning) -> Slab:
        """The lines whose turn it is; along z alone whole planes."""
        pitch, begins, mask, length = frame.strides[2], self.begins, self.mask, self.length
        if 2 in by.axes:
            rows = -(-length // pitch)
            length -= (rows - 1) * pitch
            begins, mask = (begins[:, None] + pitch * np.arange(rows)).ravel(), _mask(length, pitch, length)
        places = sum((begins - frame.first) % frame.strides[axis - 1] // frame.strides[axis] for axis in by.axes)
        return Slab(begins[(places - by.number) % by.of == 0], mask, length)


def slabs(frame: Frame, box: Box, thinned: Thinning | None = None) -> tuple[Slab, ...]:
    """Cut a box of a frame into slabs, however many threads there are: what two slabs reach of the one between them does not overlap.

    Planes are cut along z with all of t, lines along y where there is one plane, else samples along x. Thinned ones are the same with fewer lines.
    """
    positions = math.prod(b - a for a, b in zip(*box, strict=True))
    return _slabs(frame, box, min(SLAB, max(_LEAST_SLAB, positions // _FEW)), thinned)


def whole_slabs(positions: int) -> int:
    """How many large slabs so many positions fill."""
    return positions // SLAB


# The same at every step of a fit; nobody writes to them.
@lru_cache(maxsize=64)
def _slabs(frame: Frame, box: Box, size: int, thinned: Thinning | None) -> tuple[Slab, ...]:
    (_, *start), extents = box[0], [b - a for a, b in zip(*box, strict=True)]
    axis = next((a for a in (1, 2) if extents[a] > 1), 3)
    units = max(2 * frame.ring[axis], -(-size // (extents[0] * frame.strides[axis])))
    found, masks = [], dict[int, Floats]()
    for low in range(0, extents[axis], units):
        count = min(units, extents[axis] - low)
        corner = list(start)
        corner[axis - 1] += low
        rows, columns = (count if axis == a else extents[a] for a in (2, 3))
        length = (rows - 1) * frame.strides[2] + columns
        planes = range(count if axis == 1 else 1)
        begins = [
            frame.first + frame.shift((box[0][0] + t, corner[0] + z, *corner[1:]))
            for t in range(extents[0])
            for z in planes
        ]
        if length not in masks:
            masks[length] = _mask(length, frame.strides[2], columns)
        found.append(Slab(np.array(begins), masks[length], length))
    return tuple(found if thinned is None else (slab.thinned(frame, thinned) for slab in found))


def _mask(length: int, pitch: int, columns: int) -> Floats:
    mask = np.zeros(length + BLOCK, np.float32)
    mask[:length] = np.arange(length) % pitch < columns
    return mask


class Weights(NamedTuple):
    """What samples count, in a frame of their own: one plane for all along t or z where they are the same there.

    Attributes
    ----------
    flat : ndarray of float32
        Empty where all samples count 1.
    frame : Frame
        Of what `flat` holds.
    steps : tuple of 2 int
        Strides along t and z, 0 where weights are the same.
    """

    flat: Floats
    frame: Frame
    steps: tuple[int, int]

    @classmethod
    def of(cls, weights: Floats | None, layout: Layout) -> Weights:
        """Arrange weights of extents 1 or those of the signal."""
        if weights is None:
            return cls(np.zeros(0, np.float32), Frame.of(layout.shape, layout.synthesis_reach), (0, 0))
        frame = Frame.of((*weights.shape[:2], *layout.shape[2:]), layout.synthesis_reach)
        flat = np.zeros(frame.size, np.float32)
        frame.inside(flat)[...] = weights
        t, z = (0 if n == 1 else s for n, s in zip(weights.shape[:2], frame.strides[:2], strict=True))
        return cls(flat, frame, (t, z))

    def begins(self, begins: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
        """Where the weights of runs begin that begin at these places of the signal's frame."""
        t, plane = np.divmod(begins - frame.first, frame.strides[0])
        z, place = np.divmod(plane, frame.strides[1])
        found: NDArray[np.int64] = self.frame.first + t * self.steps[0] + z * self.steps[1] + place
        return found


def alternate(count: int) -> Iterator[range]:
    """Numbers of slabs that may add to one array at once: every second one, then those between."""
    yield range(0, count, 2)
    yield range(1, count, 2)
