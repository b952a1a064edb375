"""A clip in a container of FFmpeg's: frames in the order in which they are shown, from any key frame on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import FormatError
from .length import room_after, room_inside, shortfall, stated_length
from .log import overheard
from .streams import OtherStream, read_others

# Formats that hold their frames themselves. Playlists (hls, dash, concat) would make FFmpeg open whatever they name.
_DEMUXERS = (
    "mov,matroska,webm,avi,yuv4mpegpipe,mpegts,mpeg,mpegvideo,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,flv,asf,mxf,ogg,nut,dv,gif,apng,"
    "h261,h263,vc1,rm,wtv"
)
# Decoders that paint over damage whatever they are told, and say so in the log only.
_CONCEALING = ("ffv1",)
_SOURCE_FORMATS = {"mov": "mp4", "matroska": "mkv", "yuv4mpegpipe": "y4m"}
_OWN_NAMES = {".mov": "mov", ".webm": "webm", ".m4v": "mp4"}


@dataclass
class Tally:
    """What a pass over a clip has met.

    Attributes
    ----------
    packets, discarded : int
        All; those that an edit list leaves out.
    frames, damaged : int
        Whole frames; frames and packets that could not be decoded.
    keys : list of (int, int)
        Times (pts, dts) of the packets where decoding can begin.
    last_byte : int
        Where the last packet ends in the file.
    broken : str
        What stopped the pass before the end of the file.
    """

    packets: int = 0
    discarded: int = 0
    frames: int = 0
    damaged: int = 0
    keys: list[tuple[int, int]] = field(default_factory=list)
    last_byte: int = 0
    broken: str = ""

    def notes(self) -> Iterator[str]:
        """Lines on what is no fault."""
        if self.discarded:
            yield f"skipped: {self.discarded} frames that the file's edit list leaves out"
        bare = self.packets - self.discarded - self.frames
        if bare > 0:
            yield f"skipped: {bare} packets without a picture of their own"

    def count(self, packet: Any) -> None:
        """Take a packet into account."""
        if packet.dts is None and packet.size == 0:
            return
        self.packets += 1
        self.discarded += packet.is_discard
        self.damaged += packet.is_corrupt
        self.last_byte = (packet.pos or 0) + packet.size
        if packet.is_keyframe and packet.pts is not None and packet.dts is not None:
            self.keys.append((packet.pts, packet.dts))


class FileSource:
    """A clip in one file.

    Attributes
    ----------
    time_base : Fraction
    step : int
        Distance of frames by the file's nominal rate, in units of the time base; 1 when it does not say.
    field_order : int
        FFmpeg's ``AVFieldOrder`` of the stream.
    sample_aspect : Fraction
        Width of a pixel over its height, by the container; 0 when it does not say.
    source_format, codec : str
    notes : tuple of str
        Lines to show to the user.

    Raises
    ------
    FormatError
        If the file is no clip, holds no pictures, or needs a decoder that FFmpeg was built without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as (container, stream):
            self.time_base = Fraction(stream.time_base)
            rate = stream.average_rate or stream.guessed_rate
            self.step = max(1, round(1 / (rate * self.time_base))) if rate else 1
            self.field_order = int(stream.codec_context.field_order)
            self.sample_aspect = Fraction(stream.sample_aspect_ratio or 0)
            self._stated = stated_length(stream.metadata)
            name = container.format.name.split(",")[0]
            self.source_format = _OWN_NAMES.get(path.suffix.lower(), _SOURCE_FORMATS.get(name, name))
            self.codec = stream.codec_context.codec.canonical_name
            pictures = [each.index for each in container.streams.video if each.index != stream.index]
            self.notes = tuple(f"dropped: video stream {index}; only the first one is read" for index in pictures)

    def decode(self, tally: Tally, *, from_key: tuple[int, int] | None = None, complete: bool = False) -> Iterator[Any]:
        """Yield every frame (`av.VideoFrame`), by presentation time.

        Parameters
        ----------
        tally : Tally
            Filled on the way.
        from_key : (int, int), optional
            One of an earlier pass's `Tally.keys`. Nothing is yielded if the file cannot be entered there.
        complete : bool
            Look whether anything is damaged or missing.

        Raises
        ------
        FormatError
            If `complete` and anything was: it says how many frames could be read.
        """
        with self._opened() as (container, stream):
            packets = _packets(container.demux(stream), tally)
            if from_key is not None:
                packets = _entered(container, stream, packets, from_key)
            listen = complete and self.codec in _CONCEALING
            if listen:
                stream.thread_count = 1  # the log of a packet's decoding comes from this thread, and at once
            for packet in packets:
                tally.count(packet)
                yield from _whole_frames(packet, tally, listen)
            fault = complete and (_fault(tally) or _short(self._path, container, stream, tally))
            if fault:
                raise FormatError(
                    f"{self._path.name}: expected a complete clip, found {fault}; {tally.frames} frames could be read, repair it or get a fresh copy"
                )

    def doubts(self, times: Sequence[int], last_duration: int) -> Iterator[str]:
        """Lines on where frames may be missing: damage may hide some, and demuxers go on after them without a word.

        Parameters
        ----------
        times : sequence of int
            Of all frames that were found, in units of the time base.
        last_duration : int
            Of the last one, 0 if it is not known.
        """
        if inside := room_inside(times):
            yield f"assumed: nothing is missing where times leave room for {inside} frame{'s' * (inside > 1)}, by the distance of the others"
        if after := room_after(times, last_duration, self.time_base, self._stated):
            yield f"assumed: nothing is missing at the end, {float(after):.2f} s before what the file states"

    def others(self) -> tuple[tuple[OtherStream, ...], tuple[str, ...]]:
        """Read everything but the pictures; see `read_others`."""
        with self._opened() as (container, stream):
            return read_others(container, stream)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        import av

        with open(self._path, "rb"):
            pass  # A missing or unreadable file is no damaged one: Python's own errors say so.
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        try:
            container = av.open(str(self._path.resolve()), options=options)
        except (av.error.FFmpegError, ValueError) as error:
            raise FormatError(
                f"{self._path.name}: expected a video clip, found {one_line(error)}; 0 frames could be read, it is damaged or no clip"
            ) from error
        with container:
            yield container, self._pictures(container)

    def _pictures(self, container: Any) -> Any:
        import av

        cover = av.stream.Disposition.attached_pic
        stream = next((each for each in container.streams.video if not each.disposition & cover), None)
        if stream is None:
            raise FormatError(f"{self._path.name}: expected a video stream, found none; name a clip with pictures")
        if stream.codec_context is None:
            raise FormatError(
                f"{self._path.name}: expected a codec that this FFmpeg decodes, found another; convert the clip to H.264 or FFV1"
            )
        # Without this, decoders paint over what is missing and say nothing.
        stream.codec_context.options = {"err_detect": "explode"}
        stream.thread_type = "AUTO"
        return stream


