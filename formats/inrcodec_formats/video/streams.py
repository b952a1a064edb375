"""Audio, subtitles and data beside the pictures: carried as they are, packet by packet."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any

_KINDS = ("audio", "subtitle", "data")
# Headers travel as a short file of one of these; a MOV keeps more (channel layouts, MP4's own subtitles), Matroska takes more codecs.
_TEMPLATES = ("mov", "matroska")
_TEMPLATE_PACKETS = 4
_NO_TIME = Fraction(0)


@dataclass(frozen=True)
class StreamPacket:
    """A packet of compressed data with its times, in units of the stream's time base."""

    data: bytes = field(repr=False)
    pts: int | None
    dts: int | None
    duration: int
    is_key: bool


@dataclass(frozen=True)
class OtherStream:
    """A stream that is carried verbatim.

    Attributes
    ----------
    kind : {"audio", "subtitle", "data"}
    codec : str
        FFmpeg's name, for information.
    template : bytes
        A file of FFmpeg's with the stream's first packets: whatever a muxer has to know of the codec (sampling rate, channels, extradata, ...).
    time_base : Fraction
        Seconds of a unit of the packets' times.
    packets : tuple of StreamPacket
        In the order of the file.
    metadata : dict of str to str
        E.g. ``{"language": "deu"}``.
    """

    kind: str
    codec: str
    template: bytes = field(repr=False)
    time_base: Fraction
    packets: tuple[StreamPacket, ...] = field(repr=False)
    metadata: dict[str, str]


def read_others(container: Any, video: Any) -> tuple[tuple[OtherStream, ...], tuple[str, ...]]:
    """Take every stream but `video` out of an open container, which is read to its end.

    Returns
    -------
    streams : tuple of OtherStream
    notes : tuple of str
        A line for each stream that cannot be carried.
    """

    wanted = [stream for stream in container.streams if stream.index != video.index]
    packets = _demuxed(container, [stream for stream in wanted if stream.type in _KINDS])
    streams, notes = [], []
    for stream in wanted:
        carried = _carried(stream, tuple(packets.get(stream.index, ())))
        if carried is None:
            notes.append(f"dropped: {stream.type} stream {stream.index} ({_codec(stream)}) cannot be carried")
        else:
            streams.append(carried)
    return tuple(streams), tuple(notes)


class OthersWriter:
    """Puts carried streams into an output container, `late` seconds later, in step with the pictures.

    Attributes
    ----------
    notes : list of str
        A line for each stream that the container cannot hold.
    first_second : Fraction
        When the earliest packet begins; 0 if there is none.
    """

    def __init__(self, container: Any, streams: Iterable[OtherStream], late: Fraction) -> None:
        self._container = container
        self._late = late
        self._waiting: list[tuple[Fraction, Any, StreamPacket, Fraction]] = []
        self._templates: list[Any] = []  # PyAV reads parameters from an open template
        self.notes: list[str] = []
        for stream in streams:
            self._add(stream)
        self._waiting.sort(key=lambda item: item[0], reverse=True)
        self.first_second = self._waiting[-1][0] if self._waiting else Fraction(0)

    def advance(self, second: Fraction | None) -> None:
        """Write every packet due before `second`; all that are left for None."""
        while self._waiting and (second is None or self._waiting[-1][0] <= second):
            _, target, packet, time_base = self._waiting.pop()
            self._container.mux(_given(packet, target, time_base, self._late))

    def __enter__(self) -> OthersWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the templates."""
        for template in self._templates:
            template.close()

    def _add(self, stream: OtherStream) -> None:
        import av

        template = av.open(io.BytesIO(stream.template))
        self._templates.append(template)
        muxer = self._container.format.name
        # Some muxers refuse a stream only when the whole file's header is due: each is tried by itself before.
        if not _template(template.streams[0], stream.packets, stream.time_base, muxer):
            self.notes.append(f"dropped: {muxer} cannot hold {stream.kind} in {stream.codec}; write .mkv or .mov")
            return
        target = self._container.add_stream_from_template(template.streams[0])
        target.metadata.update(stream.metadata)
        previous = Fraction(0)
        for packet in stream.packets:
            time = packet.dts if packet.dts is not None else packet.pts
            previous = previous if time is None else time * stream.time_base + self._late
            self._waiting.append((previous, target, packet, stream.time_base))


def _demuxed(container: Any, streams: list[Any]) -> dict[int, list[StreamPacket]]:
    import av

    packets: dict[int, list[StreamPacket]] = {stream.index: [] for stream in streams}
    if not streams:
        return packets
    try:
        for packet in container.demux(streams):
            if packet.dts is not None:
                packets[packet.stream_index].append(_taken(packet))
    except av.error.FFmpegError:
        pass  # Where a file ends too early is reported with its pictures.
    return packets


def _codec(stream: Any) -> str:
    context = stream.codec_context
    return context.name if context is not None else "no codec"


def _taken(packet: Any) -> StreamPacket:
    return StreamPacket(bytes(packet), packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe)


def _given(packet: StreamPacket, target: Any, time_base: Fraction, late: Fraction = _NO_TIME) -> Any:
    import av

    out = av.Packet(packet.data)
    units = round(late / time_base)
    out.pts, out.dts = (None if time is None else time + units for time in (packet.pts, packet.dts))
    out.duration = packet.duration
    out.time_base, out.is_keyframe, out.stream = time_base, packet.is_key, target
    return out


def _carried(stream: Any, packets: tuple[StreamPacket, ...]) -> OtherStream | None:
    if stream.type not in _KINDS or not packets:
        return None
    for name in _TEMPLATES:
        template = _template(stream, packets, stream.time_base, name)
        if template:
            keep = {key: value for key, value in stream.metadata.items() if key in ("language", "title")}
            return OtherStream(stream.type, _codec(stream), template, stream.time_base, packets, keep)
    return None


def _template(stream: Any, packets: tuple[StreamPacket, ...], time_base: Fraction, name: str) -> bytes:
    """A short file that tells FFmpeg a stream's parameters, empty when the format `name` cannot hold it."""
    import av

    out = io.BytesIO()
    try:
        with av.open(out, "w", format=name) as container:
            target = container.add_stream_from_template(stream)
            for packet in packets[:_TEMPLATE_PACKETS]:
                container.mux(_given(packet, target, time_base))
        with av.open(io.BytesIO(out.getvalue())) as check:
            same = [s.type for s in check.streams] == [stream.type] and _codec(check.streams[0]) == _codec(stream)
    except (ValueError, av.error.FFmpegError):
        return b""
    return out.getvalue() if same else b""
