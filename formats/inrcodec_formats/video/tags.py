"""What FFmpeg's frames say of themselves besides samples: colours, fields, shape of the pixels, orientation.

PyAV shows only some of this. The rest is read from the line that FFmpeg's filter ``showinfo`` logs, and set by the filters
``setparams`` and ``setsar``; none of the three touches a sample.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..errors import FormatError
from .header import ClipHeader, ColourInfo, FieldOrder
from .log import overheard

_CHROMA = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
_FIELDS: dict[str, FieldOrder] = {"T": "top", "B": "bottom"}
# AVFieldOrder: which field comes first on the screen (tt, tb are stored differently, but shown alike).
_STREAM_FIELDS: dict[int, FieldOrder] = {2: "top", 3: "bottom", 4: "bottom", 5: "top"}
_FIELD_CODES = {"progressive": 1, "top": 2, "bottom": 3}
_FIELD_MODES = {"bottom": 0, "top": 1, "progressive": 2}
_FULL_RANGE = 2
_INFO = re.compile(r"\bcl:(\w+) sar:(\d+)/(\d+) .*\bi:([PTB])")


@dataclass(frozen=True)
class Tags:
    """What a frame says of itself: the fields of `ClipHeader` of the same names."""

    colour: ColourInfo
    sample_aspect: Fraction
    display_matrix: tuple[int, ...]
    field_order: FieldOrder


def read_tags(frame: Any, field_order: int, sample_aspect: Fraction) -> Tags:
    """Read a frame's tags.

    Parameters
    ----------
    frame : av.VideoFrame
    field_order : int
        FFmpeg's ``AVFieldOrder`` of the stream, for frames that do not say it themselves.
    sample_aspect : Fraction
        What the container says of the pixels' shape; it overrules the frame unless it is 0.
    """
    info = _INFO.search(_shown(frame))
    if info is None:
        raise FormatError("expected FFmpeg's showinfo to name chroma location, aspect and fields; install another PyAV")
    chroma, wide, high, fields = info.groups()
    full = frame.format.name.startswith("yuvj")
    return Tags(
        colour=ColourInfo(
            range=_FULL_RANGE if full else int(frame.color_range),
            matrix=int(frame.colorspace),
            primaries=int(frame.color_primaries),
            transfer=int(frame.color_trc),
            chroma_location=_CHROMA.index(chroma) if chroma in _CHROMA else 0,
        ),
        sample_aspect=sample_aspect or Fraction(int(wide), int(high) or 1),
        display_matrix=_display_matrix(frame),
        field_order=_FIELDS.get(fields) or _STREAM_FIELDS.get(field_order, "progressive"),
    )


class Tagger:
    """Sets a header's tags on frames, so that encoders and muxers see them."""

    def __init__(self, header: ClipHeader, pixel_format: str) -> None:
        colour = header.colour
        settings = {
            "field_mode": _FIELD_MODES[header.field_order],
            "range": colour.range,
            "colorspace": colour.matrix,
            "color_primaries": colour.primaries,
            "color_trc": colour.transfer,
            "chroma_location": colour.chroma_location,
        }
        aspect = header.sample_aspect
        self._graph = _graph(
            (header.width, header.height, pixel_format, header.time_base),
            ("setparams", ":".join(f"{name}={value}" for name, value in settings.items())),
            ("setsar", f"sar={aspect.numerator}/{aspect.denominator}:max={2**31 - 1}"),
        )

    def __call__(self, frame: Any) -> Any:
        """Return `frame`, tagged."""
        self._graph.push(frame)
        return self._graph.pull()


def tag_encoder(context: Any, header: ClipHeader) -> None:
    """Set a header's tags on an encoder (`av.VideoCodecContext`) that is not open yet."""
    colour = header.colour
    context.color_range, context.colorspace = colour.range, colour.matrix
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    context.sample_aspect_ratio = header.sample_aspect
    context.field_order = _FIELD_CODES[header.field_order]


def _display_matrix(frame: Any) -> tuple[int, ...]:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return struct.unpack("=9i", bytes(data))
    return ()


def _shown(frame: Any) -> str:
    graph = _graph((frame.width, frame.height, frame.format.name, Fraction(1, 1000)), ("showinfo", None))
    with overheard("info") as lines:
        graph.push(frame)
        graph.pull()
    return " ".join(lines)


def _graph(source: tuple[int, int, str, Fraction], *filters: tuple[str, str | None]) -> Any:
    from av.filter import Graph
    from av.video.format import VideoFormat

    width, height, pixel_format, time_base = source
    graph = Graph()
    nodes = [graph.add_buffer(width=width, height=height, format=VideoFormat(pixel_format), time_base=time_base)]
    nodes += [graph.add(name, settings) for name, settings in filters]
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph
