"""Zstandard with a limit that holds against hostile frames."""

from __future__ import annotations

import zstandard

from .errors import ContainerError

_LEVEL = 19
_EMPTY_FRAME_BYTES = 13


def compress(data: bytes) -> bytes:
    """Compress `data` into one zstd frame that declares its size."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)


def decompress_bounded(blob: bytes, limit: int) -> bytes:
    """Decompress one zstd frame of at most `limit` bytes.

    A frame of 13 bytes can claim 7e18 bytes, and the library allocates what the frame claims even when it is
    given a maximum. The claim is therefore read and compared first, and only then decompressed into exactly
    that many bytes.

    Parameters
    ----------
    blob : bytes
        One zstd frame which declares its content size, with nothing after it.
    limit : int
        Most bytes the result may have.

    Raises
    ------
    ContainerError
        If the frame is damaged, hides its size, claims more than `limit`, or does not hold what it claims.
    """
    declared = _declared_size(blob)
    if declared > limit:
        raise ContainerError(
            f"expected at most {limit} bytes after zstd, found a claim of {declared}; the file is hostile or damaged"
        )
    # The library answers b"" to every frame that claims nothing, without looking at the rest: an empty frame has 9 bytes (13 with a checksum).
    if declared == 0 and len(blob) > _EMPTY_FRAME_BYTES:
        raise ContainerError(f"expected an empty zstd frame, found {len(blob)} bytes; get a fresh copy of the file")
    try:
        data = zstandard.ZstdDecompressor().decompress(blob, max_output_size=declared, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ContainerError(
            f"expected a sound zstd frame, found damage ({_one_line(error)}); get a fresh copy of the file"
        ) from error
    if len(data) != declared:
        raise ContainerError(f"expected {declared} bytes after zstd, found {len(data)}; get a fresh copy of the file")
    return data


def _declared_size(blob: bytes) -> int:
    try:
        declared = int(zstandard.get_frame_parameters(blob).content_size)
    except zstandard.ZstdError as error:
        raise ContainerError(
            f"expected a zstd frame, found {len(blob)} other bytes ({_one_line(error)}); get a fresh copy of the file"
        ) from error
    if declared == zstandard.CONTENTSIZE_UNKNOWN:
        raise ContainerError("expected a zstd frame that declares its size, found none; write it with its content size")
    return declared


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
