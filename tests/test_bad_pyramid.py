"""Hostile streams of the method `pyramid`, under sound checksums: attacks 46 to 63 of attacks/README.md."""

from __future__ import annotations

import io
import math
import struct
import time
import tracemalloc
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from hostile_streams import LARGEST_HEAP, LONGEST, cheap, refused, refused_or_harmless
from inrcodec import ContainerError
from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.payload import motion
from inrcodec.payload.pyramid import network_section, write_chunk
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec_formats.container import Container, Section, write_container
from inrcodec_kernels.backend import REFERENCE
from inrcodec_kernels.pyramid import Tile
from inrcodec_kernels.pyramid.context_coder import predictions, split
from inrcodec_kernels.pyramid.context_tables import laplace_tables
from inrcodec_kernels.rans import joined, reference
from pyramid_streams import Made, flags, made, made_moving, made_split, quantised, random_field


@cache
def sound() -> Made:
    return made((13, 12, 11), flags(3, 3), 8)


def with_tree(at: int, form: str, *values: Any, **others: Any) -> bytes:
    section = bytearray(sound().stream.tree_section())
    struct.pack_into("<" + form, section, at, *values)
    return sound().blob(tree=bytes(section), **others)


def test_the_stream_that_attacks_change_is_sound() -> None:
    assert not cheap(sound().blob()) and inrcodec.verify(sound().blob(), deep=True).ok


@pytest.mark.parametrize(
    ("at", "form", "values"),
    [
        (0, "B", [1]),
        (1, "B", [0]),
        (1, "B", [9]),
        (1, "B", [255]),
        (2, "BBB", [0, 16, 16]),
        (2, "BBB", [24, 18, 16]),
        (2, "BBB", [24, 16, 255]),
        (6, "f", [math.nan]),
        (6, "f", [-math.inf]),
        (6, "f", [0.0]),
        (6, "f", [1e38]),
        (14, "ii", [5, 4]),
        (14, "ii", [-(2**31), 0]),
        (14, "ii", [0, 2**31 - 1]),
        (22, "B", [3]),
        (23, "B", [10]),
        (23, "B", [15]),
    ],
)
def test_46_tree_with_impossible_fields(at: int, form: str, values: list[Any]) -> None:
    refused(with_tree(at, form, *values), "expected ")


@pytest.mark.parametrize(("at", "value"), [*((25, last) for last in (0, 16, 3, 4, 15, 34, 255)), (26, 0), (27, 0)])
def test_46_bands_that_cannot_be(at: int, value: int) -> None:
    """More lattices split than there are, none, unknown bits, and lattices that are halved along no axis."""
    of = made_split("zyx")
    section = bytearray(of.stream.tree_section())
    assert section[0] == 6 and section[25] == 18 and not cheap(of.blob())
    section[at] = value
    refused(of.blob(tree=bytes(section)), "expected ")


@pytest.mark.parametrize("halved", [8, 0x80, 255])
def test_47_axes_that_are_not_there(halved: int) -> None:
    refused(with_tree(24, "B", halved), "known kind of pyramid")


def test_48_one_tile_of_a_giant() -> None:
    """A single sample would take a tile of 2^32 latents to decode."""
    shape = (256, 256, 256, 256)
    of = made((1, 1, 1, 1), (), 256)
    blob = of.blob(shape=shape, axes="tzyx", chunks=[(1, write_chunk([(1, bytes(40))]))])
    tracemalloc.start()
    with pytest.raises(ContainerError, match="at most 16777216 latents in a tile, found 4294967296"):
        inrcodec.open(blob)
    assert tracemalloc.get_traced_memory()[1] < LARGEST_HEAP
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2**20, 2**14, 1), (2**11, 2**11, 2**12), (2**34, 1, 1), (14, 12, 11), (17, 12, 11)])
def test_49_lattices_and_index_disagree(shape: tuple[int, ...]) -> None:
    count = made(shape, flags(3, 3), 8).stream if math.prod(shape) < 10**4 else None
    if count is not None and count.tiles.count == sound().stream.tiles.count:
        assert cheap(sound().blob(shape=shape)), "tiles of other extents cannot end where these do"
    else:
        refused(sound().blob(shape=shape), "blocks from the index")
    refused(with_tree(5, "B", 0), "blocks from the index")


def test_49_chunks_of_other_counts() -> None:
    chunks = sound().chunks
    for count in (1, chunks[0][0] - 1, chunks[0][0] + 1, 900):
        refused(sound().blob(chunks=[(count, chunks[0][1]), *chunks[1:]]), "expected ")
    refused(sound().blob(chunks=[]), "blocks from the index")


def test_50_networks_cut_short_or_not_there() -> None:
    whole = sound().network
    for length in range(4):
        refused(sound().blob(network=whole[:length]), "short one")
    refused(sound().blob(network=bytes(4)), "expected ")
    refused(sound().blob(network=bytes(4000)), "expected ")
    for tag in ("tree", "network"):
        with pytest.raises(ContainerError, match="expected a section"):
            inrcodec.decode(missing(tag))
    for length in range(4, len(whole), 300):
        cheap(sound().blob(network=whole[:length]))


def missing(tag: str) -> bytes:
    with Container.open(sound().blob(), known=KNOWN_SECTIONS) as container:
        kept = {"tree": "NETW", "network": "TREE"}[tag]
        out = io.BytesIO()
        write_container(out, container.header, [Section(kept, container.sections.read(kept))], sound().chunks)
    return out.getvalue()


@pytest.mark.parametrize("name", ["ffffffff", "00000001", "2e2e2f2e"])
def test_51_networks_of_an_unknown_name(name: str) -> None:
    blob = sound().blob(network=network_section(sound().parameters, name))
    refused(blob, f"expected the networks {name}")


def with_parameters(**values: float | tuple[int, float]) -> bytes:
    """Parameters set to a number, stored with their usual exponent or another."""
    parameters = dict(sound().parameters)
    for name, value in values.items():
        full = name.replace("_", ".", 1)
        exponent, number = value if isinstance(value, tuple) else (parameters[full].exponent, value)
        parameters[full] = QuantisedTensor.of(np.full(parameters[full].values.shape, number), exponent)
    return sound().blob(network=network_section(parameters, ""))


@pytest.mark.parametrize(
    "values",
    [
        {"context_first": 120.0},
        {"context_second": -1000.0},
        {"context_last": 100.0},
        {"context_skip": 1000.0},
        {"context_last_bias": 1024.0, "context_skip": 24.0},
        {"context_first": (-8, 1 / 256)},
        {"context_skip": (-24, 2.0**-24)},
        {"context_first": (7, 2.0**30)},
    ],
)
def test_52_context_models_of_large_sums_or_fractions(values: dict[str, Any]) -> None:
    refused(with_parameters(**values), "expected ")


@pytest.mark.parametrize(
    "values", [{"synthesis_first": 1025.0}, {"synthesis_filters": (7, 2.0**37)}, {"synthesis_gains": (7, -(2.0**30))}]
)
def test_53_huge_synthesis(values: dict[str, Any]) -> None:
    refused(with_parameters(**values), "at most 1024")


def test_53_synthesis_that_overflows() -> None:
    wild = {f"synthesis_{name}": 1024.0 for name in ("gains", "filters", "first", "second", "last", "skips")}
    blob = with_parameters(**wild)
    assert all("finite values" in str(error) for error in cheap(blob))
    of = made((13, 12, 11), flags(3, 8), 8, step=2.0**30)
    parameters = quantised(of.stream.layout, 0)
    for name in wild:
        full = name.replace("_", ".", 1)
        parameters[full] = QuantisedTensor.of(np.full(parameters[full].values.shape, 1024.0), 0)
    refused(of.blob(network=network_section(parameters, "")), "finite values", readers=2)


def with_first_chunk(chunk: bytes) -> bytes:
    chunks = sound().chunks
    return sound().blob(chunks=[(chunks[0][0], chunk), *chunks[1:]])


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff\xff\xff\xff\x0f\x00", b"\xff" * 9 + b"\x7f", b"\x80" * 20, b"\x01\x00", b"\x00" * 3, b"\x83\x00\x00"],
)
def test_54_chunks_of_wrong_lengths(head: bytes) -> None:
    refused(with_first_chunk(head), "expected ")
    if head:
        refused(with_first_chunk(head + sound().chunks[0][1]), "expected ")


def test_54_chunks_that_are_longer_than_their_tiles() -> None:
    refused(with_first_chunk(sound().chunks[0][1] + b"\0"), "tiles that fill their chunk")


@pytest.mark.parametrize("lanes", [6, 7, 8, 63, 255])
def test_55_sixty_four_lanes(lanes: int) -> None:
    chunk = bytearray(sound().chunks[0][1])
    assert chunk[0] < 128
    chunk[1] = lanes
    refused(with_first_chunk(bytes(chunk)), "tiles that fill their chunk")


def test_56_streams_of_tiles_cut_short() -> None:
    tiles, number = list(sound().tiles), len(sound().tiles) - 5
    lanes, body = tiles[number]
    for length in range(1, len(body), max(1, len(body) // 5)):
        tiles[number] = lanes, body[:length]
        refused(sound().blob(chunks=[(len(tiles), write_chunk(tiles))]), "expected ", readers=2)
    tiles[number] = lanes, body + b"\0\0"
    refused(sound().blob(chunks=[(len(tiles), write_chunk(tiles))]), "expected ", readers=2)


@pytest.mark.parametrize(
    ("sign", "excess", "sound_one"),
    [(0, 2**20 - 200, True), (0, 2**20, False), (1, 2**31 - 1, False), (1, 2**20, False)],
)
def test_57_escapes_beyond_2_20(sign: int, excess: int, sound_one: bool) -> None:
    of = made((1, 1, 1), (), 8)
    network = of.coder(REFERENCE).context[0]
    tile = Tile(0, (0,) * 4, (1,) * 4, (False,) * 4, None, None)
    means, scales = predictions(np.zeros((1,) * 4, np.int32), tile, network)
    _, table = split(means.ravel().astype(np.int64), scales.ravel().astype(np.int64), network.units)
    laplace = laplace_tables(network.units)
    symbols = 2 * laplace.reach[table].astype(np.int64) + 1
    words = reference.encode(laplace.tables.intervals(symbols, table), np.zeros(1, np.uint8), 1)
    length = excess.bit_length()
    bits = [sign, *(length >> i & 1 for i in range(5)), *(excess >> i & 1 for i in range(length))]
    body = joined(words, np.array(bits, dtype=np.uint8))
    errors = cheap(of.blob(chunks=[(1, write_chunk([(1, body)]))]))
    assert not errors if sound_one else len(errors) == 3


def test_58_a_giant_of_zeros() -> None:
    """Legal: 2^33 samples of one value in a few hundred bytes. One of them costs its tile."""
    of = made((3, 3, 3), (), 256)
    blob = of.blob(shape=(2048, 2048, 2048), chunks=[(512, write_chunk([(1, b"")] * 512))])
    assert len(blob) < 3000
    tracemalloc.start()
    began = time.process_time()
    with inrcodec.open(blob) as image:
        assert image[100, 100, 100] == image[2047, 0, 5]
        assert image.voxels_evaluated == 2
    assert time.process_time() - began < LONGEST and inrcodec.info(blob).blocks == 512
    assert tracemalloc.get_traced_memory()[1] < 3 * (4 * 256**3)
    tracemalloc.stop()


@settings(max_examples=30, deadline=None)
@given(where=st.sampled_from(["tree", "network", "chunk"]), data=st.data())
def test_59_damage_under_sound_checksums(where: str, data: st.DataObject) -> None:
    chunks = sound().chunks
    number = data.draw(st.integers(0, len(chunks) - 1))
    contents = {"tree": sound().stream.tree_section(), "network": sound().network, "chunk": chunks[number][1]}
    damaged = bytearray(contents[where])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if where == "chunk":
        chunks[number] = chunks[number][0], bytes(damaged)
        refused_or_harmless(sound().blob(chunks=chunks), sound().blob())
    else:
        refused_or_harmless(sound().blob(**{where: bytes(damaged)}), sound().blob())


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=400))
def test_59_chunks_of_anything(data: bytes) -> None:
    refused_or_harmless(with_first_chunk(data), sound().blob())


def test_flipped_bytes_are_found() -> None:
    blob = sound().blob()
    for at in range(0, len(blob), 41):
        damaged = bytearray(blob)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ContainerError) as error:
            inrcodec.decode(bytes(damaged))
        assert "\n" not in str(error.value)


@cache
def moving() -> Made:
    return made_moving()


def with_move(at: int, form: str, *values: Any) -> bytes:
    section = bytearray(motion.pack(random_field((5, 17, 22), (20, 25))))
    struct.pack_into("<" + form, section, at, *values)
    return moving().blob(move=bytes(section))


def test_displacements_that_attacks_change_are_sound() -> None:
    assert not cheap(moving().blob()) and inrcodec.verify(moving().blob(), deep=True).ok


@pytest.mark.parametrize(("at", "form", "values"), [(0, "B", [2]), (1, "B", [0]), (1, "B", [7]), (1, "B", [255]), (2, "II", [0, 0]), (10, "B", [4])])
def test_60_move_with_impossible_fields(at: int, form: str, values: list[Any]) -> None:
    refused(with_move(at, form, *values), "MOVE")


def test_60_move_of_other_signals() -> None:
    section = moving().blob(move=motion.pack(random_field((5, 17, 22), (20, 25)))[:9])
    refused(section, "a complete MOVE")
    plane = made((85, 22), flags(2, 3), 8)
    refused(plane.blob(move=motion.pack(random_field((5, 17, 22), (20, 25)))), "of frames")
    refused(moving().blob(axes="yxc", shape=(17, 22, 5)), "no motion between channels")


@pytest.mark.parametrize("still", [(2**16, 2**16), (2**31, 2**31), (17 * 17, 22)])
def test_61_giant_still_frames(still: tuple[int, int]) -> None:
    refused(with_move(2, "II", *still), "expected ")


def test_61_too_many_nodes() -> None:
    refused(moving().blob(shape=(2**19, 17, 22)), "numbers in MOVE")


def test_62_displacements_beyond_their_limit() -> None:
    field = random_field((5, 17, 22), (20, 25), most=2**19)
    refused(moving().blob(move=motion.pack(field)), "displacements below")


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_63_random_bytes_in_move(data: st.DataObject) -> None:
    section = bytearray(motion.pack(random_field((5, 17, 22), (20, 25))))
    for _ in range(data.draw(st.integers(1, 4))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    cheap(moving().blob(move=bytes(section)))
