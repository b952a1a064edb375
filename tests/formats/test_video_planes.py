"""Packed and semi-planar frames become planes and back; FFmpeg's own converter, where it only moves samples, agrees."""

from __future__ import annotations

import av
import numpy as np
import pytest

from formats.clips import raw_frame
from inrcodec_formats.errors import FormatError
from inrcodec_formats.video.planes import PIXEL_FORMATS, frame_planes, has_alpha, make_frame, planar_twin

KNOWN = {
    name
    for name in (
        *PIXEL_FORMATS,
        *[
            "nv12",
            "nv21",
            "nv16",
            "nv24",
            "nv42",
            "nv20le",
            "p010le",
            "p012le",
            "p016le",
            "p010be",
            "p210le",
            "p212le",
            "p216le",
            "p410le",
            "p412le",
            "p416le",
        ],
        *[
            "yuyv422",
            "yvyu422",
            "uyvy422",
            "y210le",
            "y212le",
            "yuvj420p",
            "yuvj422p",
            "yuvj444p",
            "yuvj440p",
            "yuva420p",
            "yuva444p10le",
            "gbrap",
            "gbrap12le",
        ],
        *[
            "rgb24",
            "bgr24",
            "rgb0",
            "bgr0",
            "0rgb",
            "0bgr",
            "rgba",
            "bgra",
            "argb",
            "abgr",
            "rgb48le",
            "rgb48be",
            "bgr48le",
            "rgba64be",
            "ya8",
            "ya16be",
            "gray16be",
            "gbrp10be",
        ],
    )
}


def low_bits(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame with samples within its depth, for formats of 9 to 14 bits in 16."""
    depth = frame.format.components[0].bits
    if 8 < depth < 16 and not frame.format.name.startswith(("p", "y2")):
        order = ">u2" if frame.format.is_big_endian else "<u2"
        for plane in frame.planes:
            view = np.frombuffer(plane, order)
            view &= 2**depth - 1
    return frame


@pytest.mark.parametrize("name", sorted(KNOWN))
@pytest.mark.parametrize("size", [(32, 16), (33, 17)])
def test_planes_are_what_ffmpeg_finds(name: str, size: tuple[int, int]) -> None:
    frame = low_bits(raw_frame(name, *size, seed=3))
    twin = planar_twin(name)
    assert twin in PIXEL_FORMATS
    planes = frame_planes(frame)
    pixels = PIXEL_FORMATS[twin]
    assert tuple(plane.shape for plane in planes) == pixels.shapes(size[1], size[0])
    assert all(plane.dtype == pixels.dtype and plane.max() < 2**pixels.depth for plane in planes)
    # Each component of the frame, by FFmpeg's own description, has as many samples as a plane here.
    colours = [each for each in frame.format.components if not each.is_alpha]
    assert len(colours) == pixels.count and {each.bits for each in colours} == {pixels.depth}


@pytest.mark.parametrize(
    "name",
    [
        "nv12",
        "nv21",
        "nv16",
        "nv24",
        "p010le",
        "p016le",
        "p210le",
        "p416le",
        "yuyv422",
        "yvyu422",
        "uyvy422",
        "y210le",
        "rgb24",
        "bgr24",
        "rgb0",
        "bgr0",
        "0rgb",
        "0bgr",
        "rgb48le",
        "rgb48be",
        "bgr48le",
        "gray16be",
    ],
)
def test_the_converter_moves_the_same_samples(name: str) -> None:
    """Where FFmpeg's converter merely rearranges; the frame is even, because it crops odd chroma otherwise."""
    frame = raw_frame(name, 32, 16, seed=5)
    expected = frame_planes(frame.reformat(format=planar_twin(name)))
    assert all(np.array_equal(a, b) for a, b in zip(frame_planes(frame), expected, strict=True))


@pytest.mark.parametrize("name", sorted(name for name in KNOWN if not has_alpha(name)))
def test_frames_are_made_of_planes(name: str) -> None:
    planes = frame_planes(low_bits(raw_frame(name, 33, 17, seed=9)))
    twin = planar_twin(name)
    assert twin is not None
    back = make_frame(planes, twin, name)
    assert back.format.name == name
    assert all(np.array_equal(a, b) for a, b in zip(frame_planes(back), planes, strict=True))


def test_a_palette_is_looked_up() -> None:
    frame = raw_frame("pal8", 16, 8, seed=1)
    green, blue, red = frame_planes(frame)
    indices = np.frombuffer(frame.planes[0], np.uint8).reshape(8, -1)[:, :16]
    colours = np.frombuffer(frame.planes[1], np.uint8).reshape(256, 4)[indices]  # blue, green, red, alpha in memory
    assert all(np.array_equal(a, colours[..., k]) for k, a in enumerate((blue, green, red)))


def test_what_has_no_planes_here_is_refused() -> None:
    assert planar_twin("rgb565le") is None
    with pytest.raises(FormatError, match="rgb565le"):
        frame_planes(av.VideoFrame(16, 8, "rgb565le"))
