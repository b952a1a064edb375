"""Where a stream spends its bits: the cost of every block, and the picture of it."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .image import Image
from .partition_picture import Blocks, partition_title, save_partition
from .reports import InfoReport

_UNIT = 1 << 20
"""Shares are rounded to 1/2**20 bit: sums of such numbers are exact in float64."""


def draw_partition(image: Image, report: InfoReport, path: str | os.PathLike[str], shown: str = "") -> None:
    """Write the picture of a stream's partition; decodes the middle slices only.

    Parameters
    ----------
    image : Image
    report : InfoReport
    path : path
    shown : str, optional
        What of the stream that the report is about the image is.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    header, order = image.header, image.header.order
    back = list(order.places)

    def read(start: NDArray[np.int64], stop: NDArray[np.int64]) -> np.ndarray:
        return order.coded_view(image.read_box(start[back], stop[back]))

    save_partition(
        path,
        blocks_of(image),
        read,
        shape=order.to_coded(header.shape),
        axes="".join(order.to_coded(header.axes)),
        spacing=order.to_coded(header.spacing),
        units=order.to_coded(header.units),
        title="   ".join(filter(None, (partition_title(report), shown))),
    )


def blocks_of(image: Image) -> Blocks:
    """Blocks of a stream; their bits add up to those of the chunks, exactly."""
    tree, chunks = image.blocks.tree, image.container.chunks
    bits, constant = np.empty(tree.count), np.empty(tree.count, dtype=bool)
    for number in range(len(chunks)):
        first = int(chunks.first[number])
        stop = first + int(chunks.count[number])
        costs = image.blocks.costs(image.decoded_chunk(number), first, stop)
        bits[first:stop] = _shared(8 * int(chunks.length[number]), costs.bits)
        constant[first:stop] = costs.constant
    origin, extent = _on_samples(image)
    return Blocks(origin, extent, bits, constant)


def _on_samples(image: Image) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First sample and extents of every block; those of still frames are shrunk to the extents of a frame, wherever it lies."""
    tree, shape = image.blocks.tree, np.array(image.container.header.coded_shape)
    ends = np.minimum(tree.origin + tree.extent, tree.shape)
    first, last = (places * shape // tree.shape for places in (tree.origin, ends))
    return first, np.maximum(last - first, 1)


def block_bits(image: Image) -> NDArray[np.float64]:
    """Bits of every block in file order, shape (B,): each chunk's bytes, shared as its blocks' estimates are."""
    return blocks_of(image).bits


def _shared(bits: int, estimate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide whole `bits` in proportion to an estimate, without a remainder."""
    edges = np.cumsum(np.maximum(estimate, 1 / _UNIT))
    return np.diff(np.rint(bits * _UNIT * (edges / edges[-1])), prepend=0.0) / _UNIT
