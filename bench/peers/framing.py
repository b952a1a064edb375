"""The few bytes that make a peer's stream decodable on its own: shapes, dtype, value range and the parts' lengths.

A peer's stream is charged for them as ours is for its header: some 20 bytes a signal and 1 to 3 bytes a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..signals import BenchSignal

_DTYPES = ("uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class Layout:
    """What a decoder must know besides the codec's own bytes.

    Attributes
    ----------
    dtype : str
    shapes : tuple of tuple of int
        Of every plane.
    low, high : int
        Range of the stored values.
    lossless : bool
    """

    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    low: int
    high: int
    lossless: bool = False

    @classmethod
    def of(cls, signal: BenchSignal, lossless: bool = False) -> Layout:
        """Layout of a signal."""
        shapes = tuple(tuple(map(int, plane.shape)) for plane in signal.planes)
        return cls(signal.main.dtype.name, shapes, signal.low, signal.high, lossless)

    @property
    def bits(self) -> int:
        """Bits that hold every value after subtracting the smallest."""
        return max(1, (self.high - self.low).bit_length())

    def shifted(self, plane: np.ndarray) -> np.ndarray:
        """Values from 0 on, in the narrowest unsigned dtype."""
        return (plane.astype(np.int32) - self.low).astype(np.uint8 if self.bits <= 8 else np.uint16)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Back from values from 0 on (integers or reals) to the stored dtype, rounded and clipped to the range."""
        whole = np.rint(values) if values.dtype.kind == "f" else values.astype(np.int32)
        return (np.clip(whole, 0, self.high - self.low) + self.low).astype(self.dtype)

    def to_levels(self, plane: np.ndarray, top: int) -> np.ndarray:
        """Values scaled linearly to 0..top; only shifted when `lossless`."""
        if self.lossless:
            return self.shifted(plane).astype(np.uint16)
        scale = top / max(1, self.high - self.low)
        return np.rint((plane.astype(np.float32) - self.low) * scale).astype(np.uint16)

    def from_levels(self, levels: np.ndarray, top: int) -> np.ndarray:
        """Inverse of `to_levels`, up to rounding."""
        if self.lossless:
            return self.stored(levels)
        return self.stored(levels.astype(np.float64) * (max(1, self.high - self.low) / top))


def pack(layout: Layout, parts: Sequence[bytes]) -> bytes:
    """Join the codec's byte strings under a header that says how to decode them."""
    head = bytearray([_DTYPES.index(layout.dtype) | layout.lossless << 7, len(layout.shapes)])
    for shape in layout.shapes:
        _put(head, len(shape), *shape)
    _put(head, layout.low + 2**15, layout.high + 2**15, len(parts), *map(len, parts))
    return b"".join([bytes(head), *parts])


def unpack(data: bytes) -> tuple[Layout, list[bytes]]:
    """Inverse of `pack`."""
    first, planes, at = data[0], data[1], 2
    shapes = []
    for _ in range(planes):
        (rank,), at = _take(data, at, 1)
        shape, at = _take(data, at, rank)
        shapes.append(tuple(shape))
    (low, high, count), at = _take(data, at, 3)
    lengths, at = _take(data, at, count)
    parts = []
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    return Layout(_DTYPES[first & 127], tuple(shapes), low - 2**15, high - 2**15, bool(first >> 7)), parts


def _put(out: bytearray, *numbers: int) -> None:
    for number in numbers:
        while number >= 128:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)


def _take(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number = shift = 0
        while data[at] >= 128:
            number |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
        numbers.append(number | data[at] << shift)
        at += 1
    return numbers, at
