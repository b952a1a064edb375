"""A second decoder, written from docs/container.md alone: the container, the range coder and lanes.

This folder shares no code with the package, and does not check every limit. Headings are those of the page.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import google_crc32c
import numpy as np
import zstandard

MODULO = 2**64
Index = tuple[int, ...]


class Bytes:
    """Fields read one behind the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def fields(self, form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def text(self) -> str:
        return self.take(self.take(1)[0]).decode()

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise AssertionError("varint beyond 64 bits")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


# ---- Layout: prefix, header record, directory, footer


class Chunk(NamedTuple):
    first_block: int
    blocks: int
    body: bytes


@dataclass
class Stream:
    """`shape` is in coded order, the listed axes of which are `sources`; `channels` says whether axis 0 holds such."""

    dtype: str
    shape: Index
    sources: Index
    channels: bool
    method: str
    sections: dict[str, bytes]
    chunks: list[Chunk]

    def as_listed(self, samples: np.ndarray) -> np.ndarray:
        """Channels: samples in coded order, permuted back."""
        return samples.reshape(self.shape).transpose(np.argsort(self.sources))


def checked(data: bytes, crc: int) -> bytes:
    assert google_crc32c.value(data) == crc
    return data


def read_stream(data: bytes) -> Stream:
    parts = Bytes(data)
    magic, major, minor, must, _may, length = parts.fields("8sBBBBH")
    assert (magic, major, minor) == (b"\x89INRC\r\n\x1a", 0, 2)
    record = parts.take(length)
    checked(data[: 14 + length], *parts.fields("I"))
    dtype, axes, shape, method = read_record(Bytes(record))
    sources = tuple([a for a, name in enumerate(axes) if name == "c"] + [a for a, name in enumerate(axes) if name != "c"])
    assert must == (sources != tuple(range(len(axes))))

    *lengths, end, crc = struct.unpack("<IIQ4sI", data[-24:])
    checked(data[-24:-4], crc)
    assert end == b"CRNI" and lengths[2] == len(data)
    directory = Bytes(checked(data[-24 - lengths[0] : -24], lengths[1]))
    section_count, a, b, chunk_count = directory.fields("BBBI")
    rows = [directory.fields("4sBII") for _ in range(section_count)]
    sections = {tag.decode(): checked(parts.take(size), crc) for tag, _flags, size, crc in rows}
    chunks: list[Chunk] = []
    first = 0
    for _ in range(chunk_count):
        blocks, size = (int.from_bytes(directory.take(width), "little") for width in (a, b))
        chunks.append(Chunk(first, blocks, checked(parts.take(size), *directory.fields("I"))))
        first += blocks
    assert not directory.rest() and parts.at + lengths[0] + 24 == len(data)
    return Stream(dtype, tuple(shape[a] for a in sources), sources, "c" in axes, method, sections, chunks)


def read_record(record: Bytes) -> tuple[str, str, Index, str]:
    flags, dtype = record.fields("BB")
    axes = record.text()
    shape = tuple(record.varint() for _ in axes)
    record.fields(f"{len(axes)}{'f' if flags & 1 else 'd'}")
    _units, _file_dtype = record.text(), record.text()
    if flags & 2:
        record.fields("d")
    _source, method = record.text(), record.text()
    record.fields("Bd")
    record.varint()
    assert not record.rest()
    return ("uint8", "int8", "uint16", "int16")[dtype], axes, shape, method


def read_frame(data: bytes, limit: int = 2**20) -> Bytes:
    """A zstd frame that declares its content size."""
    assert zstandard.frame_content_size(data) <= limit
    return Bytes(zstandard.ZstdDecompressor().decompress(data))


# ---- Range coder


class RangeDecoder:
    def __init__(self, data: bytes) -> None:
        self.words = Bytes(data + bytes(-len(data) % 4))
        self.low, self.range = 0, MODULO - 1
        self.point = self.next_word() << 32 | self.next_word()

    def next_word(self) -> int:
        """Big endian; zeros behind the end."""
        return int.from_bytes(self.words.take(4), "big") if self.words.at < len(self.words.data) else 0

    def symbol(self, left: Sequence[int]) -> int:
        if len(left) == 2:  # an alphabet of one symbol takes no bits
            return 0
        scale = self.range >> 24
        q = (self.point - self.low) % MODULO // scale
        assert q < 2**24
        k = bisect_right(left, q) - 1
        self.low = (self.low + scale * left[k]) % MODULO
        self.range = scale * (left[k + 1] - left[k])
        if self.range < 2**32:
            self.low = (self.low << 32) % MODULO
            self.range <<= 32
            self.point = (self.point << 32) % MODULO | self.next_word()
        return k

    def digit(self, bits: int) -> int:
        return self.symbol(range(0, 2**24 + 1, 2 ** (24 - bits)))

    def escape(self, magnitude: int) -> int:
        """The magnitude, with its excess behind 255."""
        if magnitude < 255:
            return magnitude
        bits = self.digit(5)
        lower = self.digit(min(bits, 16))
        return 255 + (self.digit(max(bits - 16, 0)) << 16 | lower)

    def signs(self, magnitudes: Iterable[int]) -> list[int]:
        return [-1 if m and self.digit(1) else 1 for m in magnitudes]

    def signed(self, count: int, table: Table) -> list[int]:
        """Signed integers of one table: magnitudes, signs, escapes."""
        magnitudes = [self.symbol(table.left) for _ in range(count)]
        signs = self.signs(magnitudes)
        return [sign * self.escape(m) for sign, m in zip(signs, magnitudes, strict=True)]


def left_sides(weights: Sequence[int]) -> list[int]:
    """left[0..n] of a symbol with integer weights."""
    n, total = len(weights), sum(weights)
    sums = list(accumulate((w / total for w in weights), initial=0.0))
    s = (2**24 - n) / sums[-1]
    return [math.floor(sums[k] * s) + k for k in range(n)] + [2**24]


@dataclass
class Table:
    """Magnitude table."""

    nonzero: int
    beyond: int
    decay: int

    @cached_property
    def left(self) -> list[int]:
        assert self.nonzero and self.beyond and self.decay
        weights = [(65536 - self.nonzero) << 24, (self.nonzero * (256 - self.beyond)) << 16]
        rest = (self.nonzero * self.beyond) << 16
        for _ in range(2, 255):
            tail = (rest * self.decay) >> 8
            weights.append(max(rest - tail, 1))
            rest = tail
        return left_sides([*weights, max(rest, 1)])

    @cached_property
    def frequencies(self) -> list[int]:
        """Of a chunk's symbols, the escape last."""
        assert self.nonzero and self.beyond and self.decay
        found, rest = [65536 - self.nonzero], self.nonzero
        for n in range(1, 255):
            f = rest * (256 - (self.beyond if n == 1 else self.decay)) >> 8
            if not 1 <= f <= rest - 1:
                break
            found.append(f)
            rest -= f
        return [*found, rest]


# ---- Lanes


class Lanes:
    def __init__(self, data: bytes, k: int) -> None:
        assert k <= 5
        self.words = Bytes(data)
        self.states = list(self.words.fields(f"{2**k}I"))
        assert min(self.states) >= 2**16
        self.bits = (byte >> i & 1 for byte in reversed(data) for i in range(8))
        self.taken = 0

    def stage(self, frequencies: Sequence[Sequence[int]]) -> list[int]:
        """A symbol for each distribution."""
        return [self.symbol(i % len(self.states), f) for i, f in enumerate(frequencies)]

    def symbol(self, lane: int, frequencies: Sequence[int]) -> int:
        assert sum(frequencies) == 2**16
        left = [0, *accumulate(frequencies)]
        state = self.states[lane]
        slot = state % 2**16
        s = max(s for s in range(len(frequencies)) if left[s] <= slot < left[s + 1])
        state = frequencies[s] * (state >> 16) + slot - left[s]
        if state < 2**16:
            state = state << 16 | self.words.fields("H")[0]
        self.states[lane] = state
        return s

    def digit(self, bits: int) -> int:
        self.taken += bits
        return sum(next(self.bits) << i for i in range(bits))

    def signs(self, magnitudes: Iterable[int]) -> list[int]:
        return [-1 if m and self.digit(1) else 1 for m in magnitudes]

    def excess(self, symbol: int, table: Table) -> int:
        """The magnitude that a symbol stands for."""
        return symbol + (self.digit(self.digit(5)) if symbol == len(table.frequencies) - 1 else 0)

    def signed(self, tables: Sequence[Table]) -> list[int]:
        symbols = self.stage([table.frequencies for table in tables])
        signs = self.signs(symbols)
        return [sign * self.excess(s, table) for sign, s, table in zip(signs, symbols, tables, strict=True)]

    def check_end(self, least: int = 0) -> None:
        assert set(self.states) == {2**16}
        assert max(self.words.at + -(-self.taken // 8), least) == len(self.words.data)


def proportional(weights: Sequence[int]) -> list[int]:
    """Frequencies of integer weights."""
    total, m = sum(weights), sum(w > 0 for w in weights)
    found = [1 + (2**16 - m) * w // total if w else 0 for w in weights]
    found[weights.index(max(weights))] += 2**16 - sum(found)
    return found


# ---- Samples


def rounded(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(values), low, high)
