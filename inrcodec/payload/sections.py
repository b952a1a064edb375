"""What all payloads share: sections that must be there, and limits."""

from __future__ import annotations

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError

KNOWN_SECTIONS = frozenset({"META", "TREE", "NETW", "STAT", "FILT"})
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
