"""What all payloads share: sections that must be there, and limits."""

from __future__ import annotations

import math

import numpy as np

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError

from ..coding.splits import flag_reader
from ..partition.octree import Cells, Octree, from_flags, grid_of

KNOWN_SECTIONS = frozenset({"META", "TREE", "NETW", "STAT", "FILT", "MOVE", "PART"})
STATISTICS_LIMIT = 1 << 20
"""Most bytes of statistics, unpacked."""
MAX_CHUNK_BLOCKS = 1024
"""Most blocks of a chunk: so blocks, and the memory for their tree, are bounded by the bytes of the file."""
MAX_VOXELS = 1 << 34
"""Largest signal a decoder accepts."""
MAX_CELLS = 1 << 28
"""Most cells of the deepest level: the tree is rebuilt on that grid, whatever the number of leaves."""
MAX_STEP = 2.0**30


def needed(container: Container, tags: tuple[str, ...]) -> list[bytes]:
    """The contents of sections that must be there.

    Raises
    ------
    ContainerError
        If one is missing.
    """
    for tag in tags:
        if tag not in container.sections:
            raise ContainerError(f"expected a section {tag}, found none; get a fresh copy of the file")
    return [container.sections.read(tag) for tag in tags]


def check_extents(shape: tuple[int, ...]) -> None:
    """Refuse signals larger than a decoder accepts."""
    if math.prod(shape) > MAX_VOXELS:
        raise ContainerError(f"expected at most 2**34 voxels, found a shape of {shape}; split the signal")


def read_tree(flags: bytes, shape: tuple[int, ...], cells: Cells, top: int, leaves: int) -> Octree:
    """The tree of coded split flags, never larger than `leaves`, the blocks that the container's index counts.

    Raises
    ------
    ContainerError
        If the tree does not have that many leaves.
    """
    if math.prod(grid_of(shape, cells[top])) > leaves:
        raise ContainerError(f"expected at least one block per top cell, found {leaves} blocks; get a fresh copy")
    read = flag_reader(flags)

    def bounded(level: int, count: int) -> np.ndarray:
        if count > leaves:
            raise ContainerError(f"expected {leaves} blocks, found more in the tree; get a fresh copy of the file")
        return read(level, count)

    tree = from_flags(shape, cells, top, bounded)
    if tree.count != leaves:
        raise ContainerError(
            f"expected {leaves} blocks from the index, found {tree.count} in the tree; get a fresh copy"
        )
    return tree
