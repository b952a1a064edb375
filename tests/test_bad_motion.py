"""Hostile displacements in streams of TINC and SCI, under sound checksums: attack 68 of attacks/README.md."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from hostile_streams import rebuilt, refused, refused_or_harmless, section
from samples import scan

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=["tinc_clip", "sci_clip", "tinc_moved"])
def moving(request: pytest.FixtureRequest) -> bytes:
    whole = (GOLDEN / f"{request.param}.inrc").read_bytes()
    assert inrcodec.verify(whole, deep=True).ok
    return whole


def test_68_sections_of_other_still_frames(moving: bytes) -> None:
    """The tree is that of still frames, not of others; one of a single block would be one of frames too."""
    refused_or_harmless(rebuilt(moving, MOVE=None), moving)
    move = bytearray(section(moving, "MOVE"))
    for at, extent in ((2, 1), (2, 2**20), (6, 2**31), (6, 0)):
        refused(rebuilt(moving, MOVE=bytes(move[:at]) + struct.pack("<I", extent) + bytes(move[at + 4 :])), "expected ")
    refused(rebuilt(moving, MOVE=bytes(move[:9])), "expected ")
    still = inrcodec.encode(scan((9, 10, 11)), ratio=4, effort=1, method="tinc")
    refused(rebuilt(still, MOVE=bytes(move)), "expected ")


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_68_random_bytes_in_move(at: int, value: int) -> None:
    for name in ("tinc_clip", "sci_clip", "tinc_moved"):
        whole = (GOLDEN / f"{name}.inrc").read_bytes()
        move = bytearray(section(whole, "MOVE"))
        move[at % len(move)] = value
        refused_or_harmless(rebuilt(whole, MOVE=bytes(move)), whole)
