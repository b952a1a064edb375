"""Damaged and hostile streams of clips: one line each, before anything large is allocated."""

import io
from dataclasses import replace

import numpy as np
import pytest

import inrcodec
from clips.cases import FAST, clip_header, clip_signal
from inrcodec.clips.stream import join, split
from inrcodec.clips.view import Clip
from inrcodec_formats.container import Container, Section, write_container
from inrcodec_formats.errors import ContainerError


@pytest.fixture(scope="module")
def blob():
    return inrcodec.encode(clip_signal(frames=2, height=12, width=16), bits_per_voxel=13, **FAST)


def rebuilt(blob, *, header=None, clip=None, others=None, chunks=None):
    """The same stream with some parts exchanged, all checksums right."""
    with Container.open(blob, known=None) as old:
        sections = [Section("CLIP", old.sections.read("CLIP") if clip is None else clip)]
        sections += [] if others is None else [Section("OTHR", others, critical=False)]
        bodies = [(2, old.read_chunk(0))] if chunks is None else chunks
        out = io.BytesIO()
        write_container(out, replace(old.header, **(header or {})), sections, bodies)
    return out.getvalue()


def streams(blob):
    with Container.open(blob, known=None) as old:
        return split(old.read_chunk(0), 2)


def test_the_parts_exchanged_are_what_is_wrong(blob):
    same = rebuilt(blob)
    assert all(np.array_equal(a, b) for a, b in zip(inrcodec.decode(same).planes, inrcodec.decode(blob).planes, strict=True))


def test_every_truncation_is_refused(blob):
    for length in range(0, len(blob), 7):
        with pytest.raises(ContainerError):
            inrcodec.decode(blob[:length])


def test_every_changed_byte_is_found(blob):
    for place in range(3, len(blob), 11):
        changed = bytearray(blob)
        changed[place] ^= 0x10
        with pytest.raises(ContainerError):
            inrcodec.verify(bytes(changed))


@pytest.mark.parametrize(
    ("header", "clip"),
    [
        ({"shape": (2, 12, 15)}, None),
        ({"dtype": "uint16"}, None),
        ({"axes": "zyx"}, None),
        (None, clip_header(frames=3, height=12, width=16).to_bytes()),
        (None, clip_header(frames=2, height=12, width=16, pixel_format="yuv420p10le").to_bytes()),
    ],
)
def test_headers_that_disagree_are_refused(blob, header, clip):
    with pytest.raises(ContainerError, match="expected a clip of"):
        Clip(rebuilt(blob, header=header, clip=clip))


def test_planes_that_are_not_the_headers_are_refused(blob):
    for pixel_format in ("yuv444p", "yuv422p"):
        clip = clip_header(frames=2, height=12, width=16, pixel_format=pixel_format).to_bytes()
        with pytest.raises(ContainerError, match=r"frames 1 to 2, UV: expected a stream of .*tyxc"):
            inrcodec.decode(rebuilt(blob, clip=clip))
    gray = clip_header(frames=2, height=12, width=16, pixel_format="gray").to_bytes()
    with pytest.raises(ContainerError):
        inrcodec.decode(rebuilt(blob, clip=gray))


def test_frames_that_are_missing_or_too_many_are_refused(blob):
    body = join(streams(blob))
    for counts in ((1,), (2, 1), (1, 2)):
        with pytest.raises(ContainerError, match="expected 2 frames in all groups"):
            Clip(rebuilt(blob, chunks=[(count, body) for count in counts]))
    with pytest.raises(ContainerError, match="frames 1 to 1, Y: expected a stream of"):
        inrcodec.decode(rebuilt(blob, chunks=[(1, body), (1, body)]))


def test_groups_longer_than_any_encoder_makes_them_are_refused(blob):
    times = np.arange(65)
    clip = clip_header(frames=65, height=12, width=16, times=times).to_bytes()
    with pytest.raises(ContainerError, match="groups of at most 64 frames"):
        Clip(rebuilt(blob, header={"shape": (65, 12, 16)}, clip=clip, chunks=[(65, b"")]))


def test_a_clip_within_a_clip_is_refused(blob):
    with pytest.raises(ContainerError, match="expected the stream of a volume, found a clip"):
        inrcodec.decode(rebuilt(blob, chunks=[(2, join([blob, streams(blob)[1]]))]))


def test_streams_of_another_method_are_refused(blob):
    with pytest.raises(ContainerError, match=r"of .*'sci'\), found"):
        inrcodec.decode(rebuilt(blob, header={"method": "sci"}))


def test_bodies_that_end_early_are_refused(blob):
    luma, chroma = streams(blob)
    for body in (b"", b"\0", join([luma, chroma])[:-5], join([luma, b""]), join([luma + chroma, b""])):
        with pytest.raises(ContainerError):
            inrcodec.decode(rebuilt(blob, chunks=[(2, body)]))


def test_damage_inside_a_stream_with_a_sound_checksum_around_it_is_found(blob):
    luma, chroma = streams(blob)
    damaged = bytearray(luma)
    damaged[len(luma) // 2] ^= 1
    with pytest.raises(ContainerError, match=r"frames 1 to 2, Y: .*CRC"):
        inrcodec.verify(rebuilt(blob, chunks=[(2, join([bytes(damaged), chroma]))]))


def test_other_streams_that_are_no_streams_are_refused(blob):
    bad = rebuilt(blob, others=b"\xff\xff")
    with pytest.raises(ContainerError):
        inrcodec.verify(bad)


def test_a_stream_without_its_clip_section_is_no_clip(blob):
    with Container.open(blob, known=None) as old:
        out = io.BytesIO()
        write_container(out, old.header, [], [(2, old.read_chunk(0))])
    with pytest.raises(ContainerError, match="section TREE"):
        inrcodec.decode(out.getvalue())
