"""Samples of a pyramid stream: latents decoded coarse to fine, tile by tile, then the synthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from .between import at_points, on_grid
from .latents import Latents
from .pieces import in_parts
from .pyramid_there import PyramidBoxes, extents_there

Tiles = list[tuple[int, NDArray[np.uint8]]]


class PyramidReconstruction:
    """See `base.Reconstruction`.

    Parameters
    ----------
    stream : PyramidStream
    context : sequence of K IntegerContext
        The network of every level.
    synthesis : Synthesis
    backend : Backend
    """

    on_device: ClassVar[None] = None

    def __init__(self, stream: PyramidStream, context: Sequence[IntegerContext], synthesis: Synthesis, backend: Backend) -> None:
        self.backend = backend
        self.stream, self.context, self.synthesis = stream, context, synthesis
        self.tree, self.step, self.low, self.high = stream.tiles, stream.step, stream.low, stream.high
        self.extents = extents_of(stream, backend)
        self.shape, self.evaluated = stream.layout.shape, 0
        self.shared_weights = stream.layout.parameters

    @classmethod
    def of(cls, container: Container, shape: tuple[int, ...], backend: Backend) -> PyramidReconstruction:
        """Read the sections TREE and NETW of a signal of a shape."""
        tree, networks = needed(container, ("TREE", "NETW"))
        stream = PyramidStream.from_section(tree, shape, container.chunks.blocks, CHANNEL in container.header.axes)
        return cls(stream, *networks_from_section(networks, stream.layout, stream.precision), backend)

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
        return size_of(decoded)

    def costs(self, decoded: Tiles, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        return costs_of(self.stream, decoded, first, stop)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of the pyramid."""
        layout = self.stream.layout
        return {
            "lattices": ["x".join(map(str, lattice)) for lattice in layout.lattices],
            "latents": layout.latents,
            "tile_edge": self.stream.edge,
            "step": self.step,
            "context_width": layout.context,
            "context_networks": layout.networks,
            "wide": layout.wide,
            "split": layout.split,
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
        return on_grid(lambda start, stop: self.box(start, stop, chunks), self.shape, grids)

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d), linear between samples."""
        return at_points(lambda start, stop: self.box(start, stop, chunks), self.shape, points)

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


def extents_of(stream: PyramidStream, backend: Backend) -> tuple[int, ...]:
    """Samples along each axis that a slab across it should have."""
    return extents_there(stream) if backend.name == "triton" else stream.tiles.reach


def size_of(tiles: Tiles) -> int:
    """Bytes that the tiles of a chunk take."""
    return 64 * len(tiles) + sum(len(body) for _, body in tiles)


def costs_of(stream: PyramidStream, tiles: Tiles, first: int, stop: int) -> BlockCosts:
    """Bits of the tiles [first, stop), and the latents of those that have any."""
    size = np.array([len(body) for _, body in tiles])
    latents = [math.prod(b - a for a, b in zip(*stream.tiles.box(tile), strict=True)) for tile in range(first, stop)]
    return BlockCosts(8.0 * size, size == 0, np.where(size > 0, latents, 0))
