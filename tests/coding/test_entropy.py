"""Range coding of integers: any values come back, tables are integers, garbage is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inrcodec.coding.entropy import (
    ALPHABET,
    ESCAPE,
    MagnitudeTable,
    SymbolReader,
    SymbolWriter,
    categorical,
    read_escapes,
    read_signed,
    write_escapes,
    write_signed,
)
from inrcodec_formats.errors import ContainerError

LARGEST = 2**31 + ESCAPE - 1
tables = st.builds(MagnitudeTable, st.integers(1, 65535), st.integers(1, 255), st.integers(1, 255))
extremes = st.sampled_from([0, 1, -1, 2, 254, 255, 256, -255, 2**15, 2**16 + 254, 2**16 + 255, LARGEST, -LARGEST])
integers = st.one_of(st.integers(-3, 3), st.integers(-LARGEST, LARGEST), extremes)


@settings(max_examples=80, deadline=None)
@given(st.lists(integers, max_size=60), st.lists(tables, min_size=1, max_size=4), st.integers(0, 2**32))
@example([0] * 60, [MagnitudeTable(1, 1, 1)], 0)
@example([LARGEST, -LARGEST], [MagnitudeTable(1, 1, 1)], 0)
def test_signed_integers_come_back(values: list[int], models: list[MagnitudeTable], seed: int) -> None:
    group = np.random.default_rng(seed).integers(len(models), size=len(values))
    writer = SymbolWriter()
    write_signed(writer, np.array(values, dtype=np.int64), group, models)
    found = read_signed(SymbolReader(writer.finish()), group, models)
    assert found.tolist() == values


def test_many_likely_symbols_take_no_bytes_and_come_back() -> None:
    table, group = MagnitudeTable(1, 1, 1), np.zeros(200_000, dtype=np.int64)
    writer = SymbolWriter()
    write_signed(writer, group, group, [table])
    data = writer.finish()
    assert len(data) <= 8
    assert not read_signed(SymbolReader(data), group, [table]).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 2**16 - 1)), max_size=40))
def test_digits_come_back(items: list[tuple[int, int]]) -> None:
    items = [(bits, value % (1 << bits)) for bits, value in items]
    writer = SymbolWriter()
    for bits, value in items:
        writer.digits(np.array([value]), bits)
    reader = SymbolReader(writer.finish())
    assert [int(reader.digits(1, bits)[0]) for bits, _ in items] == [value for _, value in items]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), max_size=20))
def test_escapes_come_back(values: list[int]) -> None:
    writer = SymbolWriter()
    write_escapes(writer, np.array(values, dtype=np.int64))
    assert read_escapes(SymbolReader(writer.finish()), len(values)).tolist() == values


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=80))
def test_groups_come_back_in_place(pairs: list[tuple[int, int]]) -> None:
    models = [categorical(np.arange(1.0, 11.0) ** g) for g in range(5)]
    group = np.array([g for g, _ in pairs], dtype=np.int64)
    values = np.array([v for _, v in pairs], dtype=np.int64)
    writer = SymbolWriter()
    writer.grouped(values, group, models)
    assert SymbolReader(writer.finish()).grouped(group, models).tolist() == values.tolist()


@settings(max_examples=100, deadline=None)
@given(tables)
def test_tables_are_positive_integers_that_floats_hold_exactly(table: MagnitudeTable) -> None:
    weights = table.weights
    assert weights.shape == (ALPHABET,) and np.all(weights >= 1)
    assert np.array_equal(weights, np.rint(weights)) and weights.sum() < 2**53
    rebuilt = MagnitudeTable(table.nonzero, table.beyond, table.decay)
    assert np.array_equal(rebuilt.weights, weights) and np.array_equal(rebuilt.cost, table.cost)


def test_known_tables() -> None:
    sparse = MagnitudeTable(1, 1, 1).weights.astype(np.int64).tolist()
    assert sparse == [65535 << 24, 255 << 16, 65536 - 256, 255, *[1] * 252]
    even = MagnitudeTable(32768, 128, 128).weights.astype(np.int64).tolist()
    assert even[:6] == [1 << 39, 1 << 38, 1 << 37, 1 << 36, 1 << 35, 1 << 34]
    wide = MagnitudeTable(65535, 255, 255).weights.astype(np.int64)
    rest = (65535 * 255) << 16
    assert wide[:3].tolist() == [1 << 24, 65535 << 16, rest - (rest * 255 >> 8)]
    assert int(wide[2:].sum()) == rest


def test_probabilities_are_those_the_fields_name() -> None:
    table = MagnitudeTable(16384, 64, 192)
    chance = table.weights / table.weights.sum()
    assert chance[0] == pytest.approx(3 / 4, rel=1e-9)
    assert chance[2:].sum() / chance[1:].sum() == pytest.approx(1 / 4, rel=1e-8)
    np.testing.assert_allclose(chance[3:30] / chance[2:29], 3 / 4, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(*(st.floats(0, 1e12) for _ in range(4)))
def test_fitted_fields_are_in_range(zeros: float, ones: float, larger: float, excess: float) -> None:
    table = MagnitudeTable.fit(zeros, ones, larger, excess)
    assert all(isinstance(field, int) for field in (table.nonzero, table.beyond, table.decay))
    assert 1 <= table.nonzero <= 65535 and 1 <= table.beyond <= 255 and 1 <= table.decay <= 255


def geometric(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.geometric(0.6, count) - 1) * random.choice([-1, 1], count)


def fitted(values: np.ndarray) -> MagnitudeTable:
    n = np.abs(values)
    return MagnitudeTable.fit((n == 0).sum(), (n == 1).sum(), (n > 1).sum(), np.maximum(n - 2, 0).sum())


def test_fit_recovers_the_distribution() -> None:
    table = fitted(geometric(100_000))
    assert table.nonzero == pytest.approx(0.4 * 65536, rel=0.02)
    assert table.beyond == pytest.approx(0.4 * 256, rel=0.03)
    assert table.decay == pytest.approx(0.4 * 256, rel=0.03)


def test_cost_is_what_coding_takes() -> None:
    values, group = geometric(20_000), np.zeros(20_000, dtype=np.int64)
    table = fitted(values)
    writer = SymbolWriter()
    write_signed(writer, values, group, [table])
    expected = float(table.cost[np.abs(values)].sum())
    assert 8 * len(writer.finish()) == pytest.approx(expected, rel=0.002)
    entropy = 20_000 * (-(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4)) / 0.6 + 0.4)
    assert expected == pytest.approx(entropy, rel=0.02)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.lists(tables, min_size=1, max_size=3), st.integers(0, 300))
def test_garbage_is_refused_or_read_as_something(data: bytes, models: list[MagnitudeTable], count: int) -> None:
    group = np.arange(count) % len(models)
    try:
        found = read_signed(SymbolReader(data), group, models)
    except ContainerError as error:
        assert "entropy-coded" in str(error)
    else:
        assert len(found) == count and (count == 0 or np.abs(found).max() <= LARGEST)


def test_impossible_data_is_a_container_error() -> None:
    """Some state of the decoder lies outside the coder's intervals; random data finds it soon."""
    model = categorical(np.array([1.0, 1.0, 1.0]))
    random, refused = np.random.default_rng(0), 0
    for _ in range(300):
        try:
            SymbolReader(random.bytes(64) + b"\xff" * 8).symbols(300, model)
        except ContainerError:
            refused += 1
    reader = SymbolReader(b"\xff" * 64)
    try:
        reader.symbols(400, model)
    except ContainerError:
        refused += 1
    assert refused > 0


def test_nothing_written_is_nothing() -> None:
    writer = SymbolWriter()
    writer.symbols(np.empty(0), categorical(np.ones(2)))
    writer.digits(np.array([0]), 0)
    assert writer.finish() == b""
    assert SymbolReader(b"").symbols(0, categorical(np.ones(2))).tolist() == []
