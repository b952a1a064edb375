"""Write the hostile files of this folder: ``python tests/attacks/make_attacks.py``.

Built from the byte layout in ``docs/container.md`` with `struct` alone, so that the writer's own checks stand in
nobody's way and a second hand has followed the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c

HERE = Path(__file__).parent
MAGIC = b"\x89INRC\r\n\x1a"
ZSTD_CLAIM = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 7 * 10**18)
"""A zstd frame header that claims 7e18 bytes, followed by nothing."""


class Attack(NamedTuple):
    """A hostile file and the words its rejection must hold."""

    name: str
    build: Callable[[], bytes]
    rejected_with: str


def crc(data: bytes) -> bytes:
    """CRC-32C of `data` as it stands in a file."""
    return struct.pack("<I", google_crc32c.value(data))


def text(value: bytes) -> bytes:
    """A length byte and the text."""
    return bytes([len(value)]) + value


def record(
    flags: int = 1,
    dtype: int = 3,
    axes: bytes = b"zyx",
    shape: bytes = b"\x04\x05\x06",
    spacing: bytes = struct.pack("<3f", 1, 1, 1),
    units: bytes = b"mm",
    file_dtype: bytes = b"<i2",
    method: bytes = b"tinc",
    quality: bytes = struct.pack("<Bd", 0, 64.0),
    memory: bytes = b"\x00",
) -> bytes:
    """The header record of a 4 x 5 x 6 volume of int16."""
    names = text(file_dtype) + text(b"array") + text(method)
    return bytes([flags, dtype]) + text(axes) + shape + spacing + text(units) + names + quality + memory


def front(body: bytes | None = None, version: tuple[int, int] = (0, 2), must: int = 0) -> bytes:
    """Prefix, header record and CRC."""
    body = record() if body is None else body
    data = MAGIC + struct.pack("<BBBBH", *version, must, 0, len(body)) + body
    return data + crc(data)


def entry(tag: bytes, data: bytes, flags: int = 1, length: int | None = None) -> bytes:
    """A row of the section table."""
    return tag + struct.pack("<BI", flags, len(data) if length is None else length) + crc(data)


def footer(directory: bytes, size: int, length: int | None = None) -> bytes:
    """The last 24 bytes, for a file of `size` bytes."""
    claimed = len(directory) if length is None else length
    data = struct.pack("<I", claimed) + crc(directory) + struct.pack("<Q4s", size, b"CRNI")
    return data + crc(data)


def stream(
    head: bytes | None = None,
    bodies: bytes = b"tree" + b"chunk",
    sections: tuple[bytes, ...] = (entry(b"TREE", b"tree"),),
    counts: tuple[int, ...] | None = None,
    widths: tuple[int, int] = (1, 1),
    index: bytes = b"\x02\x05" + crc(b"chunk"),
    extra_size: int = 0,
    directory_length: int | None = None,
) -> bytes:
    """A whole file: one section TREE and one chunk of two blocks, unless told otherwise."""
    head = front() if head is None else head
    section_count, chunk_count = counts or (len(sections), len(index) // (sum(widths) + 4))
    directory = struct.pack("<BBBI", section_count, *widths, chunk_count) + b"".join(sections) + index
    size = len(head) + len(bodies) + len(directory) + 24
    return head + bodies + directory + footer(directory, size + extra_size, directory_length)


def header_attack(**fields: object) -> Callable[[], bytes]:
    """A sound file but for some fields of the header record."""
    return lambda: stream(front(record(**fields)))  # type: ignore[arg-type]


VOLUME_2_41 = b"\x80\x80\x40" + b"\x80\x80\x40" + b"\x80\x04"
VARINT_2_70 = b"\xff" * 9 + b"\x7f"

ATTACKS = (
    Attack("text_transfer", lambda: stream().replace(b"\r\n", b"\n", 1), "transferred as text"),
    Attack("future_version", lambda: stream(front(version=(9, 0))), "format version"),
    Attack("must_understand_flag", lambda: stream(front(must=0x80)), "must-understand"),
    Attack("header_longer_than_file", lambda: MAGIC + b"\x00\x01\x00\x00\xff\xff" + record(), "found a file of"),
    Attack("shape_of_2_41_voxels", header_attack(shape=VOLUME_2_41), r"at most 2\*\*40 voxels"),
    Attack("shape_of_zero", header_attack(shape=b"\x04\x00\x06"), "positive sizes"),
    Attack("varint_of_70_bits", header_attack(shape=VARINT_2_70 + b"\x05\x06"), "shortest varint"),
    Attack("varint_padded", header_attack(shape=b"\x84\x80\x00\x05\x06"), "shortest varint"),
    Attack("file_dtype_object", header_attack(file_dtype=b"|O"), "file dtype"),
    Attack("file_dtype_huge_text", header_attack(file_dtype=b"<U999999999"), "file dtype"),
    Attack("terminal_escape_in_units", header_attack(units=b"\x1b[2J"), "printable units"),
    Attack("method_not_ascii", header_attack(method=b"ti\xc3\xb1c"), "printable ASCII"),
    Attack("spacing_nan", header_attack(spacing=struct.pack("<3f", 1, float("nan"), 1)), "finite spacings"),
    Attack("quality_infinite", header_attack(quality=struct.pack("<Bd", 0, float("inf"))), "finite quality"),
    Attack("header_with_tail", lambda: stream(front(record() + b"tail")), "header of"),
    Attack(
        "duplicate_section",
        lambda: stream(sections=(entry(b"TREE", b"tr"), entry(b"TREE", b"ee"))),
        "each section once",
    ),
    Attack("unknown_critical_section", lambda: stream(sections=(entry(b"EVIL", b"tree"),)), "EVIL"),
    Attack("section_tag_path", lambda: stream(sections=(entry(b"../x", b"tree"),)), "expected a tag"),
    Attack("section_of_4_gib", lambda: stream(sections=(entry(b"TREE", b"tree", length=2**32 - 1),)), "parts of"),
    Attack("sections_255", lambda: stream(counts=(255, 1)), "at most 64 sections"),
    Attack("chunks_4e9", lambda: stream(counts=(1, 2**32 - 1)), "expected a directory of"),
    Attack("chunk_of_4_gib", lambda: stream(widths=(1, 4), index=b"\x02\xff\xff\xff\xff" + crc(b"chunk")), "parts of"),
    Attack(
        "blocks_4e9",
        lambda: stream(widths=(4, 1), index=b"\xff\xff\xff\xff\x05" + crc(b"chunk")),
        "one block per voxel",
    ),
    Attack("chunk_of_no_blocks", lambda: stream(index=b"\x00\x05" + crc(b"chunk")), "at least one block"),
    Attack("index_fields_of_0_bytes", lambda: stream(widths=(0, 0), counts=(1, 2**31), index=b""), "index fields"),
    Attack("directory_longer_than_file", lambda: stream(directory_length=2**32 - 1), "directory that fits"),
    Attack("hidden_bytes_between_parts", lambda: stream(bodies=b"tree" + b"chunk" + b"hidden"), "parts of"),
    Attack("appended_bytes", lambda: stream() + b"PK\x03\x04", "bytes appended"),
    Attack("file_length_false", lambda: stream(extra_size=1), "expected a file of"),
    Attack("chunk_crc_false", lambda: stream(index=b"\x02\x05" + crc(b"other")), "on chunk 0"),
    Attack(
        "zstd_claims_7e18_bytes",
        lambda: stream(bodies=ZSTD_CLAIM, sections=(entry(b"META", ZSTD_CLAIM, flags=0),), index=b""),
        "after zstd",
    ),
)


def files() -> dict[str, bytes]:
    """Every hostile file by its name."""
    return {f"{number:02}_{attack.name}.inrc": attack.build() for number, attack in enumerate(ATTACKS, 1)}


if __name__ == "__main__":
    for name, data in files().items():
        (HERE / name).write_bytes(data)
