"""Coding the latents of a pyramid tile by tile: what is known of a tile from the coarser levels, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import IntegerContext, Layout, Tile, neighbouring_bits, tile_coder
from inrcodec_kernels.rans import CodedError

from .lanes import impossible, lanes_for

Place = tuple[int, int, int, int]
Read = Callable[[int, Place, Place], NDArray[np.int32]]
"""``read(level, start, stop)``: the latents [start, stop) of a level."""
Parents = Callable[[Any, Any, Sequence[bool], Place, int], tuple[Any, Any]]
"""``parents(coarse, further, halved, shape, units)``: what `inrcodec_kernels.pyramid.context.parents` gives."""


class LatentCoder:
    """Codes tiles of a pyramid whose coarser levels are known.

    Parameters
    ----------
    layout : Layout
    context : sequence of K IntegerContext
        The network of every level, the finest first; checked, all of the same units.
    backend : Backend
    """

    def __init__(self, layout: Layout, context: Sequence[IntegerContext], backend: Backend) -> None:
        self.layout, self.context = layout, context
        self._coder = tile_coder(backend)
        self._present = tuple(n > 1 for n in layout.shape)

    def encode(self, latents: NDArray[np.int32], level: int, start: Place, read: Read) -> tuple[int, bytes]:
        """Lanes and bytes of the tile of a level that begins at `start`; no bytes where all is zero."""
        if not latents.any():
            return 1, b""
        tile = self._tile(level, start, latents.shape, read)
        lanes = lanes_for(self._coder.tile_bits(latents, tile, self.context[level]) / 8)
        return lanes, self._coder.encode_tile(latents, tile, self.context[level], lanes)

    def bits(self, latents: NDArray[np.int32], level: int, start: Place, read: Read) -> float:
        """Estimated bits of a tile, what its stream needs besides counted."""
        if not latents.any():
            return 8.0
        bits = float(self._coder.tile_bits(latents, self._tile(level, start, latents.shape, read), self.context[level]))
        return bits + 32 * lanes_for(bits / 8) + 24

    def changes(self, latents: NDArray[np.int32], level: int, start: Place, read: Read) -> NDArray[np.float32]:
        """Bits that each latent of a tile would take more if it were one less, and one more, and their derivative; shape (3, *tile).

        What others would take more because of it is not counted.
        """
        network = self.context[level]
        means, scales = self._coder.predictions(latents, self._tile(level, start, latents.shape, read), network)
        return neighbouring_bits(latents, means, scales, network.units)

    def decode(self, data: NDArray[np.uint8], lanes: int, level: int, start: Place, stop: Place, read: Read) -> NDArray[np.int32]:
        """Inverse of `encode`.

        Raises
        ------
        ContainerError
            If the bytes cannot have been written by it.
        """
        shape = place_of(b - a for a, b in zip(start, stop, strict=True))
        if not len(data):
            return np.zeros(shape, dtype=np.int32)
        try:
            found: NDArray[np.int32] = self._coder.decode_tile(data, self._tile(level, start, shape, read), self.context[level], lanes)
        except CodedError as error:
            raise impossible(error) from None
        return found

    def needed(self, level: int, start: Place, stop: Place) -> list[tuple[int, Place, Place]]:
        """Levels and latents that must be known before the latents [start, stop) of a level."""
        found = []
        for coarser in range(level + 1, min(level + 3, self.layout.levels)):
            start, stop = _coarser(self.layout, coarser - 1, start, stop)
            found.append((coarser, start, stop))
        return found

    def _tile(self, level: int, start: Place, shape: tuple[int, ...], read: Read) -> Tile:
        stop = place_of(a + n for a, n in zip(start, shape, strict=True))
        if level + 1 == self.layout.levels:
            return Tile(level, start, place_of(shape), self._present, None, None)  # type: ignore[arg-type]
        u, v, origin = parents_around(self._coder.parents, self.layout, self.context[level].units, level, start, stop, read)
        inside = place_of(a - o for a, o in zip(start, origin, strict=True))
        return Tile(level, inside, place_of(shape), self._present, u, v)  # type: ignore[arg-type]


def parents_around(
    parents: Parents,
    layout: Layout,
    units: int,
    level: int,
    start: Place,
    stop: Place,
    read: Callable[[int, Place, Place], Any],
    second: bool = True,
) -> tuple[Any, Any, Place]:
    """Upsample the coarser levels around some latents.

    Parameters
    ----------
    parents : callable
        As `inrcodec_kernels.pyramid.context.parents`, of arrays or of tensors.
    layout : Layout
    units : int
        Of the context model.
    level : int
        Not the coarsest.
    start, stop : Place
        The latents [start, stop) of the level.
    read : callable
        Gives arrays or tensors.
    second : bool
        Whether the level after the next is asked for too.

    Returns
    -------
    u, v : ndarray or Tensor of int16
        Exact up to one latent beyond [start, stop); v is None where there is no such level.
    origin : Place
        Where they begin.
    """
    low, high = _coarser(layout, level, start, stop)
    halved = layout.steps[level]
    origin = place_of(2 * a if half else a for a, half in zip(low, halved, strict=True))
    end = place_of(min(2 * b, n) if half else b for b, n, half in zip(high, layout.shapes[level], halved, strict=True))
    shape = place_of(b - a for a, b in zip(origin, end, strict=True))
    further = None
    if second and level + 2 < layout.levels:
        around, _, first = parents_around(parents, layout, units, level + 1, low, high, read, second=False)
        further = around[tuple(slice(a - o, b - o) for a, b, o in zip(low, high, first, strict=True))]
    u, v = parents(read(level + 1, low, high), further, halved, shape, units)
    return u, v, origin


def _coarser(layout: Layout, level: int, start: Place, stop: Place) -> tuple[Place, Place]:
    """Latents of the next level that give those of [start, stop) and of a ring of one around them."""
    low, high = [], []
    for a, b, n, half in zip(start, stop, layout.shapes[level + 1], layout.steps[level], strict=True):
        # One more on either side than interpolation takes: at its ends a window repeats what a lattice goes on with.
        low.append(max(0, (a - 1) // 2 - 1 if half else a - 1))
        high.append(min(n, b // 2 + 2 if half else b + 1))
    return place_of(low), place_of(high)


def place_of(numbers: Iterable[int]) -> Place:
    """Four numbers as a place."""
    t, z, y, x = numbers
    return t, z, y, x
