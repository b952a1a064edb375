"""Samples of a signal in parts, each a pyramid of its own: boxes are cut where the parts meet, and only those that are touched decode."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.axes import CHANNEL
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

from ..partition.parted import Cut, PartedTiles
from ..payload import parted
from ..payload.pyramid import PyramidStream, networks_from_section, read_chunk
from ..payload.sections import check_extents, needed
from .base import BlockCosts, Chunk, Chunks
from .between import at_points, on_grid
from .pyramid import PyramidReconstruction, Tiles, costs_of, extents_of, size_of

IntArray = NDArray[np.int64]

_KEPT = 2
"""Parts whose networks and latents are kept: those on both sides of a face."""


class PartedPyramid:
    """See `base.Reconstruction`.

    Parameters
    ----------
    cut : Cut
    streams : list of PyramidStream
        Of each part.
    networks : list of bytes
        Their sections NETW, which are read when a part is touched.
    backend : Backend
    """

    on_device: ClassVar[None] = None

    def __init__(self, cut: Cut, streams: list[PyramidStream], networks: list[bytes], backend: Backend) -> None:
        self.cut, self.streams, self.backend, self._networks = cut, streams, backend, networks
        self.tree = PartedTiles(cut, tuple(stream.tiles for stream in streams))
        self.step, self.low, self.high = streams[0].step, streams[0].low, streams[0].high
        self.shape, self.evaluated = self.tree.shape, 0
        self.shared_weights = sum(stream.layout.parameters for stream in streams)
        self.extents = tuple(np.max([extents_of(stream, backend) for stream in streams], axis=0).tolist())
        self._parts: OrderedDict[int, PyramidReconstruction] = OrderedDict()

    @classmethod
    def of(cls, container: Container, backend: Backend) -> PartedPyramid:
        """Read the section PART."""
        header, channels = container.header, CHANNEL in container.header.axes
        if others := {"TREE", "NETW", "MOVE"} & set(container.sections):
            raise ContainerError(f"expected parts with sections of their own, found {', '.join(sorted(others))} too; get a fresh copy")
        check_extents(header.coded_shape)
        (section,) = needed(container, (parted.TAG,))
        cut, parts = parted.unpack(section, header.coded_shape, container.chunks.blocks, channels)
        shapes = [tuple(s.stop - s.start for s in cut.box(n, header.coded_shape)) for n in range(cut.count)]
        streams = [PyramidStream.from_section(p.tree, s, p.blocks, channels) for p, s in zip(parts, shapes, strict=True)]
        found = cls(cut, streams, [part.network for part in parts], backend)
        found._check(np.asarray(container.chunks.first))
        return found

    def _check(self, first: IntArray) -> None:
        """Refuse chunks that hold tiles of two parts, and parts of different ranges."""
        if not np.isin(self.tree.first[:-1], first).all():
            raise ContainerError("expected chunks of one part each, found one of two; get a fresh copy of the file")
        if len({(stream.low, stream.high) for stream in self.streams}) > 1:
            raise ContainerError("expected the same range of samples in all parts, found others; get a fresh copy of the file")

    def part(self, number: int) -> PyramidReconstruction:
        """What decodes a part; of those made before, the last ones are kept."""
        if number not in self._parts:
            stream = self.streams[number]
            networks = networks_from_section(self._networks[number], stream.layout, stream.precision)
            self._parts[number] = PyramidReconstruction(stream, *networks, self.backend)
        self._parts.move_to_end(number)
        if len(self._parts) > _KEPT:
            self._parts.popitem(last=False)
        return self._parts[number]

    def chunks_of(self, number: int, chunks: Chunks) -> Chunks:
        """The chunks of a part, whose tiles are counted from its own first one."""
        first = int(self.tree.first[number])

        def own(tiles: IntArray) -> Iterator[Chunk[Any]]:
            for chunk in chunks(tiles + first):
                yield replace(chunk, first=chunk.first - first, stop=chunk.stop - first)

        return own

    def read_chunk(self, data: bytes, first: int, stop: int) -> Tiles:
        """The tiles [first, stop), still coded."""
        return read_chunk(data, stop - first)

    def size_of(self, decoded: Tiles) -> int:
        """Bytes that a chunk takes."""
        return size_of(decoded)

    def costs(self, decoded: Tiles, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        number = self.tree.part_of(first)
        before = int(self.tree.first[number])
        return costs_of(self.streams[number], decoded, first - before, stop - before)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of the parts."""
        layouts = [stream.layout for stream in self.streams]
        return {
            "signal_parts": ["x".join(map(str, layout.shape)) for layout in layouts],
            "latents": sum(layout.latents for layout in layouts),
            "tile_edges": [stream.edge for stream in self.streams],
            "steps": [stream.step for stream in self.streams],
            "context_widths": [layout.context for layout in layouts],
            "synthesis_widths": ["-".join(map(str, layout.synthesis)) for layout in layouts],
        }

    def box(self, start: IntArray, stop: IntArray, chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        found = np.empty(tuple((stop - start).tolist()), dtype=np.float32)
        return self._filled(found, start, stop, chunks, lambda part, *box: part.box(*box))

    def integers(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        found = np.empty(tuple((stop - start).tolist()), dtype=dtype)
        return self._filled(found, start, stop, chunks, lambda part, *box: part.integers(*box, dtype))

    def box_there(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> Tensor:
        """As `integers`, or `box` where the dtype is float32, left on the backend's device."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        device = self.backend.device if self.backend.name == "triton" else "cpu"
        found = torch.empty(tuple((stop - start).tolist()), dtype=kind, device=device)
        return self._filled(found, start, stop, chunks, lambda part, *box: part.box_there(*box, dtype))

    def _filled(self, out: Any, start: IntArray, stop: IntArray, chunks: Chunks, read: Callable[..., Any]) -> Any:
        """A box with what each part has of it."""
        for number, low, high in self.cut.pieces(start, stop):
            origin = self.cut.origin(number, len(self.shape))
            piece = read(self.part(number), low - origin, high - origin, self.chunks_of(number, chunks))
            out[tuple(map(slice, low - start, high - start))] = piece
            self.evaluated += math.prod(piece.shape)
        return out

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions, linear between samples, across faces too."""
        return on_grid(lambda start, stop: self.box(start, stop, chunks), self.shape, grids)

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d), linear between samples, across faces too."""
        return at_points(lambda start, stop: self.box(start, stop, chunks), self.shape, points)
