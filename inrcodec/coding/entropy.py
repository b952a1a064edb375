"""Coding integers with tables made from small integers by integer arithmetic, so that every machine makes the same ones.

`SymbolWriter` and `SymbolReader` are a range coder, for small sections; chunks are coded in lanes, see `lanes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError

ALPHABET = 256
"""Symbols of magnitudes: 0..254 at most have one each, the last announces an escape."""
ESCAPE = ALPHABET - 1

_UNIFORM = constriction.stream.model.Uniform


@dataclass(frozen=True)
class MagnitudeTable:
    """Distribution of a non-negative integer: P(0), P(1 | > 0), and a geometric tail.

    Attributes
    ----------
    nonzero : int
        P(n > 0) in 1/65536, 1..65535.
    beyond : int
        P(n > 1 | n > 0) in 1/256, 1..255.
    decay : int
        P(n > k + 1 | n > k), k >= 1, in 1/256, 1..255.
    """

    nonzero: int
    beyond: int
    decay: int

    @classmethod
    def fit(cls, zeros: float, ones: float, larger: float, excess: float) -> MagnitudeTable:
        """Fit to counts: zeros, ones, values above 1, and the sum of (n - 2) over the latter."""
        total, above = zeros + ones + larger, ones + larger
        return cls(
            _proportion(above + 0.05, total + 0.5, 65536),
            _proportion(larger + 0.1, above + 0.5, 256),
            _proportion(excess + 0.2, excess + larger + 0.6, 256),
        )

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Integer weights of the `ALPHABET` symbols (exact in float64)."""
        weights = np.empty(ALPHABET, dtype=np.int64)
        weights[0] = (65536 - self.nonzero) << 24
        weights[1] = (self.nonzero * (256 - self.beyond)) << 16
        rest = (self.nonzero * self.beyond) << 16
        for n in range(2, ESCAPE):
            tail = (rest * self.decay) >> 8
            weights[n] = max(rest - tail, 1)
            rest = tail
        weights[ESCAPE] = max(rest, 1)
        return weights.astype(np.float64)

    def bits(self, symbols: NDArray[np.int64]) -> float:
        """Bits of symbols by the distribution itself, of which `weights` are the whole numbers."""
        nonzero, beyond, decay = self.nonzero / 65536, self.beyond / 256, self.decay / 256
        # No weight is below 1.
        logs = np.maximum(np.log2([1 - nonzero, nonzero * (1 - beyond), nonzero * beyond * (1 - decay), nonzero * beyond, decay]), -40)
        zeros, ones, escapes = (np.count_nonzero(symbols == n) for n in (0, 1, ESCAPE))
        larger = symbols[(symbols > 1) & (symbols < ESCAPE)]
        of_larger = np.maximum(logs[2] + logs[4] * (larger - 2), -40).sum()
        return -float(zeros * logs[0] + ones * logs[1] + of_larger + escapes * max(logs[3] + (ESCAPE - 2) * logs[4], -40))

    @cached_property
    def model(self) -> object:
        """The distribution as `constriction` takes it."""
        return categorical(self.weights)

    @cached_property
    def frequencies(self) -> NDArray[np.int64]:
        """The distribution as chunks are coded with: frequencies that sum to 2^16, the escape last."""
        found, rest = [65536 - self.nonzero], self.nonzero
        while len(found) < ESCAPE:
            share = (rest * (256 - (self.beyond if len(found) == 1 else self.decay))) >> 8
            if not 0 < share < rest:
                break
            found.append(share)
            rest -= share
        return np.array([*found, rest], dtype=np.int64)

    @property
    def escape(self) -> int:
        """The least magnitude without a symbol of its own in `frequencies`."""
        return len(self.frequencies) - 1

    @cached_property
    def cost(self) -> NDArray[np.float32]:
        """Bits per magnitude 0..255 in a chunk, sign and digits of escapes included."""
        bits = np.empty(ALPHABET)
        bits[: self.escape] = 16 - np.log2(self.frequencies[:-1])
        excess = np.arange(ALPHABET - self.escape)
        bits[self.escape :] = 21 - np.log2(self.frequencies[-1]) + np.ceil(np.log2(excess + 1))
        bits[1:] += 1
        return bits.astype(np.float32)


def categorical(weights: NDArray[np.float64]) -> object:
    """Distribution over 0..n-1 proportional to integer-valued `weights`; None over a single symbol, which takes no bits."""
    if len(weights) == 1:
        return None
    return constriction.stream.model.Categorical(weights / weights.sum(), perfect=False)


def _proportion(part: float, whole: float, scale: int) -> int:
    return int(min(max(round(scale * part / whole), 1), scale - 1))


