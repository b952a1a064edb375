"""Samples of a pyramid: every way to ask for one gives the same, and a few samples take a few tiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from inrcodec.image import Image
from inrcodec.models.pyramid import AXES
from inrcodec.payload.pyramid import network_section, networks_from_section
from inrcodec.reconstruct import between, pieces, pyramid_there
from inrcodec.reconstruct import latents as decoded_latents
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.pyramid import Synthesis, joined, reference
from pyramid_streams import ABOVE, SHAPES, SPLIT, Made, flags, made, made_split, quantised

TAPS_APART, WIDE, IN_BANDS = ", taps apart", ", wide", ", in bands"
NAMES = [*SHAPES, *ABOVE, *(name + TAPS_APART for name in ABOVE), *(name + WIDE for name in SHAPES), *(name + IN_BANDS for name in SPLIT)]
every_shape = pytest.mark.parametrize("name", NAMES)


@cache
def stream(name: str, edge: int = 4) -> Made:
    if (alone := name.removesuffix(TAPS_APART)) in ABOVE:
        shape, halved, above = ABOVE[alone]
        return made(shape, halved, edge, above=above, apart=alone != name)
    if (alone := name.removesuffix(IN_BANDS)) in SPLIT and alone != name:
        return made_split(alone, edge)
    shape, halved = SHAPES[name.removesuffix(WIDE)]
    wide = name.endswith(WIDE)
    return made(shape, halved, edge, networks=min(2, len(halved) + 1), apart=wide, wide=wide)


def whole_of(image: Image) -> np.ndarray:
    """All samples, not rounded."""
    return image.blocks.box(np.zeros(image.ndim, int), np.array(image.shape), image._chunks)


@cache
def blob_and_whole(name: str, edge: int = 4) -> tuple[bytes, np.ndarray]:
    blob = stream(name, edge).blob()
    with inrcodec.open(blob) as image:
        return blob, whole_of(image)


@pytest.fixture(params=NAMES)
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Image, np.ndarray]]:
    blob, whole = blob_and_whole(request.param)
    with inrcodec.open(blob) as image:
        yield image, whole


@every_shape
@pytest.mark.parametrize("edge", [3, 64])
def test_latents_are_those_that_were_coded(name: str, edge: int) -> None:
    of = stream(name, edge)
    with inrcodec.open(of.blob()) as image:
        whole_of(image)
        for level, latents in enumerate(of.latents):
            assert np.array_equal(image.blocks.latents.read(level, (0,) * AXES, latents.shape), latents)


@every_shape
def test_samples_are_those_of_the_definition(name: str) -> None:
    of = stream(name)
    layout = of.stream.layout.kernel
    _, synthesis = networks_from_section(of.network, of.stream.layout, of.stream.precision)
    exact = Synthesis(*(torch.from_numpy(np.array(p, np.float64)) for p in synthesis))  # type: ignore[arg-type]
    lattices = [torch.from_numpy(y) for y in joined([y.astype(np.float64) for y in of.latents], layout)]
    box = ((0,) * AXES, layout.shape)
    expected = reference.samples(lattices, [(0,) * AXES] * len(lattices), exact, layout.channels, box).numpy()
    expected = of.stream.offset + of.stream.step * expected.reshape(of.stream.layout.shape)
    with inrcodec.open(of.blob()) as image:
        found, integers = whole_of(image), image[...]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    clear = np.abs(expected - np.floor(expected) - 0.5) > 0.05
    assert np.array_equal(integers[clear], np.clip(np.rint(expected), -1000, 1000)[clear])
    assert integers.dtype == np.int16 and np.abs(integers).max() <= 1000


def test_both_backends_give_the_same_samples() -> None:
    blob = stream("zyx").blob()
    with inrcodec.open(blob) as image, Image(blob, REFERENCE) as plain:
        assert np.abs(whole_of(image) - whole_of(plain)).max() < 1e-2


def test_a_device_is_not_touched_before_samples_are_asked_for() -> None:
    there = Backend("triton", "cuda:0")
    with Image(stream("yx").blob(), there) as image, inrcodec.open(stream("yx").blob()) as other:
        assert image.backend == there and image.blocks.details() == other.blocks.details()
        assert image.blocks.extents > other.blocks.extents


# ---- Regions


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(NAMES), edge=st.sampled_from([3, 5]), data=st.data())
def test_boxes_are_parts_of_the_whole_to_the_last_bit(name: str, edge: int, data: st.DataObject) -> None:
    blob, whole = blob_and_whole(name, edge)
    with inrcodec.open(blob) as image:
        for _ in range(2):
            start = [data.draw(st.integers(0, n - 1)) for n in image.shape]
            stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, image.shape, strict=True)]
            found = image.blocks.box(np.array(start), np.array(stop), image._chunks)
            assert found.dtype == np.float32
            assert np.array_equal(found, whole[tuple(map(slice, start, stop))])


@pytest.mark.parametrize("step", [1, 2, -1, -3])
def test_strides(opened: tuple[Image, np.ndarray], step: int) -> None:
    image, whole = opened
    key = (slice(None, None, step),) * image.ndim
    assert np.array_equal(image[key], np.clip(np.rint(whole), -1000, 1000).astype(np.int16)[key])


def test_slabs_and_single_samples_are_the_whole(opened: tuple[Image, np.ndarray]) -> None:
    image, whole = opened
    expected = np.clip(np.rint(whole), -1000, 1000)
    assert np.array_equal(np.concatenate(list(image.slabs())), expected)
    middle = tuple(n // 2 for n in image.shape)
    assert image[middle] == expected[middle]
    tensor = image.read_tensor()
    assert np.array_equal(tensor.cpu().numpy(), expected)
    start, stop = np.zeros(image.ndim, int), np.array(image.shape)
    assert np.array_equal(image.blocks.box_there(start, stop, image._chunks, np.dtype(np.float32)).numpy(), whole)


def test_parts_are_evaluated_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    blob, whole = blob_and_whole("zyx")
    monkeypatch.setattr(pieces, "_SAMPLES", 50)
    with inrcodec.open(blob) as image:
        assert np.array_equal(whole_of(image), whole)
        assert image.voxels_evaluated == whole.size


@settings(max_examples=50, deadline=None)
@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=4), most=st.integers(1, 200))
def test_parts_cover_a_box_once(shape: list[int], most: int) -> None:
    count = np.zeros(shape, dtype=int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_SAMPLES", most)
        for part in pieces._parts(tuple(shape)):
            assert count[part].size <= most
            count[part] += 1
    assert (count == 1).all()


@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(["x", "yx", "zyx", "tzyx"]), most=st.integers(1, 300), data=st.data())
def test_parts_for_a_device_cover_a_box_once_in_whole_tiles(name: str, most: int, data: st.DataObject) -> None:
    of = stream(name).stream
    shape, edge = np.array(of.layout.shape), np.array(of.tiles.reach)
    start = np.array([data.draw(st.integers(0, n - 1)) for n in shape])
    stop = np.array([data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)])
    count = np.zeros(shape, dtype=int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid_there, "_SAMPLES", most)
        for low, high in pyramid_there._parts(start, stop, of):
            count[tuple(map(slice, low, high))] += 1
            tiles = -(-high // edge) - low // edge
            assert tiles.max() == 1 or tiles.prod() * np.minimum(edge, shape).prod() <= most
            assert all(a in (b, a // e * e) for a, b, e in zip(low, start, edge, strict=True))
    inside = tuple(map(slice, start, stop))
    assert (count[inside] == 1).all() and count.sum() == count[inside].size


# ---- What is read


def spied(image: Image, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Tiles decoded and chunks read from now on."""
    tiles: list[int] = []
    chunks: list[int] = []
    decode, read = image.blocks.latents._decode_tile, image.container.read_chunk
    monkeypatch.setattr(image.blocks.latents, "_decode_tile", lambda n, *rest: (tiles.append(n), decode(n, *rest))[1])
    monkeypatch.setattr(image.container, "read_chunk", lambda n: (chunks.append(n), read(n))[1])
    return tiles, chunks


