"""What the file formats share: bounded reading of samples, checked slabs on the way out, one-line errors."""

from __future__ import annotations

import errno
import gzip
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from .errors import FormatError, InrcodecError, OutputError, SignalError
from .signal import CODED_DTYPES, SignalHeader

GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LEVEL = 5  # on CT and fMRI within 2 % of level 6 in two thirds of its time

DEFLATE_LIMIT = 1032
"""No deflate stream expands further than this, so a header that claims more is damaged or hostile."""

DEFAULT_AXES = {1: "x", 2: "yx", 3: "zyx", 4: "tzyx"}

_PIECE_BYTES = 4 << 20
_MEMORY_BYTES = 256 << 20


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises on damaged bytes into a one-line `FormatError` that names the file.

    Errors of this project and real I/O errors (those with an ``errno``) pass through.
    """
    try:
        yield
    except InrcodecError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(path, kind, error) from error
    except Exception as error:
        # The parsers beneath (zlib, struct, pynrrd, tifffile, imagecodecs) promise no exception type for hostile bytes.
        raise damaged(path, kind, error) from error


def damaged(path: Path, kind: str, found: object) -> FormatError:
    """Make the error for a file of the right kind that cannot be read."""
    text = " ".join(str(found).split()) or type(found).__name__
    return FormatError(f"{path.name}: expected a complete {kind} file, found {text[:200]}; it is damaged or truncated")


def check_header(header: SignalHeader) -> None:
    """Refuse a header that contradicts itself.

    Raises
    ------
    SignalError
        If shape, axes, spacing and units differ in length, an axis is empty, or the dtype is not coded.
    """
    lengths = {len(header.shape), len(header.axes), len(header.spacing), len(header.units)}
    if len(lengths) != 1 or not header.shape:
        raise SignalError(
            f"expected one axis letter, spacing and unit per axis of shape {header.shape}, "
            f"found {header.axes!r}, {header.spacing}, {header.units}"
        )
    if min(header.shape) < 1 or header.dtype not in CODED_DTYPES:
        raise SignalError(f"expected positive sizes in one of {CODED_DTYPES}, found {header.shape} {header.dtype}")


def same_spacing(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Tell whether two spacings agree to the precision of a 32-bit float, which is what most headers hold."""
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-6, atol=0)


def checked_slabs(header: SignalHeader, slabs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass on coded slabs (consecutive pieces along axis 0), checking dtype, shape and their total.

    Raises
    ------
    SignalError
        If a slab does not fit the header, or all slabs together are too short or too long.
    """
    rows = 0
    for slab in slabs:
        if slab.shape[1:] != header.shape[1:] or slab.ndim != len(header.shape) or slab.dtype != header.dtype:
            raise SignalError(
                f"expected slabs of {header.dtype} and shape (n, {', '.join(map(str, header.shape[1:]))}), "
                f"found {slab.dtype} {slab.shape}; cut the signal along axis 0 only"
            )
        rows += slab.shape[0]
        if rows > header.shape[0]:
            break
        if slab.shape[0]:
            yield slab
    if rows != header.shape[0]:
        raise SignalError(f"expected slabs of {header.shape[0]} rows along axis 0, found {rows}; pass each row once")


def file_pieces(header: SignalHeader, slabs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the file's bytes, in C order of the signal's axes, as 1-D uint8 arrays of a few MiB."""
    count = _PIECE_BYTES // np.dtype(header.file_dtype).itemsize
    for slab in checked_slabs(header, slabs):
        flat = slab.reshape(-1)
        for start in range(0, flat.size, count):
            yield np.ascontiguousarray(header.to_file_values(flat[start : start + count])).view(np.uint8)


def cut_slabs(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Cut an array along axis 0 into slabs of a few MiB (at least one row each)."""
    rows = max(1, _PIECE_BYTES * samples.shape[0] // max(1, samples.nbytes))
    for start in range(0, samples.shape[0], rows):
        yield samples[start : start + rows]


def gunzipped(raw: IO[bytes]) -> IO[bytes]:
    """Wrap a binary file, at its current position, in a stream of what its gzip data unpack to."""
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw))


@contextmanager
def gzipped(out: IO[bytes], wanted: bool = True) -> Iterator[IO[bytes]]:
    """Yield a stream that gzips into `out`, or `out` itself when not `wanted`."""
    if not wanted:
        yield out
        return
    # No name and no time in the gzip header: the same samples give the same file.
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        yield cast(IO[bytes], stream)


def read_samples(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Read an array (C order) from a decompressing stream, allocating only as bytes really arrive.

    Raises
    ------
    EOFError
        If the stream ends early.
    OutputError
        If the temporary folder has no room for the unpacked samples.
    """
    wanted = byte_count(shape, dtype)

    def pieces() -> Iterator[bytes]:
        left = wanted
        while left:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise EOFError(f"{wanted - left} of {wanted} bytes of samples")
            left -= len(piece)
            yield piece

    samples = collect(pieces(), shape, dtype)
    # Reaching the end is what makes gzip compare its checksum.
    stream.read(_PIECE_BYTES)
    return samples


def collect(pieces: Iterable[bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Join pieces of samples: in memory when small, else in an unnamed temporary file that is memory-mapped.

    Memory therefore stays bounded for any volume; the operating system frees the temporary file with the array.
    """
    wanted = byte_count(shape, dtype)
    if wanted <= _MEMORY_BYTES:
        memory = bytearray()
        for piece in pieces:
            memory += piece
        return np.frombuffer(memory, dtype).reshape(shape)
    try:
        with tempfile.TemporaryFile() as spool:
            for piece in pieces:
                spool.write(piece)
            spool.flush()
            mapped = mmap.mmap(spool.fileno(), wanted, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise OutputError(
            f"expected {wanted} free bytes in {tempfile.gettempdir()} to unpack into, found: {error.strerror}; "
            "free space or point TMPDIR to another folder"
        ) from error
    return np.frombuffer(mapped, dtype).reshape(shape)


def map_samples(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, kind: str) -> np.ndarray:
    """Memory-map an uncompressed array (C order) at a byte offset, after checking that the file holds it."""
    wanted, size = byte_count(shape, dtype), path.stat().st_size
    if offset + wanted > size:
        raise damaged(path, kind, f"{max(0, size - offset)} of {wanted} bytes of samples")
    return np.memmap(path, dtype, "r", offset, shape)


def check_expansion(path: Path, kind: str, shape: tuple[int, ...], dtype: np.dtype, limit: int = DEFLATE_LIMIT) -> None:
    """Refuse a header that claims more samples than the compressed file could ever hold."""
    wanted, size = byte_count(shape, dtype), path.stat().st_size
    if wanted > limit * size:
        raise damaged(path, kind, f"a claim of {wanted} bytes of samples in a compressed file of {size} bytes")


def byte_count(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Size of an array in bytes, exact however absurd the shape."""
    total = dtype.itemsize
    for length in shape:
        total *= int(length)
    return total
