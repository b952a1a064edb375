"""Whether a clip's file is as long as it says: demuxers end at the last bytes that are there, and say nothing."""

from __future__ import annotations

from pathlib import Path

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_HEAD_BYTES = 4096


def shortfall(path: Path, demuxer: str, *, claimed: int, packets: int, last_byte: int) -> str:
    """Say what is missing at the end of a file, "" if nothing is known to be.

    Parameters
    ----------
    path : Path
    demuxer : str
        FFmpeg's name of the format.
    claimed, packets : int
        Frames by the file's index, 0 if it has none; packets found.
    last_byte : int
        Where the last packet ends.
    """
    size = path.stat().st_size
    if claimed > packets:
        return f"{packets} of {claimed} frames"
    if demuxer == "yuv4mpegpipe" and last_byte != size:
        return "an incomplete last frame"
    if "matroska" in demuxer:
        with open(path, "rb") as stream:
            end = _segment_end(stream.read(_HEAD_BYTES))
        if end > size:
            return f"{size} of {end} bytes"
    return ""


def _segment_end(head: bytes) -> int:
    """Where Matroska's one big element ends, 0 if its size was not known when it was written."""
    at = 0
    for wanted in (_EBML, _SEGMENT):
        if int.from_bytes(head[at : at + 4], "big") != wanted:
            return 0
        first = head[at + 4] if len(head) > at + 4 else 0
        length = 9 - first.bit_length()  # of the size: a first byte with n - 1 leading zeros has n bytes
        mask = (1 << 7 * length) - 1
        size = int.from_bytes(head[at + 4 : at + 4 + length], "big") & mask
        if size == mask or length > 8:
            return 0
        at += 4 + length
        if wanted == _SEGMENT:
            break
        at += size
    return at + size
