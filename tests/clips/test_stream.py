"""Sections and bodies of a clip's file, and what is wrong with hostile ones."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.clips.others import pack_streams, unpack_streams
from inrcodec.clips.stream import join, split
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.video.streams import OtherStream, StreamPacket

times = st.one_of(st.none(), st.integers(-(2**60), 2**60))
packets = st.builds(StreamPacket, st.binary(max_size=40), times, times, st.integers(0, 2**60), st.booleans())
streams = st.builds(
    OtherStream,
    st.sampled_from(["audio", "subtitle", "data"]),
    st.text("abcdef_", max_size=12),
    st.binary(max_size=50),
    st.builds(Fraction, st.integers(1, 2**31), st.integers(1, 2**31)),
    st.lists(packets, max_size=6).map(tuple),
    st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=3),
)


@given(st.lists(streams, max_size=3).map(tuple))
def test_streams_come_back(found):
    assert unpack_streams(pack_streams(found)) == found


@given(st.lists(streams, min_size=1, max_size=2).map(tuple), st.data())
def test_damaged_streams_are_refused_or_other_streams(found, data):
    whole = pack_streams(found)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ContainerError):
        unpack_streams(whole[:cut])
    with pytest.raises(ContainerError):
        unpack_streams(whole + b"\0")
    changed = bytearray(whole)
    changed[cut] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(ContainerError):
        unpack_streams(bytes(changed))


def test_a_claim_of_a_million_packets_needs_their_rows():
    stream = OtherStream("audio", "aac", b"", Fraction(1, 8000), (), {})
    whole = pack_streams((stream,))
    # The number of packets, then the length of their zstd frame, then the frame, which begins with its magic.
    head = whole.index(b"\x28\xb5\x2f\xfd") - 2
    assert whole[head] == 0
    claim = whole[:head] + b"\xff\xff\x3f" + whole[head + 1 :]
    with pytest.raises(ContainerError, match="more header bytes"):
        unpack_streams(claim)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
def test_bodies_are_split_where_they_were_joined(parts):
    assert split(join(parts), len(parts)) == parts


@pytest.mark.parametrize("body", [b"", b"\x05\0\0", b"\xff\xff\xff\xff" + b"abc"])
def test_bodies_that_claim_too_much_are_refused(body):
    with pytest.raises(ContainerError, match="streams"):
        split(body, 2)
