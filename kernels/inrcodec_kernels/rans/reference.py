"""Plain definition of the coder, one symbol at a time with Python's integers. README.md has it byte by byte."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .bands import BandCode, CodedError
from .tables import PRECISION, TOTAL, Tables

LEAST_STATE = 1 << 16
"""States lie in [2^16, 2^32); all lanes of an encoder start, and of a decoder end, with this one."""
MOST_EXPECTED = 1 << 30
"""Of a constant: what a small leaf leads to expect of a large one may be beyond all constants, and differences have 31 bits and a little."""
_WORD = (1 << 16) - 1


def encode(intervals: NDArray[np.uint32], lane: NDArray[np.uint8], lanes: int) -> bytes:
    """Code symbols given by their intervals.

    Parameters
    ----------
    intervals : ndarray of uint32, shape (2, n)
        Start and frequency of each symbol.
    lane : ndarray of uint8, shape (n,)
        The lane of each symbol.
    lanes : int

    Returns
    -------
    bytes
        The lanes' states, then the words.
    """
    states = [LEAST_STATE] * lanes
    words = []
    starts, frequencies = intervals.tolist()
    for start, frequency, at in zip(reversed(starts), reversed(frequencies), reversed(lane.tolist()), strict=True):
        state = states[at]
        if state >= frequency << (32 - PRECISION):
            words.append(state & _WORD)
            state >>= 16
        states[at] = (state // frequency << PRECISION) + state % frequency + start
    return np.array(states, dtype="<u4").tobytes() + np.array(words[::-1], dtype="<u2").tobytes()


def decode(
    data: NDArray[np.uint8], at: int, states: NDArray[np.uint32], tables: Tables, table: NDArray[np.int64]
) -> tuple[NDArray[np.int32], int]:
    """Decode one symbol for each entry of `table`; symbol i is in lane ``i % lanes``.

    Parameters
    ----------
    data : ndarray of uint8
        Words beyond its end read as 0.
    at : int
        Where the next word lies.
    states : ndarray of uint32, shape (lanes,)
        Changed in place.
    tables : Tables
    table : ndarray of int, shape (n,)
        The distribution of each symbol.

    Returns
    -------
    symbols : ndarray of int32, shape (n,)
    at : int
        Where the word after the last one read lies.
    """
    symbols = np.empty(len(table), dtype=np.int32)
    state_of, rows = states.tolist(), tables.starts.tolist()
    first = tables.first.tolist()
    for i, t in enumerate(table.tolist()):
        lane = i % len(state_of)
        state, row = state_of[lane], rows[t]
        slot = state & (TOTAL - 1)
        symbol = first[t][slot >> 8]
        while row[symbol + 1] <= slot:
            symbol += 1
        state = (row[symbol + 1] - row[symbol]) * (state >> PRECISION) + slot - row[symbol]
        if state < LEAST_STATE:
            word = int(data[at]) | int(data[at + 1]) << 8 if at + 1 < len(data) else 0
            state, at = state << 16 | word, at + 2
        state_of[lane] = state
        symbols[i] = symbol
    states[:] = state_of
    return symbols, at


class RawBits:
    """Bits that follow a stream of words: the first is the lowest bit of the last byte, and so on towards the front."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self.read = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        """The next `count` bits.

        Raises
        ------
        CodedError
            If there are not so many.
        """
        end = self.read + count
        if end > 8 * len(self._data):
            raise CodedError
        first, stop = self.read // 8, -(-end // 8)
        part = self._data[len(self._data) - stop : len(self._data) - first][::-1]
        bits = np.unpackbits(part, bitorder="little")[self.read - 8 * first : end - 8 * first]
        self.read = end
        return bits

    def digits(self, count: int, width: int) -> NDArray[np.int64]:
        """The next `count` numbers of `width` bits, lowest bit first."""
        bits = self.take(count * width).reshape(count, width).astype(np.int64)
        return bits @ (1 << np.arange(width, dtype=np.int64))


def joined(words: bytes, bits: NDArray[np.uint8], least: int = 0) -> bytes:
    """A stream of words and the raw bits behind it, zero bytes between them where it were shorter than `least`."""
    raw = np.packbits(bits, bitorder="little")[::-1].tobytes()
    return words.ljust(least - len(raw), b"\0") + raw


def check_end(size: int, at: int, bits: int, states: NDArray[np.uint32], least: int = 0) -> None:
    """Refuse a stream that is longer than was used and than `least`, or whose lanes did not end where they began.

    Raises
    ------
    CodedError
    """
    if max(at + -(-bits // 8), least) != size or np.any(states != LEAST_STATE):
        raise CodedError


def first_states(data: NDArray[np.uint8], lanes: int) -> NDArray[np.uint32]:
    """The lanes' states at the front of a stream.

    Raises
    ------
    CodedError
        If it is too short or a state out of range.
    """
    if len(data) < 4 * lanes:
        raise CodedError
    states = np.frombuffer(data[: 4 * lanes].tobytes(), dtype="<u4").astype(np.uint32)
    if np.any(states < LEAST_STATE):
        raise CodedError
    return states


def escape_bits(excess: int) -> list[int]:
    """Raw bits of a magnitude's excess over its escape: 5 for its bit length, then the number, lowest bits first."""
    length = excess.bit_length()
    return [length >> i & 1 for i in range(5)] + [excess >> i & 1 for i in range(length)]


