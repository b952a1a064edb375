"""Chunks of readouts: whatever is written comes back, sizes are as estimated, damage is refused."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.contexts import CONTEXTS, Bands
from inrcodec.coding.readouts import (
    Coefficients,
    ReadoutCoder,
    ReadoutGeometry,
    ReadoutStatistics,
    band_counts,
    estimate_bits,
    fit_statistics,
    leaf_bits,
)
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import REFERENCE, Backend

Widths = dict[int, np.ndarray]
COMPILED = Backend("numba")


def geometry_of(axes: int, levels: list[int], width: int = 40) -> ReadoutGeometry:
    """Leaves at levels 1..3 of cells of 16, 8, 4 samples along every axis."""
    cells = tuple((32 >> level,) * axes for level in range(4))
    bands = {}
    for level in sorted(set(levels)):
        index = np.argwhere(np.ones(tuple(min(e, 8) for e in cells[level]), dtype=bool))
        order = np.argsort((index**2).sum(axis=1), kind="stable")
        bands[level] = Bands.of_lattice(index[order[:width]])
    return ReadoutGeometry(cells, bands, np.array(levels, dtype=np.int64))


def widths_of(geometry: ReadoutGeometry, values: Coefficients) -> Widths:
    return {level: band_counts(geometry.bands[level], v) for level, v in values.items()}


def sparse(geometry: ReadoutGeometry, seed: int, density: float, largest: int) -> Coefficients:
    """Random integers, mostly zero, fewer and smaller in higher bands."""
    random = np.random.default_rng(seed)
    values = {}
    for level in geometry.levels:
        bands, count = geometry.bands[level], int((geometry.level == level).sum())
        part = np.zeros((bands.width, count), dtype=np.int32)
        for b, members in enumerate(bands.members):
            live = random.random((len(members), count)) < density / (1 + b / 3)
            part[members] = live * np.rint(largest * random.standard_normal((len(members), count)) / (1 + b) ** 2)
        values[level] = part
    return values


def chunks_come_back(geometry: ReadoutGeometry, values: Coefficients, widths: Widths, bounds: list[int]) -> None:
    statistics = fit_statistics(geometry, values, widths)
    stored = ReadoutStatistics.from_bytes(statistics.to_bytes(), geometry.bands)
    for start, stop in itertools.pairwise(bounds):
        data = ReadoutCoder(geometry, statistics, COMPILED).write(values, widths, start, stop)
        assert ReadoutCoder(geometry, statistics).write(values, widths, start, stop) == data
        found = ReadoutCoder(geometry, stored, COMPILED).read(data, start, stop)
        level_of = geometry.level[start:stop]
        assert sorted(found) == sorted(set(level_of.tolist()))
        for level, part in found.items():
            before = int((geometry.level[:start] == level).sum())
            assert np.array_equal(part, values[level][:, before : before + part.shape[1]])
            assert part.shape[1] == int((level_of == level).sum())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 3), min_size=1, max_size=25),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([1, 30, 5000, 2**26]),
    st.data(),
)
def test_chunks_come_back(
    axes: int, levels: list[int], seed: int, density: float, largest: int, data: st.DataObject
) -> None:
    geometry = geometry_of(axes, levels, 20 if axes == 4 else 40)
    values = sparse(geometry, seed, density, largest)
    cuts = data.draw(st.sets(st.integers(1, len(levels)), max_size=3))
    chunks_come_back(geometry, values, widths_of(geometry, values), sorted({0, len(levels)} | cuts))


def test_leaves_may_keep_more_bands_than_they_need() -> None:
    geometry = geometry_of(2, [1, 2, 2, 3, 1])
    values = sparse(geometry, 1, 0.3, 9)
    widths = {
        level: np.minimum(w + 2, geometry.bands[level].count - 1) for level, w in widths_of(geometry, values).items()
    }
    chunks_come_back(geometry, values, widths, [0, 2, 5])


def test_values_of_31_bits_come_back() -> None:
    geometry = geometry_of(2, [2, 2, 2])
    values = sparse(geometry, 0, 0.0, 1)
    values[2][0] = [2**31 - 1, 0, -(2**31) + 300]
    values[2][1] = [2**31 - 1, -(2**31) + 1, 255]
    values[2][5] = [254, -255, -256]
    chunks_come_back(geometry, values, widths_of(geometry, values), [0, 3])


@pytest.mark.parametrize("constants", [[2**30, 2**28, -(2**30), 2**30, -(2**30), 5], [-(2**30), -(2**30), 2**30, 0, 2**30, 7]])
def test_what_is_expected_of_a_constant_may_be_beyond_all_constants(constants: list[int]) -> None:
    """That of a leaf 256 times as large is 16 times as large: found by chance, with random values of 28 bits."""
    levels = [3, 1, 1, 3, 1, 2]
    geometry = geometry_of(4, levels, 20)
    values = sparse(geometry, 0, 0.3, 9)
    for leaf, (level, constant) in enumerate(zip(levels, constants, strict=True)):
        values[level][0, levels[:leaf].count(level)] = constant
    chunks_come_back(geometry, values, widths_of(geometry, values), [0, 6])


@pytest.mark.parametrize("backend", [REFERENCE, COMPILED], ids=lambda backend: backend.name)
def test_a_constant_too_far_from_what_is_expected_is_not_written(backend: Backend) -> None:
    geometry = geometry_of(2, [2, 2])
    values = sparse(geometry, 0, 0.0, 1)
    values[2][0] = [2**31 - 1, -(2**31) + 1]
    widths = widths_of(geometry, values)
    coder = ReadoutCoder(geometry, fit_statistics(geometry, values, widths), backend)
    with pytest.raises(ValueError, match="expected constants within"):
        coder.write(values, widths, 0, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2**32))
def test_band_counts_are_the_last_band_in_use(axes: int, seed: int) -> None:
    geometry = geometry_of(axes, [2] * 12)
    values, bands = sparse(geometry, seed, 0.1, 9)[2], geometry.bands[2]
    expected = [
        max((b for b in range(1, bands.count) if values[bands.members[b], leaf].any()), default=0) for leaf in range(12)
    ]
    assert band_counts(bands, values).tolist() == expected


def test_constants_are_predicted_by_the_root_of_the_size() -> None:
    geometry = geometry_of(3, [1, 2, 3])
    assert geometry.predict_constant(1000, 2, 2) == 1000
    assert geometry.predict_constant(1000, 2, 1) == round(1000 * 8**0.5)
    assert geometry.predict_constant(-1000, 1, 3) == -125
    assert geometry.predict_constant(0, 3, 1) == 0


def test_a_constant_signal_takes_next_to_nothing() -> None:
    """Leaves of one value: only the first constant costs, whatever the sizes."""
    levels = [1, 1, 2, 2, 2, 2] * 50
    geometry = geometry_of(2, levels)
    values = sparse(geometry, 0, 0.0, 1)
    values[1][0], values[2][0] = 1600, 800
    widths = widths_of(geometry, values)
    data = ReadoutCoder(geometry, fit_statistics(geometry, values, widths)).write(values, widths, 0, 300)
    assert len(data) < 24


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("density", "largest"), [(0.5, 6), (0.9, 40), (0.4, 5)])
def test_estimated_size_is_the_real_one(seed: int, density: float, largest: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.choice([1, 2, 3], 1500, p=[0.1, 0.3, 0.6]).tolist()
    geometry = geometry_of(3, levels, 60)
    values = sparse(geometry, seed, density, largest)
    widths = widths_of(geometry, values)
    statistics = fit_statistics(geometry, values, widths)
    real = 8 * len(ReadoutCoder(geometry, statistics).write(values, widths, 0, len(levels)))
    assert real > 10_000
    estimate = estimate_bits(geometry, values, widths, statistics)
    assert estimate == pytest.approx(real, rel=0.03)
    leaves = leaf_bits(geometry, values, statistics, 0, len(levels))
    assert leaves.shape == (len(levels),)
    assert leaves.sum() == pytest.approx(estimate, rel=1e-3)


def test_a_leafs_estimate_is_what_it_adds() -> None:
    """Of two leaves of a level, the one with more and larger coefficients costs more, wherever it stands."""
    geometry = geometry_of(2, [2, 1, 2, 2])
    values = sparse(geometry, 0, 0.0, 1)
    values[2][1:20, 1] = 9
    values[2][1:4, 2] = 1
    statistics = fit_statistics(geometry, values, widths_of(geometry, values))
    empty, coarse, full, few = leaf_bits(geometry, values, statistics, 0, 4)
    assert full > 3 * few > 3 * empty
    assert coarse < few
    part = {1: values[1], 2: values[2][:, 1:]}
    np.testing.assert_allclose(leaf_bits(geometry, part, statistics, 1, 4), [coarse, full, few])


def test_contexts_pay() -> None:
    """Statistics fitted to the values code them in fewer bits than those fitted to others."""
    geometry = geometry_of(3, [2] * 800)
    values, others = sparse(geometry, 0, 0.5, 8), sparse(geometry, 1, 0.1, 60)
    widths = widths_of(geometry, values)
    own = fit_statistics(geometry, values, widths)
    foreign = fit_statistics(geometry, others, widths_of(geometry, others))
    sizes = [len(ReadoutCoder(geometry, s).write(values, widths, 0, 800)) for s in (own, foreign)]
    assert sizes[0] < 0.95 * sizes[1]


def some_statistics() -> tuple[ReadoutGeometry, ReadoutStatistics]:
    geometry = geometry_of(2, [1, 2, 3, 3, 2] * 8)
    values = sparse(geometry, 3, 0.4, 20)
    return geometry, fit_statistics(geometry, values, widths_of(geometry, values))


def test_statistics_come_back() -> None:
    geometry, statistics = some_statistics()
    again = ReadoutStatistics.from_bytes(statistics.to_bytes(), geometry.bands)
    assert again.to_bytes() == statistics.to_bytes()
    assert again.magnitudes == statistics.magnitudes and again.constants == statistics.constants
    assert len(again.magnitudes) == CONTEXTS
    for level in geometry.levels:
        assert np.array_equal(again.widths[level], statistics.widths[level])
        assert np.array_equal(again.means[level], statistics.means[level])
    assert {f.name for f in fields(statistics)} == {"widths", "constants", "means", "magnitudes", "lanes"}
    assert replace(statistics, lanes=8).to_bytes() == b"\x03" + statistics.to_bytes()[1:]
    assert ReadoutStatistics.from_bytes(replace(statistics, lanes=8).to_bytes(), geometry.bands).lanes == 8


def test_statistics_of_the_wrong_length_are_refused() -> None:
    geometry, statistics = some_statistics()
    data = statistics.to_bytes()
    for wrong in (b"", data[:-1], data + b"\1"):
        with pytest.raises(ContainerError, match=f"expected {len(data)} bytes of statistics, found {len(wrong)}"):
            ReadoutStatistics.from_bytes(wrong, geometry.bands)


def test_impossible_statistics_are_refused() -> None:
    geometry, statistics = some_statistics()
    data, count = statistics.to_bytes(), geometry.bands[1].count
    for lanes in (6, 255):
        with pytest.raises(ContainerError, match="lanes up to 32"):
            ReadoutStatistics.from_bytes(bytes([lanes]) + data[1:], geometry.bands)
    no_widths = data[:1] + bytes(count) + data[count + 1 :]
    with pytest.raises(ContainerError, match="frequencies above 0"):
        ReadoutStatistics.from_bytes(no_widths, geometry.bands)
    for at in (count + 3, count + 4, len(data) - 1, len(data) - 2):
        with pytest.raises(ContainerError, match="probabilities above 0"):
            ReadoutStatistics.from_bytes(data[:at] + b"\0" + data[at + 1 :], geometry.bands)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_as_something(data: bytes) -> None:
    geometry, statistics = some_statistics()
    try:
        found = ReadoutCoder(geometry, statistics).read(data, 4, 31)
    except ContainerError:
        return
    assert sum(v.shape[1] for v in found.values()) == 27
    assert all(v.shape[0] == geometry.bands[level].width for level, v in found.items())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_chunks_and_statistics_raise_nothing_else(data: st.DataObject) -> None:
    geometry, statistics = some_statistics()
    values = sparse(geometry, 3, 0.4, 20)
    chunk = bytearray(ReadoutCoder(geometry, statistics).write(values, widths_of(geometry, values), 0, 40))
    packed = bytearray(statistics.to_bytes())
    for damaged in (chunk, packed):
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = ReadoutCoder(geometry, ReadoutStatistics.from_bytes(bytes(packed), geometry.bands)).read(bytes(chunk), 0, 40)
    except ContainerError:
        return
    assert sum(v.shape[1] for v in found.values()) == 40
