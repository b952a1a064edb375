"""Clips written and read again: samples, times, colours and everything else that a header holds."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from formats.clips import equal, header, moving, noise, psnr, raw_frame, write_raw
from formats.conformance import one_line
from inrcodec_formats.errors import FormatError, OutputError, SignalError
from inrcodec_formats.video import ClipReader, ColourInfo, is_clip, probe, write_clip
from inrcodec_formats.video.planes import frame_planes

FULL = ColourInfo(range=2, matrix=5, primaries=6, transfer=6, chroma_location=3)


def seconds(head, unit: Fraction | None = None) -> list[Fraction]:
    times = [int(time) * head.time_base for time in head.times]
    return [round(time / unit) * unit for time in times] if unit else times


@pytest.mark.parametrize(
    "pixel_format",
    [
        "gray",
        "gray10le",
        "gray16le",
        "yuv420p",
        "yuv422p",
        "yuv444p",
        "yuv440p",
        "yuv411p",
        "yuv420p10le",
        "yuv422p12le",
        "yuv444p16le",
        "gbrp",
        "gbrp10le",
        "gbrp16le",
    ],
)
@pytest.mark.parametrize("size", [(32, 24), (33, 17)])
def test_ffv1_is_lossless(tmp_path: Path, pixel_format: str, size: tuple[int, int]) -> None:
    head = header(pixel_format, *size, frames=3)
    assert write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1") == ()
    with ClipReader(tmp_path / "a.mkv") as reader:
        assert reader.header.pixel_format == pixel_format and reader.notes == ()
        assert equal(reader.frames(), noise(head))
        assert seconds(reader.header) == seconds(head)


@pytest.mark.parametrize(
    "pixel_format",
    [
        "gray",
        "gray12le",
        "gray16le",
        "yuv420p",
        "yuv422p",
        "yuv444p",
        "yuv411p",
        "yuv420p9le",
        "yuv420p10le",
        "yuv422p16le",
        "yuv444p14le",
    ],
)
def test_y4m_is_lossless(tmp_path: Path, pixel_format: str) -> None:
    head = header(
        pixel_format, 33, 17, time_base=Fraction(1001, 30000), sample_aspect=Fraction(4, 3), field_order="top"
    )
    assert write_clip(tmp_path / "a.y4m", head, noise(head)) == ()
    with ClipReader(tmp_path / "a.y4m") as reader:
        found = reader.header
        assert equal(reader.frames(), noise(head))
        assert (found.pixel_format, found.sample_aspect, found.field_order) == (pixel_format, Fraction(4, 3), "top")
        assert seconds(found) == seconds(head)


def test_y4m_says_what_it_cannot_hold(tmp_path: Path) -> None:
    notes = write_clip(tmp_path / "a.y4m", header(colour=FULL), noise(header()))
    assert len(notes) == 1 and "matrix" in notes[0]
    found = probe(tmp_path / "a.y4m").colour
    assert (found.range, found.chroma_location) == (2, 3)
    for wrong in (header("gbrp"), header(times=[0, 1, 3, 4, 5])):
        with pytest.raises(FormatError, match=r"a\.y4m.*write \.mkv"):
            write_clip(tmp_path / "a.y4m", wrong, noise(wrong))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p", "gbrp"])
def test_visually_lossless(tmp_path: Path, codec: str, suffix: str, pixel_format: str) -> None:
    colour = ColourInfo(2, 0, 1, 13, 0) if pixel_format == "gbrp" else ColourInfo(1, 1, 1, 1, 1)
    head = header(pixel_format, 64, 48, frames=8, colour=colour, sample_aspect=Fraction(4, 3))
    write_clip(tmp_path / f"a{suffix}", head, moving(head), codec=codec)
    with ClipReader(tmp_path / f"a{suffix}") as reader:
        found = reader.header
        assert (found.width, found.height, found.pixel_format, found.frames) == (64, 48, pixel_format, 8)
        assert seconds(found) == seconds(head) and found.last_duration * found.time_base == Fraction(1, 25)
        assert found.colour.numbers[:4] == colour.numbers[:4] and found.sample_aspect == Fraction(4, 3)
        assert min(psnr(a, b, head.bit_depth) for a, b in zip(reader.frames(), moving(head), strict=True)) > 45


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "ffv1"), ("a.mkv", "h264"), ("a.mp4", "h264"), ("a.mkv", "hevc"), ("a.mp4", "hevc"), ("a.mov", "h264")],
)
@pytest.mark.parametrize("colour", [FULL, ColourInfo(1, 9, 9, 16, 1), ColourInfo(1)])
def test_colours_come_back(tmp_path: Path, name: str, codec: str, colour: ColourInfo) -> None:
    head = header(frames=2, colour=colour)
    write_clip(tmp_path / name, head, moving(head), codec=codec)
    found = probe(tmp_path / name).colour
    # H.264 and HEVC know neither an unknown location of 4:2:0 nor a limited range alone: they mean left and limited by saying nothing.
    assert found.numbers[1:4] == colour.numbers[1:4] and found.range in {
        colour.range,
        colour.range - (colour.numbers[1:4] == (2, 2, 2)),
    }
    assert found.chroma_location in {colour.chroma_location, colour.chroma_location or 1}


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("start", [0, 7])
def test_varying_rates_and_late_starts_are_kept(tmp_path: Path, name: str, start: int) -> None:
    close = 40 if name == "a.mkv" else 1  # Matroska counts milliseconds
    times = start * 1001 + np.cumsum([0, 1001, 3003, 500, 1001, 40_000, close, 999])
    head = header(frames=8, times=times, time_base=Fraction(1, 30_000), last_duration=2002)
    write_clip(tmp_path / name, head, moving(head))
    found = probe(tmp_path / name)
    limit = Fraction(1, 2000) if name == "a.mkv" else 0
    assert found.frames == 8
    assert max(abs(a - b) for a, b in zip(seconds(found), seconds(head), strict=True)) <= limit


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_frames_before_zero_are_moved_and_not_left_out(tmp_path: Path, name: str) -> None:
    head = header(frames=8, times=np.arange(8) - 3)
    (note,) = write_clip(tmp_path / name, head, moving(head), codec="h264")
    assert note.startswith("moved: everything by 120 ms")
    assert seconds(probe(tmp_path / name)) == [Fraction(n, 25) for n in range(8)]


def test_frames_within_a_millisecond_keep_their_order(tmp_path: Path) -> None:
    head = header(frames=8, times=np.cumsum([0, 1200, 1, 1, 1200, 1200, 1200, 1200]), time_base=Fraction(1, 30_000))
    write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1")
    with ClipReader(tmp_path / "a.mkv") as reader:
        assert reader.header.times.tolist() == [0, 40, 41, 42, 80, 120, 160, 200]
        assert "times of 2 frames" in reader.notes[0]
        assert equal(reader.frames(2, 5), list(noise(head))[2:5])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(
    "matrix", [(0, 65536, 0, -65536, 0, 0, 0, 0, 2**30), (-65536, 0, 0, 0, -65536, 0, 0, 0, 2**30)]
)
def test_rotation_is_kept_and_not_applied(tmp_path: Path, name: str, matrix: tuple[int, ...]) -> None:
    head = header(frames=2, display_matrix=matrix)
    write_clip(tmp_path / name, head, moving(head))
    found = probe(tmp_path / name)
    assert (found.width, found.height) == (32, 24)
    assert found.rotation == head.rotation != 0


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.mkv", "h264"), ("a.mkv", "ffv1"), ("a.mkv", "hevc")]
)
@pytest.mark.parametrize("order", ["top", "bottom"])
def test_field_order_is_kept(tmp_path: Path, name: str, codec: str, order: str) -> None:
    head = header(frames=2, field_order=order)
    assert not any("field" in note for note in write_clip(tmp_path / name, head, moving(head), codec=codec))
    assert probe(tmp_path / name).field_order == order


def test_one_frame(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.y4m"):
        head = header(frames=1)
        write_clip(tmp_path / name, head, moving(head))
        assert probe(tmp_path / name).frames == 1, name


@pytest.mark.parametrize(
    "name", ["nv12", "yuyv422", "rgb24", "bgr24", "bgra", "pal8", "gray16be", "rgb48le", "yuva420p"]
)
def test_packed_frames_are_read_as_planes(tmp_path: Path, name: str) -> None:
    frames = [raw_frame(name, 33, 17, seed) for seed in range(3)]
    expected = [frame_planes(frame) for frame in frames]
    with ClipReader(write_raw(tmp_path / "a.nut", frames)) as reader:
        assert equal(reader.frames(), expected)
        assert [note for note in reader.notes if "transparency" in note] == (
            [f"dropped: the transparency of {name}"] if name in ("bgra", "yuva420p") else []
        )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"bf": "3", "g": "9"}),
        ("a.mkv", {"bf": "3", "g": "9", "x264-params": "open-gop=1"}),
        ("a.ts", {"g": "7"}),
        ("a.avi", {"bf": "0", "g": "5"}),
    ],
)
def test_frames_from_anywhere_are_exact(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    head = header(frames=40, width=48, height=32)
    frames = [raw_frame("yuv420p", 48, 32, seed) for seed in range(40)]
    with ClipReader(write_raw(tmp_path / name, frames, codec="libx264", options=options)) as reader:
        whole = list(reader.frames())
        assert len(whole) == head.frames == reader.header.frames
        for start in range(0, 40, 3):
            assert equal(reader.frames(start, start + 2), whole[start : start + 2]), start
        assert equal(reader.frames(-1), whole[-1:]) and list(reader.frames(40)) == []


def test_seeking_does_not_decode_from_the_beginning(tmp_path: Path) -> None:
    head = header("gray", frames=60)
    write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1")
    with ClipReader(tmp_path / "a.mkv") as reader:
        decoded = []
        decode = reader._source.decode
        reader._source.decode = lambda tally, **how: (decoded.append(1) or frame for frame in decode(tally, **how))  # type: ignore[method-assign]
        assert len(list(reader.frames(50, 52))) == 2
        assert len(decoded) <= 4


def test_frames_are_never_all_held(tmp_path: Path) -> None:
    head = header("gray", 256, 256, frames=64)
    tracemalloc.start()
    write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1")
    with ClipReader(tmp_path / "a.mkv") as reader:
        assert sum(planes[0].shape == (256, 256) for planes in reader.frames()) == 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 256 * 256  # half of the clip, with all that is imported on the way


@pytest.mark.parametrize(("count", "found"), [(4, "4"), (6, "more")])
def test_a_wrong_number_of_frames_leaves_no_file(tmp_path: Path, count: int, found: str) -> None:
    for name in ("a.mp4", "a.y4m", "png"):
        head = header("gbrp" if name == "png" else "yuv420p")
        frames = noise(header(head.pixel_format, frames=count))
        with pytest.raises(SignalError, match=f"expected 5 frames, found {found}") as caught:
            write_clip(tmp_path / name, head, frames)
        assert one_line(caught) and not list(tmp_path.iterdir())


def test_wrong_planes_are_refused(tmp_path: Path) -> None:
    for wrong in (header(width=34), header("yuv420p10le"), header("yuv444p"), header("gray")):
        with pytest.raises(SignalError):
            write_clip(tmp_path / "a.mp4", header(), noise(wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "head", "codec", "line"),
    [
        ("a.mp4", header(width=33), None, "odd size"),
        ("a.mkv", header(width=33), "h264", "odd size"),
        ("a.mp4", header("gray16le"), None, "gray16le"),
        ("a.mp4", header("gray"), "h264", "4:2:0"),
        ("a.mp4", header(), "ffv1", "FFV1"),
        ("a.mp4", header(), "vp9", "'vp9'"),
        ("a.y4m", header(), "ffv1", "leave the codec out"),
        ("a.avi", header(), None, "rename it"),
        ("a", header(), None, "PNG"),
    ],
)
def test_what_a_container_cannot_hold_is_refused_before_the_first_frame(
    tmp_path: Path, name, head, codec, line
) -> None:
    with pytest.raises(FormatError, match=line) as caught:
        write_clip(tmp_path / name, head, iter(()), codec=codec)
    assert one_line(caught).startswith(f"{name}: ") and not list(tmp_path.iterdir())


def test_the_default_codec_is_the_first_that_holds_the_clip(tmp_path: Path) -> None:
    for head, name, codec in (
        (header(), "a.mp4", "h264"),
        (header("gray"), "a.mp4", "hevc"),
        (header("yuv420p12le"), "a.mkv", "hevc"),
        (header(width=33), "a.mkv", "ffv1"),
        (header("gray16le"), "a.mkv", "ffv1"),
    ):
        write_clip(tmp_path / name, head, moving(head))
        assert probe(tmp_path / name).codec == codec


def test_a_missing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inrcodec_formats.video.encoders._ENCODERS", {"h264": ("none",), "hevc": (), "ffv1": ("ffv1",)})
    with pytest.raises(FormatError, match=r"takes no yuv420p.*codec 'ffv1'"):
        write_clip(tmp_path / "a.mp4", header(), noise(header()))
    write_clip(tmp_path / "a.mkv", header(), noise(header()))
    assert probe(tmp_path / "a.mkv").codec == "ffv1"


def test_folders_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_clip(tmp_path / "no" / "a.mp4", header(), noise(header()))


def test_names_of_clips(tmp_path: Path) -> None:
    assert is_clip("a.MP4") and is_clip(tmp_path / "b.mkv") and is_clip("a.y4m")
    assert not is_clip("a.nii.gz") and not is_clip(tmp_path) and not is_clip("mp4")


def test_ffmpeg_agrees_on_the_file(tmp_path: Path) -> None:
    head = header(frames=12, times=np.arange(12) * 2)
    write_clip(tmp_path / "a.mp4", head, moving(head))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [float(time) for time in seconds(head)]
    assert frames[0].format.name == "yuv420p"
