"""Hostile signals in parts, under sound checksums: attacks 64 to 67 of attacks/README.md."""

from __future__ import annotations

import struct
import tracemalloc
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from hostile_streams import LARGEST_HEAP, cheap, refused
from inrcodec import ContainerError
from inrcodec.payload import motion, parted
from inrcodec.payload.pyramid import networks_from_section, write_chunk
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec.reconstruct import parted as reconstruct
from inrcodec_formats.container import Container, Section
from pyramid_streams import Made, made, made_parted, parted_blob, random_field

HEAD, ROW = 4, 16


@cache
def sound() -> tuple[Made, ...]:
    return tuple(made_parted())


@cache
def section() -> bytes:
    with Container.open(parted_blob(list(sound())), known=KNOWN_SECTIONS) as container:
        return container.sections.read("PART")


def with_part(at: int, form: str, *values: Any, **others: Any) -> bytes:
    data = bytearray(section())
    struct.pack_into("<" + form, data, at, *values)
    return parted_blob(list(sound()), part=bytes(data), **others)


def test_the_stream_that_attacks_change_is_sound() -> None:
    blob = parted_blob(list(sound()))
    assert not cheap(blob) and inrcodec.verify(blob, deep=True).ok


def test_builds_that_do_not_know_parts_refuse_them() -> None:
    with pytest.raises(ContainerError, match="PART"):
        Container.open(parted_blob(list(sound())), known=KNOWN_SECTIONS - {parted.TAG})


@pytest.mark.parametrize(
    ("at", "form", "values", "words"),
    [
        (0, "B", [1], "version 0 of PART"),
        (1, "B", [3], "along an axis"),
        (1, "B", [255], "along an axis"),
        (1, "B", [1], "samples along axis 1"),
        (2, "H", [0], "along an axis"),
        (2, "H", [1], "along an axis"),
        (2, "H", [2], "samples along axis 0, found 15"),
        (2, "H", [4], "expected "),
        (2, "H", [1025], "along an axis"),
        (2, "H", [65535], "along an axis"),
        (HEAD, "I", [0], "samples along axis 0"),
        (HEAD, "I", [10], "samples along axis 0"),
        (HEAD, "I", [2**32 - 1], "samples along axis 0"),
        (HEAD, "III", [0, 1, 1], "samples along axis 0"),
        (HEAD + 4, "I", [0], "blocks from the index"),
        (HEAD + 4, "I", [2**32 - 1], "blocks from the index"),
        (HEAD + 8, "I", [0], "trees and networks"),
        (HEAD + 12, "I", [2**32 - 1], "trees and networks"),
    ],
)
def test_64_part_with_impossible_fields(at: int, form: str, values: list[int], words: str) -> None:
    refused(with_part(at, form, *values), words)


def test_64_part_cut_short_or_longer() -> None:
    for length in range(0, len(section()), 61):
        if length:
            refused(parted_blob(list(sound()), part=section()[:length]), "expected ")
    refused(parted_blob(list(sound()), part=section() + b"\0"), "trees and networks")


def test_64_channels_are_not_cut() -> None:
    parts = made_parted(extents=(2, 2), others=(7, 6))
    refused(parted_blob(parts, axes="cyx"), "along an axis")


def test_65_trees_that_are_not_those_of_their_parts() -> None:
    first, *_ = (struct.unpack_from("<IIII", section(), HEAD + ROW * n) for n in range(3))
    for swapped in ([first[0] + 1, first[1]], [first[0] - 1, first[1]]):
        second = struct.unpack_from("<I", section(), HEAD + ROW)[0] + first[0] - swapped[0]
        data = bytearray(section())
        struct.pack_into("<I", data, HEAD, swapped[0])
        struct.pack_into("<I", data, HEAD + ROW, second)
        errors = cheap(parted_blob(list(sound()), part=bytes(data)))
        assert errors, "tiles of other extents cannot end where these do"
    blocks = [struct.unpack_from("<I", section(), HEAD + ROW * n + 4)[0] for n in range(2)]
    data = bytearray(section())
    struct.pack_into("<I", data, HEAD + 4, blocks[0] + 1)
    struct.pack_into("<I", data, HEAD + ROW + 4, blocks[1] - 1)
    refused(parted_blob(list(sound()), part=bytes(data)), "blocks from the index")
    refused(with_part(HEAD + ROW * 3, "B", 9), "newer inrcodec")


def test_65_ranges_that_differ() -> None:
    parts = [*made_parted(extents=(9,)), *made_parted(extents=(6,), high=999)]
    refused(parted_blob(parts), "the same range")


def test_65_chunks_of_two_parts() -> None:
    tiles = [tile for part in sound() for tile in part.tiles]
    refused(parted_blob(list(sound()), chunks=[(len(tiles), write_chunk(tiles))]), "chunks of one part each")


def test_65_sections_of_a_whole_pyramid_besides() -> None:
    whole = sound()[0]
    field = motion.pack(random_field((5, 17, 22), (20, 25)))
    for tag, data in (("TREE", whole.stream.tree_section()), ("NETW", whole.network), (motion.TAG, field)):
        refused(parted_blob(list(sound()), sections=[Section(tag, data)]), f"found {tag} too")


def test_66_a_thousand_parts_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has networks to be read: only those of parts that are touched are, and few are kept."""
    part = made((1, 1, 1), (), 8)
    rows = [parted.Part(1, 1, part.stream.tree_section(), part.network)] * parted.MOST_PARTS
    blob = parted_blob([part], shape=(len(rows), 1, 1), part=parted.pack(0, rows), chunks=part.chunks * len(rows))
    read: list[int] = []
    monkeypatch.setattr(reconstruct, "networks_from_section", lambda *given: (read.append(1), networks_from_section(*given))[1])
    tracemalloc.start()
    with inrcodec.open(blob) as image:
        assert image[7, 0, 0] == image[1000, 0, 0] == image[1001, 0, 0]
        assert len(read) == 3 and len(image.blocks._parts) == 2
    assert inrcodec.info(blob).blocks == len(rows) and len(read) == 3
    assert tracemalloc.get_traced_memory()[1] < LARGEST_HEAP
    tracemalloc.stop()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_67_random_bytes_in_part(data: st.DataObject) -> None:
    damaged = bytearray(section())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        with inrcodec.open(parted_blob(list(sound()), part=bytes(damaged))) as image:
            found = image[...]
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert found.shape == (23, 11, 10)


def test_67_flipped_bytes_are_found() -> None:
    blob = parted_blob(list(sound()))
    for at in range(0, len(blob), 97):
        damaged = bytearray(blob)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ContainerError):
            inrcodec.decode(bytes(damaged))
