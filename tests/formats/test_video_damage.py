"""Clips that end too early, hold wrong bytes or are none at all: one line each, and never fewer frames in silence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from formats.clips import equal, header, moving, noise, raw_frame, write_raw
from formats.conformance import one_line
from inrcodec_formats.errors import FormatError
from inrcodec_formats.video import ClipReader, probe, write_clip
from inrcodec_formats.video.length import room_after, room_inside, stated_length

NAMES = (("a.mp4", "h264"), ("a.mkv", "h264"), ("a.mkv", "ffv1"), ("a.y4m", None))
SIMPLE_BLOCK, FIRST_TRACK, VOID = 0xA3, 0x81, 0xEC
LEAST_BLOCK = 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str | None], bytes]:
    folder = tmp_path_factory.mktemp("clips")
    head = header(frames=12)
    for name, codec in NAMES:
        write_clip(folder / f"{codec}{name}", head, moving(head), codec=codec)
    return {(name, codec): (folder / f"{codec}{name}").read_bytes() for name, codec in NAMES}


@pytest.mark.parametrize("which", NAMES)
def test_every_truncation_is_seen(tmp_path: Path, clips: dict, which: tuple[str, str | None]) -> None:
    data = clips[which]
    for length in sorted(
        {0, 1, 40, len(data) // 3, len(data) // 2, len(data) * 9 // 10, len(data) - 1000, len(data) - 300}
    ):
        (tmp_path / which[0]).write_bytes(data[: max(0, length)])
        with pytest.raises(FormatError, match=r"\d+ frames could be read") as caught:
            probe(tmp_path / which[0])
        assert one_line(caught).startswith(f"{which[0]}: expected ")


def test_what_could_be_read_is_counted(tmp_path: Path) -> None:
    head = header("gray", frames=12)
    write_clip(tmp_path / "a.y4m", head, noise(head))
    data = (tmp_path / "a.y4m").read_bytes()
    (tmp_path / "a.y4m").write_bytes(data[: len(data) * 2 // 3 - 100])
    with pytest.raises(FormatError, match="7 frames could be read"):
        probe(tmp_path / "a.y4m")
    with av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, width=32, height=32, options={"g": "1", "bf": "0"})
        for number in range(12):
            container.mux(stream.encode(raw_frame("yuv420p", 32, 32, number)))
        container.mux(stream.encode(None))
    data = (tmp_path / "f.mp4").read_bytes()
    (tmp_path / "f.mp4").write_bytes(data[: len(data) - 3000])
    with pytest.raises(FormatError, match=r"f\.mp4: .* (\d|10) frames could be read"):
        probe(tmp_path / "f.mp4")


def test_frames_that_a_container_hides_are_missed(tmp_path: Path, clips: dict) -> None:
    """Where a Matroska block is passed over, nothing is wrong with those that are found."""
    data = clips["a.mkv", "ffv1"]
    blocks = [at for at in range(len(data) - LEAST_BLOCK) if _is_block(data, at)]
    assert len(blocks) == 12
    for hidden, words in ((blocks[5:6], ("room for 1 frame,",)), (blocks[4:7], ("room for 3 frames,",)), (blocks[9:], ("0.12 s before",))):
        hurt = bytearray(data)
        for at in hidden:
            hurt[at] = VOID
        (tmp_path / "a.mkv").write_bytes(hurt)
        with ClipReader(tmp_path / "a.mkv") as reader:
            assert reader.header.frames == 12 - len(hidden)
            assert len(reader.notes) == 1 and all(word in reader.notes[0] for word in words)


def _is_block(data: bytes, at: int) -> bool:
    """Whether a block of the first track, at the time of a frame, begins there."""
    length = 9 - data[at + 1].bit_length()  # of its size
    body = at + 1 + length
    time = int.from_bytes(data[body + 1 : body + 3], "big")
    return data[at] == SIMPLE_BLOCK and length <= 3 and data[body] == FIRST_TRACK and time in range(0, 480, 40)


@pytest.mark.parametrize(
    ("times", "frames"),
    [
        ([], 0), ([0], 0), ([0, 40, 80], 0), ([0, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 480], 1),
        ([*range(0, 400, 33), 462, 495], 1), ([0, 33, 67, 100, 133, 167, 200], 0),
        ([0, 40, 90, 170, 180, 400], 0),  # whatever its rate is, it varies
    ],
)  # fmt: skip
def test_room_for_frames_is_that_between_steady_ones(times: list[int], frames: int) -> None:
    assert room_inside(times) == frames


@pytest.mark.parametrize(
    ("stated", "room"), [(None, 0), (Fraction(12, 100), 0), (Fraction(14, 100), 0), (Fraction(16, 100), Fraction(4, 100)), (Fraction(1, 100), 0)]
)  # fmt: skip
def test_room_at_the_end_is_what_the_file_states(stated: Fraction | None, room: Fraction) -> None:
    assert room_after([0, 40, 80], 40, Fraction(1, 1000), stated) == room


@pytest.mark.parametrize(
    ("tag", "seconds"), [("01:00:02.500000000", Fraction(36025, 10)), ("00:00:00.480", Fraction(48, 100)), ("2 s", None), ("", None)]
)
def test_a_stated_length_is_read_exactly(tag: str, seconds: Fraction | None) -> None:
    assert stated_length({"DURATION": tag} if tag else {}) == seconds


@pytest.mark.parametrize("which", NAMES)
def test_wrong_bytes_never_shorten_a_clip_in_silence(
    tmp_path: Path, clips: dict, which: tuple[str, str | None]
) -> None:
    """Entropy decoders make pictures of many wrong bytes, so a clip may still be read, but with as many frames or with a word."""
    draw = np.random.default_rng(1)
    path, refused = tmp_path / which[0], 0
    for _ in range(40):
        data = bytearray(clips[which])
        at, length = int(draw.integers(0, len(data))), int(draw.integers(1, 9))
        data[at : at + length] = draw.bytes(len(data[at : at + length]))
        path.write_bytes(data)
        try:
            with ClipReader(path) as reader:
                assert reader.header.frames == 12 or reader.notes
                assert len(list(reader.frames())) == reader.header.frames
        except FormatError as error:
            refused += 1
            assert str(error).startswith(f"{which[0]}: ") and "\n" not in str(error)
    # Y4M has nothing but samples behind its first line.
    assert refused > 5 or which[0] == "a.y4m"


def test_ffv1_finds_every_wrong_byte_of_its_frames(tmp_path: Path) -> None:
    """It has checksums: a wrong byte is never read as a picture."""
    head = header("gray", frames=6)
    write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1")
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "a.mkv").write_bytes(data)
    with pytest.raises(FormatError, match="1 damaged frame; 5 frames could be read"):
        probe(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\x00" * 5000,
        b"\x93NUMPY\x01\x00v\x00" + bytes(400),
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na.mp4\n#EXT-X-ENDLIST\n",
    ],
)
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_other_files_are_no_clips(tmp_path: Path, content: bytes, name: str) -> None:
    """Playlists neither: the clip that they name lies there, and is not followed."""
    write_clip(tmp_path / "a.mp4", header(), moving(header()))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match="0 frames could be read") as caught:
        probe(tmp_path / name)
    assert one_line(caught).startswith(f"{name}: ")


def test_missing_files_raise_what_open_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "a.mp4")


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(FormatError, match="expected a video stream, found none"):
        probe(tmp_path / "a.mp4")


def test_a_clip_without_frames(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W32 H24 F25:1 C420jpeg\n")
    with pytest.raises(FormatError, match="0 frames could be read"):
        probe(tmp_path / "a.y4m")


def test_a_size_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    for number, size in enumerate(((32, 16), (48, 32))):
        write_raw(
            tmp_path / f"{number}.ts", [raw_frame("yuv420p", *size, seed) for seed in range(4)], codec="mpeg2video"
        )
    (tmp_path / "a.ts").write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    with pytest.raises(FormatError, match=r"32x16 yuv420p throughout, found 48x32 yuv420p at frame \d") as caught:
        probe(tmp_path / "a.ts")
    one_line(caught)


def test_unknown_pixel_formats_are_named(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.nut", [raw_frame("rgb565le", 16, 8, 0)])
    with pytest.raises(FormatError, match="found rgb565le; convert the clip first"):
        probe(tmp_path / "a.nut")


def test_a_file_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    head = header("gray", frames=6)
    write_clip(tmp_path / "a.mkv", head, noise(head), codec="ffv1")
    reader = ClipReader(tmp_path / "a.mkv")
    assert equal(reader.frames(), noise(head))
    shorter = header("gray", frames=3)
    write_clip(tmp_path / "a.mkv", shorter, noise(shorter), codec="ffv1")
    with pytest.raises(FormatError, match="expected 6 frames from 0 on, found 3; it changed"):
        list(reader.frames())


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", header("gray"), noise(header("gray")), codec="ffv1")
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"V_FFV1") == 1
    (tmp_path / "a.mkv").write_bytes(data.replace(b"V_FFV1", b"V_XXV1"))
    with pytest.raises(FormatError, match="expected a codec that this FFmpeg decodes"):
        probe(tmp_path / "a.mkv")


def test_times_that_are_missing_are_assumed_and_said(tmp_path: Path) -> None:
    write_raw(
        tmp_path / "a.h264",
        [raw_frame("yuv420p", 32, 32, seed) for seed in range(6)],
        codec="libx264",
        options={"bf": "0"},
    )
    with ClipReader(tmp_path / "a.h264") as reader:
        assert reader.header.frames == 6 and len(set(np.diff(reader.header.times))) == 1
        assert float(reader.header.time_base * int(reader.header.times[1])) == 1 / 25
        assert any("times of 6 frames" in note for note in reader.notes)
        assert equal(reader.frames(2, 4), list(reader.frames())[2:4])
