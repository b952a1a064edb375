"""The coder compiled by Numba; see `reference` for what every function computes."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .bands import BandCode, CodedError
from .reference import MOST_EXPECTED, check_end, check_excess, first_states, joined
from .tables import Tables


def encode(intervals: NDArray[np.uint32], lane: NDArray[np.uint8], lanes: int) -> bytes:
    """As `reference.encode`."""
    states = np.full(lanes, 1 << 16, dtype=np.uint32)
    words = np.empty(intervals.shape[1], dtype=np.uint16)
    used = _encode(intervals, lane, states, words)
    return states.astype("<u4").tobytes() + words[len(words) - used :].astype("<u2").tobytes()


def decode(
    data: NDArray[np.uint8], at: int, states: NDArray[np.uint32], tables: Tables, table: NDArray[np.int64]
) -> tuple[NDArray[np.int32], int]:
    """As `reference.decode`."""
    symbols = np.empty(len(table), dtype=np.int32)
    return symbols, _decode(data, at, states, tables.starts, tables.first, table.astype(np.int64, copy=False), symbols)


@njit(nogil=True, cache=True)
def _encode(intervals, lane, states, words):  # type: ignore[no-untyped-def]
    at = len(words)
    for i in range(intervals.shape[1] - 1, -1, -1):
        state, frequency = np.uint64(states[lane[i]]), np.uint64(intervals[1, i])
        if state >= frequency << np.uint64(16):
            at -= 1
            words[at] = state & np.uint64(0xFFFF)
            state >>= np.uint64(16)
        quotient = state // frequency
        states[lane[i]] = (quotient << np.uint64(16)) + (state - quotient * frequency) + np.uint64(intervals[0, i])
    return len(words) - at


@njit(nogil=True, cache=True)
def _decode(data, at, states, starts, first, table, symbols):  # type: ignore[no-untyped-def]
    lane, lanes = 0, len(states)
    for i in range(len(table)):
        symbols[i], at = step(data, at, states, lane, starts[table[i]], first[table[i]])
        lane = 0 if lane + 1 == lanes else lane + 1
    return at


@njit(nogil=True, cache=True, inline="always")
def step(data, at, states, lane, starts, first):  # type: ignore[no-untyped-def]
    """Take one symbol from a lane: the symbol, and where the next word lies."""
    state = states[lane]
    slot = state & np.uint32(0xFFFF)
    symbol = np.int64(first[slot >> np.uint32(8)])
    while starts[symbol + 1] <= slot:
        symbol += 1
    begin = starts[symbol]
    state = (starts[symbol + 1] - begin) * (state >> np.uint32(16)) + slot - begin
    if state < np.uint32(1 << 16):
        word = np.uint32(0)
        if at + 1 < len(data):
            word = np.uint32(data[at]) | (np.uint32(data[at + 1]) << np.uint32(8))
        state = (state << np.uint32(16)) | word
        at += 2
    states[lane] = state
    return symbol, at


def decode_chunk(
    data: NDArray[np.uint8], lanes: int, level: NDArray[np.int64], code: BandCode
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """As `reference.decode_chunk`."""
    states, rows = first_states(data, lanes), code.rows(level)
    values, kept = np.zeros(rows[-1], dtype=np.int32), np.empty(len(level), dtype=np.int64)
    at, bit = _decode_chunk(data, states, level, rows, values, kept, code)
    if bit < 0:
        raise CodedError
    check_end(len(data), at, bit, states)
    return values, kept


def encode_chunk(
    values: NDArray[np.int32], kept: NDArray[np.int64], lanes: int, level: NDArray[np.int64], code: BandCode
) -> bytes:
    """As `reference.encode_chunk`."""
    rows = code.rows(level)
    most = 2 * len(level) + len(values)
    intervals, lane = np.empty((2, most), dtype=np.uint32), np.empty(most, dtype=np.uint8)
    # A sign each, and up to 36 bits for what may escape.
    bits = np.empty(most + 36 * (len(level) + int((np.abs(values) >= code.escape.min()).sum())), dtype=np.uint8)
    count, used, largest = _intervals(values, kept, level, rows, code, lanes, intervals, lane, bits)
    check_excess(largest)
    return joined(encode(intervals[:, :count], lane[:count], lanes), bits[:used])


@njit(nogil=True, cache=True)
def _decode_chunk(data, states, level, rows, values, kept, code):  # type: ignore[no-untyped-def]
    """Fill `values` and `kept`; where the next word lies and how many raw bits were read, -1 if they are impossible."""
    starts, first = code.tables
    lanes, contexts = len(states), len(code.thresholds) + 1
    at, lane, n = 4 * lanes, 0, len(level)
    most = 0
    for i in range(n):
        table = contexts + level[i]
        kept[i], at = step(data, at, states, lane, starts[table], first[table])
        most = max(most, kept[i])
        lane = 0 if lane + 1 == lanes else lane + 1
    lane = 0
    constants = np.empty(n, dtype=np.int64)
    for i in range(n):
        table = contexts + len(code.width) + 2 * level[i] + (1 if kept[i] > 0 else 0)
        constants[i], at = step(data, at, states, lane, starts[table], first[table])
        lane = 0 if lane + 1 == lanes else lane + 1
    # An escape takes at least 5 raw bits: more cannot be.
    escaped, escapes = np.empty(len(data) * 8 // 5 + 1, dtype=np.int64), 0
    for band in range(1, most + 1):
        for v in range(len(code.width)):
            lane = 0
            mean, neighbours, gains = code.means[v, band], code.neighbours[v], code.gains[v]
            for i in range(n):
                if level[i] != v or kept[i] < band:
                    continue
                for place in range(code.begin[v, band], code.begin[v, band + 1]):
                    number = code.order[v, place]
                    context = _context(values, rows[i], number, mean, neighbours, gains, code.thresholds)
                    symbol, at = step(data, at, states, lane, starts[context], first[context])
                    values[rows[i] + number] = symbol
                    if symbol == code.escape[context]:
                        if escapes == len(escaped):
                            return at, -1
                        escaped[escapes] = rows[i] + number
                        escapes += 1
                    lane = 0 if lane + 1 == lanes else lane + 1
    bit = _read_constants(data, 0, level, rows, values, kept, constants, code)
    if bit < 0:
        return at, -1
    bit = _read_signs(data, bit, level, rows, values, kept, most, escaped[:escapes], code)
    return at, bit


@njit(nogil=True, cache=True, inline="always")
def _context(values, row, number, mean, neighbours, gains, thresholds):  # type: ignore[no-untyped-def]
    """Takes the arrays one by one: handing over a whole `BandCode` for each coefficient takes longer than the sums."""
    expected = mean
    for k in range(len(gains)):
        expected += gains[k] * values[row + neighbours[k, number]]
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) >> 1
        if thresholds[middle] <= expected:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def _bits(data, bit, width):  # type: ignore[no-untyped-def]
    """A number of raw bits from position `bit` on, lowest first; -1 beyond the front."""
    if bit + width > 8 * len(data):
        return np.int64(-1)
    number = np.int64(0)
    for i in range(width):
        place = bit + i
        number |= np.int64((data[len(data) - 1 - (place >> 3)] >> np.uint8(place & 7)) & np.uint8(1)) << i
    return number


@njit(nogil=True, cache=True)
def _read_escape(data, bit):  # type: ignore[no-untyped-def]
    """An excess and the position behind it; -1 if there is none."""
    width = _bits(data, bit, 5)
    if width < 0:
        return np.int64(-1), bit
    return _bits(data, bit + 5, width), bit + 5 + width


@njit(nogil=True, cache=True, inline="always")
def _expected(before, ratio):  # type: ignore[no-untyped-def]
    """Of a constant, from the one before."""
    return min(max((before * ratio + (1 << 15)) >> 16, -MOST_EXPECTED), MOST_EXPECTED)


@njit(nogil=True, cache=True)
def _read_constants(data, bit, level, rows, values, kept, constants, code):  # type: ignore[no-untyped-def]
    n, first_table = len(level), len(code.thresholds) + 1 + len(code.width)
    signs = np.ones(n, dtype=np.int64)
    for i in range(n):
        if constants[i]:
            sign = _bits(data, bit, 1)
            if sign < 0:
                return -1
            signs[i] = 1 - 2 * sign
            bit += 1
    for i in range(n):
        if constants[i] == code.escape[first_table + 2 * level[i] + (1 if kept[i] > 0 else 0)]:
            excess, bit = _read_escape(data, bit)
            if excess < 0:
                return -1
            constants[i] += excess
    before = np.int64(0)
    for i in range(n):
        if i:
            before = _expected(before, code.ratios[level[i - 1], level[i]])
        before += signs[i] * constants[i]
        if abs(before) >= 1 << 31:
            return -1
        values[rows[i]] = before
    return bit


@njit(nogil=True, cache=True)
def _read_signs(data, bit, level, rows, values, kept, most, escaped, code):  # type: ignore[no-untyped-def]
    """Signs of the coefficients in coding order, then what the escaped ones have beyond their symbols."""
    for band in range(1, most + 1):
        for v in range(len(code.width)):
            for i in range(len(level)):
                if level[i] != v or kept[i] < band:
                    continue
                for place in range(code.begin[v, band], code.begin[v, band + 1]):
                    number = rows[i] + code.order[v, place]
                    if values[number]:
                        sign = _bits(data, bit, 1)
                        if sign < 0:
                            return -1
                        bit += 1
                        if sign:
                            values[number] = -values[number]
    for number in escaped:
        excess, bit = _read_escape(data, bit)
        magnitude = abs(np.int64(values[number])) + excess
        if excess < 0 or magnitude >= 1 << 31:
            return -1
        values[number] = -magnitude if values[number] < 0 else magnitude
    return bit


@njit(nogil=True, cache=True)
def _intervals(values, kept, level, rows, code, lanes, intervals, lane, bits):  # type: ignore[no-untyped-def]
    """Intervals and lanes of all symbols, and the raw bits; how many of each, and the largest excess of a constant's difference."""
    starts = code.tables.starts
    contexts, n = len(code.thresholds) + 1, len(level)
    count, used = 0, 0
    for i in range(n):
        _put(intervals, lane, count, starts[contexts + level[i]], kept[i], i % lanes)
        count += 1
    differences = np.empty(n, dtype=np.int64)
    for i in range(n):
        ahead = np.int64(0)
        if i:
            ahead = _expected(np.int64(values[rows[i - 1]]), code.ratios[level[i - 1], level[i]])
        differences[i] = values[rows[i]] - ahead
        table = contexts + len(code.width) + 2 * level[i] + (1 if kept[i] > 0 else 0)
        symbol = min(abs(differences[i]), np.int64(code.escape[table]))
        _put(intervals, lane, count, starts[table], symbol, i % lanes)
        count += 1
        if symbol:
            bits[used] = 1 if differences[i] < 0 else 0
            used += 1
    largest = np.int64(0)
    for i in range(n):
        table = contexts + len(code.width) + 2 * level[i] + (1 if kept[i] > 0 else 0)
        excess = abs(differences[i]) - code.escape[table]
        largest = max(largest, excess)
        if largest >> 31:
            return count, used, largest
        used = _put_excess(bits, used, excess)
    seen = np.zeros(len(values), dtype=np.int32)
    large, larges = np.empty(len(values), dtype=np.int64), 0
    for band in range(1, kept.max() + 1 if n else 1):
        for v in range(len(code.width)):
            at = 0
            mean, neighbours, gains = code.means[v, band], code.neighbours[v], code.gains[v]
            for i in range(n):
                if level[i] != v or kept[i] < band:
                    continue
                for place in range(code.begin[v, band], code.begin[v, band + 1]):
                    number = code.order[v, place]
                    context = _context(seen, rows[i], number, mean, neighbours, gains, code.thresholds)
                    value = np.int64(values[rows[i] + number])
                    symbol = min(abs(value), np.int64(code.escape[context]))
                    seen[rows[i] + number] = symbol
                    _put(intervals, lane, count, starts[context], symbol, at)
                    count += 1
                    at = 0 if at + 1 == lanes else at + 1
                    if symbol:
                        bits[used] = 1 if value < 0 else 0
                        used += 1
                    if symbol == code.escape[context]:
                        large[larges] = abs(value) - symbol
                        larges += 1
    for excess in large[:larges]:
        used = _put_excess(bits, used, excess)
    return count, used, largest


@njit(nogil=True, cache=True)
def _put(intervals, lane, count, starts, symbol, at):  # type: ignore[no-untyped-def]
    intervals[0, count] = starts[symbol]
    intervals[1, count] = starts[symbol + 1] - starts[symbol]
    lane[count] = at


@njit(nogil=True, cache=True)
def _put_excess(bits, used, excess):  # type: ignore[no-untyped-def]
    """As `reference.escape_bits`; nothing for what does not escape."""
    if excess < 0:
        return used
    width = 0
    while excess >> width:
        width += 1
    for i in range(5):
        bits[used + i] = (width >> i) & 1
    for i in range(width):
        bits[used + 5 + i] = (excess >> i) & 1
    return used + 5 + width
