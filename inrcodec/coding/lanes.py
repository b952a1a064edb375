"""Coding chunks in lanes: rANS symbols from the front, plain bits from the end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.rans import CodedError, RawBits, Tables, check_end, coder, first_states, joined, proportional

from .entropy import MagnitudeTable

MAX_LANES = 32
_BYTES_PER_LANE = 1024


def lanes_for(chunk_bytes: float) -> int:
    """Lanes for chunks of about this size: a power of two, each worth about two bytes."""
    lanes = 1
    while lanes < MAX_LANES and 2 * lanes * _BYTES_PER_LANE <= chunk_bytes:
        lanes *= 2
    return lanes


def pack_lanes(lanes: int) -> bytes:
    """The number of lanes as a byte: its binary logarithm."""
    return bytes([lanes.bit_length() - 1])


def unpack_lanes(data: bytes) -> int:
    """Inverse of `pack_lanes`.

    Raises
    ------
    ContainerError
        If there is no byte, or another than those `pack_lanes` gives.
    """
    if not data or 1 << data[0] > MAX_LANES:
        raise ContainerError(f"expected a number of lanes up to {MAX_LANES}, found another; get a fresh copy of the file")
    return 1 << data[0]


def impossible(error: CodedError) -> ContainerError:
    """The error of a chunk as the codec raises it."""
    return ContainerError(str(error))


class LaneWriter:
    """Encoder of one chunk; every call begins with lane 0.

    Parameters
    ----------
    lanes : int
    backend : Backend
    """

    def __init__(self, lanes: int, backend: Backend = REFERENCE) -> None:
        self._lanes, self._coder = lanes, coder(backend)
        self._intervals: list[NDArray[np.uint32]] = []
        self._bits: list[NDArray[np.uint8]] = []

    def symbols(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Code values of one distribution, given by integer weights."""
        table = Tables.of([proportional(weights)])
        self._intervals.append(table.intervals(np.asarray(values, dtype=np.int64), np.zeros(len(values), dtype=np.int64)))

    def magnitudes(self, values: np.ndarray, group: np.ndarray, tables: Sequence[MagnitudeTable]) -> NDArray[np.int64]:
        """Code magnitudes, each with the table of its group; returns what the escaped ones have beyond their escape."""
        escape = np.array([t.escape for t in tables])[group]
        symbols = np.minimum(values, escape).astype(np.int64)
        self._intervals.append(_joined_tables(tuple(tables)).intervals(symbols, group))
        return np.asarray((values - escape)[symbols == escape], dtype=np.int64)

    def digits(self, values: np.ndarray, bits: int) -> None:
        """Code `bits`-bit integers as they are."""
        self._bits.append((np.asarray(values)[:, None] >> np.arange(bits) & 1).astype(np.uint8).ravel())

    def finish(self, least: int = 0) -> bytes:
        """The bytes of the chunk, at least so many."""
        intervals = np.concatenate([np.empty((2, 0), dtype=np.uint32), *self._intervals], axis=1)
        lane = [np.arange(part.shape[1]) % self._lanes for part in self._intervals]
        lane_of = np.concatenate([np.empty(0, dtype=np.int64), *lane]).astype(np.uint8)
        bits = np.concatenate([np.empty(0, dtype=np.uint8), *self._bits])
        return joined(self._coder.encode(intervals, lane_of, self._lanes), bits, least)


class LaneReader:
    """Inverse of `LaneWriter`.

    Raises
    ------
    ContainerError
        From any method, if the bytes cannot have been written by it.
    """

    def __init__(self, data: bytes, lanes: int, backend: Backend = REFERENCE) -> None:
        self._data, self._coder = np.frombuffer(data, dtype=np.uint8), coder(backend)
        self._raw, self._at = RawBits(self._data), 4 * lanes
        try:
            self._states = first_states(self._data, lanes)
        except CodedError as error:
            raise impossible(error) from None

    def symbols(self, count: int, weights: np.ndarray) -> NDArray[np.int32]:
        """Decode `count` symbols of one distribution."""
        return self._decode(Tables.of([proportional(weights)]), np.zeros(count, dtype=np.int64))

    def magnitudes(
        self, group: np.ndarray, tables: Sequence[MagnitudeTable]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Decode a magnitude for each entry of `group`, and which are escaped: there, the least it can be."""
        values = self._decode(_joined_tables(tuple(tables)), group).astype(np.int64)
        return values, values == np.array([t.escape for t in tables])[group]

    def digits(self, count: int, bits: int) -> NDArray[np.int32]:
        """Decode `count` integers of `bits` bits."""
        try:
            return self._raw.digits(count, bits).astype(np.int32)
        except CodedError as error:
            raise impossible(error) from None

    def finish(self, least: int = 0) -> None:
        """Check that all of the chunk was used, but what makes it `least` bytes long."""
        try:
            check_end(len(self._data), self._at, self._raw.read, self._states, least)
        except CodedError as error:
            raise impossible(error) from None

    def _decode(self, tables: Tables, group: NDArray[np.int64]) -> NDArray[np.int32]:
        symbols, self._at = self._coder.decode(self._data, self._at, self._states, tables, group)
        return np.asarray(symbols, dtype=np.int32)


@lru_cache(maxsize=16)
def _joined_tables(tables: tuple[MagnitudeTable, ...]) -> Tables:
    """Made once for all chunks of a stream, whose tables are the same."""
    return Tables.of([t.frequencies for t in tables])