@cache
def large() -> Made:
    return made((48, 52, 56), flags(3, 4), 8)


def test_a_few_samples_take_a_few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    of = large()
    blob, count = of.blob(), of.stream.tiles.count
    with inrcodec.open(blob) as image:
        opened = image.bytes_read
        tiles, chunks = spied(image, monkeypatch)
        image[2:6, 2:6, 2:6]
        # One tile of each level: none of their neighbours is seen.
        assert sorted(image.blocks.tree.level[tiles].tolist()) == [0, 1, 2, 3]
        assert image.bytes_read - opened < 0.1 * len(blob)
        image[22:25, 22:26, 22:27]
        # A corner of 8 tiles, whose contexts reach a ring beyond: 3 x 3 x 3 of the next level.
        assert len(set(tiles)) == len(tiles) <= 4 + 8 + 27 + 8 + 1
        assert len(set(chunks)) == len(chunks) <= len(tiles)
        assert image.voxels_evaluated == 64 + 60
        before = list(tiles)
        image[22:25, 22:26, 22:27]
        assert tiles == before, "decoded tiles are kept"
        image[...]
        assert sorted(tiles) == list(range(count))


def test_tiles_that_are_decoded_are_dropped_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = large().blob()
    with inrcodec.open(blob) as other:
        whole = whole_of(other)
    monkeypatch.setattr(decoded_latents, "_CACHE_BYTES", 40_000)
    with inrcodec.open(blob) as image:
        tiles, _ = spied(image, monkeypatch)
        wanted = 4 * 8**3 * (8 + 8 + 8 + 1)
        for start in itertools.product((1, 17, 33), repeat=3):
            stop = np.array(start) + 6
            found = image.blocks.box(np.array(start), stop, image._chunks)
            assert np.array_equal(found, whole[tuple(map(slice, start, stop))])
            held = sum(latents.nbytes for latents in image.blocks.latents._decoded.values())
            assert held == image.blocks.latents._bytes <= 40_000 + wanted
        assert len(tiles) > len(set(tiles)), "what was dropped is decoded again"


