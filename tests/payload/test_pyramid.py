"""TREE, NETW and chunks of the pyramid: what is packed comes back, and hostile bytes are refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.models.pyramid import COARSE, FINE, STORED_PLACES, Precision, PyramidLayout
from inrcodec.models.shipped import ShippedNetworks
from inrcodec.payload import pyramid as module
from inrcodec.payload.pyramid import PyramidStream, network_section, networks_from_section, read_chunk, write_chunk
from inrcodec_formats.errors import ContainerError
from pyramid_streams import SHAPES, flags, made, quantised

WIDTHS = st.integers(1, 8).map(lambda w: 4 * w)
WHOLE = st.integers(-(2**31), 2**31 - 1)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text.startswith("expected ") and ", found " in text and "; " in text and "\n" not in text
    return text


# ---- TREE


def stream_of(**others: Any) -> PyramidStream:
    layout = PyramidLayout((20, 13, 9), ((False, True, True), (True, True, True)), 24, (16, 12))
    return replace(PyramidStream(layout, 8, 0.5, -3, -100, 100), **others)


def read(
    data: bytes, stream: PyramidStream, shape: tuple[int, ...] | None = None, blocks: int | None = None
) -> PyramidStream:
    return PyramidStream.from_section(
        data, shape or stream.layout.shape, stream.tiles.count if blocks is None else blocks
    )


@settings(max_examples=80, deadline=None)
@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    levels=st.integers(1, 6),
    above=st.integers(0, 2),
    widths=st.tuples(WIDTHS, WIDTHS, WIDTHS),
    edge=st.integers(1, 256),
    step=st.floats(2.0**-60, 2.0**30, width=32),
    offset=WHOLE,
    ends=st.tuples(WHOLE, WHOLE),
    precision=st.sampled_from((COARSE, *FINE)),
    data=st.data(),
)
def test_streams_come_back(
    shape: list[int],
    levels: int,
    above: int,
    widths: tuple[int, int, int],
    edge: int,
    step: float,
    offset: int,
    ends: tuple[int, int],
    precision: Precision,
    data: st.DataObject,
) -> None:
    networks = data.draw(st.integers(1, levels)) if precision in FINE else 1
    wide = precision in FINE and data.draw(st.booleans())
    apart = wide or (precision in FINE and above > 0 and data.draw(st.booleans()))
    halved = tuple(tuple(data.draw(st.booleans()) for _ in shape) for _ in range(above + levels - 1))
    # What is split is halved, and taps apart are older than bands.
    most = next((n for n, flags in enumerate(halved[above:]) if not any(flags)), levels - 1)
    split = data.draw(st.integers(0, most)) if apart or (precision in FINE and not above) else 0
    layout = PyramidLayout(tuple(shape), halved[above:], widths[0], widths[1:], halved[:above], networks, apart or split > 0, wide, split)
    stream = PyramidStream(layout, edge, step, offset, min(ends), max(ends), precision=precision)
    section = stream.tree_section()
    version = 6 if split else 5 if wide else 4 if apart else (2 if networks == 1 else 3) if precision in FINE else int(above > 0)
    assert section[0] == version and len(section) == 22 + min(version, 3) + (split > 0) + above + levels - 1
    assert read(section, stream) == stream


@given(offsets=st.lists(WHOLE, min_size=1, max_size=4))
def test_channels_have_an_offset_each(offsets: list[int]) -> None:
    layout = PyramidLayout((len(offsets), 13, 9), ((False, True, True),), 24, (16, 12))
    stream = PyramidStream(layout, 8, 0.5, offsets[0], -100, 100, tuple(offsets[1:]))
    section = stream.tree_section()
    found = PyramidStream.from_section(section, layout.shape, stream.tiles.count, channels=True)
    assert found == stream and found.offsets(0, len(offsets)).ravel().tolist() == np.float32(offsets).tolist()
    for data, channels in ((section + bytes(4), True), (section[:-1], True), (section + bytes(4), False)):
        with pytest.raises(ContainerError, match="known kind of pyramid") as error:
            PyramidStream.from_section(data, layout.shape, stream.tiles.count, channels)
        one_line(error)


HOSTILE: dict[str, tuple[int, str, float, str]] = {
    "a version to come": (0, "B", 7, "version 6"),
    "bands that are not there": (0, "B", 6, "known kind of pyramid"),
    "further bytes that are not there": (0, "B", 5, "known kind of pyramid"),
    "distances that are not there": (0, "B", 4, "known kind of pyramid"),
    "networks that are not there": (0, "B", 3, "known kind of pyramid"),
    "a precision that is not there": (0, "B", 2, "known kind of pyramid"),
    "lattices without latents that are not there": (0, "B", 1, "known kind of pyramid"),
    "no level": (1, "B", 0, "known kind of pyramid"),
    "a level more": (1, "B", 4, "known kind of pyramid"),
    "nine levels": (1, "B", 9, "known kind of pyramid"),
    "no width": (2, "B", 0, "known kind of pyramid"),
    "an odd width": (2, "B", 22, "known kind of pyramid"),
    "a wide context": (2, "B", 36, "known kind of pyramid"),
    "a wide synthesis": (3, "B", 128, "known kind of pyramid"),
    "an odd synthesis": (4, "B", 2, "known kind of pyramid"),
    "other tiles": (5, "B", 3, "tiles"),
    "no step": (6, "f", 0.0, "expected a step"),
    "a step below 0": (6, "f", -1.0, "expected a step"),
    "a large step": (6, "f", 2.0**31, "expected a step"),
    "an infinite step": (6, "f", math.inf, "expected a step"),
    "a step that is no number": (6, "f", math.nan, "expected a step"),
    "a range upside down": (18, "i", -101, "expected a step and a range"),
    "an axis that is not there": (22, "B", 8, "known kind of pyramid"),
    "all axes and more": (23, "B", 255, "known kind of pyramid"),
}


@pytest.mark.parametrize(("at", "form", "value", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_fields_are_refused(at: int, form: str, value: float, words: str) -> None:
    stream = stream_of()
    section = bytearray(stream.tree_section())
    struct.pack_into("<" + form, section, at, value)
    with pytest.raises(ContainerError) as error:
        read(bytes(section), stream)
    assert words in one_line(error)


@pytest.mark.parametrize("count", [0, 2, 3, 255])
def test_lattices_without_latents_are_few_and_counted_right(count: int) -> None:
    layout = PyramidLayout((20, 13, 9), ((True, True, True),), 24, (16, 12), ((False, True, True),))
    stream = stream_of(layout=layout)
    section = bytearray(stream.tree_section())
    assert read(bytes(section), stream) == stream
    section[22] = count
    with pytest.raises(ContainerError, match="known kind of pyramid") as error:
        read(bytes(section), stream)
    one_line(error)


@pytest.mark.parametrize("bits", [0, 10, 15, 255])
def test_numbers_of_another_size_are_refused(bits: int) -> None:
    stream = stream_of(precision=FINE[0])
    section = bytearray(stream.tree_section())
    assert section[22:24] == bytes([0, 14])
    section[23] = bits
    with pytest.raises(ContainerError, match="known kind of pyramid") as error:
        read(bytes(section), stream)
    one_line(error)


@pytest.mark.parametrize("count", [0, 1, 4, 255])
def test_networks_of_no_level_are_refused(count: int) -> None:
    """One would be written as version 2 has it."""
    stream = stream_of(layout=replace(stream_of().layout, networks=3), precision=FINE[0])
    section = bytearray(stream.tree_section())
    assert section[0] == 3 and section[22:25] == bytes([0, 14, 3]) and read(bytes(section), stream) == stream
    section[24] = count
    with pytest.raises(ContainerError, match="known kind of pyramid") as error:
        read(bytes(section), stream)
    one_line(error)


@pytest.mark.parametrize("above", [(), ((False, True, True),)])
@pytest.mark.parametrize(("precision", "networks"), [(COARSE, 1), (FINE[2], 1), (FINE[2], 2)])
def test_sections_of_another_length_are_refused(above: tuple[tuple[bool, ...], ...], precision: Precision, networks: int) -> None:
    stream = stream_of(layout=replace(stream_of().layout, above=above, networks=networks), precision=precision)
    section = stream.tree_section()
    for other in (*(section[:length] for length in range(len(section))), section + b"\0"):
        with pytest.raises(ContainerError) as error:
            read(other, stream)
        one_line(error)


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_other_numbers_of_tiles_are_refused(change: int) -> None:
    stream = stream_of()
    with pytest.raises(ContainerError, match="blocks from the index") as error:
        read(stream.tree_section(), stream, blocks=stream.tiles.count + change)
    one_line(error)


def test_giants_are_refused_before_anything_is_made_of_them() -> None:
    stream = stream_of()
    with pytest.raises(ContainerError, match=r"2\*\*34 voxels"):
        read(stream.tree_section(), stream, shape=(2**20, 2**10, 2**5))
    with pytest.raises(ContainerError, match="blocks from the index"):
        read(stream.tree_section(), stream, shape=(2**11, 2**11, 2**12), blocks=5)
    layout = PyramidLayout((100, 100, 100, 100), flags(4, 2))
    giant = PyramidStream(layout, 100, 1.0, 0, 0, 1)
    with pytest.raises(ContainerError, match="16777216 latents in a tile, found 100000000") as error:
        read(giant.tree_section(), giant)
    one_line(error)
    largest = PyramidStream(PyramidLayout((256, 256, 300), flags(3, 2)), 256, 1.0, 0, 0, 1)
    assert read(largest.tree_section(), largest) == largest


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_trees_raise_nothing_else(data: st.DataObject) -> None:
    precision, networks = data.draw(st.sampled_from([(COARSE, 1), (FINE[1], 1), (FINE[1], 3)]))
    stream = stream_of(layout=replace(stream_of().layout, networks=networks), precision=precision)
    section = bytearray(stream.tree_section())
    for _ in range(data.draw(st.integers(1, 3))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(section), stream)
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert found.tree_section() == bytes(section) and found.tiles.count == stream.tiles.count


# ---- NETW


def assert_networks(data: bytes, layout: PyramidLayout, values: dict[str, np.ndarray]) -> None:
    for precision, (skip, bias, half) in ((COARSE, (9, 10, 16)), (FINE[1], (8, 11, 32))):
        networks, synthesis = networks_from_section(data, layout, precision)
        for name, found in synthesis._asdict().items():
            assert found.dtype == np.float32 and np.array_equal(found, values[f"synthesis.{name}"])
        assert len(networks) == layout.levels
        for level, network in enumerate(networks):
            own = min(level, layout.networks - 1)
            assert np.array_equal(network.first, np.ldexp(values["context.first"][own], 7))
            assert np.array_equal(network.skip, np.ldexp(values["context.skip"][own], skip))
            assert np.array_equal(network.level_bias[level], np.ldexp(values["context.level_bias"][level], bias) + half)
            assert (network.unit_bits, network.hidden_bits) == (precision.input_places, precision.hidden_bits)


@pytest.mark.parametrize("name", SHAPES)
def test_networks_come_back(name: str) -> None:
    layout = PyramidLayout(*SHAPES[name], 8, (4, 12))
    for networks in {1, layout.levels}:
        of = replace(layout, networks=networks)
        parameters = quantised(of, 1)
        assert_networks(network_section(parameters, ""), of, {n: t.dequantised() for n, t in parameters.items()})


def test_networks_are_counted_from_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = PyramidLayout((9, 9), flags(2, 3), 8, (4, 12))
    base = {n: t.dequantised() for n, t in quantised(layout, 2).items()}
    in_file = {n: v[0] if n.startswith("context.") and n != "context.level_bias" else v for n, v in base.items()}
    monkeypatch.setattr(module, "shipped", lambda name: ShippedNetworks(name, in_file))
    differences = quantised(layout, 3, 0.1)
    values = {n: t.dequantised() + base[n] for n, t in differences.items()}
    section = network_section(differences, "01ab00ff")
    assert section[:4] == bytes([1, 0xAB, 0, 0xFF])
    assert_networks(section, layout, values)
    with pytest.raises(ContainerError, match="networks 01ab00ff to fit the pyramid") as error:
        networks_from_section(section, PyramidLayout((9, 9), flags(2, 3), 12, (4, 12)), FINE[0])
    one_line(error)


def test_networks_that_this_version_lacks() -> None:
    layout = made(*SHAPES["yx"]).stream.layout
    with pytest.raises(ContainerError, match="networks deadbeef, found") as error:
        networks_from_section(network_section(quantised(layout, 0), "deadbeef"), layout, FINE[0])
    one_line(error)


def changed(name: str, change: Callable[[QuantisedTensor], QuantisedTensor]) -> tuple[bytes, PyramidLayout]:
    layout = made(*SHAPES["yx"]).stream.layout
    parameters = quantised(layout, 0)
    parameters[name] = change(parameters[name])
    return network_section(parameters, ""), layout


def filled(value: float) -> Callable[[QuantisedTensor], QuantisedTensor]:
    return lambda t: QuantisedTensor.of(np.full(t.values.shape, value), t.exponent)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("context.first", lambda t: QuantisedTensor(-8, t.values), "whole numbers, found fractions"),
        ("context.last_bias", lambda t: QuantisedTensor(-13, t.values), "whole numbers, found fractions"),
        ("context.first", filled(100.0), "small sums"),
        ("context.second", filled(64.0), "small sums"),
        ("context.skip", filled(40.0), "small sums"),
        ("context.last", filled(64.0), "small sums"),
        ("synthesis.skips", filled(1025.0), "at most 1024"),
        ("synthesis.first", lambda t: QuantisedTensor(7, np.full(t.values.shape, 2**31)), "at most 1024"),
        ("synthesis.filters", filled(-1e5), "at most 1024"),
        ("context.level_bias", filled(-1e5), "at most 1024"),
    ],
)
def test_wild_networks_are_refused(name: str, change: Callable[[QuantisedTensor], QuantisedTensor], words: str) -> None:
    for precision in (COARSE, FINE[-1]):
        with pytest.raises(ContainerError) as error:
            networks_from_section(*changed(name, change), precision)
        assert words in one_line(error)


def test_larger_hidden_numbers_make_larger_sums() -> None:
    """Weights of 1.5 from 8 hidden numbers: 12 times the largest of them, in 128ths."""
    parameters = changed("context.second", filled(1.5))
    networks_from_section(*parameters, FINE[1])
    with pytest.raises(ContainerError, match="small sums"):
        networks_from_section(*parameters, FINE[0])


def test_the_largest_parameters_are_taken() -> None:
    _, synthesis = networks_from_section(*changed("synthesis.first", filled(-1024.0)), FINE[1])
    assert (synthesis.first == -1024).all()


def test_sections_without_networks_are_refused() -> None:
    layout = made(*SHAPES["yx"]).stream.layout
    for length in range(5):
        with pytest.raises(ContainerError) as error:
            networks_from_section(bytes(length), layout, FINE[0])
        one_line(error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_networks_raise_nothing_else(data: st.DataObject) -> None:
    of = made(*SHAPES["yx"])
    section = bytearray(of.network)
    for _ in range(data.draw(st.integers(1, 3))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    try:
        context, synthesis = networks_from_section(
            bytes(section[: data.draw(st.integers(0, len(section)))]), of.stream.layout, of.stream.precision
        )
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.abs(p).max(initial=0) <= 1024 for p in synthesis)
        assert context[0].first.shape == of.stream.layout.context_shapes["first"][1:]


def test_encoders_keep_all_places_that_sums_allow() -> None:
    assert set(quantised(made(*SHAPES["x"]).stream.layout, 0)) == set(STORED_PLACES)


# ---- Chunks


TILES = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8, 16, 32]), st.binary(max_size=300)), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(tiles=TILES)
def test_chunks_come_back(tiles: list[tuple[int, bytes]]) -> None:
    found = read_chunk(write_chunk(tiles), len(tiles))
    assert [body.tobytes() for _, body in found] == [body for _, body in tiles]
    assert [lanes for lanes, body in found if len(body)] == [lanes for lanes, body in tiles if body]


def test_chunks_by_the_page() -> None:
    long = bytes(range(256)) + bytes(44)
    assert write_chunk([(1, b""), (8, b"ab"), (32, long)]) == b"\0" + b"\x02\x03" + b"\xac\x02\x05" + b"ab" + long


@settings(max_examples=80, deadline=None)
@given(tiles=TILES, data=st.data())
def test_damaged_chunks_raise_nothing_else(tiles: list[tuple[int, bytes]], data: st.DataObject) -> None:
    chunk = bytearray(write_chunk(tiles))
    chunk[data.draw(st.integers(0, min(len(chunk) - 1, 40)))] = data.draw(st.integers(0, 255))
    count = data.draw(st.integers(1, 1024))
    try:
        found = read_chunk(bytes(chunk), count)
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) == count and all(1 <= lanes <= 32 for lanes, _ in found)
        assert sum(len(body) for _, body in found) < len(chunk)
        assert write_chunk([(lanes, body.tobytes()) for lanes, body in found]) == bytes(chunk)


@pytest.mark.parametrize(
    ("chunk", "count"),
    [
        (b"", 1),
        (b"\0", 2),
        (b"\0\0", 1),
        (b"\x02", 1),
        (b"\x02\x00a", 1),
        (b"\x02\x00abc", 1),
        (b"\x02\x06ab", 1),
        (b"\x02\xffab", 1),
        (b"\x80\x00", 1),
        (b"\x82\x00\x00ab", 1),
        (b"\xff\xff\xff\xff\xff\x01\x00", 1),
        (b"\xff\xff\xff\xff\x7f\x00" + bytes(50), 1),
        (b"\x80" * 6, 1),
    ],
)
def test_hostile_chunks_are_refused(chunk: bytes, count: int) -> None:
    with pytest.raises(ContainerError) as error:
        read_chunk(chunk, count)
    one_line(error)
