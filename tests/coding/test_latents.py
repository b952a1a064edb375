"""Latents tile by tile: windows are parts of the whole, what is written comes back, damage ends in one line."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.latents import Place
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import REFERENCE, choose
from inrcodec_kernels.pyramid import context, neighbouring_bits
from pyramid_streams import SHAPES, Made, made

every_shape = pytest.mark.parametrize("name", SHAPES)


@cache
def stream(name: str, edge: int) -> Made:
    return made(*SHAPES[name], edge)


def known(of: Made, boxes: list[tuple[int, Place, Place]]) -> Made:
    """The stream with latents in the given boxes alone; all others are such that they would be noticed."""
    latents = [np.full_like(y, -(2**19) + 77) for y in of.latents]
    for level, start, stop in boxes:
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        latents[level][inside] = of.latents[level][inside]
    return Made(of.stream, of.parameters, latents)


def some(count: int, most: int = 40) -> list[int]:
    """All numbers below `count`, or some at random with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({0, count - 1, *np.random.default_rng(count).integers(0, count, most).tolist()})


@every_shape
@pytest.mark.parametrize("edge", [1, 3, 4, 64])
def test_windows_of_parents_are_those_of_the_whole_lattice(name: str, edge: int) -> None:
    of = stream(name, edge)
    layout, coder = of.stream.layout.kernel, of.coder()
    wholes: list[tuple[np.ndarray | None, np.ndarray | None]] = [(None, None)] * layout.levels
    for level in reversed(range(layout.levels - 1)):
        coarser = wholes[level + 1][0]
        wholes[level] = context.parents(
            of.latents[level + 1], coarser, layout.halved[level], layout.shapes[level], coder.context[level].units
        )
    for number in some(of.stream.tiles.count):
        level, start, stop = of.box(number)
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        part = known(of, coder.needed(level, start, stop))
        found = coder._tile(level, start, shape, part.read)
        whole = context.Tile(level, start, shape, found.present, *wholes[level])  # type: ignore[arg-type]
        assert np.array_equal(context._with_ring(found.u, found, (1,) * 4), context._with_ring(whole.u, whole, (1,) * 4))
        middle = (slice(1, -1),) * 4
        assert np.array_equal(context._with_ring(found.v, found, (1,) * 4)[middle], context._with_ring(whole.v, whole, (1,) * 4)[middle])


@every_shape
@pytest.mark.parametrize("edge", [1, 4, 64])
def test_tiles_come_back_from_their_bytes_and_what_they_need(name: str, edge: int) -> None:
    of = stream(name, edge)
    coder = of.coder()
    for number in some(of.stream.tiles.count):
        level, start, stop = of.box(number)
        lanes, body = coder.encode(np.ascontiguousarray(of.read(level, start, stop)), level, start, of.read)
        part = known(of, coder.needed(level, start, stop))
        found = coder.decode(np.frombuffer(body, np.uint8), lanes, level, start, stop, part.read)
        assert found.dtype == np.int32 and np.array_equal(found, of.read(level, start, stop))


@every_shape
def test_both_backends_write_the_same_bytes(name: str) -> None:
    of = stream(name, 5)
    plain = of.coder(REFERENCE)
    for number in some(of.stream.tiles.count, 12):
        lanes, body = of.tiles[number]
        level, start, stop = of.box(number)
        own = np.ascontiguousarray(of.read(level, start, stop))
        assert plain.encode(own, level, start, of.read) == (lanes, body)
        found = plain.decode(np.frombuffer(body, np.uint8), lanes, level, start, stop, of.read)
        assert np.array_equal(found, own)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    levels=st.integers(1, 4),
    edge=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_pyramid_comes_back(shape: list[int], levels: int, edge: int, seed: int, data: st.DataObject) -> None:
    halved = tuple(tuple(data.draw(st.booleans()) for _ in shape) for _ in range(levels - 1))
    of = made(tuple(shape), halved, edge, seed, networks=data.draw(st.integers(1, levels)))
    coder = of.coder()
    for number in some(of.stream.tiles.count):
        level, start, stop = of.box(number)
        own = np.ascontiguousarray(of.read(level, start, stop))
        lanes, body = coder.encode(own, level, start, of.read)
        part = known(of, coder.needed(level, start, stop))
        assert np.array_equal(coder.decode(np.frombuffer(body, np.uint8), lanes, level, start, stop, part.read), own)


def test_what_a_tile_needs_are_the_two_next_levels() -> None:
    of = made((40, 40), ((True, True),) * 3, 8)
    coder = of.coder()
    # Interpolation reaches half a latent, a ring one more, and ends of windows another.
    assert coder.needed(0, (0, 0, 16, 16), (1, 1, 24, 24)) == [
        (1, (0, 0, 6, 6), (1, 1, 14, 14)),
        (2, (0, 0, 1, 1), (1, 1, 9, 9)),
    ]
    assert [level for level, _, _ in coder.needed(2, (0, 0, 0, 0), (1, 1, 8, 8))] == [3]
    assert coder.needed(3, (0, 0, 0, 0), (1, 1, 5, 5)) == []


