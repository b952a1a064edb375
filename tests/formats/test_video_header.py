"""`ClipHeader`: its bytes, its limits, and bytes that nobody wrote."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.clips import header
from formats.conformance import one_line
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.records import varint
from inrcodec_formats.video.header import ClipHeader, ColourInfo
from inrcodec_formats.video.planes import PIXEL_FORMATS
from inrcodec_formats.zstd import compress


def is_line(error: Exception) -> bool:
    return bool(str(error)) and "\n" not in str(error)


terms = st.integers(1, 2**31 - 1)
names = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=64)
steps = st.one_of(
    st.tuples(st.integers(1, 2**40), st.integers(0, 300)).map(lambda pair: [pair[0]] * pair[1]),
    st.lists(st.integers(1, 2**40), max_size=40),
    st.lists(st.integers(33, 34), max_size=300),
)


@st.composite
def headers(draw: st.DrawFn) -> ClipHeader:
    times = draw(st.integers(-(2**40), 2**40)) + np.cumsum([0, *draw(steps)])
    return ClipHeader(
        width=draw(st.integers(1, 2**14)),
        height=draw(st.integers(1, 2**14)),
        pixel_format=draw(st.sampled_from(sorted(PIXEL_FORMATS))),
        time_base=Fraction(draw(terms), draw(terms)),
        times=times,
        last_duration=draw(st.integers(0, 2**40)),
        colour=ColourInfo(*draw(st.tuples(*[st.integers(0, top) for top in (2, 255, 255, 255, 6)]))),
        sample_aspect=draw(st.just(Fraction(0)) | st.builds(Fraction, terms, terms)),
        display_matrix=draw(st.just(()) | st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 9)),
        field_order=draw(st.sampled_from(["progressive", "top", "bottom"])),
        source_format=draw(names),
        codec=draw(names),
    )


@given(headers())
def test_bytes_and_back(head: ClipHeader) -> None:
    data = head.to_bytes()
    back = ClipHeader.from_bytes(data)
    assert back == head and hash(back) == hash(head)
    assert np.array_equal(back.times, head.times) and back.times.dtype == np.int64
    assert (back.width, back.height, back.pixel_format) == (head.width, head.height, head.pixel_format)
    assert (back.time_base, back.sample_aspect, back.last_duration) == (
        head.time_base,
        head.sample_aspect,
        head.last_duration,
    )
    assert (back.colour, back.display_matrix, back.field_order) == (head.colour, head.display_matrix, head.field_order)
    assert (back.source_format, back.codec) == (head.source_format, head.codec)
    assert back.to_bytes() == data


@given(headers(), st.data())
def test_foreign_bytes_are_refused_or_make_a_header_within_the_limits(head: ClipHeader, data: st.DataObject) -> None:
    wrong = bytearray(head.to_bytes())
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(wrong)))
    try:
        found = ClipHeader.from_bytes(bytes(wrong[:cut]))
    except ContainerError as error:
        assert is_line(error)
    else:
        assert ClipHeader.from_bytes(found.to_bytes()) == found


@given(st.binary(max_size=200))
def test_noise_is_no_header(data: bytes) -> None:
    with pytest.raises(ContainerError):
        ClipHeader.from_bytes(b"\x00" + data)
    for cut in (data, b"\x01" + data):
        try:
            ClipHeader.from_bytes(cut)
        except ContainerError as error:
            assert is_line(error)


@pytest.mark.parametrize("cut", range(0, 54, 3))
def test_truncated_bytes_are_refused(cut: int) -> None:
    data = header(times=np.cumsum(np.arange(200) % 3 + 33)).to_bytes()
    assert cut < len(data)
    with pytest.raises(ContainerError):
        ClipHeader.from_bytes(data[:cut])


def test_constant_rates_cost_a_few_bytes_and_varying_ones_little() -> None:
    short, long = header(frames=2), header(frames=2**20)
    assert len(long.to_bytes()) <= len(short.to_bytes()) + 2
    thirds = header(times=np.arange(30_000) * 1000 // 30)  # 30 frames a second in milliseconds: steps of 33 and 34
    assert len(thirds.to_bytes()) < 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 2**15 + 1},
        {"width": 2**15, "height": 2**15},
        {"pixel_format": "nv12"},
        {"times": np.zeros(0)},
        {"times": [0, 0]},
        {"times": [1, 0]},
        {"times": [[0, 1]]},
        {"times": [2**61]},
        {"time_base": Fraction(0)},
        {"time_base": Fraction(1, 2**31)},
        {"sample_aspect": Fraction(-1)},
        {"display_matrix": (1, 2, 3)},
        {"display_matrix": (2**31,) * 9},
        {"field_order": "both"},
        {"codec": "x" * 65},
        {"source_format": "a\nb"},
        {"last_duration": -1},
    ],
)
def test_limits(wrong: dict) -> None:
    with pytest.raises(ContainerError) as caught:
        replace(header(), **wrong)
    assert one_line(caught)


@pytest.mark.parametrize("numbers", [(3, 2, 2, 2, 0), (0, 256, 2, 2, 0), (0, 2, 2, 2, 7), (0, -1, 2, 2, 0)])
def test_limits_of_colours(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ContainerError):
        ColourInfo(*numbers)


def test_claims_are_checked_before_they_are_allocated() -> None:
    front = header(frames=1).to_bytes()[:-2]  # without the number of frames and the first time
    bomb = compress(bytes(2**26))
    for tail in (
        varint(2**24 + 1) + b"\0\0\1",  # more frames than there may be
        varint(1000) + b"\0\1" + varint(len(bomb)) + bomb,  # more steps than frames
        varint(3) + b"\0\4" + varint(2**60),  # more bytes than there are
        varint(2**24) + b"\0\0" + varint(2**62),  # times beyond 64 bits
        varint(3) + b"\0\5",
    ):
        with pytest.raises(ContainerError):
            ClipHeader.from_bytes(front + tail)


def test_planes_and_samples_follow_from_the_format() -> None:
    odd = header("yuv420p10le", 33, 17)
    assert odd.plane_shapes == ((17, 33), (9, 17), (9, 17))
    assert (odd.bit_depth, odd.dtype, odd.frames) == (10, np.uint16, 5)
    assert header("gray").plane_shapes == ((24, 32),) and header("yuv411p", 33).plane_shapes[1] == (24, 9)


def test_times_cannot_be_changed() -> None:
    with pytest.raises(ValueError):
        header().times[0] = 5


def test_rotation_is_ffmpegs() -> None:
    quarter = (0, 65536, 0, -65536, 0, 0, 0, 0, 2**30)
    assert header().rotation == 0.0
    assert header(display_matrix=quarter).rotation == -90.0
