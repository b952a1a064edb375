"""Reads the ``.inrc`` file, by the bytes that are asked for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from ..errors import ContainerError
from ..signal import SignalHeader
from ..zstd import decompress_bounded
from .header import StreamHeader
from .layout import (
    AXES_MOVED,
    COPY,
    CRC,
    CRITICAL,
    DIRECTORY,
    END_MAGIC,
    FOOTER,
    KNOWN_TAGS,
    MAGIC,
    MAX_META_BYTES,
    MAX_SECTIONS,
    META,
    PREFIX,
    SECTION,
    VERSION,
    ChunkIndex,
    SectionInfo,
    check_blocks,
    check_tag,
    crc32c,
    must_flags,
)
from .source import Source, binary_handle


class Sections(Mapping[str, SectionInfo]):
    """The sections of a stream by tag; their bytes are read on demand."""

    def __init__(self, source: Source, entries: Mapping[str, SectionInfo]) -> None:
        self._source = source
        self._entries = entries

    def __getitem__(self, tag: str) -> SectionInfo:
        return self._entries[tag]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, tag: str) -> bytes:
        """Return the section's bytes after checking their CRC.

        Raises
        ------
        ContainerError
            If there is no such section, or its bytes are damaged.
        """
        entry = self._entries.get(tag)
        if entry is None:
            raise ContainerError(
                f"expected a section {tag}, found {', '.join(self) or 'none'}; encode the source again"
            )
        return self._source.checked(entry.offset, entry.length, entry.crc, f"section {tag}")


class Container:
    """Reader of an ``.inrc`` stream; touches only the bytes it is asked for.

    Use `Container.open`. Reads may come from several threads at once.

    Attributes
    ----------
    header : StreamHeader
        The front record.
    sections : Sections
        Sections by tag; ``sections.read(tag)`` gives the bytes.
    chunks : ChunkIndex
        Place and block count of every chunk.
    version : tuple of int
        Format version, (major, minor).
    may_ignore : int
        Flags that a reader need not understand.
    size : int
        Length of the stream in bytes.
    """

    def __init__(self, source: Source, owned: ExitStack | None = None) -> None:
        self._source = source
        self._owned = owned or ExitStack()
        self.size = source.size
        self.version, self.may_ignore, self._header_end, self.header = _read_front(source)
        directory = _read_directory(source, self._header_end)
        entries, self.chunks, self._table_bytes, self._index_bytes = _parse_directory(directory, self._header_end)
        check_blocks(self.chunks.blocks, self.header)
        body = sum(e.length for e in entries.values()) + int(self.chunks.length.sum())
        _check_tiling(self._header_end + body + len(directory) + FOOTER.size + CRC.size, self.size)
        self.sections = Sections(source, entries)

    @classmethod
    def open(
        cls, source: str | os.PathLike[str] | bytes | BinaryIO, *, known: Collection[str] | None = KNOWN_TAGS
    ) -> Self:
        """Open a stream and check everything but the bodies of sections and chunks.

        Parameters
        ----------
        source : path, bytes or binary file
            A file object is read from its current position to its end and is not closed. One that cannot seek is
            read into memory, up to `MAX_UNSEEKABLE_BYTES`.
        known : collection of str or None
            Tags the caller understands, besides ``META``. None admits any: for tools that only look.

        Raises
        ------
        ContainerError
            If the stream is damaged, truncated, hostile, of another version, or has a critical section out of
            `known`.
        OSError
            If the file cannot be read.
        """
        with ExitStack() as stack:
            handle = binary_handle(source, stack)
            container = cls(Source(handle))
            if known is not None:
                container.require_known(known)
            container._owned = stack.pop_all()
        return container

    def require_known(self, known: Collection[str]) -> None:
        """Refuse the stream when it has a critical section that is neither in `known` nor ``META``."""
        unknown = [tag for tag, entry in self.sections.items() if entry.critical and tag not in KNOWN_TAGS | set(known)]
        if unknown:
            raise ContainerError(
                f"expected critical sections this version knows, found {', '.join(unknown)}; get a newer inrcodec"
            )

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the source so far."""
        return self._source.bytes_read

    def read_chunk(self, number: int) -> bytes:
        """Return the bytes of chunk `number` after checking their CRC."""
        if not 0 <= number < len(self.chunks):
            raise ContainerError(
                f"expected a chunk from 0 to {len(self.chunks) - 1}, found {number}; ask for one that exists"
            )
        index = self.chunks
        offset, length, crc = (int(column[number]) for column in (index.offset, index.length, index.crc))
        return self._source.checked(offset, length, crc, f"chunk {number}")

    def signal_header(self) -> SignalHeader:
        """Return the signal's header, with the source's own header when the stream keeps it."""
        kept = META in self.sections
        return self.header.to_signal(decompress_bounded(self.sections.read(META), MAX_META_BYTES) if kept else b"")

    def parts(self) -> dict[str, int]:
        """Return the bytes spent on each part; the values add up to `size`."""
        parts = {"header": self._header_end}
        parts |= {tag: entry.length for tag, entry in self.sections.items()}
        parts["chunks"] = int(self.chunks.length.sum())
        parts["directory"] = self._table_bytes
        parts["index"] = self._index_bytes
        parts["footer"] = FOOTER.size + CRC.size
        return parts

    def verify(self) -> None:
        """Read every section and chunk once and check its CRC; the rest was checked on opening."""
        for tag in self.sections:
            self.sections.read(tag)
        for number in range(len(self.chunks)):
            self.read_chunk(number)

    def close(self) -> None:
        """Close the file if `open` opened it."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_front(source: Source) -> tuple[tuple[int, int], int, int, StreamHeader]:
    """Return version, may-ignore flags, offset behind the header, header."""
    prefix = source.read(0, min(PREFIX.size, source.size))
    if prefix[: len(MAGIC)] != MAGIC:
        hint = (
            "it was transferred as text, transfer it as binary"
            if prefix[:5] == MAGIC[:5]
            else "give a file made by inrcodec"
        )
        raise ContainerError(
            f"expected an .inrc file, found one that starts with {prefix[:8].hex(' ') or 'nothing'}; {hint}"
        )
    if len(prefix) < PREFIX.size:
        raise ContainerError(
            f"expected a prefix of {PREFIX.size} bytes, found {len(prefix)}; the file is truncated, {COPY}"
        )
    _, major, minor, must, may, length = PREFIX.unpack(prefix)
    rest = source.read(PREFIX.size, length + CRC.size)
    front, (crc,) = prefix + rest[:length], CRC.unpack(rest[length:])
    if crc32c(front) != crc:
        raise ContainerError(
            f"expected CRC {crc:08x} on the header, found {crc32c(front):08x}; the file is damaged, {COPY}"
        )
    if (major, minor) != VERSION:
        raise ContainerError(
            f"expected format version {VERSION[0]}.{VERSION[1]}, found {major}.{minor}; use the inrcodec that wrote the file"
        )
    if must & ~AXES_MOVED:
        raise ContainerError(
            f"expected no must-understand flags beyond {AXES_MOVED:#04x}, found {must:#04x}; get a newer inrcodec"
        )
    header = StreamHeader.from_bytes(rest[:length])
    if must != must_flags(header):
        raise ContainerError(
            f"expected must-understand flags {must_flags(header):#04x} for axes {header.axes!r}, found {must:#04x}; {COPY}"
        )
    return (major, minor), may, len(front) + CRC.size, header


def _read_directory(source: Source, header_end: int) -> bytes:
    size = FOOTER.size + CRC.size
    if source.size < header_end + DIRECTORY.size + size:
        raise ContainerError(
            f"expected a directory and a footer, found a file of {source.size} bytes; it is truncated, {COPY}"
        )
    footer = source.read(source.size - size, size)
    length, crc, total, magic = FOOTER.unpack(footer[: FOOTER.size])
    if magic != END_MAGIC or CRC.unpack(footer[FOOTER.size :])[0] != crc32c(footer[: FOOTER.size]):
        raise ContainerError(
            f"expected a footer at the end of the file, found other bytes; it is truncated or has bytes appended, {COPY}"
        )
    if total != source.size:
        raise ContainerError(f"expected a file of {total} bytes, found {source.size}; {COPY}")
    if not DIRECTORY.size <= length <= source.size - size - header_end:
        raise ContainerError(f"expected a directory that fits the file, found a claim of {length} bytes; {COPY}")
    return source.checked(source.size - size - length, length, crc, "the directory")


def _parse_directory(directory: bytes, start: int) -> tuple[dict[str, SectionInfo], ChunkIndex, int, int]:
    """Return sections, chunks, and the bytes of either table, for bodies that begin at offset `start`."""
    sections, count_width, length_width, chunks = DIRECTORY.unpack_from(directory)
    if sections > MAX_SECTIONS:
        raise ContainerError(
            f"expected at most {MAX_SECTIONS} sections, found {sections}; the file is hostile or damaged"
        )
    if not (1 <= count_width <= 4 and 1 <= length_width <= 4):
        raise ContainerError(
            f"expected index fields of 1 to 4 bytes, found {count_width} and {length_width}; get a newer inrcodec"
        )
    table = DIRECTORY.size + sections * SECTION.size
    index = chunks * (count_width + length_width + CRC.size)
    if table + index != len(directory):
        raise ContainerError(
            f"expected a directory of {table + index} bytes for {sections} sections and {chunks} chunks, found {len(directory)}; {COPY}"
        )
    entries = _parse_sections(directory[DIRECTORY.size : table], start)
    start += sum(entry.length for entry in entries.values())
    return entries, _parse_index(directory[table:], (count_width, length_width, CRC.size), start), table, index


def _parse_sections(table: bytes, offset: int) -> dict[str, SectionInfo]:
    entries: dict[str, SectionInfo] = {}
    for raw, flags, length, crc in SECTION.iter_unpack(table):
        tag = raw.decode("latin-1")
        check_tag(tag)
        if tag in entries:
            raise ContainerError(f"expected each section once, found {tag} twice; the file is hostile or damaged")
        if flags & ~CRITICAL:
            raise ContainerError(
                f"expected section flags within 0x01, found {flags:#04x} on {tag}; get a newer inrcodec"
            )
        entries[tag] = SectionInfo(tag, bool(flags & CRITICAL), offset, length, crc)
        offset += length
    return entries


def _parse_index(rows: bytes, widths: tuple[int, int, int], start: int) -> ChunkIndex:
    table = np.frombuffer(rows, np.uint8).reshape(-1, sum(widths))
    edges = np.cumsum((0, *widths))
    count, length, crc = (_integers(table[:, a:b]) for a, b in itertools.pairwise(edges))
    if np.any(count == 0):
        raise ContainerError(
            "expected at least one block in every chunk, found a chunk of none; the file is hostile or damaged"
        )
    return ChunkIndex(
        first=np.cumsum(count) - count, count=count, offset=start + np.cumsum(length) - length, length=length, crc=crc
    )


def _integers(columns: np.ndarray) -> np.ndarray:
    """Join the little-endian bytes of each row, shape (rows, 1..4), into int64."""
    wide = np.zeros((len(columns), 8), np.uint8)
    wide[:, : columns.shape[1]] = columns
    return wide.view("<i8")[:, 0].astype(np.int64)


def _check_tiling(expected: int, size: int) -> None:
    if expected != size:
        raise ContainerError(
            f"expected parts of {expected} bytes together, found a file of {size}; it is hostile or damaged"
        )
