"""Writing Y4M: a line of text and raw planes, one frame after the other. FFmpeg's own writer loses the shape of the pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..atomic import atomic_output
from ..errors import FormatError
from .header import ClipHeader
from .planes import Planes

_CHROMA = {"gray": "mono", "yuv420p": "420", "yuv422p": "422", "yuv444p": "444", "yuv411p": "411"}
_SITINGS = {1: "mpeg2", 2: "jpeg", 3: "paldv"}
_FIELDS = {"progressive": "p", "top": "t", "bottom": "b"}
_RANGES = {1: " XCOLORRANGE=LIMITED", 2: " XCOLORRANGE=FULL"}
_DEFAULT_RATE = 25


def check_y4m(path: Path, header: ClipHeader) -> None:
    """Refuse a clip that Y4M cannot hold.

    Raises
    ------
    FormatError
        For RGB and rare chroma grids, and for frames at unequal distances.
    """
    if _family(header) not in _CHROMA:
        raise FormatError(
            f"{path.name}: expected gray, 4:2:0, 4:2:2, 4:4:4 or 4:1:1 for Y4M, found {header.pixel_format}; write .mkv"
        )
    steps = np.diff(header.times)
    if len(steps) and steps.min() != steps.max():
        raise FormatError(
            f"{path.name}: expected frames at equal distances for Y4M, found {steps.min()} to {steps.max()} units; write .mkv"
        )


def write_y4m(path: Path, header: ClipHeader, frames: Iterable[Planes]) -> None:
    """Write a clip; the file appears whole or not at all."""
    check_y4m(path, header)
    with atomic_output(path) as out:
        out.write(_head(header))
        for planes in frames:
            out.write(b"FRAME\n")
            for plane in planes:
                out.write(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)


def lost_in_y4m(header: ClipHeader) -> list[str]:
    """Name what Y4M cannot hold of a header."""
    colour = header.colour
    lost = {
        "matrix, primaries and transfer": (colour.matrix, colour.primaries, colour.transfer) != (2, 2, 2),
        "the rotation": bool(header.display_matrix),
        "the first frame's time": header.times[0] != 0,
    }
    return [f"dropped: {what}, which Y4M cannot hold" for what, is_lost in lost.items() if is_lost]


def _family(header: ClipHeader) -> str:
    return (
        header.pixel_format
        if header.bit_depth == 8
        else header.pixel_format[: -len("10le") if header.bit_depth > 9 else -3]
    )


def _head(header: ClipHeader) -> bytes:
    step = int(header.times[1] - header.times[0]) if header.frames > 1 else header.last_duration
    rate = 1 / (step * header.time_base) if step else _DEFAULT_RATE
    aspect = header.sample_aspect
    return (
        f"YUV4MPEG2 W{header.width} H{header.height} F{rate.numerator}:{rate.denominator} I{_FIELDS[header.field_order]} "
        f"A{aspect.numerator}:{aspect.denominator if aspect else 0} C{_chroma(header)}{_RANGES.get(header.colour.range, '')}\n"
    ).encode()


def _chroma(header: ClipHeader) -> str:
    family, depth = _CHROMA[_family(header)], header.bit_depth
    if depth > 8:
        return f"mono{depth}" if family == "mono" else f"{family}p{depth}"
    return family + (_SITINGS.get(header.colour.chroma_location, "jpeg") if family == "420" else "")
