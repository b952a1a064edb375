"""Sound, subtitles and data are carried packet by packet."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from formats.clips import header, moving, raw_frame, write_raw
from inrcodec_formats.video import ClipReader, OtherStream, write_clip


def with_sound(path: Path, audio: str = "aac") -> Path:
    frames = [raw_frame("yuv420p", 32, 24, seed) for seed in range(12)]
    return write_raw(path, frames, codec="libx264", audio=audio)


def packets(path: Path, kind: str = "audio") -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(getattr(container.streams, kind)[0]) if packet.size]


def others(path: Path) -> tuple[OtherStream, ...]:
    with ClipReader(path) as reader:
        return reader.others()


@pytest.mark.parametrize(
    ("source", "audio", "target"),
    [
        ("a.mp4", "aac", "b.mp4"),
        ("a.mp4", "aac", "b.mkv"),
        ("a.mkv", "flac", "b.mkv"),
        ("a.mkv", "flac", "b.mp4"),
        ("a.mov", "pcm_s16le", "b.mov"),
        ("a.mkv", "libmp3lame", "b.mkv"),
    ],
)
def test_sound_is_carried_verbatim(tmp_path: Path, source: str, audio: str, target: str) -> None:
    streams = others(with_sound(tmp_path / source, audio))
    language = None if source.endswith(".mov") else "deu"  # FFmpeg writes QuickTime's codes for few languages
    assert [(each.kind, each.metadata.get("language")) for each in streams] == [("audio", language)]
    head = header(frames=12)
    notes = write_clip(tmp_path / target, head, moving(head), others=streams)
    assert not [note for note in notes if "dropped" in note]
    assert packets(tmp_path / target) == packets(tmp_path / source) == [packet.data for packet in streams[0].packets]
    again = others(tmp_path / target)[0]
    assert again.codec == streams[0].codec and again.metadata.get("language") == language
    # In step with the pictures, which Matroska moves by the sound's start below zero: then it says so.
    moved = float(notes[0].split(" by ")[1].split(" ms")[0]) / 1000 if notes else 0.0
    for old, new in zip(streams[0].packets, again.packets, strict=True):
        assert abs(float(new.pts * again.time_base) - float(old.pts * streams[0].time_base) - moved) < 0.002
    with ClipReader(tmp_path / target) as reader:
        assert abs(float(reader.header.times[0] * reader.header.time_base) - moved) < 0.002
    with av.open(str(tmp_path / target)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 8000


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_subtitles_are_carried(tmp_path: Path, target: str) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        pictures = container.add_stream("libx264", rate=25, width=32, height=24)
        container.add_stream("aac", rate=8000, layout="mono")
        text = container.add_mux_stream("subrip") if target == "b.mkv" else container.add_mux_stream("webvtt")
        for number in range(4):
            frame = raw_frame("yuv420p", 32, 24, number)
            frame.pts = number
            container.mux(pictures.encode(frame))
        packet = av.Packet(b"incision")
        packet.pts = packet.dts = 40
        packet.duration, packet.stream, packet.time_base = 80, text, Fraction(1, 25)
        container.mux(packet)
        container.mux(pictures.encode(None))
    with ClipReader(tmp_path / "a.mkv") as reader:
        streams = reader.others()
        head = header(frames=4)
        notes = write_clip(tmp_path / target, head, moving(head), others=streams)
        if target == "b.mkv":
            assert [each.kind for each in streams] == ["subtitle"] and packets(tmp_path / target, "subtitles") == [
                b"incision"
            ]
        assert len(streams) + len([n for n in (*notes, *reader.notes) if n.startswith("dropped: ")]) >= 2


def test_what_a_container_cannot_hold_is_dropped_with_a_line(tmp_path: Path) -> None:
    head = header(frames=12)
    # MP3 at 8 kHz is refused only when the whole file's header is written.
    for source, audio, target in (
        ("a.mov", "pcm_mulaw", "b.mp4"),
        ("a.mov", "pcm_mulaw", "b.y4m"),
        ("a.mkv", "libmp3lame", "b.mp4"),
    ):
        streams = others(with_sound(tmp_path / source, audio))
        notes = write_clip(tmp_path / target, head, moving(head), others=streams)
        assert [note for note in notes if note.startswith("dropped: ") and streams[0].codec in note], target
        assert not others(tmp_path / target)


def test_attachments_are_dropped_with_a_line(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.add_attachment("note.txt", "text/plain", b"hello")
        stream = container.add_stream("libx264", rate=25, width=32, height=24)
        container.mux(stream.encode(raw_frame("yuv420p", 32, 24, 0)))
        container.mux(stream.encode(None))
    with ClipReader(tmp_path / "a.mkv") as reader:
        assert reader.others() == ()
        assert any(note.startswith("dropped: attachment") for note in reader.notes)


def test_a_second_picture_stream_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=25, width=16 * n, height=16) for n in (1, 2)]
        for n, stream in enumerate(streams):
            container.mux(stream.encode(raw_frame("yuv420p", 16 + 16 * n, 16, n)))
        for stream in streams:
            container.mux(stream.encode(None))
    with ClipReader(tmp_path / "a.mkv") as reader:
        assert reader.header.width == 16
        assert reader.notes[0] == "dropped: video stream 1; only the first one is read"
