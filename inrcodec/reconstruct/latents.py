"""Latents of a pyramid stream: decoded coarse to fine, tile by tile, where samples need them, and kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend, in_threads
from inrcodec_kernels.pyramid import Box, IntegerContext

from ..coding.latents import LatentCoder, Place
from ..coding.latents_there import Coded, DeviceLatentCoder
from ..models.pyramid import AXES
from ..payload.pyramid import PyramidStream
from .base import Chunks

_CACHE_BYTES = 256 << 20
"""Decoded tiles that are kept."""


class Latents:
    """Decoded tiles in the host's memory.

    Parameters
    ----------
    stream : PyramidStream
    context : sequence of K IntegerContext
        The network of every level.
    backend : Backend
    """

    def __init__(self, stream: PyramidStream, context: Sequence[IntegerContext], backend: Backend) -> None:
        self.tree, self.levels = stream.tiles, stream.layout.levels
        self._coder = LatentCoder(stream.layout.kernel, context, backend)
        self._missing = AXES - stream.layout.ndim
        self._decoded: OrderedDict[int, Any] = OrderedDict()
        self._bytes = 0

    def full(self, place: NDArray[np.int64], missing: int = 0) -> Place:
        """A place with four axes; along absent ones it is `missing`."""
        return (missing,) * self._missing + tuple(place.tolist())

    def decode(self, seen: Box, chunks: Chunks) -> None:
        """Decode the tiles under the latents of the finest level that a box sees, and those that must be known before."""
        wanted = self._wanted(*seen)
        numbers = np.sort(np.concatenate(wanted))
        self._drop(set(numbers.tolist()))
        missing = np.array([n for n in numbers.tolist() if n not in self._decoded], dtype=np.int64)
        if not len(missing):
            return
        coded: dict[int, Coded] = {}
        for chunk in chunks(missing):
            coded.update((chunk.first + i, chunk.decoded[i]) for i in np.flatnonzero(chunk.wanted).tolist())
        for level in reversed(range(self.levels)):
            here = [n for n in wanted[level].tolist() if n not in self._decoded]
            self._keep(here, self._decode_tiles(level, here, coded))

    def read(self, level: int, start: Place, stop: Place) -> Any:
        """Latents of decoded tiles."""
        found = self._zeros(tuple(b - a for a, b in zip(start, stop, strict=True)))
        for tile in self._tiles(level, start, stop).tolist():
            first, last = self._box(tile)
            low = [max(a, f) for a, f in zip(start, first, strict=True)]
            high = [min(b, e) for b, e in zip(stop, last, strict=True)]
            inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
            found[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = self._decoded[tile][inside]
        return found

    def _wanted(self, start: Place, stop: Place) -> list[NDArray[np.int64]]:
        """Tiles of every level."""
        found = [self._tiles(0, start, stop)]
        for level in range(self.levels - 1):
            # What the contexts of whole tiles need of the next level holds what samples see of it.
            start, stop = self._box(int(found[-1][0]))[0], self._box(int(found[-1][-1]))[1]
            _, start, stop = self._coder.needed(level, start, stop)[0]
            found.append(self._tiles(level + 1, start, stop))
        return found

    def _tiles(self, level: int, start: Place, stop: Place) -> NDArray[np.int64]:
        """Tiles of a level that meet a box, in raster order."""
        return self.tree.within(level, start[self._missing :], stop[self._missing :])

    def _box(self, tile: int) -> Box:
        start, stop = self.tree.box(tile)
        return self.full(np.array(start)), self.full(np.array(stop), 1)

    def _decode_tiles(self, level: int, tiles: list[int], coded: dict[int, Coded]) -> list[Any]:
        """Latents of tiles of a level, which say nothing of each other."""
        return in_threads(lambda n: self._decode_tile(n, *coded[n]), tiles)

    def _decode_tile(self, tile: int, lanes: int, body: NDArray[np.uint8]) -> NDArray[np.int32]:
        level = int(self.tree.level[tile])
        return self._coder.decode(body, lanes, level, *self._box(tile), self.read)

    def _zeros(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape, dtype=np.int32)

    def _keep(self, tiles: list[int], latents: list[Any]) -> None:
        for tile, values in zip(tiles, latents, strict=True):
            self._decoded[tile] = values
            self._bytes += values.nbytes

    def _drop(self, kept: set[int]) -> None:
        """Forget tiles, those decoded first before others, down to what is kept of the rest."""
        for tile in list(self._decoded):
            if self._bytes <= _CACHE_BYTES:
                return
            if tile not in kept:
                self._bytes -= self._decoded.pop(tile).nbytes


class DeviceLatents(Latents):
    """Decoded tiles in the memory of a CUDA device; all of a level are decoded at once."""

    def __init__(self, stream: PyramidStream, context: Sequence[IntegerContext], backend: Backend) -> None:
        super().__init__(stream, context, backend)
        self._there = DeviceLatentCoder(stream.layout.kernel, context, backend.device)

    def _decode_tiles(self, level: int, tiles: list[int], coded: dict[int, Coded]) -> list[Any]:
        return list(self._there.decode([coded[n] for n in tiles], level, [self._box(n) for n in tiles], self.read))

    def _zeros(self, shape: tuple[int, ...]) -> Any:
        return torch.zeros(shape, dtype=torch.int32, device=self._there.device)