def test_costs_count_all_bytes_of_the_tiles() -> None:
    of = large()
    with inrcodec.open(of.blob()) as image:
        total, latents = 0.0, 0
        for number in range(len(image.container.chunks)):
            first = int(image.container.chunks.first[number])
            stop = first + int(image.container.chunks.count[number])
            costs = image.blocks.costs(image.decoded_chunk(number), first, stop)
            total += costs.bits.sum()
            latents += int(costs.weights.sum())
            assert len(costs.bits) == stop - first and not costs.constant.any()
    assert total == 8 * sum(len(body) for _, body in of.tiles) and latents == of.stream.layout.latents


# ---- Between samples


def test_points_at_samples_are_the_samples(opened: tuple[Image, np.ndarray]) -> None:
    image, whole = opened
    at = np.argwhere(np.ones(whole.shape, dtype=bool))[::3]
    assert np.allclose(image.sample(at), np.clip(whole, -1000, 1000)[tuple(at.T)], atol=1e-4)


def test_points_between_samples_lie_on_the_line(opened: tuple[Image, np.ndarray]) -> None:
    image, whole = opened
    random = np.random.default_rng(0)
    points = random.uniform(-0.5, np.array(whole.shape) - 0.5, (40, whole.ndim))
    expected = whole.astype(np.float64)
    found = []
    for point in points:
        value = expected
        for x, n in zip(point, whole.shape, strict=True):
            inside = min(max(x, 0), n - 1)
            low = min(int(inside), max(n - 2, 0))
            value = value[low] + (inside - low) * (value[min(low + 1, n - 1)] - value[low])
        found.append(float(value))
    assert np.allclose(image.blocks.points(points, image._chunks), found, atol=1e-3)
    assert len(image.sample(np.empty((0, whole.ndim)))) == 0


@pytest.mark.parametrize("scale", [0.5, 2.0, 1.3])
def test_other_scales_are_the_same_line(opened: tuple[Image, np.ndarray], scale: float) -> None:
    image, whole = opened
    found = image.read(scale=scale)
    assert found.shape == tuple(max(1, round(n * scale)) for n in whole.shape) and found.dtype == np.int16
    axes = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(found.shape, whole.shape, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, whole.ndim)
    assert np.abs(image.sample(points) - found.ravel()).max() <= 0.5 + 1e-3


def test_scales_go_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = stream("zyx").blob()
    with inrcodec.open(blob) as image:
        expected = image.read(scale=1.7)
    monkeypatch.setattr(between, "_SAMPLES", 1000)
    with inrcodec.open(blob) as image:
        assert np.array_equal(image.read(scale=1.7), expected)


# ---- Hostile networks


def wild(**values: Any) -> bytes:
    """A stream with parameters of the synthesis set."""
    of = made((9, 8, 7), flags(3, 5), step=2.0**30)
    parameters = quantised(of.stream.layout, 0)
    for name, value in values.items():
        old = parameters[f"synthesis.{name}"]
        parameters[f"synthesis.{name}"] = type(old).of(np.full(old.values.shape, value), old.exponent)
    return of.blob(network=network_section(parameters, ""))


def test_networks_beyond_all_numbers_are_refused() -> None:
    blob = wild(filters=1024.0, gains=1024.0, first=1024.0, second=1024.0, last=1024.0)
    for act in (inrcodec.decode, lambda b: inrcodec.verify(b, deep=True), lambda b: inrcodec.open(b)[0, 0, 0]):
        with pytest.raises(ContainerError, match="expected networks of finite values, found others") as error:
            act(blob)
        assert "\n" not in str(error.value)


def test_large_networks_end_at_the_range() -> None:
    found = inrcodec.decode(wild(skips=4.0)).samples
    assert found.min() == -1000 and found.max() == 1000
