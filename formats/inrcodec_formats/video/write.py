"""`write_clip`: frames and a header as a clip: MP4, MOV, Matroska, Y4M or a folder of PNG files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..atomic import atomic_output
from ..errors import FormatError, SignalError
from .encoders import Encoder, choose_encoder
from .folder import check_folder, write_folder
from .header import ClipHeader
from .planes import Planes, make_frame
from .source import one_line
from .streams import OtherStream, OthersWriter
from .tags import Tagger, tag_encoder
from .y4m import check_y4m, lost_in_y4m, write_y4m

_MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_DEFAULT_RATE = 25
_RATE_LIMIT = 60_000
_MOVIE_UNITS = 1000


def check_writable(
    path: str | os.PathLike[str], header: ClipHeader, codec: Literal["h264", "hevc", "ffv1"] | None = None
) -> None:
    """Raise what `write_clip` would raise before its first frame.

    Raises
    ------
    FormatError, OutputError
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _MUXERS:
        choose_encoder(path.name, _MUXERS[suffix], header, codec)
    elif codec is not None:
        raise FormatError(
            f"{path.name}: expected a .mp4, .mov or .mkv file for codec {codec!r}, found another; leave the codec out"
        )
    elif suffix == ".y4m":
        check_y4m(path, header)
    elif suffix == "":
        check_folder(path, header)
    else:
        raise FormatError(
            f"{path.name}: expected a name ending in {', '.join(_MUXERS)}, .y4m, or a folder for PNG files, found {suffix}; rename it"
        )


def write_clip(
    path: str | os.PathLike[str],
    header: ClipHeader,
    frames: Iterable[Planes],
    *,
    codec: Literal["h264", "hevc", "ffv1"] | None = None,
    others: Iterable[OtherStream] = (),
) -> tuple[str, ...]:
    """Write a clip frame by frame; it appears only when all frames have arrived.

    Parameters
    ----------
    path : str or os.PathLike
        The suffix chooses the container; a name without one is a folder for PNG files.
    header : ClipHeader
    frames : iterable of tuple of ndarray
        ``header.frames`` of them, shapes ``header.plane_shapes``, dtype ``header.dtype``.
    codec : {"h264", "hevc", "ffv1"}, optional
        For MP4, MOV and Matroska: visually lossless H.264 or HEVC, or lossless FFV1 (Matroska only). By default the first of them that holds
        the clip. Y4M and PNG are lossless.
    others : iterable of OtherStream
        Audio, subtitles and data to carry.

    Returns
    -------
    tuple of str
        Lines to show to the user: what the container could not hold.

    Raises
    ------
    FormatError
        If the suffix is unknown, or container and codec cannot hold the clip.
    SignalError
        If the frames do not fit the header.
    OutputError
        If the file cannot be written.
    """
    path, others = Path(path), tuple(others)
    check_writable(path, header, codec)
    frames = _checked(header, frames)
    muxer = _MUXERS.get(path.suffix.lower())
    if muxer is not None:
        encoder = choose_encoder(path.name, muxer, header, codec)
        return (*encoder.notes(header, muxer), *_write_container(path, muxer, encoder, header, frames, others))
    dropped = [f"dropped: {stream.kind} in {stream.codec}, as there is no room for it; write .mkv" for stream in others]
    if path.suffix:
        write_y4m(path, header, frames)
        return (*lost_in_y4m(header), *dropped)
    write_folder(path, header, frames)
    return tuple(dropped)


