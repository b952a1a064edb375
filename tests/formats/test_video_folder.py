"""Folders of numbered PNG files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from formats.clips import equal, header, noise
from formats.conformance import one_line
from inrcodec_formats.errors import FormatError, OutputError
from inrcodec_formats.video import ClipReader, ColourInfo, is_clip, probe, write_clip


@pytest.mark.parametrize("pixel_format", ["gray", "gray16le", "gbrp", "gbrp16le"])
def test_png_is_lossless(tmp_path: Path, pixel_format: str) -> None:
    head = header(pixel_format, 33, 17, frames=5, times=[3, 4, 6, 7, 100], time_base=Fraction(1, 30), last_duration=9)
    assert write_clip(tmp_path / "clip", head, noise(head)) == ()
    assert is_clip(tmp_path / "clip")
    with ClipReader(tmp_path / "clip") as reader:
        found = reader.header
        assert equal(reader.frames(), noise(head)) and equal(reader.frames(3, 5), list(noise(head))[3:5])
        assert (found.times.tolist(), found.time_base, found.last_duration) == ([3, 4, 6, 7, 100], Fraction(1, 30), 9)
        assert (found.source_format, found.pixel_format, reader.notes) == ("png", pixel_format, ())


def test_another_reader_sees_the_same_pictures(tmp_path: Path) -> None:
    head = header("gbrp", 33, 17, frames=2)
    write_clip(tmp_path / "clip", head, noise(head))
    for number, (green, blue, red) in enumerate(noise(head)):
        picture = imagecodecs.png_decode((tmp_path / "clip" / f"{number:06}.png").read_bytes())
        assert np.array_equal(picture, np.stack([red, green, blue], -1))


def test_colours_that_png_knows_come_back(tmp_path: Path) -> None:
    colour = ColourInfo(range=2, matrix=0, primaries=1, transfer=13)
    head = header("gbrp", frames=1, colour=colour)
    write_clip(tmp_path / "clip", head, noise(head))
    assert probe(tmp_path / "clip").colour == colour


def pictures(folder: Path, names: list[str], shape: tuple[int, ...] = (8, 10), dtype: str = "uint8") -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        number = int("".join(filter(str.isdigit, name)))
        (folder / name).write_bytes(imagecodecs.png_encode(np.full(shape, number, dtype)))
    return folder


def test_numbers_give_the_order(tmp_path: Path) -> None:
    with ClipReader(pictures(tmp_path / "a", ["f9.png", "f10.PNG", "f11.png", "f8.png"])) as reader:
        assert [int(planes[0][0, 0]) for planes in reader.frames()] == [8, 9, 10, 11]
        assert reader.notes == ("assumed: 25 frames a second, as there is no times.txt",)
        assert reader.header.time_base * int(reader.header.times[1]) == Fraction(1, 25)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], "found none; 0 frames could be read"),
        (["1.png", "2.png", "4.png"], "found none of 3; 2 frames could be read"),
        (["a1.png", "b2.png"], "one series"),
    ],
)
def test_series_that_are_not_whole(tmp_path: Path, names: list[str], line: str) -> None:
    with pytest.raises(FormatError, match=line) as caught:
        probe(pictures(tmp_path / "a", names))
    assert one_line(caught).startswith("a: ")


def test_pictures_that_do_not_fit_together(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", ["0.png", "1.png"])
    pictures(folder, ["2.png"], (9, 10))
    with pytest.raises(FormatError, match="found 10x9 gray at frame 2"):
        probe(folder)


def test_damaged_pictures(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", ["0.png", "1.png", "2.png"], (40, 50))
    whole = (folder / "2.png").read_bytes()
    for data in (b"", whole[:40], whole[:-20], whole[:50] + b"\0\0\0" + whole[53:]):
        (folder / "2.png").write_bytes(data)
        with pytest.raises(FormatError, match=r"in 2\.png, found a damaged file; 2 frames could be read") as caught:
            probe(folder)
        one_line(caught)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "time base 0/1\n0\n1\n2\n",
        "time base 1/25\n0\n1\n",
        "time base 1/25\n0\nx\n2\n",
        "time base 1/25\n0\n1\n" + "9" * 30 + "\n",
        "\xff" * 10_000,
    ],
)
def test_times_that_do_not_fit(tmp_path: Path, text: str) -> None:
    folder = pictures(tmp_path / "a", ["0.png", "1.png"])
    (folder / "times.txt").write_text(text, "latin-1")
    with pytest.raises(FormatError, match=r"times\.txt") as caught:
        probe(folder)
    one_line(caught)


def test_folders_in_use_are_left_alone(tmp_path: Path) -> None:
    head = header("gray")
    folder = pictures(tmp_path / "a", ["0.png"])
    with pytest.raises(OutputError, match="in use"):
        write_clip(folder, head, noise(head))
    assert [entry.name for entry in folder.iterdir()] == ["0.png"]
    (tmp_path / "empty").mkdir()
    write_clip(tmp_path / "empty", head, noise(head))
    assert probe(tmp_path / "empty").frames == 5


def test_png_holds_no_yuv(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"yuv420p; write \.mkv"):
        write_clip(tmp_path / "a", header(), noise(header()))