class SymbolWriter:
    """Range encoder for arrays of symbols."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def symbols(self, values: np.ndarray, model: object) -> None:
        """Code values of one distribution."""
        if len(values) and model is not None:
            self._coder.encode(np.ascontiguousarray(values, dtype=np.int32), model)

    def grouped(self, values: np.ndarray, group: np.ndarray, models: list[object]) -> None:
        """Code values whose distributions differ; group by group, in ascending order of group."""
        order = np.argsort(group, kind="stable")
        values, group = values[order], group[order]
        for g, part in _runs(group, values):
            self.symbols(part, models[g])

    def magnitudes(self, values: np.ndarray, group: np.ndarray, tables: Sequence[MagnitudeTable]) -> NDArray[np.int64]:
        """Code magnitudes, each with the table of its group; returns what the escaped ones have beyond 255."""
        self.grouped(np.minimum(values, ESCAPE), group, [t.model for t in tables])
        return np.asarray(values[values >= ESCAPE] - ESCAPE, dtype=np.int64)

    def digits(self, values: np.ndarray, bits: int) -> None:
        """Code `bits`-bit integers without a model, bits <= 16."""
        if bits:
            self.symbols(values, _UNIFORM(1 << bits))

    def finish(self) -> bytes:
        """The bytes written, big-endian words, without the zero bytes at the end that the reader puts back."""
        return self._coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


class SymbolReader:
    """Inverse of `SymbolWriter`."""

    def __init__(self, data: bytes) -> None:
        padded = data + b"\0" * (8 + -len(data) % 4)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))

    def symbols(self, count: int, model: object) -> NDArray[np.int32]:
        """Decode `count` symbols of one distribution."""
        if count == 0 or model is None:
            return np.zeros(count, dtype=np.int32)
        try:
            return self._coder.decode(model, int(count))
        except (AssertionError, ValueError) as error:
            raise ContainerError(
                "expected a valid entropy-coded chunk, found impossible data; get a fresh copy of the file"
            ) from error

    def grouped(self, group: np.ndarray, models: list[object]) -> NDArray[np.int32]:
        """Decode one symbol per entry of `group`."""
        order = np.argsort(group, kind="stable")
        values = np.empty(len(group), dtype=np.int32)
        for g, part in _runs(group[order], order):
            values[part] = self.symbols(len(part), models[g])
        return values

    def magnitudes(
        self, group: np.ndarray, tables: Sequence[MagnitudeTable]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Decode a magnitude for each entry of `group`, and which are escaped: there, the least it can be."""
        values = self.grouped(group, [t.model for t in tables]).astype(np.int64)
        return values, values == ESCAPE

    def digits(self, count: int, bits: int) -> NDArray[np.int32]:
        """Decode `count` integers of `bits` bits."""
        return self.symbols(count, _UNIFORM(1 << bits)) if bits else np.zeros(count, dtype=np.int32)


def _runs(group: np.ndarray, values: np.ndarray) -> list[tuple[int, np.ndarray]]:
    if len(group) == 0:
        return []
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    return list(zip(group[starts].tolist(), np.split(values, starts[1:]), strict=True))


def write_table(writer: SymbolWriter, table: MagnitudeTable) -> None:
    """Code a table: 16 + 8 + 8 bits."""
    for value, bits in ((table.nonzero, 16), (table.beyond, 8), (table.decay, 8)):
        writer.digits(np.array([value]), bits)


def read_table(reader: SymbolReader) -> MagnitudeTable:
    """Inverse of `write_table`.

    Raises
    ------
    ContainerError
        If a probability is 0.
    """
    table = MagnitudeTable(*(int(reader.digits(1, bits)[0]) for bits in (16, 8, 8)))
    if 0 in (table.nonzero, table.beyond, table.decay):
        raise ContainerError("expected probabilities above 0, found 0; get a fresh copy of the file")
    return table


class Writer(Protocol):
    """What signed integers are written to."""

    def magnitudes(self, values: np.ndarray, group: np.ndarray, tables: Sequence[MagnitudeTable]) -> NDArray[np.int64]:
        """Code magnitudes, each with the table of its group; returns the excess of the escaped ones."""
        ...

    def digits(self, values: np.ndarray, bits: int) -> None:
        """Code integers of so many bits, at most 16."""
        ...


class Reader(Protocol):
    """Inverse of `Writer`."""

    def magnitudes(
        self, group: np.ndarray, tables: Sequence[MagnitudeTable]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Magnitudes, of escaped ones the least they can be; and which are escaped."""
        ...

    def digits(self, count: int, bits: int) -> NDArray[np.int32]:
        """Integers of so many bits."""
        ...


def write_signed(writer: Writer, values: np.ndarray, group: np.ndarray, tables: Sequence[MagnitudeTable]) -> None:
    """Code signed integers: magnitudes by group, then signs, then escapes."""
    excess = writer.magnitudes(np.abs(values), group, tables)
    writer.digits((values[values != 0] < 0).astype(np.int32), 1)
    write_escapes(writer, excess)


def read_signed(reader: Reader, group: np.ndarray, tables: Sequence[MagnitudeTable]) -> NDArray[np.int64]:
    """Inverse of `write_signed`."""
    values, escaped = reader.magnitudes(group, tables)
    negative = values > 0
    signs = np.where(reader.digits(int(negative.sum()), 1) > 0, -1, 1)
    values[escaped] += read_escapes(reader, int(escaped.sum()))
    values[negative] *= signs
    return values


def write_escapes(writer: Writer, values: np.ndarray) -> None:
    """Code the excess of rare large values: their bit lengths (0..31), then their bits, the lower 16 first."""
    for value in values.tolist():
        length = int(value).bit_length()
        writer.digits(np.array([length]), 5)
        writer.digits(np.array([value & 0xFFFF]), min(length, 16))
        writer.digits(np.array([value >> 16]), max(length - 16, 0))


def read_escapes(reader: Reader, count: int) -> NDArray[np.int64]:
    """Inverse of `write_escapes`."""
    values = np.zeros(count, dtype=np.int64)
    for i in range(count):
        length = int(reader.digits(1, 5)[0])
        low = int(reader.digits(1, min(length, 16))[0])
        values[i] = int(reader.digits(1, max(length - 16, 0))[0]) << 16 | low
    return values
