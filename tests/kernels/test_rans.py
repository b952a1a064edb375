"""The rANS coder: what is written comes back, alike from both implementations, in about the bits that theory says."""

from __future__ import annotations

from types import ModuleType

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec_kernels.rans import (
    ALPHABET,
    LEAST_STATE,
    TOTAL,
    CodedError,
    RawBits,
    Tables,
    cpu,
    escape_bits,
    first_states,
    joined,
    proportional,
    reference,
)

from .band_codes import band_code, leaves

CODERS = [reference, cpu]
both = pytest.mark.parametrize("coder", CODERS, ids=["reference", "numba"])


def drawn(count: int, seed: int, tables: int = 4) -> tuple[Tables, np.ndarray, np.ndarray]:
    """Distributions, the distribution of each symbol, and symbols drawn from them."""
    random = np.random.default_rng(seed)
    frequencies = [proportional(random.integers(0, 9, size) ** 4 + (np.arange(size) == 1)) for size in (2, 5, 30, ALPHABET)[:tables]]
    table = random.integers(0, tables, count)
    symbols = np.empty(count, dtype=np.int64)
    for t, f in enumerate(frequencies):
        symbols[table == t] = random.choice(len(f), (table == t).sum(), p=f / TOTAL)
    return Tables.of(frequencies), table, symbols


def lanes_of(count: int, lanes: int) -> np.ndarray:
    return (np.arange(count) % lanes).astype(np.uint8)


def decoded(coder: ModuleType, data: bytes, lanes: int, tables: Tables, table: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    coded = np.frombuffer(data, dtype=np.uint8)
    states = first_states(coded, lanes)
    symbols, at = coder.decode(coded, 4 * lanes, states, tables, table)
    return symbols, at, states


@both
@pytest.mark.parametrize(("lanes", "count"), [(1, 700), (2, 701), (4, 3), (32, 999), (8, 0)])
def test_symbols_come_back(coder: ModuleType, lanes: int, count: int) -> None:
    tables, table, symbols = drawn(count, lanes)
    data = coder.encode(tables.intervals(symbols, table), lanes_of(count, lanes), lanes)
    found, at, states = decoded(coder, data, lanes, tables, table)
    assert found.tolist() == symbols.tolist() and at == len(data) and set(states.tolist()) == {LEAST_STATE}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(0, 2**32))
def test_both_implementations_write_the_same_bytes_and_read_them(count: int, lanes: int, seed: int) -> None:
    tables, table, symbols = drawn(count, seed)
    intervals, lane = tables.intervals(symbols, table), lanes_of(count, lanes)
    data = reference.encode(intervals, lane, lanes)
    assert cpu.encode(intervals, lane, lanes) == data
    for coder in CODERS:
        assert decoded(coder, data, lanes, tables, table)[0].tolist() == symbols.tolist()


def test_the_first_bytes_are_those_of_the_page() -> None:
    """Three symbols of one lane, worked out by hand."""
    tables = Tables.of([np.array([1 << 15, 1 << 14, 1 << 14])])
    intervals = tables.intervals(np.array([2, 0, 1]), np.zeros(3, dtype=np.int64))
    # From the last: 2^16 -> 4 * 2^16 + 2^15, -> 2 * that (its low half 0), -> 8 times, but for the slots.
    state = 65536
    for start, frequency in ((1 << 15, 1 << 14), (0, 1 << 15), (3 << 14, 1 << 14)):
        state = (state // frequency << 16) + state % frequency + start
    assert reference.encode(intervals, np.zeros(3, dtype=np.uint8), 1) == state.to_bytes(4, "little")


def test_a_symbol_that_is_certain_takes_nothing() -> None:
    tables = Tables.of([proportional(np.array([0, 7, 0]))])
    intervals = tables.intervals(np.ones(10_000, dtype=np.int64), np.zeros(10_000, dtype=np.int64))
    assert len(cpu.encode(intervals, lanes_of(10_000, 2), 2)) == 8


def test_sizes_are_those_of_another_coder() -> None:
    """Against the range coder of constriction with the same distributions: within 0.3 % and the lanes' states."""
    tables, table, symbols = drawn(40_000, 5)
    other = constriction.stream.stack.AnsCoder()
    for t in range(3, -1, -1):
        frequency = np.diff(tables.starts[t].astype(np.int64))[: (2, 5, 30, ALPHABET)[t]]
        model = constriction.stream.model.Categorical(frequency / TOTAL, perfect=False)
        other.encode_reverse(symbols[table == t].astype(np.int32), model)
    expected = 4 * len(other.get_compressed())
    for lanes in (1, 8):
        data = cpu.encode(tables.intervals(symbols, table), lanes_of(len(symbols), lanes), lanes)
        assert abs(len(data) - expected) <= 0.003 * expected + 4 * lanes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=ALPHABET))
