"""Where streams are read from: paths, bytes, files and pipes."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from ..errors import ContainerError
from .layout import COPY, MAX_UNSEEKABLE_BYTES, crc32c


class Source:
    """Counted, bounded reads at absolute offsets; safe to share between threads."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._base = handle.tell()
        self.size = handle.seek(0, os.SEEK_END) - self._base
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise ContainerError(f"expected {length} bytes at offset {offset}, found a file of {self.size}; {COPY}")
        with self._lock:
            self._handle.seek(self._base + offset)
            data = b"".join(_pieces(self._handle, length))
            self.bytes_read += len(data)
        if len(data) != length:
            raise ContainerError(f"expected {length} bytes at offset {offset}, found {len(data)}; {COPY}")
        return data

    def checked(self, offset: int, length: int, crc: int, what: str) -> bytes:
        data = self.read(offset, length)
        found = crc32c(data)
        if found != crc:
            raise ContainerError(f"expected CRC {crc:08x} on {what}, found {found:08x}; the file is damaged, {COPY}")
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


def binary_handle(source: str | os.PathLike[str] | bytes | BinaryIO, stack: ExitStack) -> BinaryIO:
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
