"""Samples of a pyramid stream: latents decoded coarse to fine, tile by tile, then the synthesis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.axes import CHANNEL
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import IntegerContext, Synthesis, synthesise_box
from inrcodec_kernels.pyramid import needed as seen_by

from ..payload.pyramid import PyramidStream, networks_from_section, read_chunk
from ..payload.sections import needed
from .base import UNSOUND, BlockCosts, Chunks, rounded
from .latents import Latents
from .pyramid_there import PyramidBoxes, extents_there

Tiles = list[tuple[int, NDArray[np.uint8]]]

_SAMPLES = 1 << 22
"""Samples synthesised at a time."""


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
        self.backend = backend
        self.stream, self.context, self.synthesis = stream, context, synthesis
        self.tree, self.step, self.low, self.high = stream.tiles, stream.step, stream.low, stream.high
        self.extents = extents_there(stream) if backend.name == "triton" else stream.tiles.reach
        self.shape, self.evaluated = stream.layout.shape, 0
        self.shared_weights = stream.layout.parameters

    @classmethod
    def of(cls, container: Container, backend: Backend) -> PyramidReconstruction:
        """Read the sections TREE and NETW."""
        tree, networks = needed(container, ("TREE", "NETW"))
        header = container.header
        stream = PyramidStream.from_section(tree, header.coded_shape, container.chunks.blocks, CHANNEL in header.axes)
        return cls(stream, *networks_from_section(networks, stream.layout), backend)

    @cached_property
    def _there(self) -> PyramidBoxes | None:
        """What decodes boxes on a GPU, if that is the backend; made when samples are asked for."""
        return PyramidBoxes(self.stream, self.context, self.synthesis, self.backend) if self.backend.name == "triton" else None

    @cached_property
    def latents(self) -> Latents:
        """Decoded tiles."""
        return self._there.latents if self._there else Latents(self.stream, self.context, self.backend)

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
        if self._there:
            return self.box_there(start, stop, chunks, np.dtype(np.float32)).cpu().numpy()
        return in_parts(start, stop, lambda low, high: self._samples(low, high, chunks))

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        if self._there:
            return self.box_there(start, stop, chunks, dtype).cpu().numpy()
        return rounded(self.box(start, stop, chunks), self.low, self.high, dtype)

    def box_there(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> Tensor:
        """As `integers`, or `box` where the dtype is float32, left on the backend's device."""
        if self._there:
            self.evaluated += math.prod((stop - start).tolist())
            return self._there.box(start, stop, chunks, dtype)
        found = self.box(start, stop, chunks) if dtype == np.float32 else self.integers(start, stop, chunks, dtype)
        return torch.from_numpy(found)

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions, linear between samples."""
        neighbours = [_neighbours(g, n) for g, n in zip(grids, self.shape, strict=True)]
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
            ends = [_neighbours(points[here, a], n) for a, n in enumerate(self.shape)]
            start = np.array([low.min() for low, _, _ in ends])
            values = self.box(start, np.array([high.max() + 1 for _, high, _ in ends]), chunks)
            for corner in itertools.product((0, 1), repeat=len(ends)):
                weight = np.prod([share if c else 1 - share for c, (_, _, share) in zip(corner, ends, strict=True)], axis=0)
                place = tuple(e[c] - s for c, e, s in zip(corner, ends, start, strict=True))
                found[here] += weight * values[place]
        return found

    def _samples(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of a box that is evaluated at once."""
        box = self.latents.full(start), self.latents.full(stop, 1)
        seen = seen_by(self.stream.layout.kernel, *box)
        self.latents.decode(seen[0], chunks)
        latents = [self.latents.read(level, *part).astype(np.float32) for level, part in enumerate(seen)]
        values = synthesise_box(latents, [a for a, _ in seen], self.synthesis, self.stream.layout.kernel, *box, self.backend)
        self.evaluated += values.size
        samples = values.reshape(tuple((stop - start).tolist())) * np.float32(self.step)
        samples += self.stream.offsets(int(start[0]), int(stop[0]))
        if not np.all(np.abs(samples) < 1e20):
            raise ContainerError(UNSOUND)
        return samples


def in_parts(
    start: NDArray[np.int64], stop: NDArray[np.int64], make: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """A box, made part by part."""
    found = np.empty(tuple((stop - start).tolist()), dtype=np.float32)
    for part in _parts(found.shape):
        found[part] = make(start + [s.start for s in part], start + [s.stop for s in part])
    return found


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