def test_proportional_frequencies(weights: list[int]) -> None:
    if not any(weights):
        with pytest.raises(ValueError, match="one is above 0"):
            proportional(np.array(weights))
        return
    found = proportional(np.array(weights))
    assert found.sum() == TOTAL
    assert ((found > 0) == (np.array(weights) > 0)).all()
    exact = np.array(weights) / sum(weights) * TOTAL
    others = np.arange(len(weights)) != np.argmax(weights)
    assert (np.abs(found - exact)[others] <= 1 + len(weights) * exact[others] / TOTAL).all()


def test_tables_refuse_what_does_not_add_up() -> None:
    for wrong in ([1, 2], [TOTAL + 1, -1], [], [1] * ALPHABET + [TOTAL - ALPHABET]):
        with pytest.raises(ValueError, match="expected up to 256 frequencies that sum to 65536"):
            Tables.of([np.array(wrong, dtype=np.int64)])
    tables = Tables.of([np.array([TOTAL, 0])])
    with pytest.raises(ValueError, match="found one of frequency 0"):
        tables.intervals(np.array([1]), np.array([0]))


def test_searches_begin_where_their_symbol_is_or_before() -> None:
    tables, _, _ = drawn(0, 3)
    for row, first in zip(tables.starts, tables.first, strict=True):
        for slot in range(0, TOTAL, 97):
            symbol = int(np.searchsorted(row, slot, side="right")) - 1
            begin = int(first[slot >> 8])
            assert begin <= symbol and row[begin] <= slot >> 8 << 8 < row[begin + 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 2**31 - 1))), st.binary(max_size=5))
def test_raw_bits_come_back(items: list[tuple[int, int]], front: bytes) -> None:
    bits = [value >> i & 1 for width, value in items for i in range(width)]
    raw = RawBits(np.frombuffer(joined(front, np.array(bits, dtype=np.uint8)), dtype=np.uint8))
    for width, value in items:
        assert int(raw.digits(1, width)[0]) == value % (1 << width)
    assert raw.read == len(bits)
    with pytest.raises(CodedError):
        raw.take(8 * (len(front) + 1))


# ---- Coefficients in bands


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 25), st.sampled_from([0.0, 0.4, 3.0, 1e3, 1e8]), st.sampled_from([1, 2, 8]), st.integers(0, 2**32)
)
def test_chunks_come_back_from_both(levels: int, count: int, largest: float, lanes: int, seed: int) -> None:
    code = band_code(levels, seed)
    level, values, kept = leaves(code, count, seed, largest)
    data = reference.encode_chunk(values, kept, lanes, level, code)
    assert cpu.encode_chunk(values, kept, lanes, level, code) == data
    for coder in CODERS:
        found, bands = coder.decode_chunk(np.frombuffer(data, dtype=np.uint8), lanes, level, code)
        assert found.dtype == np.int32 and found.tolist() == values.tolist() and bands.tolist() == kept.tolist()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 2**32))
def test_both_refuse_or_read_the_same_garbage(data: bytes, seed: int) -> None:
    code = band_code(2, 7)
    level = np.random.default_rng(seed).integers(0, 2, 6)
    outcomes = []
    for coder in CODERS:
        try:
            outcomes.append(coder.decode_chunk(np.frombuffer(data, dtype=np.uint8), 2, level, code)[0].tolist())
        except CodedError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@both
def test_damage_is_nearly_always_seen(coder: ModuleType) -> None:
    """Lanes that do not end where they began, or bytes left over, betray a changed bit."""
    code = band_code(2, 1)
    level, values, kept = leaves(code, 30, 2, 0.5)
    data = bytearray(reference.encode_chunk(values, kept, 2, level, code))
    unseen = 0
    for bit in range(0, 8 * len(data), 7):
        data[bit // 8] ^= 1 << bit % 8
        try:
            coder.decode_chunk(np.frombuffer(bytes(data), dtype=np.uint8), 2, level, code)
            unseen += 1
        except CodedError:
            pass
        data[bit // 8] ^= 1 << bit % 8
    # A sign is a plain bit: nothing but the chunk's checksum can see that it changed.
    signs = int((values != 0).sum()) + len(level)
    assert unseen <= signs // 7 + 2 < 8 * len(data) // 14


@both
def test_a_short_chunk_is_refused(coder: ModuleType) -> None:
    code = band_code(1, 1)
    for data in (b"", b"\0" * 7, b"\0" * 8, b"\xff\xff\0\0" * 2):
        with pytest.raises(CodedError, match="impossible data"):
            coder.decode_chunk(np.frombuffer(data, dtype=np.uint8), 2, np.zeros(1, dtype=np.int64), code)


@pytest.mark.parametrize(("excess", "bits"), [(0, [0] * 5), (1, [1, 0, 0, 0, 0, 1]), (6, [1, 1, 0, 0, 0, 0, 1, 1])])
def test_escape_bits(excess: int, bits: list[int]) -> None:
    assert escape_bits(excess) == bits
