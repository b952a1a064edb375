"""Damaged streams, and hostile ones of TINC under sound checksums: attacks 32 to 45 of attacks/README.md."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from hostile_streams import rebuilt, refused, refused_or_harmless, section
from inrcodec import ContainerError
from inrcodec.options import TincOptions
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec_formats.container import Container
from inrcodec_formats.zstd import compress, decompress_bounded
from samples import scan


@pytest.fixture(scope="module")
def stream() -> bytes:
    return inrcodec.encode(scan((9, 10, 11)), ratio=4, effort=1, method="tinc")


@pytest.fixture(scope="module")
def dense_stream() -> bytes:
    options = TincOptions(root="dense", network_share=0.3, starts=1)
    return inrcodec.encode(scan((9, 10, 11)), ratio=3, effort=1, tinc=options, method="tinc")


def all_refuse(data: bytes) -> None:
    for act in (inrcodec.verify, inrcodec.decode, lambda d: inrcodec.open(d)[...]):
        with pytest.raises(ContainerError) as error:
            act(data)
        assert "\n" not in str(error.value)


def test_every_flipped_byte_is_found(stream: bytes) -> None:
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 1 << at % 8
        all_refuse(bytes(damaged))


def test_every_truncation_is_found(stream: bytes) -> None:
    for length in range(len(stream)):
        all_refuse(stream[:length])


def tree_with(stream: bytes, **fields: object) -> bytes:
    """The TREE section of a stream of three axes with some of its fixed fields replaced."""
    data = bytearray(section(stream, "TREE"))
    places = {
        "finest": (0, "3B"), "weights": (3, "3B"), "kind": (6, "B"), "top": (7, "B"), "features": (8, "<H"),
        "hidden": (10, "B"), "step": (11, "<f"), "offset": (15, "<i"), "low": (19, "<i"), "high": (23, "<i"), "segments": (27, "B"),
    }  # fmt: skip
    for name, value in fields.items():
        at, form = places[name]
        struct.pack_into(form, data, at, *(value if isinstance(value, tuple) else (value,)))
    return bytes(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"finest": (0, 8, 8)},
        {"finest": (255, 255, 255)},
        {"weights": (0, 1, 1)},
        {"kind": 255},
        {"top": 255},
        {"features": 0},
        {"features": 65535},
        {"hidden": 255},
        {"segments": 255},
        {"step": math.nan},
        {"step": math.inf},
        {"step": 0.0},
        {"step": -1.0},
        {"step": 1e38},
        {"low": 5, "high": 4},
        {"low": -(2**31)},
        {"high": 2**31 - 1},
    ],
)
def test_32_tree_with_impossible_fields(stream: bytes, fields: dict[str, object]) -> None:
    refused(rebuilt(stream, TREE=tree_with(stream, **fields)), "expected ")


def test_33_tree_cut_short(stream: bytes) -> None:
    tree = section(stream, "TREE")
    for length in range(28):
        refused(rebuilt(stream, TREE=tree[:length]), "expected ")


def test_34_missing_sections(stream: bytes, dense_stream: bytes) -> None:
    refused(rebuilt(stream, TREE=None), "expected ")
    refused(rebuilt(stream, STAT=None), "expected ")
    refused(rebuilt(dense_stream, NETW=None), "expected ")


@pytest.mark.parametrize("shape", [(2**20, 2**20, 1), (2**11, 2**11, 2**11), (2**34, 1, 1)])
def test_35_shape_of_a_giant(stream: bytes, shape: tuple[int, ...]) -> None:
    refused(rebuilt(stream, shape=shape), "expected ")
    refused(rebuilt(stream, shape=shape, TREE=tree_with(stream, finest=(1, 1, 1), top=20)), "expected ")


def test_36_a_chunk_of_too_many_blocks(stream: bytes) -> None:
    """A tree that splits everything, and one chunk that claims all the blocks: as many as voxels for no bytes."""
    tree = tree_with(stream, finest=(1, 1, 1), top=7)
    assert section(stream, "TREE")[27] == 0
    for edge in (64, 100, 128):
        refused(rebuilt(stream, shape=(edge,) * 3, TREE=tree[:28] + b"\xff", chunks=[(edge**3, b"")]), "expected ")


def test_37_chunks_and_tree_disagree(stream: bytes) -> None:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        blocks, data = container.chunks.blocks, container.read_chunk(0)
    for count in (1, blocks - 1, blocks + 1, 990):
        if count != blocks and count > 0:
            refused(rebuilt(stream, chunks=[(count, data)]), "expected ")
    refused(rebuilt(stream, chunks=[]), "expected ")


def test_38_statistics_with_impossible_values(stream: bytes) -> None:
    stat = decompress_bounded(section(stream, "STAT"), 1 << 20)
    for wrong in (b"", stat[:-1], stat + b"\0", bytes(len(stat)), stat[:-2] + b"\0\0"):
        refused(rebuilt(stream, STAT=compress(wrong)), "expected ")
    refused(rebuilt(stream, STAT=stat), "expected ")
    refused(rebuilt(stream, STAT=b""), "expected ")


def test_39_statistics_that_claim_7e18_bytes(stream: bytes) -> None:
    claim = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 7 * 10**18)
    refused(rebuilt(stream, STAT=claim), "expected ")
    refused(rebuilt(stream, STAT=compress(bytes(1 << 21))), "expected ")


def test_40_network_of_nothing(dense_stream: bytes) -> None:
    refused(rebuilt(dense_stream, NETW=b""), "expected ")
    refused(rebuilt(dense_stream, NETW=bytes(400)), "expected ")


def test_41_network_of_2_27_parameters(dense_stream: bytes) -> None:
    tree = section(dense_stream, "TREE")
    layers, rest = tree[10], tree[28 + 2 * tree[10] - 1 :]
    assert layers > 0
    wide = tree[:10] + b"\x08" + tree[11:27] + struct.pack("<8H", *[4096] * 8) + rest
    refused(rebuilt(dense_stream, TREE=wide), "expected ")
    refused(rebuilt(dense_stream, TREE=wide, NETW=bytes(1 << 19)), "expected ")


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(max_size=400))
def test_42_chunks_of_anything(stream: bytes, data: bytes) -> None:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        blocks = container.chunks.blocks
    refused_or_harmless(rebuilt(stream, chunks=[(blocks, data)]), stream)


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(max_size=200))
def test_43_statistics_of_anything(stream: bytes, data: bytes) -> None:
    stat = decompress_bounded(section(stream, "STAT"), 1 << 20)
    refused_or_harmless(rebuilt(stream, STAT=compress((data + stat)[: len(stat)])), stream)


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(min_size=1, max_size=40), at=st.integers(0, 40))
def test_44_trees_of_anything(stream: bytes, data: bytes, at: int) -> None:
    tree = section(stream, "TREE")
    refused_or_harmless(rebuilt(stream, TREE=tree[:at] + data + tree[at + len(data) :]), stream)


@settings(max_examples=40, deadline=2000)
@given(data=st.binary(max_size=300))
def test_45_networks_of_anything(dense_stream: bytes, data: bytes) -> None:
    refused_or_harmless(rebuilt(dense_stream, NETW=data), dense_stream)
