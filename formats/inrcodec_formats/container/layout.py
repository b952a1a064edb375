"""What reader and writer of the ``.inrc`` file share: records, limits, sections, the index of chunks."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c
import numpy as np

from ..errors import ContainerError
from .header import StreamHeader

MAGIC = b"\x89INRC\r\n\x1a"
END_MAGIC = b"CRNI"
VERSION = (0, 2)
META = "META"
KNOWN_TAGS = frozenset({META})
"""Tags the container layer understands by itself."""

MAX_SECTIONS = 64
MAX_META_BYTES = 2**26
MAX_UNSEEKABLE_BYTES = 2**30
U32_MAX = 2**32 - 1

PREFIX = struct.Struct("<8sBBBBH")  # magic, major, minor, must-understand, may-ignore, header length
DIRECTORY = struct.Struct("<BBBI")  # sections, bytes per count, bytes per length, chunks
SECTION = struct.Struct("<4sBII")  # tag, flags, length, CRC
FOOTER = struct.Struct("<IIQ4s")  # directory length, directory CRC, file length, end magic
CRC = struct.Struct("<I")
CRITICAL = 1
AXES_MOVED = 1
_TAG = re.compile(r"[A-Z][A-Z0-9]{3}")
COPY = "get a fresh copy of the file"


@dataclass(frozen=True)
class Section:
    """A named byte string to be written.

    Attributes
    ----------
    tag : str
        Four characters: an upper-case letter, then upper-case letters or digits.
    data : bytes
        At most 4 GiB.
    critical : bool
        Whether a reader that does not know `tag` must refuse the file rather than skip the section.
    """

    tag: str
    data: bytes
    critical: bool = True

    def __post_init__(self) -> None:
        check_tag(self.tag)
        if len(self.data) > U32_MAX:
            raise ContainerError(f"expected section {self.tag} below 4 GiB, found {len(self.data)} bytes; use chunks")


class SectionInfo(NamedTuple):
    """Where a section lies in the file."""

    tag: str
    critical: bool
    offset: int
    length: int
    crc: int


@dataclass(frozen=True, eq=False)
class ChunkIndex:
    """Where the chunks lie: one entry per chunk in each array, in file order.

    Attributes
    ----------
    first : ndarray of int64
        Number of the chunk's first block.
    count : ndarray of int64
        Blocks in the chunk, at least one.
    offset, length : ndarray of int64
        Place in the file, in bytes.
    crc : ndarray of int64
        CRC-32C of the chunk's bytes.
    """

    first: np.ndarray
    count: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    @property
    def blocks(self) -> int:
        """Number of blocks in all chunks."""
        return int(self.count.sum())

    def chunk_of(self, block: int) -> int:
        """Return the number of the chunk that holds `block`."""
        if not 0 <= block < self.blocks:
            raise ContainerError(
                f"expected a block from 0 to {self.blocks - 1}, found {block}; the tree and the index disagree"
            )
        return int(np.searchsorted(self.first, block, side="right")) - 1


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`."""
    return int(google_crc32c.value(bytes(data)))


def must_flags(header: StreamHeader) -> int:
    """Decoders that do not know of channels would take the shape as it stands, and make nonsense of the chunks."""
    return AXES_MOVED if header.order.moves else 0


def check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise ContainerError(
            f"expected a tag of four upper-case letters or digits, a letter first, found {tag!r}; rename it"
        )


def check_blocks(blocks: int, header: StreamHeader) -> None:
    """Every block holds a voxel at least, so a reader may allocate by block count once this holds."""
    if blocks > header.voxels:
        raise ContainerError(
            f"expected at most one block per voxel ({header.voxels}), found {blocks} blocks; the file is hostile or damaged"
        )
