"""Samples of a pyramid stream: latents decoded coarse to fine, tile by tile, then the synthesis."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend, best_on_cpu, in_threads
from inrcodec_kernels.pyramid import IntegerContext, Synthesis, synthesise_box
from inrcodec_kernels.pyramid import needed as seen_by

from ..coding.latents import LatentCoder, Place
from ..models.pyramid import AXES
from ..payload.pyramid import PyramidStream, networks_from_section, read_chunk
from ..payload.sections import needed
from .base import BlockCosts, Chunks, rounded

Tiles = list[tuple[int, NDArray[np.uint8]]]

_SAMPLES = 1 << 22
"""Samples synthesised at a time."""
_CACHE_BYTES = 256 << 20
"""Decoded tiles that are kept."""
_NO_KERNELS = "there are no GPU kernels for the pyramid"


class PyramidReconstruction:
    """See `base.Reconstruction`.

    Parameters
    ----------
    stream : PyramidStream
    context : IntegerContext
    synthesis : Synthesis
    backend : Backend
    """

    on_device: ClassVar[None] = None

    def __init__(self, stream: PyramidStream, context: IntegerContext, synthesis: Synthesis, backend: Backend) -> None:
        self.backend = best_on_cpu(_NO_KERNELS) if backend.name == "triton" else backend
        self.stream, self.synthesis = stream, synthesis
        self.tree, self.step, self.low, self.high = stream.tiles, stream.step, stream.low, stream.high
        self.rows = stream.edge
        self.evaluated = 0
        self.shared_weights = stream.layout.parameters
        self._coder = LatentCoder(stream.layout.kernel, context, self.backend)
        self._missing = AXES - stream.layout.ndim
        self._decoded: OrderedDict[int, NDArray[np.int32]] = OrderedDict()
        self._bytes = 0

    @classmethod
    def of(cls, container: Container, backend: Backend) -> PyramidReconstruction:
        """Read the sections TREE and NETW."""
        tree, networks = needed(container, ("TREE", "NETW"))
        stream = PyramidStream.from_section(tree, container.header.shape, container.chunks.blocks)
        return cls(stream, *networks_from_section(networks, stream.layout), backend)

    def read_chunk(self, data: bytes, first: int, stop: int) -> Tiles:
        """The tiles [first, stop), still coded: their contexts need coarser tiles."""
        return read_chunk(data, stop - first)

    def size_of(self, decoded: Tiles) -> int:
        """Bytes that a chunk takes."""
        return 64 * len(decoded) + sum(len(body) for _, body in decoded)

    def costs(self, decoded: Tiles, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        size = np.array([len(body) for _, body in decoded])
        latents = [math.prod(b - a for a, b in zip(*self.tree.box(tile), strict=True)) for tile in range(first, stop)]
        return BlockCosts(8.0 * size, size == 0, np.where(size > 0, latents, 0))

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of the pyramid."""
        layout = self.stream.layout
        return {
            "lattices": ["x".join(map(str, lattice)) for lattice in layout.lattices],
            "latents": layout.latents,
            "tile_edge": self.stream.edge,
            "step": self.step,
            "context_width": layout.context,
            "synthesis_widths": "-".join(map(str, layout.synthesis)),
        }

    def box(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        found = np.empty(tuple((stop - start).tolist()), dtype=np.float32)
        for part in _parts(found.shape):
            low = start + [s.start for s in part]
            found[part] = self._samples(low, start + [s.stop for s in part], chunks)
        return found

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        return rounded(self.box(start, stop, chunks), self.low, self.high, dtype)

    def box_there(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> Tensor:
        """As `integers`, or `box` where the dtype is float32, as a tensor."""
        found = self.box(start, stop, chunks) if dtype == np.float32 else self.integers(start, stop, chunks, dtype)
        return torch.from_numpy(found)

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions, linear between samples."""
        neighbours = [_neighbours(g, n) for g, n in zip(grids, self.tree.shape, strict=True)]
        found = np.empty([len(g) for g in grids], dtype=np.float32)
        rows = max(1, _SAMPLES // max(1, math.prod(found.shape[1:])))
        for at in range(0, len(found), rows):
            here = [tuple(part[at : at + rows] for part in neighbours[0]), *neighbours[1:]]
            start = np.array([low.min() for low, _, _ in here])
            values = self.box(start, np.array([high.max() + 1 for _, high, _ in here]), chunks)
            for axis, (low, high, share) in enumerate(here):
                weight = share.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
                first, second = values.take(low - start[axis], axis), values.take(high - start[axis], axis)
                values = first + weight * (second - first)
            found[at : at + rows] = values
        return found

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d), linear between samples; those near each other are evaluated together."""
        found = np.zeros(len(points))
        cells = np.clip(np.floor(points).astype(np.int64), 0, None) // 32
        for cell in np.unique(cells, axis=0):
            here = np.flatnonzero((cells == cell).all(axis=1))
            ends = [_neighbours(points[here, a], n) for a, n in enumerate(self.tree.shape)]
            start = np.array([low.min() for low, _, _ in ends])
            values = self.box(start, np.array([high.max() + 1 for _, high, _ in ends]), chunks)
            for corner in itertools.product((0, 1), repeat=len(ends)):
                weight = np.prod([share if c else 1 - share for c, (_, _, share) in zip(corner, ends, strict=True)], axis=0)
                place = tuple(e[c] - s for c, e, s in zip(corner, ends, start, strict=True))
                found[here] += weight * values[place]
        return found

    def _samples(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of a box that is evaluated at once."""
        box = self._full(start), self._full(stop, 1)
        seen = seen_by(self.stream.layout.kernel, *box)
        self._decode(seen, chunks)
        latents = [self._read(level, *part).astype(np.float32) for level, part in enumerate(seen)]
        values = synthesise_box(latents, [a for a, _ in seen], self.synthesis, self.stream.layout.kernel, *box, self.backend)
        self.evaluated += values.size
        samples = values.reshape(tuple((stop - start).tolist())) * np.float32(self.step) + np.float32(self.stream.offset)
        if not np.all(np.abs(samples) < 1e20):
            raise ContainerError("expected networks of finite values, found others; get a fresh copy of the file")
        return samples

    def _full(self, place: NDArray[np.int64], missing: int = 0) -> Place:
        return (missing,) * self._missing + tuple(place.tolist())

    def _decode(self, seen: list[tuple[Place, Place]], chunks: Chunks) -> None:
        """Decode the tiles under the latents that are seen, and those that their contexts need, coarse to fine."""
        wanted: list[set[int]] = [set() for _ in seen]
        for level, box in enumerate(seen):
            self._want(wanted, level, *box)
        for level in range(len(seen)):
            for tile in sorted(wanted[level]):
                start, stop = self._box(tile)
                for coarser, low, high in self._coder.needed(level, start, stop):
                    self._want(wanted, coarser, low, high)
        numbers = np.array(sorted(set().union(*wanted)), dtype=np.int64)
        self._drop(set(numbers.tolist()))
        missing = np.array([n for n in numbers.tolist() if n not in self._decoded], dtype=np.int64)
        if not len(missing):
            return
        coded: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        for chunk in chunks(missing):
            coded.update((chunk.first + i, chunk.decoded[i]) for i in np.flatnonzero(chunk.wanted).tolist())
        for level in reversed(range(len(seen))):
            # Tiles of a level say nothing of each other.
            here = [n for n in missing.tolist() if self.tree.level[n] == level]
            for tile, latents in zip(here, in_threads(lambda n: self._decode_tile(n, *coded[n]), here), strict=True):
                self._decoded[tile] = latents
                self._bytes += latents.nbytes

    def _want(self, wanted: list[set[int]], level: int, start: Place, stop: Place) -> None:
        tiles = self.tree.within(level, start[self._missing :], stop[self._missing :])
        wanted[level].update(tiles.tolist())

    def _box(self, tile: int) -> tuple[Place, Place]:
        start, stop = self.tree.box(tile)
        return self._full(np.array(start)), self._full(np.array(stop), 1)

    def _decode_tile(self, tile: int, lanes: int, body: NDArray[np.uint8]) -> NDArray[np.int32]:
        level = int(self.tree.level[tile])
        return self._coder.decode(body, lanes, level, *self._box(tile), self._read)

    def _read(self, level: int, start: Place, stop: Place) -> NDArray[np.int32]:
        """Latents of decoded tiles."""
        found = np.zeros(tuple(b - a for a, b in zip(start, stop, strict=True)), dtype=np.int32)
        for tile in self.tree.within(level, start[self._missing :], stop[self._missing :]).tolist():
            first, last = self._box(tile)
            low = [max(a, f) for a, f in zip(start, first, strict=True)]
            high = [min(b, e) for b, e in zip(stop, last, strict=True)]
            inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
            found[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = self._decoded[tile][inside]
        return found

    def _drop(self, kept: set[int]) -> None:
        """Forget tiles, those decoded first before others, down to what is kept of the rest."""
        for tile in list(self._decoded):
            if self._bytes <= _CACHE_BYTES:
                return
            if tile not in kept:
                self._bytes -= self._decoded.pop(tile).nbytes


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a box into parts of at most `_SAMPLES`, along its first axes."""
    cuts, left = [], _SAMPLES
    for n, rest in zip(shape, [math.prod(shape[axis + 1 :]) for axis in range(len(shape))], strict=True):
        length = min(n, max(1, left // max(rest, 1)))
        cuts.append([slice(a, min(a + length, n)) for a in range(0, n, max(length, 1))])
        left = max(left // length, 1) if rest > left else _SAMPLES
    yield from itertools.product(*cuts)


def _neighbours(
    positions: NDArray[np.float64], extent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The samples on either side of positions of an axis, and how far each lies towards the second; the edge goes on."""
    inside = np.clip(positions, 0, extent - 1)
    low = np.minimum(np.floor(inside).astype(np.int64), max(extent - 2, 0))
    return low, np.minimum(low + 1, extent - 1), inside - low
