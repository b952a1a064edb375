"""Where a stream spends its bits: the cost of every block, and the picture of it."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .coding.readouts import band_counts, leaf_bits, read_chunk
from .image import Image
from .partition_picture import Blocks, partition_title, save_partition
from .reports import InfoReport

_UNIT = 1 << 20
"""Shares are rounded to 1/2**20 bit: sums of such numbers are exact in float64."""


def draw_partition(image: Image, report: InfoReport, path: str | os.PathLike[str]) -> None:
    """Write the picture of a stream's partition; decodes the middle slices only.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    header = image.header
    save_partition(
        path,
        tinc_blocks(image),
        image.read_box,
        shape=header.shape,
        axes=header.axes,
        spacing=header.spacing,
        units=header.units,
        title=partition_title(report),
    )


def tinc_blocks(image: Image) -> Blocks:
    """Blocks of a TINC stream; their bits add up to those of the chunks, exactly."""
    tree, chunks = image.stream.tree, image.container.chunks
    bits, constant = np.empty(tree.count), np.empty(tree.count, dtype=bool)
    for number in range(len(chunks)):
        first = int(chunks.first[number])
        part = slice(first, first + int(chunks.count[number]))
        estimate, constant[part] = _chunk_costs(image, number, part)
        bits[part] = _shared(8 * int(chunks.length[number]), estimate)
    extent = np.minimum(tree.extent, np.array(tree.shape) - tree.origin)
    return Blocks(tree.origin, extent, bits, constant)


def block_bits(image: Image) -> NDArray[np.float64]:
    """Bits of every block in file order, shape (B,): each chunk's bytes, shared as its blocks' estimates are."""
    return tinc_blocks(image).bits


def _chunk_costs(image: Image, number: int, part: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Estimated bits of the blocks of a chunk, and whether each is constant."""
    geometry, statistics = image.stream.geometry, image.statistics
    values = read_chunk(image.container.read_chunk(number), geometry, statistics, part.start, part.stop)
    level_of = geometry.level[part]
    constant = np.empty(len(level_of), dtype=bool)
    for level, readouts in values.items():
        constant[level_of == level] = band_counts(geometry.bands[level], readouts) == 0
    return leaf_bits(geometry, values, statistics, part.start, part.stop), constant


def _shared(bits: int, estimate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide whole `bits` in proportion to an estimate, without a remainder."""
    edges = np.cumsum(np.maximum(estimate, 1 / _UNIT))
    return np.diff(np.rint(bits * _UNIT * (edges / edges[-1])), prepend=0.0) / _UNIT
