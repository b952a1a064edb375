"""Whether a clip's file is as long as it says: demuxers end at the last bytes that are there, and say nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_HEAD_BYTES = 4096
_LENGTH = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")
_STEADY = 0.75
"""Least part of equal distances between frames of a clip whose other distances are gaps."""
_ROOM = 0.75
"""Of a distance: what is longer by that has room for a frame."""


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


def stated_length(metadata: Mapping[str, str]) -> Fraction | None:
    """Seconds that a stream takes by its own tag, which Matroska's writers leave; None where it has none."""
    found = _LENGTH.fullmatch(metadata.get("DURATION", ""))
    if found is None:
        return None
    hours, minutes, seconds = map(Fraction, found.groups())
    return 3600 * hours + 60 * minutes + seconds


def room_inside(times: Sequence[int]) -> int:
    """Frames that fit between those of a clip whose frames are nearly all as far from each other; 0 for any other."""
    at: NDArray[np.int64] = np.array(times, dtype=np.int64)
    distances = at[1:] - at[:-1]
    usual = int(np.median(distances)) if distances.size else 0
    # Rounded to the container's unit they differ by one.
    if usual == 0 or np.mean(np.abs(distances - usual) <= 1) < _STEADY:
        return 0
    return int(np.floor(distances / usual - 1 + (1 - _ROOM)).clip(min=0).sum())


def room_after(times: Sequence[int], last_duration: int, time_base: Fraction, stated: Fraction | None) -> Fraction:
    """Seconds between a clip's end and what its file states, 0 where that is less than a frame or not stated."""
    if stated is None or not times:
        return Fraction(0)
    step = last_duration or (times[-1] - times[0]) // max(len(times) - 1, 1)
    short = stated - (times[-1] + last_duration) * time_base
    return short if short > _ROOM * step * time_base and short > 0 else Fraction(0)


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
