"""The ``.inrc`` file: sections by name, chunks of blocks, checksums on every byte.

Byte layout, limits and the reasons for them: ``docs/container.md``. In short::

    prefix, header, CRC | section bodies | chunk bodies | directory: sections, chunk index | footer

Bodies follow each other without gaps in the order of the directory, so that lengths alone give the offsets and
must add up to the file's own length: no byte hides between two parts, and every byte is under a CRC-32C.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, BinaryIO, NamedTuple, Self

import google_crc32c
import numpy as np

from .container_header import StreamHeader
from .errors import ContainerError
from .signal import SignalHeader
from .zstd import compress, decompress_bounded

MAGIC = b"\x89INRC\r\n\x1a"
END_MAGIC = b"CRNI"
VERSION = (0, 2)
META = "META"
KNOWN_TAGS = frozenset({META})
"""Tags the container layer understands by itself."""

MAX_SECTIONS = 64
MAX_META_BYTES = 2**26
MAX_UNSEEKABLE_BYTES = 2**30
_U32_MAX = 2**32 - 1

_PREFIX = struct.Struct("<8sBBBBH")  # magic, major, minor, must-understand, may-ignore, header length
_DIRECTORY = struct.Struct("<BBBI")  # sections, bytes per count, bytes per length, chunks
_SECTION = struct.Struct("<4sBII")  # tag, flags, length, CRC
_FOOTER = struct.Struct("<IIQ4s")  # directory length, directory CRC, file length, end magic
_CRC = struct.Struct("<I")
_CRITICAL = 1
_AXES_MOVED = 1
_TAG = re.compile(r"[A-Z][A-Z0-9]{3}")
_COPY = "get a fresh copy of the file"


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
        _check_tag(self.tag)
        if len(self.data) > _U32_MAX:
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


def metadata_section(signal: SignalHeader) -> Section | None:
    """Make the section ``META`` of a signal's source header, compressed; None when there is nothing to keep."""
    if not signal.source_header:
        return None
    if len(signal.source_header) > MAX_META_BYTES:
        raise ContainerError(
            f"expected a source header of at most {MAX_META_BYTES} bytes, found {len(signal.source_header)}; remove extensions from the source"
        )
    return Section(META, compress(signal.source_header), critical=False)


def write_container(
    target: IO[bytes],
    header: StreamHeader,
    sections: Mapping[str, bytes] | Iterable[Section],
    chunks: Iterable[tuple[int, bytes]] = (),
) -> int:
    """Write a stream from front to back; `target` need not be seekable.

    Parameters
    ----------
    target : binary file
        Opened for writing. What was written before an error remains there: write to a temporary name.
    header : StreamHeader
        The front record.
    sections : mapping or iterable of Section
        A mapping from tag to bytes makes every section critical.
    chunks : iterable of (int, bytes)
        Count of blocks and their bytes, in block order. Consumed one at a time; none is kept.

    Returns
    -------
    int
        Bytes written: the size of the file.

    Raises
    ------
    ContainerError
        If a part breaks a limit of the format.
    OSError
        If `target` cannot be written.
    """
    listed = _listed(sections)
    record = header.to_bytes()
    front = _PREFIX.pack(MAGIC, *VERSION, _must_flags(header), 0, len(record)) + record
    front += _CRC.pack(crc32c(front))
    target.write(front)
    for section in listed:
        target.write(section.data)
    rows: list[tuple[int, int, int]] = []
    for count, data in chunks:
        _check_chunk(count, len(data))
        target.write(data)
        rows.append((count, len(data), crc32c(data)))
    _check_blocks(sum(row[0] for row in rows), header)
    directory = _directory_bytes(listed, rows)
    body = sum(len(section.data) for section in listed) + sum(row[1] for row in rows)
    size = len(front) + body + len(directory) + _FOOTER.size + _CRC.size
    footer = _FOOTER.pack(len(directory), crc32c(directory), size, END_MAGIC)
    target.write(directory + footer + _CRC.pack(crc32c(footer)))
    return size


