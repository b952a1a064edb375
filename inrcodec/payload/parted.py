"""The section PART of a pyramid: a signal in parts, each a pyramid of its own. Byte layout: docs/container.md."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

from inrcodec_formats.errors import ContainerError

from ..partition.parted import Cut

TAG, VERSION = "PART", 0
MOST_PARTS = 1 << 10
_FIXED, _ROW = struct.Struct("<BBH"), struct.Struct("<IIII")
ROW_BYTES = _ROW.size


@dataclass(frozen=True)
class Part:
    """What a part's pyramid holds besides its chunks.

    Attributes
    ----------
    extent : int
        Samples along the axis that is cut.
    blocks : int
        Tiles.
    tree, network : bytes
        Its sections TREE and NETW.
    """

    extent: int
    blocks: int
    tree: bytes
    network: bytes


def pack(axis: int, parts: list[Part]) -> bytes:
    """Pack parts cut across an axis."""
    rows = [_ROW.pack(p.extent, p.blocks, len(p.tree), len(p.network)) for p in parts]
    return _FIXED.pack(VERSION, axis, len(parts)) + b"".join(rows) + b"".join(p.tree + p.network for p in parts)


def unpack(data: bytes, shape: tuple[int, ...], blocks: int, channels: bool = False) -> tuple[Cut, list[Part]]:
    """Inverse of `pack` for a signal of a shape, whose index counts so many blocks; `channels` says whether axis 0 holds such.

    Raises
    ------
    ContainerError
        If a value is out of its limits, or extents, blocks or lengths do not add up.
    """
    if len(data) < _FIXED.size:
        raise ContainerError("expected a complete PART section, found a short one; get a fresh copy of the file")
    version, axis, count = _FIXED.unpack_from(data)
    if version != VERSION:
        raise ContainerError(f"expected version {VERSION} of PART, found {version}; get a newer inrcodec")
    bodies = _FIXED.size + count * _ROW.size
    if not 2 <= count <= MOST_PARTS or not int(channels) <= axis < len(shape) or len(data) < bodies:
        raise ContainerError("expected parts along an axis of the signal in PART, found others; get a fresh copy of the file")
    rows = list(_ROW.iter_unpack(data[_FIXED.size : bodies]))
    extents, tiles, *lengths = zip(*rows, strict=True)
    if not all(extents) or sum(extents) != shape[axis]:
        raise ContainerError(f"expected parts of {shape[axis]} samples along axis {axis}, found {sum(extents)}; get a fresh copy")
    if not all(tiles) or sum(tiles) != blocks:
        raise ContainerError(f"expected {blocks} blocks from the index, found parts of {sum(tiles)}; get a fresh copy")
    if bodies + sum(map(sum, lengths)) != len(data):
        raise ContainerError("expected trees and networks that fill PART, found others; get a fresh copy of the file")
    parts = []
    for extent, held, *sizes in rows:
        tree, network = (data[a:b] for a, b in itertools.pairwise(itertools.accumulate(sizes, initial=bodies)))
        parts.append(Part(extent, held, tree, network))
        bodies += sum(sizes)
    return Cut(axis, tuple(itertools.accumulate(extents, initial=0))), parts