def test_zeros_take_no_bytes() -> None:
    of = stream("zyx", 64)
    coder = of.coder()
    level, start, stop = of.box(of.stream.tiles.count - 1)
    nothing = np.zeros(of.latents[level].shape, np.int32)
    assert coder.encode(nothing, level, start, of.read) == (1, b"")
    assert coder.bits(nothing, level, start, of.read) == 8
    assert not coder.decode(np.empty(0, np.uint8), 1, level, start, stop, of.read).any()


def test_estimated_bits_are_those_of_the_bytes() -> None:
    of = made((60, 70), ((True, True),) * 2, 64)
    coder = of.coder()
    for number, (_, body) in enumerate(of.tiles):
        level, start, stop = of.box(number)
        own = np.ascontiguousarray(of.read(level, start, stop))
        assert abs(coder.bits(own, level, start, of.read) - 8 * len(body)) <= 32 + 0.01 * 8 * len(body)


def test_larger_tiles_take_more_lanes() -> None:
    of = made((90, 100), (), 128)
    assert of.tiles[0][0] > 1 and len(of.tiles[0][1]) > 2048
    level, start, stop = of.box(0)
    found = of.coder().decode(np.frombuffer(of.tiles[0][1], np.uint8), of.tiles[0][0], level, start, stop, of.read)
    assert np.array_equal(found, of.latents[0])


def test_changes_are_differences_of_bits() -> None:
    """In tiles of one latent, where a change is seen by no other."""
    of, compared = stream("yx", 1), 0
    coder = of.coder()
    for number in range(of.stream.tiles.count):
        level, start, _ = of.box(number)
        own = np.ascontiguousarray(of.read(level, start, tuple(a + 1 for a in start)))  # type: ignore[arg-type]
        if not 1 < abs(int(own.item())) < 20:
            continue
        less, more, _ = coder.changes(own, level, start, of.read).ravel()
        if less == 0 or more == 0:  # an escape, as its neighbour is
            continue
        compared += 1
        bits, below, above = (coder.bits(own + d, level, start, of.read) for d in (0, -1, 1))
        # A neighbour that escapes counts without its plain bits.
        assert less <= below - bits + 1e-3 and more <= above - bits + 1e-3
        if abs(bits - below) < 5 and abs(bits - above) < 5:
            assert less == pytest.approx(below - bits, abs=1e-3) and more == pytest.approx(above - bits, abs=1e-3)
    assert compared > 20


def test_changes_have_the_shape_of_the_tile() -> None:
    of = stream("tzyx", 4)
    level, start, stop = of.box(of.stream.tiles.count - 2)
    own = np.ascontiguousarray(of.read(level, start, stop))
    found = of.coder().changes(own, level, start, of.read)
    assert found.shape == (3, *own.shape) and found.dtype == np.float32 and np.isfinite(found).all()


@pytest.mark.parametrize("backend", [REFERENCE, choose("cpu")], ids=lambda b: b.name)
def test_bytes_that_nobody_wrote_are_refused_in_one_line(backend: object) -> None:
    of = stream("zyx", 64)
    number = of.stream.tiles.count - 2
    lanes, body = of.tiles[number]
    level, start, stop = of.box(number)
    coder = of.coder(backend)  # type: ignore[arg-type]

    def refused(data: bytes, lanes: int = lanes) -> None:
        with pytest.raises(ContainerError) as error:
            coder.decode(np.frombuffer(data, np.uint8), lanes, level, start, stop, of.read)
        assert "\n" not in str(error.value) and "expected" in str(error.value)

    for length in range(1, len(body), max(1, len(body) // 12)):
        refused(body[:length])
    refused(body + b"\0")
    refused(b"\xff" * 3)
    refused(body, 32)
    random = np.random.default_rng(0)
    for _ in range(20):
        refused(random.bytes(int(random.integers(1, 300))))


@pytest.mark.parametrize("units", [8, 16])
def test_slopes_of_changes_are_derivatives_of_the_laplace_distribution(units: int) -> None:
    """By central differences of the exact bits, at scales that the tables have."""
    random = np.random.default_rng(0)
    latents = random.integers(-6, 7, 300).astype(np.int32)
    means, scales = random.integers(-5 * units, 5 * units + 1, 300).astype(np.int32), random.integers(12, 63, 300).astype(np.int32)
    scale = 2.0 ** (scales / 6 - 5)

    def below(x: np.ndarray) -> np.ndarray:
        return np.where(x < 0, np.exp(-np.abs(x)) / 2, 1 - np.exp(-np.abs(x)) / 2)

    def bits(y: np.ndarray) -> np.ndarray:
        middle = y - means / units
        return -np.log2(below((middle + 0.5) / scale) - below((middle - 0.5) / scale) + 1e-6)

    expected = (bits(latents + 1e-5) - bits(latents - 1e-5)) / 2e-5
    found = neighbouring_bits(latents, means, scales, units)[2]
    # Where the mean lies half way between two latents, or the latent's far side is in the floor, both sides differ.
    plain = (np.abs(np.abs(latents - means / units) - 0.5) > 1e-3) & (bits(latents) < 14) & (latents * units != means)
    assert plain.sum() > 150
    assert np.allclose(found[plain], expected[plain], rtol=0.02, atol=2e-3)