class Sections(Mapping[str, SectionInfo]):
    """The sections of a stream by tag; their bytes are read on demand."""

    def __init__(self, source: _Source, entries: Mapping[str, SectionInfo]) -> None:
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

    def __init__(self, source: _Source, owned: ExitStack | None = None) -> None:
        self._source = source
        self._owned = owned or ExitStack()
        self.size = source.size
        self.version, self.may_ignore, self._header_end, self.header = _read_front(source)
        directory = _read_directory(source, self._header_end)
        entries, self.chunks, self._table_bytes, self._index_bytes = _parse_directory(directory, self._header_end)
        _check_blocks(self.chunks.blocks, self.header)
        body = sum(e.length for e in entries.values()) + int(self.chunks.length.sum())
        _check_tiling(self._header_end + body + len(directory) + _FOOTER.size + _CRC.size, self.size)
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
            handle = _binary_handle(source, stack)
            container = cls(_Source(handle))
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
        parts["footer"] = _FOOTER.size + _CRC.size
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


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`."""
    return int(google_crc32c.value(bytes(data)))


class _Source:
    """Counted, bounded reads at absolute offsets; safe to share between threads."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._base = handle.tell()
        self.size = handle.seek(0, os.SEEK_END) - self._base
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise ContainerError(f"expected {length} bytes at offset {offset}, found a file of {self.size}; {_COPY}")
        with self._lock:
            self._handle.seek(self._base + offset)
            data = b"".join(_pieces(self._handle, length))
            self.bytes_read += len(data)
        if len(data) != length:
            raise ContainerError(f"expected {length} bytes at offset {offset}, found {len(data)}; {_COPY}")
        return data

    def checked(self, offset: int, length: int, crc: int, what: str) -> bytes:
        data = self.read(offset, length)
        found = crc32c(data)
        if found != crc:
            raise ContainerError(f"expected CRC {crc:08x} on {what}, found {found:08x}; the file is damaged, {_COPY}")
        return data


def settled(source: str | os.PathLike[str] | bytes | BinaryIO) -> str | os.PathLike[str] | bytes | BinaryIO:
    """The bytes of a pipe, which can be read once only; any other source as it is.

    Raises
    ------
    ContainerError
        If there are more than `MAX_UNSEEKABLE_BYTES`.
    """
    if isinstance(source, (str, os.PathLike, bytes)) or not hasattr(source, "read"):
        return source
    if getattr(source, "seekable", bool)():
        return source
    data = b"".join(_pieces(source, MAX_UNSEEKABLE_BYTES + 1))
    if len(data) > MAX_UNSEEKABLE_BYTES:
        raise ContainerError(
            f"expected at most {MAX_UNSEEKABLE_BYTES} bytes from a pipe, found more; save it to a file first"
        )
    return data


def _binary_handle(source: str | os.PathLike[str] | bytes | BinaryIO, stack: ExitStack) -> BinaryIO:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        return stack.enter_context(open(source, "rb"))
    if not hasattr(source, "read"):
        raise ContainerError(f"expected a path, bytes or a binary file object, found {type(source).__name__}")
    found = settled(source)
    return io.BytesIO(found) if isinstance(found, bytes) else found  # type: ignore[return-value]


def _pieces(handle: BinaryIO, length: int) -> Iterator[bytes]:
    """Read up to `length` bytes: raw files and pipes may give fewer than asked for at a time."""
    while length:
        piece = handle.read(min(length, 2**20))
        if not piece:
            return
        if not isinstance(piece, bytes):
            raise ContainerError("expected a file opened for bytes, found one opened for text; open it with mode 'rb'")
        length -= len(piece)
        yield piece


def _read_front(source: _Source) -> tuple[tuple[int, int], int, int, StreamHeader]:
    """Return version, may-ignore flags, offset behind the header, header."""
    prefix = source.read(0, min(_PREFIX.size, source.size))
    if prefix[: len(MAGIC)] != MAGIC:
        hint = (
            "it was transferred as text, transfer it as binary"
            if prefix[:5] == MAGIC[:5]
            else "give a file made by inrcodec"
        )
        raise ContainerError(
            f"expected an .inrc file, found one that starts with {prefix[:8].hex(' ') or 'nothing'}; {hint}"
        )
    if len(prefix) < _PREFIX.size:
        raise ContainerError(
            f"expected a prefix of {_PREFIX.size} bytes, found {len(prefix)}; the file is truncated, {_COPY}"
        )
    _, major, minor, must, may, length = _PREFIX.unpack(prefix)
    rest = source.read(_PREFIX.size, length + _CRC.size)
    front, (crc,) = prefix + rest[:length], _CRC.unpack(rest[length:])
    if crc32c(front) != crc:
        raise ContainerError(
            f"expected CRC {crc:08x} on the header, found {crc32c(front):08x}; the file is damaged, {_COPY}"
        )
    if (major, minor) != VERSION:
        raise ContainerError(
            f"expected format version {VERSION[0]}.{VERSION[1]}, found {major}.{minor}; use the inrcodec that wrote the file"
        )
    if must & ~_AXES_MOVED:
        raise ContainerError(
            f"expected no must-understand flags beyond {_AXES_MOVED:#04x}, found {must:#04x}; get a newer inrcodec"
        )
    header = StreamHeader.from_bytes(rest[:length])
    if must != _must_flags(header):
        raise ContainerError(
            f"expected must-understand flags {_must_flags(header):#04x} for axes {header.axes!r}, found {must:#04x}; {_COPY}"
        )
    return (major, minor), may, len(front) + _CRC.size, header


def _must_flags(header: StreamHeader) -> int:
    """Decoders that do not know of channels would take the shape as it stands, and make nonsense of the chunks."""
    return _AXES_MOVED if header.order.moves else 0


def _read_directory(source: _Source, header_end: int) -> bytes:
    size = _FOOTER.size + _CRC.size
    if source.size < header_end + _DIRECTORY.size + size:
        raise ContainerError(
            f"expected a directory and a footer, found a file of {source.size} bytes; it is truncated, {_COPY}"
        )
    footer = source.read(source.size - size, size)
    length, crc, total, magic = _FOOTER.unpack(footer[: _FOOTER.size])
    if magic != END_MAGIC or _CRC.unpack(footer[_FOOTER.size :])[0] != crc32c(footer[: _FOOTER.size]):
        raise ContainerError(
            f"expected a footer at the end of the file, found other bytes; it is truncated or has bytes appended, {_COPY}"
        )
    if total != source.size:
        raise ContainerError(f"expected a file of {total} bytes, found {source.size}; {_COPY}")
    if not _DIRECTORY.size <= length <= source.size - size - header_end:
        raise ContainerError(f"expected a directory that fits the file, found a claim of {length} bytes; {_COPY}")
    return source.checked(source.size - size - length, length, crc, "the directory")


def _parse_directory(directory: bytes, start: int) -> tuple[dict[str, SectionInfo], ChunkIndex, int, int]:
    """Return sections, chunks, and the bytes of either table, for bodies that begin at offset `start`."""
    sections, count_width, length_width, chunks = _DIRECTORY.unpack_from(directory)
    if sections > MAX_SECTIONS:
        raise ContainerError(
            f"expected at most {MAX_SECTIONS} sections, found {sections}; the file is hostile or damaged"
        )
    if not (1 <= count_width <= 4 and 1 <= length_width <= 4):
        raise ContainerError(
            f"expected index fields of 1 to 4 bytes, found {count_width} and {length_width}; get a newer inrcodec"
        )
    table = _DIRECTORY.size + sections * _SECTION.size
    index = chunks * (count_width + length_width + _CRC.size)
    if table + index != len(directory):
        raise ContainerError(
            f"expected a directory of {table + index} bytes for {sections} sections and {chunks} chunks, found {len(directory)}; {_COPY}"
        )
    entries = _parse_sections(directory[_DIRECTORY.size : table], start)
    start += sum(entry.length for entry in entries.values())
    return entries, _parse_index(directory[table:], (count_width, length_width, _CRC.size), start), table, index


def _parse_sections(table: bytes, offset: int) -> dict[str, SectionInfo]:
    entries: dict[str, SectionInfo] = {}
    for raw, flags, length, crc in _SECTION.iter_unpack(table):
        tag = raw.decode("latin-1")
        _check_tag(tag)
        if tag in entries:
            raise ContainerError(f"expected each section once, found {tag} twice; the file is hostile or damaged")
        if flags & ~_CRITICAL:
            raise ContainerError(
                f"expected section flags within 0x01, found {flags:#04x} on {tag}; get a newer inrcodec"
            )
        entries[tag] = SectionInfo(tag, bool(flags & _CRITICAL), offset, length, crc)
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


def _directory_bytes(sections: list[Section], rows: list[tuple[int, int, int]]) -> bytes:
    if len(rows) > _U32_MAX:
        raise ContainerError(f"expected fewer than 2**32 chunks, found {len(rows)}; make them larger")
    widths = [_width(max((row[field] for row in rows), default=0)) for field in (0, 1)]
    out = bytearray(_DIRECTORY.pack(len(sections), *widths, len(rows)))
    for section in sections:
        out += _SECTION.pack(
            section.tag.encode("ascii"), section.critical * _CRITICAL, len(section.data), crc32c(section.data)
        )
    for count, length, crc in rows:
        out += count.to_bytes(widths[0], "little") + length.to_bytes(widths[1], "little") + _CRC.pack(crc)
    return bytes(out)


def _width(largest: int) -> int:
    return max(1, math.ceil(largest.bit_length() / 8))


def _listed(sections: Mapping[str, bytes] | Iterable[Section]) -> list[Section]:
    listed = [Section(tag, data) for tag, data in sections.items()] if isinstance(sections, Mapping) else list(sections)
    tags = [section.tag for section in listed]
    if len(tags) > MAX_SECTIONS:
        raise ContainerError(f"expected at most {MAX_SECTIONS} sections, found {len(tags)}; join some")
    if len(set(tags)) != len(tags):
        raise ContainerError(f"expected each section once, found {', '.join(tags)}; join or rename them")
    return listed


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise ContainerError(
            f"expected a tag of four upper-case letters or digits, a letter first, found {tag!r}; rename it"
        )


def _check_chunk(count: int, length: int) -> None:
    if not (1 <= count <= _U32_MAX and length <= _U32_MAX):
        raise ContainerError(
            f"expected a chunk of 1 to 2**32 - 1 blocks and bytes, found {count} blocks in {length} bytes; split it"
        )


def _check_blocks(blocks: int, header: StreamHeader) -> None:
    """Every block holds a voxel at least, so a reader may allocate by block count once this holds."""
    if blocks > header.voxels:
        raise ContainerError(
            f"expected at most one block per voxel ({header.voxels}), found {blocks} blocks; the file is hostile or damaged"
        )


def _check_tiling(expected: int, size: int) -> None:
    if expected != size:
        raise ContainerError(
            f"expected parts of {expected} bytes together, found a file of {size}; it is hostile or damaged"
        )
