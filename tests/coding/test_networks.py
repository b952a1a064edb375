"""Coding of private networks: whatever is written comes back, sizes are as estimated, damage is refused or bounded."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import networks
from inrcodec.coding.networks import (
    CONTEXTS,
    LIMIT,
    UNIT_CONTEXT,
    WEIGHTS_PER_BYTE,
    BlockNetworks,
    NetworkShapes,
    NetworkStatistics,
    block_bits,
    fit_statistics,
    read_networks,
    write_networks,
)
from inrcodec_formats.errors import ContainerError

SHAPES = NetworkShapes(3, ((), (8, 3), (20, 18, 4), (60, 40, 9)))


def offsets_of(shapes: NetworkShapes, context: int = UNIT_CONTEXT) -> list[list[int]]:
    return [[context] * len(sizes) for sizes in shapes.sizes]


def random_networks(
    shapes: NetworkShapes, count: int, seed: int, spread: float = 1.0, constants: float = 0.3
) -> BlockNetworks:
    """Weights are as large as scale and size say, times `spread`."""
    random = np.random.default_rng(seed)
    classes = len(shapes.sizes)
    kind = np.where(random.random(count) < constants, 0, random.integers(min(1, classes - 1), classes, count))
    live = kind > 0
    scale, size = np.where(live, random.integers(-6, 12, count), 0), random.integers(0, 15, count)
    weights = [
        np.rint(spread * 2 ** ((scale[k] + size[k]) / 2) * random.standard_normal(shapes.totals[kind[k]])).astype(int)
        for k in np.flatnonzero(live)
    ]
    bandwidth = np.where(live[:, None], random.integers(-5, 9, (count, shapes.ndim)), 0)
    draw = np.where(live, random.integers(0, 4, count), 0)
    mean = np.rint(300 * random.standard_normal(count)).astype(np.int64)
    return BlockNetworks(kind, mean, scale, bandwidth, draw, size, weights)


def assert_same(found: BlockNetworks, expected: BlockNetworks) -> None:
    for item in fields(BlockNetworks):
        if item.name != "weights":
            assert np.array_equal(getattr(found, item.name), getattr(expected, item.name)), item.name
    assert len(found.weights) == len(expected.weights)
    for a, b in zip(found.weights, expected.weights, strict=True):
        assert np.array_equal(a, b)


def comes_back(shapes: NetworkShapes, blocks: BlockNetworks, bounds: list[int], context: int = UNIT_CONTEXT) -> None:
    """Chunk by chunk, with statistics of the whole that went through bytes themselves."""
    statistics = fit_statistics(shapes, blocks, offsets_of(shapes, context))
    stored = NetworkStatistics.from_bytes(statistics.to_bytes(), shapes)
    for start, stop in itertools.pairwise(bounds):
        part = blocks.part(start, stop)
        data = write_networks(shapes, statistics, part)
        assert_same(read_networks(data, shapes, stored, blocks.size[start:stop]), part)


@settings(max_examples=50, deadline=None)
@given(
    ndim=st.integers(1, 4),
    sizes=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), max_size=5),
    count=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.0, 0.1, 1.0, 3000.0]),
    context=st.sampled_from([-400, 0, UNIT_CONTEXT, 30, 400]),
    constants=st.sampled_from([0.0, 0.5, 1.0]),
    data=st.data(),
)
def test_chunks_come_back(
    ndim: int,
    sizes: list[list[int]],
    count: int,
    seed: int,
    spread: float,
    context: int,
    constants: float,
    data: st.DataObject,
) -> None:
    shapes = NetworkShapes(ndim, ((), *map(tuple, sizes)))
    blocks = random_networks(shapes, count, seed, spread, constants)
    cuts = data.draw(st.sets(st.integers(1, count), max_size=3))
    comes_back(shapes, blocks, sorted({0, count} | cuts), context)


def test_constants_alone_come_back() -> None:
    blocks = random_networks(SHAPES, 40, 1, constants=1.0)
    assert not blocks.weights
    comes_back(SHAPES, blocks, [0, 1, 40])


def test_a_chunk_of_constants_beside_one_of_networks() -> None:
    blocks = random_networks(SHAPES, 12, 2, constants=0.0)
    kept = random_networks(SHAPES, 12, 3, constants=1.0)
    both = BlockNetworks(
        *(np.concatenate([getattr(a, f.name) for a in (kept, blocks)]) for f in fields(BlockNetworks)[:-1]),
        blocks.weights,
    )
    comes_back(SHAPES, both, [0, 12, 24])


def test_a_single_block_comes_back() -> None:
    for seed in range(5):
        comes_back(SHAPES, random_networks(SHAPES, 1, seed, constants=0.0), [0, 1])


@pytest.mark.parametrize("context", [0, 13, 14, 15, 16, 17, 20, 47])
def test_the_largest_weights_come_back(context: int) -> None:
    """Escapes, low bits, and both at once; at scale and size 0 the context is the offset."""
    shapes = NetworkShapes(1, ((), (9, 3)))
    largest = LIMIT - 1
    low = max(context - 14, 0) // 2
    edges = [v for n in (254, 255, 256) for v in ((n << low) - 1, n << low, (n << low) + 1)]
    weights = [
        np.array([largest, -largest, 0, 1, -1, *edges[:7]]),
        np.array([*(-e for e in edges), largest, 2, 0]),
        np.zeros(12, dtype=np.int64),
    ]
    zeros = np.zeros(3, dtype=np.int64)
    blocks = BlockNetworks(np.ones(3, int), zeros, zeros, np.zeros((3, 1), dtype=np.int64), zeros, zeros, weights)
    comes_back(shapes, blocks, [0, 3], context)
    comes_back(shapes, blocks, [0, 1, 2, 3], context)


def test_the_largest_means_and_scales_come_back() -> None:
    ends = np.array([LIMIT, -LIMIT, 65535, -65535, LIMIT, 0])
    reach = np.array([64, -64, 64, 0, -64, 3])
    shapes = NetworkShapes(2, ((), (2, 2)))
    draw, weights = np.array([0, 3, 2, 1, 0, 3]), [np.array([5, -3, 0, 900])] * 6
    size = np.zeros(6, dtype=np.int64)
    blocks = BlockNetworks(np.ones(6, int), ends, reach, np.stack([reach, -reach], axis=1), draw, size, weights)
    comes_back(shapes, blocks, [0, 6])
    comes_back(shapes, blocks, [0, 1, 4, 6])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_statistics_come_back(seed: int, count: int) -> None:
    blocks = random_networks(SHAPES, count, seed, 3.0)
    statistics = fit_statistics(SHAPES, blocks, [[], [-300, 7], [0, 32767, -32768], [1, 2, 3]])
    again = NetworkStatistics.from_bytes(statistics.to_bytes(), SHAPES)
    assert np.array_equal(again.kinds, statistics.kinds) and again.offsets == statistics.offsets
    assert (again.mean, again.scale, again.bandwidth) == (statistics.mean, statistics.scale, statistics.bandwidth)
    assert again.magnitudes == statistics.magnitudes and len(again.magnitudes) == CONTEXTS
    assert again.to_bytes() == statistics.to_bytes()


def test_impossible_statistics_are_refused() -> None:
    data = fit_statistics(SHAPES, random_networks(SHAPES, 9, 0), offsets_of(SHAPES)).to_bytes()
    for wrong in (b"", data[:-1], data + b"\0"):
        with pytest.raises(ContainerError, match=f"expected {len(data)} bytes of statistics, found {len(wrong)}"):
            NetworkStatistics.from_bytes(wrong, SHAPES)
    with pytest.raises(ContainerError, match="frequencies above 0"):
        NetworkStatistics.from_bytes(data[:1] + bytes(4) + data[5:], SHAPES)
    with pytest.raises(ContainerError, match="lanes up to 32"):
        NetworkStatistics.from_bytes(b"\x06" + data[1:], SHAPES)
    tables = 5 + 2 * 8
    for at, length in ((tables, 2), (tables + 2, 1), (len(data) - 1, 1), (len(data) - 4, 2)):
        with pytest.raises(ContainerError, match="probabilities above 0"):
            NetworkStatistics.from_bytes(data[:at] + bytes(length) + data[at + length :], SHAPES)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("spread", "context"), [(0.3, 3), (1.0, UNIT_CONTEXT), (40.0, 17)])
def test_estimated_size_is_the_real_one(seed: int, spread: float, context: int) -> None:
    blocks = random_networks(SHAPES, 400, seed, spread)
    # Escapes' own digits are not in the estimate: means that need none.
    blocks = replace(blocks, mean=blocks.mean // 8)
    statistics = fit_statistics(SHAPES, blocks, offsets_of(SHAPES, context))
    real = 8 * len(write_networks(SHAPES, statistics, blocks))
    bits = block_bits(SHAPES, statistics, blocks)
    assert bits.shape == (400,) and np.all(bits > 0)
    assert bits.sum() == pytest.approx(real, rel=0.01)
    assert bits[blocks.kind == 3].mean() > bits[blocks.kind == 1].mean() > bits[blocks.kind == 0].mean()


def test_statistics_of_the_right_context_save_bytes() -> None:
    """Weights whose size follows scale and size cost less than by one table for all."""
    blocks = random_networks(SHAPES, 300, 5)
    fitted = fit_statistics(SHAPES, blocks, offsets_of(SHAPES))
    flat = fit_statistics(SHAPES, blocks, offsets_of(SHAPES, -400))
    # Whatever scale and size add, -400 stays in the first context.
    assert len(write_networks(SHAPES, fitted, blocks)) < 0.85 * len(write_networks(SHAPES, flat, blocks))


@settings(max_examples=80, deadline=2000)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_chunks_of_anything_are_refused_or_bounded(data: bytes, seed: int) -> None:
    blocks = random_networks(SHAPES, 15, seed, 30.0)
    statistics = fit_statistics(SHAPES, blocks, offsets_of(SHAPES))
    refused_or_bounded(data, statistics, blocks)


@settings(max_examples=40, deadline=2000)
@given(st.integers(0, 3), st.data())
def test_statistics_of_anything_are_refused_or_bounded(seed: int, data: st.DataObject) -> None:
    blocks = random_networks(SHAPES, 15, seed, 30.0)
    good = fit_statistics(SHAPES, blocks, offsets_of(SHAPES))
    chunk, packed = write_networks(SHAPES, good, blocks), good.to_bytes()
    noise = data.draw(st.binary(min_size=1, max_size=len(packed)))
    at = data.draw(st.integers(0, len(packed) - len(noise)))
    try:
        statistics = NetworkStatistics.from_bytes(packed[:at] + noise + packed[at + len(noise) :], SHAPES)
    except ContainerError:
        return
    refused_or_bounded(chunk, statistics, blocks)


def test_chunks_cut_short_are_refused_or_bounded() -> None:
    blocks = random_networks(SHAPES, 6, 4, 30.0)
    statistics = fit_statistics(SHAPES, blocks, offsets_of(SHAPES))
    data = write_networks(SHAPES, statistics, blocks)
    for length in range(len(data)):
        refused_or_bounded(data[:length], statistics, blocks)


def refused_or_bounded(data: bytes, statistics: NetworkStatistics, blocks: BlockNetworks) -> None:
    try:
        found = read_networks(data, SHAPES, statistics, blocks.size)
    except ContainerError as error:
        assert "\n" not in str(error)
        return
    assert len(found) == len(blocks) and len(found.weights) == int((found.kind > 0).sum())
    assert found.kind.max() < len(SHAPES.sizes) and found.kind.min() >= 0
    assert np.abs(found.mean).max() <= LIMIT and np.abs(found.scale).max() <= 64
    assert np.abs(found.bandwidth).max() <= 64 and found.draw.min() >= 0 and found.draw.max() < networks.DRAWS
    for kind, weights in zip(found.kind[found.kind > 0], found.weights, strict=True):
        assert len(weights) == SHAPES.totals[kind] and np.abs(weights).max() < LIMIT
    assert SHAPES.totals[found.kind].sum() <= WEIGHTS_PER_BYTE * len(data)


def test_zeros_make_up_for_weights_that_take_no_room() -> None:
    """Networks of zeros take next to no bits, and still a byte for every 256 weights."""
    shapes = NetworkShapes(1, ((), (3000, 1000)))
    one, none = np.ones(4, dtype=np.int64), np.zeros(4, dtype=np.int64)
    blocks = BlockNetworks(one, none, none, np.zeros((4, 1), dtype=np.int64), none, none, [np.zeros(4000, int)] * 4)
    statistics = fit_statistics(shapes, blocks, offsets_of(shapes))
    data = write_networks(shapes, statistics, blocks)
    assert len(data) == -(-16000 // WEIGHTS_PER_BYTE) and data.endswith(bytes(20))
    assert_same(read_networks(data, shapes, statistics, none), blocks)
    with pytest.raises(ContainerError, match=f"at most {WEIGHTS_PER_BYTE} weights a byte, found 16000 in 62"):
        read_networks(data[:-1], shapes, statistics, none)


def test_parts_hold_their_own_weights() -> None:
    blocks = random_networks(SHAPES, 20, 7)
    for start, stop in ((0, 20), (0, 0), (3, 11), (19, 20), (20, 20)):
        part = blocks.part(start, stop)
        assert len(part) == stop - start and np.array_equal(part.mean, blocks.mean[start:stop])
        numbers = {k: i for i, k in enumerate(np.flatnonzero(blocks.kind).tolist())}
        expected = [blocks.weights[numbers[k]] for k in range(start, stop) if k in numbers]
        assert len(part.weights) == len(expected)
        assert all(a is b for a, b in zip(part.weights, expected, strict=True))
    joined = [w for a, b in ((0, 7), (7, 8), (8, 20)) for w in blocks.part(a, b).weights]
    assert all(a is b for a, b in zip(joined, blocks.weights, strict=True))
    assert blocks.nbytes >= sum(w.nbytes for w in blocks.weights)
