"""Compact records: LEB128 integers, short texts, and a reader that never runs beyond its end."""

from __future__ import annotations

import struct
from typing import TypeVar

from .errors import ContainerError

MAX_TEXT_BYTES = 64
U64_MAX = 2**64 - 1

_T = TypeVar("_T")


def text(value: str) -> bytes:
    """Encode as UTF-8 behind a byte with the length."""
    data = value.encode("utf-8")
    return bytes((len(data),)) + data


def varint(value: int) -> bytes:
    """Encode as LEB128: seven bits a byte, lowest first, the high bit set on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Record:
    """Takes fields off the front of a byte string, never beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        """Take the next `length` bytes."""
        piece = self._data[self._at : self._at + length]
        if len(piece) < length:
            raise ContainerError(
                f"expected {length} more header bytes, found {len(piece)}; get a fresh copy of the file"
            )
        self._at += length
        return piece

    def byte(self) -> int:
        """Take a byte."""
        return self.take(1)[0]

    def choice(self, options: tuple[_T, ...], label: str) -> _T:
        """Take a byte that numbers one of `options`."""
        code = self.byte()
        if code >= len(options):
            raise ContainerError(f"expected a {label} code below {len(options)}, found {code}; get a newer inrcodec")
        return options[code]

    def number(self, code: str) -> float:
        """Take a little-endian float of a `struct` code."""
        return float(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def varint(self) -> int:
        """Take what `varint` wrote: at most 64 bits, in as few bytes as they need."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > U64_MAX or (byte == 0 and shift):
                    break
                return value
        raise ContainerError(
            "expected the shortest varint of at most 64 bits, found another; get a fresh copy of the file"
        )

    def text(self) -> str:
        """Take what `text` wrote: at most `MAX_TEXT_BYTES` bytes of UTF-8."""
        length = self.byte()
        if length > MAX_TEXT_BYTES:
            raise ContainerError(
                f"expected a text of at most {MAX_TEXT_BYTES} bytes, found {length}; get a fresh copy of the file"
            )
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ContainerError(
                "expected UTF-8 text in the header, found other bytes; get a fresh copy of the file"
            ) from error

    def finish(self) -> None:
        """Refuse bytes that are left."""
        if self._at != len(self._data):
            raise ContainerError(
                f"expected a header of {self._at} bytes, found {len(self._data)}; get a newer inrcodec"
            )