def check_excess(largest: int) -> None:
    """Refuse to write what five bits cannot give the length of.

    Raises
    ------
    ValueError
    """
    if largest >= 1 << 31:
        raise ValueError(f"expected constants within 2^30, or near what is expected of them, found one {largest} off; use a larger step")


def _read_escapes(raw: RawBits, count: int) -> NDArray[np.int64]:
    return np.array([raw.digits(1, int(raw.digits(1, 5)[0]))[0] for _ in range(count)], dtype=np.int64)


def _signs(raw: RawBits, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
    signs = np.ones(len(symbols), dtype=np.int64)
    live = symbols != 0
    signs[live] -= 2 * raw.take(int(live.sum())).astype(np.int64)
    return signs


def band_contexts(code: BandCode, v: int, band: int, magnitude: NDArray[np.int64]) -> NDArray[np.int64]:
    """Contexts of a band's coefficients of leaves of level v, from their symbols so far (n, W + 1); shape (n, m)."""
    members = code.order[v, code.begin[v, band] : code.begin[v, band + 1]]
    expected = np.full((len(magnitude), len(members)), code.means[v, band])
    for gain, neighbour in zip(code.gains[v], code.neighbours[v], strict=True):
        expected += gain * magnitude[:, neighbour[members]]
    found: NDArray[np.int64] = np.searchsorted(code.thresholds, expected, side="right")
    return found


def decode_chunk(
    data: NDArray[np.uint8], lanes: int, level: NDArray[np.int64], code: BandCode
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Decode the coefficients of n leaves.

    Parameters
    ----------
    data : ndarray of uint8
    lanes : int
    level : ndarray of int, shape (n,)
        0..V - 1.
    code : BandCode

    Returns
    -------
    values : ndarray of int32
        The leaves' coefficients in the rows of `BandCode.rows`.
    kept : ndarray of int64, shape (n,)
        Bands each leaf keeps besides the constant.

    Raises
    ------
    CodedError
    """
    states, at = first_states(data, lanes), 4 * lanes
    bands, at = decode(data, at, states, code.tables, code.contexts + level)
    kept = bands.astype(np.int64)
    table = code.contexts + code.levels + 2 * level + (kept > 0)
    constant, at = decode(data, at, states, code.tables, table)
    rows = code.rows(level)
    values = np.zeros(rows[-1], dtype=np.int64)
    placed, escaped = [], []
    for band, v, here in _stages(code, level, kept):
        row = rows[:-1][here]
        magnitude = values[row[:, None] + np.arange(code.width[v] + 1)]
        contexts = band_contexts(code, v, band, magnitude).ravel()
        symbols, at = decode(data, at, states, code.tables, contexts)
        members = code.order[v, code.begin[v, band] : code.begin[v, band + 1]]
        place = (row[:, None] + members).ravel()
        values[place] = symbols
        placed.append(place)
        escaped.append(place[symbols == code.escape[contexts]])
    raw = RawBits(data)
    differences = constant.astype(np.int64)
    signs = _signs(raw, differences)
    large = np.flatnonzero(differences == code.escape[table])
    differences[large] += _read_escapes(raw, len(large))
    places = np.concatenate([np.empty(0, dtype=np.int64), *placed])
    places = places[values[places] != 0]
    negative = places[raw.take(len(places)) > 0]
    large = np.concatenate([np.empty(0, dtype=np.int64), *escaped])
    values[large] += _read_escapes(raw, len(large))
    values[negative] *= -1
    check_end(len(data), at, raw.read, states)
    values[rows[:-1]] = _constants(differences * signs, level, code)
    if np.any(np.abs(values) >= 1 << 31):
        raise CodedError
    return values.astype(np.int32), kept


def encode_chunk(
    values: NDArray[np.int32], kept: NDArray[np.int64], lanes: int, level: NDArray[np.int64], code: BandCode
) -> bytes:
    """Inverse of `decode_chunk`.

    Raises
    ------
    ValueError
        If a constant is beyond 2^30 and too far from what is expected of it.
    """
    rows = code.rows(level)
    magnitude = np.abs(values.astype(np.int64))
    differences = _differences(values[rows[:-1]].astype(np.int64), level, code)
    table = code.contexts + code.levels + 2 * level + (kept > 0)
    stages = [(kept, code.contexts + level), (np.minimum(np.abs(differences), code.escape[table]), table)]
    bits = (differences[differences != 0] < 0).astype(int).tolist()
    excesses = np.abs(differences) - code.escape[table]
    check_excess(int(excesses.max(initial=0)))
    for excess in excesses.tolist():
        bits += escape_bits(excess) if excess >= 0 else []
    seen = np.zeros_like(magnitude)
    signs: list[int] = []
    digits: list[int] = []
    for band, v, here in _stages(code, level, kept):
        row = rows[:-1][here]
        contexts = band_contexts(code, v, band, seen[row[:, None] + np.arange(code.width[v] + 1)]).ravel()
        members = code.order[v, code.begin[v, band] : code.begin[v, band + 1]]
        place = (row[:, None] + members).ravel()
        escape = code.escape[contexts]
        seen[place] = np.minimum(magnitude[place], escape)
        stages.append((seen[place], contexts))
        signs += (values[place][magnitude[place] != 0] < 0).astype(int).tolist()
        for excess in (magnitude[place] - escape)[magnitude[place] >= escape].tolist():
            digits += escape_bits(excess)
    intervals = [code.tables.intervals(symbols, tables) for symbols, tables in stages]
    lane = [np.arange(part.shape[1]) % lanes for part in intervals]
    words = encode(np.concatenate(intervals, axis=1), np.concatenate(lane).astype(np.uint8), lanes)
    return joined(words, np.array(bits + signs + digits, dtype=np.uint8))


def _stages(
    code: BandCode, level: NDArray[np.int64], kept: NDArray[np.int64]
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Band, level and leaves of every stage of coefficients."""
    for band in range(1, int(kept.max(initial=0)) + 1):
        for v in range(code.levels):
            here = np.flatnonzero((level == v) & (kept >= band))
            if len(here):
                yield band, v, here


def _constants(differences: NDArray[np.int64], level: NDArray[np.int64], code: BandCode) -> list[int]:
    found: list[int] = []
    for i, difference in enumerate(differences.tolist()):
        found.append(difference + _expected(found[-1], level[i - 1 : i + 1], code) if i else difference)
        if abs(found[-1]) >= 1 << 31:
            raise CodedError
    return found


def _differences(constants: NDArray[np.int64], level: NDArray[np.int64], code: BandCode) -> NDArray[np.int64]:
    whole = constants.tolist()
    ahead = [_expected(whole[i - 1], level[i - 1 : i + 1], code) for i in range(1, len(whole))]
    return constants - np.array([0, *ahead], dtype=np.int64)[: len(whole)]


def _expected(before: int, pair: NDArray[np.int64], code: BandCode) -> int:
    expected = (before * int(code.ratios[pair[0], pair[1]]) + (1 << 15)) >> 16
    return min(max(expected, -MOST_EXPECTED), MOST_EXPECTED)
