"""Chunks in lanes: what is written comes back, whole, and nothing else is accepted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.entropy import MagnitudeTable, read_signed, write_signed
from inrcodec.coding.lanes import LaneReader, LaneWriter, lanes_for, pack_lanes, unpack_lanes
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

BACKENDS = [Backend("reference"), Backend("numba")]
LARGEST = 2**31 - 1
tables = st.builds(MagnitudeTable, st.integers(1, 65535), st.integers(1, 255), st.integers(1, 255))
integers = st.one_of(st.integers(-3, 3), st.integers(-300, 300), st.integers(-LARGEST, LARGEST))


def written(values: list[int], models: list[MagnitudeTable], seed: int, lanes: int, backend: Backend, least: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    group = random.integers(len(models), size=len(values))
    writer = LaneWriter(lanes, backend)
    writer.symbols(group, np.ones(len(models), dtype=np.int64))
    write_signed(writer, np.array(values, dtype=np.int64), group, models)
    writer.digits(group % 2, 1)
    return writer.finish(least)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(integers, max_size=60), st.lists(tables, min_size=1, max_size=4), st.sampled_from([1, 2, 16]), st.sampled_from([0, 200]),
    st.integers(0, 2**32),
)  # fmt: skip
def test_integers_come_back(values: list[int], models: list[MagnitudeTable], lanes: int, least: int, seed: int) -> None:
    data = written(values, models, seed, lanes, BACKENDS[0], least)
    assert written(values, models, seed, lanes, BACKENDS[1], least) == data and len(data) >= least
    for backend in BACKENDS:
        reader = LaneReader(data, lanes, backend)
        group = reader.symbols(len(values), np.ones(len(models), dtype=np.int64)).astype(np.int64)
        assert read_signed(reader, group, models).tolist() == values
        assert (reader.digits(len(values), 1) == group % 2).all()
        reader.finish(least)


def test_what_is_left_over_is_refused() -> None:
    data = written([1, -2, 0], [MagnitudeTable(32768, 128, 128)], 0, 1, BACKENDS[0])
    reader = LaneReader(data + b"\0", 1)
    with pytest.raises(ContainerError, match="impossible data"):
        reader.finish()
    with pytest.raises(ContainerError, match="impossible data"):
        reader.digits(8 * len(data) + 9, 1)
    with pytest.raises(ContainerError, match="impossible data"):
        LaneReader(b"\0\0\0", 1)


@pytest.mark.parametrize(("size", "lanes"), [(0, 1), (2047, 1), (2048, 2), (4095, 2), (4096, 4), (1 << 20, 32)])
def test_lanes_follow_the_size(size: int, lanes: int) -> None:
    assert lanes_for(size) == lanes
    assert unpack_lanes(pack_lanes(lanes) + b"more") == lanes


@settings(max_examples=200, deadline=None)
@given(tables)
def test_frequencies_follow_the_range_coders_weights(table: MagnitudeTable) -> None:
    """The same distribution at two precisions: together within a rounding for each symbol."""
    found = table.frequencies
    assert found.sum() == 65536 and found.min() > 0 and 2 <= len(found) <= 256 and table.escape == len(found) - 1
    chance = table.weights / table.weights.sum() * 65536
    assert np.all(np.abs(found[:-1] - chance[: table.escape]) <= 1 + np.arange(table.escape))


def test_costs_count_signs_and_escapes() -> None:
    table = MagnitudeTable(16384, 64, 64)
    assert table.cost[0] == pytest.approx(-np.log2(0.75)) and table.cost[1] == pytest.approx(1 - np.log2(0.25 * 0.75), abs=1e-3)
    last = 16 - np.log2(float(table.frequencies[-1]))
    assert table.cost[table.escape] == pytest.approx(1 + last + 5)
    assert table.cost[table.escape + 3] == pytest.approx(1 + last + 5 + 2)