def _packets(demuxed: Iterator[Any], tally: Tally) -> Iterator[Any]:
    import av

    try:
        yield from demuxed
    except av.error.FFmpegError as error:
        tally.broken = one_line(error)


def _entered(container: Any, stream: Any, packets: Iterator[Any], key: tuple[int, int]) -> Iterator[Any]:
    """Move to a key frame and yield the packets from there or from an earlier key frame on; none if only a later one is reached."""
    import av

    try:
        # Some formats index by decoding times: the earlier of the two never lands behind the frame.
        container.seek(min(key), stream=stream)
    except av.error.FFmpegError:
        return
    first = next((packet for packet in packets if packet.is_keyframe), None)
    if first is not None and first.pts is not None and first.pts <= key[0]:
        yield first
        yield from packets


def _whole_frames(packet: Any, tally: Tally, listen: bool) -> Iterator[Any]:
    import av

    complaints: list[str] = []
    try:
        with overheard("error") if listen else nullcontext(complaints) as complaints:
            frames = packet.decode()
    except av.error.FFmpegError:
        tally.damaged += not packet.is_corrupt  # a corrupt packet is counted already
        return
    for frame in frames:
        if frame.is_corrupt or complaints:
            tally.damaged += 1
        else:
            tally.frames += 1
            yield frame


def _short(path: Path, container: Any, stream: Any, tally: Tally) -> str:
    found = {"packets": tally.packets, "last_byte": tally.last_byte}
    return shortfall(path, container.format.name, claimed=stream.frames, **found)


def _fault(tally: Tally) -> str:
    if tally.broken:
        return tally.broken
    return f"{tally.damaged} damaged frame{'s' * (tally.damaged > 1)}" if tally.damaged else ""


def one_line(error: Exception) -> str:
    """Say in a line what FFmpeg complains about."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200]