def _write_container(
    path: Path,
    muxer: str,
    encoder: Encoder,
    header: ClipHeader,
    frames: Iterator[Planes],
    others: tuple[OtherStream, ...],
) -> list[str]:
    import av

    with atomic_output(path) as out:
        try:
            options = {} if muxer == "matroska" else {"movie_timescale": str(_timescale(header))}
            with (
                av.open(out, "w", format=muxer, options=options) as container,
                OthersWriter(container, others, _below_zero(header) * header.time_base) as beside,
            ):
                stream = _add_pictures(container, encoder, header)
                for packet in _encoded(stream, encoder, header, frames):
                    beside.advance((packet.pts if packet.dts is None else packet.dts) * packet.time_base)
                    container.mux(packet)
                beside.advance(None)
        except av.error.FFmpegError as error:
            found = f"{one_line(error)} for {header.width}x{header.height} {header.pixel_format}"
            raise FormatError(
                f"{path.name}: expected a clip that {encoder.codec} in {muxer} can hold, found {found}; write .mkv with codec 'ffv1'"
            ) from error
    return [*beside.notes, *_shift(muxer, header, beside)]


def _add_pictures(container: Any, encoder: Encoder, header: ClipHeader) -> Any:
    stream = container.add_stream(
        encoder.name,
        rate=_rate(header),
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        options={**encoder.options(header), "chroma_sample_location": str(header.colour.chroma_location)},
    )
    stream.codec_context.pix_fmt = encoder.pixel_format
    tag_encoder(stream.codec_context, header)
    if header.display_matrix:
        stream.set_display_matrix(header.display_matrix)
    return stream


def _encoded(stream: Any, encoder: Encoder, header: ClipHeader, frames: Iterator[Planes]) -> Iterator[Any]:
    tag = Tagger(header, encoder.pixel_format)
    ends = np.append(header.times[1:], header.times[-1] + header.last_duration)
    for time, end, planes in zip(header.times, ends, frames, strict=True):
        frame = make_frame(planes, header.pixel_format, encoder.pixel_format)
        frame.pts, frame.duration = int(time) + _below_zero(header), int(end - time)
        frame.time_base = header.time_base
        yield from stream.encode(tag(frame))
    yield from stream.encode(None)


def _checked(header: ClipHeader, frames: Iterable[Planes]) -> Iterator[Planes]:
    """Pass on frames, checking shapes, dtype and their number."""
    count = 0
    for planes in frames:
        shapes = tuple(plane.shape for plane in planes)
        if shapes != header.plane_shapes or any(plane.dtype != header.dtype for plane in planes):
            raise SignalError(
                f"expected planes of {header.dtype} and shapes {header.plane_shapes}, found {shapes} at frame {count}; do not crop or convert them"
            )
        count += 1
        if count > header.frames:
            break
        yield planes
    if count != header.frames:
        raise SignalError(
            f"expected {header.frames} frames, found {'more' if count > header.frames else count}; pass each one once"
        )


def _timescale(header: ClipHeader) -> int:
    """Units a second in which MP4 and MOV say when a clip begins: exact for the header's times."""
    units = header.time_base.denominator
    return units * max(1, -(-_MOVIE_UNITS // units))


def _rate(header: ClipHeader) -> Fraction:
    """Frames a second, on average: encoders want to be told, but times say when frames are shown."""
    steps = header.frames - 1
    units = int(header.times[-1] - header.times[0]) if steps else header.last_duration
    if not units:
        return Fraction(_DEFAULT_RATE)
    rate = max(1, steps) / (units * header.time_base)
    return min(max(rate, Fraction(1, 1000)), Fraction(1000)).limit_denominator(_RATE_LIMIT)


def _below_zero(header: ClipHeader) -> int:
    """By how many units pictures begin before zero: containers would leave those out, so everything is moved."""
    return max(0, -int(header.times[0]))


def _shift(muxer: str, header: ClipHeader, beside: OthersWriter) -> list[str]:
    """Say by how much everything is moved: Matroska moves sound that begins below zero, too, and the pictures with it."""
    moved = _below_zero(header) * header.time_base
    if muxer == "matroska":
        moved += max(Fraction(0), -beside.first_second)
    return [f"moved: everything by {float(1000 * moved):.0f} ms, as {muxer} begins at zero"] if moved else []
