"""Which of FFmpeg's encoders write a clip, and with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import FormatError
from .header import ClipHeader
from .planes import planar_twin

# Of libx264 and libx265. On real clips the decoded file is 45 dB and more from what was written: see docs/video.md.
_VISUALLY_LOSSLESS = "8"
_PACKED = ("bgr0", "bgr24", "rgb24")
_INTERLACED_ROWS = 4  # x264 codes fields as pairs of rows of 4:2:0 blocks


@dataclass(frozen=True)
class Encoder:
    """An encoder and the pixel format that it is given.

    Attributes
    ----------
    codec : str
        ``"h264"``, ``"hevc"`` or ``"ffv1"``.
    name : str
        FFmpeg's name of the encoder.
    pixel_format : str
        The clip's, or a packed one with the same samples.
    """

    codec: str
    name: str
    pixel_format: str

    def options(self, header: ClipHeader) -> dict[str, str]:
        """Settings of the encoder."""
        if self.codec == "ffv1":
            return {"level": "3", "slicecrc": "1", "g": "1"}
        if self.codec == "hevc":
            # x265 takes decoding times from its third frame; of fewer it makes them up, and now and then no muxer takes those.
            alone = ":bframes=0" if header.frames < _X265_LEAST_REORDERED else ""
            return {"crf": _VISUALLY_LOSSLESS, "x265-params": f"log-level=none{alone}"}
        fields = {"top": "tff=1", "bottom": "bff=1"}.get(header.field_order, "")
        return {"crf": _VISUALLY_LOSSLESS} | ({"x264-params": fields} if fields and _fields_fit(header) else {})

    def notes(self, header: ClipHeader, muxer: str) -> Iterator[str]:
        """Say what of the header is lost."""
        if self.codec == "h264" and muxer != "matroska" and header.colour.numbers[:4] == (1, 2, 2, 2):
            yield "assumed: limited range goes without saying, as H.264 has it when nothing else is known of the colours"
        if self.codec == "hevc" and not header.colour.range:
            yield "assumed: limited range, as HEVC has no unknown one"
        told = self.codec == "ffv1" or muxer != "mp4" or (self.codec == "h264" and _fields_fit(header))
        if header.field_order != "progressive" and not told:
            yield f"dropped: the order of fields, which {self.codec} in {muxer} does not say here; write .mkv"


def choose_encoder(file: str, muxer: str, header: ClipHeader, codec: str | None) -> Encoder:
    """Choose an encoder for a clip.

    Raises
    ------
    FormatError
        If the codec asked for, or all of them when none was, cannot hold the clip in this container; it names another choice.
    """
    reasons = []
    for name in [codec] if codec else _CODECS:
        if name not in _CODECS:
            raise FormatError(f"{file}: expected a codec out of {', '.join(_CODECS)}, found {name!r}; name one of them")
        reason = _CODECS[name](header, muxer)
        encoder = None if reason else _available(name, header)
        if encoder is not None:
            return encoder
        reasons.append(reason or f"FFmpeg's {name} here takes no {header.pixel_format}")
    raise FormatError(
        f"{file}: expected a clip that {codec or muxer} can hold, found: {'; '.join(reasons)}; write .mkv with codec 'ffv1'"
    )


def _h264(header: ClipHeader, muxer: str) -> str:
    # FFmpeg decodes gray H.264 as 4:2:0, so the format would not come back.
    return "gray, which comes back from H.264 as 4:2:0" if header.pixels.count == 1 else _odd(header)


def _hevc(header: ClipHeader, muxer: str) -> str:
    return _odd(header)


def _ffv1(header: ClipHeader, muxer: str) -> str:
    return "" if muxer == "matroska" else f"FFV1, for which {muxer} has no place"


_CODECS: dict[str, Callable[[ClipHeader, str], str]] = {"h264": _h264, "hevc": _hevc, "ffv1": _ffv1}
_X265_LEAST_REORDERED = 3
_ENCODERS = {"h264": ("libx264", "libx264rgb"), "hevc": ("libx265",), "ffv1": ("ffv1",)}


def _odd(header: ClipHeader) -> str:
    down, along = (2**halvings for halvings in header.pixels.halvings)
    if header.height % down or header.width % along:
        return f"an odd size, {header.width}x{header.height}, of {header.pixel_format}"
    return ""


def _available(codec: str, header: ClipHeader) -> Encoder | None:
    """Find an encoder of this FFmpeg that takes the clip's samples as they are."""
    import av

    for name in _ENCODERS[codec]:
        try:
            known = {each.name for each in av.Codec(name, "w").video_formats or ()}
        except av.codec.codec.UnknownCodecError:
            continue
        packed = [each for each in _PACKED if planar_twin(each) == header.pixel_format]
        found = next((each for each in (header.pixel_format, *packed) if each in known), None)
        if found is not None:
            return Encoder(codec, name, found)
    return None


def _fields_fit(header: ClipHeader) -> bool:
    return header.height % _INTERLACED_ROWS == 0
