"""The ``.inrc`` file: sections by name, chunks of blocks, checksums on every byte.

Byte layout, limits and the reasons for them: ``docs/container.md``. In short::

    prefix, header, CRC | section bodies | chunk bodies | directory: sections, chunk index | footer

Bodies follow each other without gaps in the order of the directory, so that lengths alone give the offsets and
must add up to the file's own length: no byte hides between two parts, and every byte is under a CRC-32C.
"""

from __future__ import annotations

from .layout import KNOWN_TAGS, MAX_META_BYTES, MAX_SECTIONS, META, VERSION, ChunkIndex, Section, SectionInfo, crc32c
from .read import Container, Sections
from .source import settled
from .write import metadata_section, write_container

__all__ = [
    "KNOWN_TAGS",
    "MAX_META_BYTES",
    "MAX_SECTIONS",
    "META",
    "VERSION",
    "ChunkIndex",
    "Container",
    "Section",
    "SectionInfo",
    "Sections",
    "crc32c",
    "metadata_section",
    "settled",
    "write_container",
]
