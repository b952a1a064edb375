"""MOVE: what is packed comes back, smooth displacements are cheap, and impossible ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.coding.displacements import write_grids
from inrcodec.coding.parameters import QuantisedTensor, write_parameters
from inrcodec.payload import motion
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.warp import NODE_LIMIT, Field, nodes_of
from page.motion import read_motion
from pyramid_streams import random_field

FRAMES, STILL = (4, 20, 33), (30, 40)


@given(
    count=st.integers(1, 4), h=st.integers(1, 40), w=st.integers(1, 40), shift=st.integers(3, 6),
    most=st.sampled_from([0, 3, 500, NODE_LIMIT - 1]), seed=st.integers(0, 99),
)  # fmt: skip
def test_round_trip(count: int, h: int, w: int, shift: int, most: int, seed: int) -> None:
    field = random_field((count, h, w), (2 * h, 3 * w), shift, most, seed)
    found = motion.unpack(motion.pack(field), (count, h, w))
    assert found[1:] == field[1:]
    np.testing.assert_array_equal(found.nodes, field.nodes)


def test_a_steady_pan_takes_a_few_bytes() -> None:
    frames = (24, 720, 1280)
    shape = (24, 2, nodes_of(720, 5), nodes_of(1280, 5))
    nodes = np.broadcast_to(57 * np.arange(24, dtype=np.int32)[:, None, None, None], shape)
    assert len(motion.pack(Field(nodes, 5, frames[1:], (900, 1500)))) < 100


def changed(at: int, form: str, *values: int) -> bytes:
    section = bytearray(motion.pack(random_field(FRAMES, STILL)))
    struct.pack_into("<" + form, section, at, *values)
    return bytes(section)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a complete MOVE"),
        (changed(0, "B", 2), "version 1"),
        (changed(1, "B", 2), "sound extents"),
        (changed(1, "B", 7), "sound extents"),
        (changed(2, "I", 0), "sound extents"),
        (changed(2, "II", 20 * 17, 33), "sound extents"),
        (changed(2, "II", 2**31, 2**31), "2\\*\\*34"),
        (changed(10, "B", 4), "known units"),
        (changed(0, "B", 1)[:10], "known units"),
    ],
)
def test_impossible_fields_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ContainerError, match=words):
        motion.unpack(data, FRAMES)


def test_other_axes_are_refused() -> None:
    with pytest.raises(ContainerError, match="of frames"):
        motion.unpack(motion.pack(random_field(FRAMES, STILL)), (*FRAMES, 2))


def test_too_many_nodes_are_refused_before_they_are_made() -> None:
    with pytest.raises(ContainerError, match="at most 4194304 numbers"):
        motion.unpack(changed(2, "II", 4, 4), (2**18, 33, 20))


def first_version(coded: bytes) -> bytes:
    """A section as streams had it before version 1."""
    return b"\0" + motion.pack(random_field(FRAMES, STILL))[1:10] + coded


@pytest.mark.parametrize(("corner", "exponent", "extra"), [(NODE_LIMIT, 0, 0), (NODE_LIMIT - 1, 0, 1), (3, 1, 0), (3, -1, 0)])
def test_impossible_displacements_are_refused(corner: int, exponent: int, extra: int) -> None:
    corners, rest = np.full((4, 2), 0), np.zeros((4, 2, 4, 6), dtype=np.int64)
    corners[0], rest[2, 1, 1, 1] = corner, extra
    coded = write_parameters([QuantisedTensor(exponent, corners), QuantisedTensor(0, rest)])
    with pytest.raises(ContainerError, match="displacements"):
        motion.unpack(first_version(coded), FRAMES)


@pytest.mark.parametrize(("unit", "most"), [(0, NODE_LIMIT), (2, NODE_LIMIT // 4), (3, 2**50)])
def test_large_displacements_are_refused(unit: int, most: int) -> None:
    grids = np.zeros((4, 2, 4, 6), dtype=np.int64)
    grids[1:3, 1, 2, 3] = min(most, 2**30)
    section = motion.pack(random_field(FRAMES, STILL))[:10] + bytes([unit]) + write_grids(grids)
    with pytest.raises(ContainerError, match="displacements below"):
        motion.unpack(section, FRAMES)


@pytest.mark.parametrize("unit", range(4))
def test_multiples_take_as_little_as_what_they_are_multiples_of(unit: int) -> None:
    field = random_field((9, 200, 200), (220, 220), shift=4, most=9)
    coarser = field._replace(nodes=field.nodes << unit)
    assert abs(len(motion.pack(coarser)) - len(motion.pack(field))) < 4
    np.testing.assert_array_equal(motion.unpack(motion.pack(coarser), (9, 200, 200)).nodes, coarser.nodes)


def test_a_number_in_a_corners_place_is_refused() -> None:
    rest = np.zeros((4, 2, 4, 6), dtype=np.int64)
    rest[1, 0, 0, 0] = 1
    coded = write_parameters([QuantisedTensor(0, np.zeros((4, 2), dtype=np.int64)), QuantisedTensor(0, rest)])
    with pytest.raises(ContainerError, match="whole displacements"):
        motion.unpack(first_version(coded), FRAMES)


@pytest.mark.parametrize(("frames", "shift", "most", "unit"), [((3, 90, 150), 3, 5, 0), ((4, 40, 33), 4, 900, 1), ((2, 7, 70), 5, 3, 2), ((2, 5, 6), 6, 9, 3)])
def test_the_page_describes_it(frames: tuple[int, int, int], shift: int, most: int, unit: int) -> None:
    field = random_field(frames, (2 * frames[1], 2 * frames[2]), shift, most)
    field = field._replace(nodes=np.cumsum(field.nodes, axis=3, dtype=np.int32) // 4 << unit)
    found = read_motion(motion.pack(field), frames)
    assert (found.size, found.still) == (1 << shift, field.still)
    np.testing.assert_array_equal(found.nodes, field.nodes)
