"""Pyramid streams of any size without their fit, which takes minutes: the latents of a small stream, repeated."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inrcodec.coding.latents import LatentCoder, Place
from inrcodec.image import Image
from inrcodec.models.pyramid import AXES
from inrcodec.payload.pyramid import PyramidStream, write_chunk
from inrcodec.reconstruct.pyramid import PyramidReconstruction
from inrcodec_formats.container import Section, write_container
from inrcodec_kernels.backend import best_on_cpu, in_threads

TILES = 16
"""Tiles of a chunk."""


def enlarged(small: bytes, times: Sequence[int]) -> bytes:
    """A stream in which each lattice of another one lies so often along every axis, with the same networks.

    Contexts at the seams differ, so that rates do a little; the work of a decoder is that of any stream of this size and rate.

    Raises
    ------
    ValueError
        If a lattice is not so many times as large: extents must be halved without a remainder.
    """
    with Image(small, best_on_cpu()) as image:
        blocks = image.blocks
        assert isinstance(blocks, PyramidReconstruction)
        image.read_box(np.zeros(image.ndim, int), np.array(image.shape))
        stream = _larger(blocks.stream, times)
        latents = [
            np.tile(blocks.latents.read(level, (0,) * AXES, shape), times)
            for level, shape in enumerate(blocks.stream.layout.kernel.shapes)
        ]
        if [a.shape for a in latents] != list(stream.layout.kernel.shapes):
            raise ValueError(f"expected extents that all levels halve without a remainder, found {image.shape}; take others")
        header = replace(image.container.header, shape=stream.layout.shape)
        sections = [Section("TREE", stream.tree_section()), Section("NETW", image.container.sections.read("NETW"))]
        out = io.BytesIO()
        write_container(out, header, sections, list(_chunks(stream, latents, LatentCoder(stream.layout.kernel, blocks.context, blocks.backend))))
        return out.getvalue()


def _larger(stream: PyramidStream, times: Sequence[int]) -> PyramidStream:
    shape = tuple(n * count for n, count in zip(stream.layout.shape, times, strict=True))
    return replace(stream, layout=replace(stream.layout, shape=shape))


def _chunks(stream: PyramidStream, latents: list[np.ndarray], coder: LatentCoder) -> Iterator[tuple[int, bytes]]:
    missing = AXES - stream.layout.ndim

    def read(level: int, start: Place, stop: Place) -> Any:
        return np.ascontiguousarray(latents[level][tuple(map(slice, start, stop))])

    def coded(tile: int) -> tuple[int, bytes]:
        start, stop = stream.tiles.box(tile)
        first: Any = (0,) * missing + start
        level = int(stream.tiles.level[tile])
        return coder.encode(read(level, first, (1,) * missing + stop), level, first, read)  # type: ignore[arg-type]

    tiles = in_threads(coded, range(stream.tiles.count))
    for at in range(0, len(tiles), TILES):
        yield len(tiles[at : at + TILES]), write_chunk(tiles[at : at + TILES])
