"""Writes the ``.inrc`` file from front to back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import IO

from ..errors import ContainerError
from ..signal import SignalHeader
from ..zstd import compress
from .header import StreamHeader
from .layout import (
    CRC,
    CRITICAL,
    DIRECTORY,
    END_MAGIC,
    FOOTER,
    MAGIC,
    MAX_META_BYTES,
    MAX_SECTIONS,
    META,
    PREFIX,
    SECTION,
    U32_MAX,
    VERSION,
    Section,
    check_blocks,
    crc32c,
    must_flags,
)


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
    front = PREFIX.pack(MAGIC, *VERSION, must_flags(header), 0, len(record)) + record
    front += CRC.pack(crc32c(front))
    target.write(front)
    for section in listed:
        target.write(section.data)
    rows: list[tuple[int, int, int]] = []
    for count, data in chunks:
        _check_chunk(count, len(data))
        target.write(data)
        rows.append((count, len(data), crc32c(data)))
    check_blocks(sum(row[0] for row in rows), header)
    directory = _directory_bytes(listed, rows)
    body = sum(len(section.data) for section in listed) + sum(row[1] for row in rows)
    size = len(front) + body + len(directory) + FOOTER.size + CRC.size
    footer = FOOTER.pack(len(directory), crc32c(directory), size, END_MAGIC)
    target.write(directory + footer + CRC.pack(crc32c(footer)))
    return size


def _directory_bytes(sections: list[Section], rows: list[tuple[int, int, int]]) -> bytes:
    if len(rows) > U32_MAX:
        raise ContainerError(f"expected fewer than 2**32 chunks, found {len(rows)}; make them larger")
    widths = [_width(max((row[field] for row in rows), default=0)) for field in (0, 1)]
    out = bytearray(DIRECTORY.pack(len(sections), *widths, len(rows)))
    for section in sections:
        out += SECTION.pack(
            section.tag.encode("ascii"), section.critical * CRITICAL, len(section.data), crc32c(section.data)
        )
    for count, length, crc in rows:
        out += count.to_bytes(widths[0], "little") + length.to_bytes(widths[1], "little") + CRC.pack(crc)
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


def _check_chunk(count: int, length: int) -> None:
    if not (1 <= count <= U32_MAX and length <= U32_MAX):
        raise ContainerError(
            f"expected a chunk of 1 to 2**32 - 1 blocks and bytes, found {count} blocks in {length} bytes; split it"
        )
