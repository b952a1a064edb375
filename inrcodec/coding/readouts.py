"""Coding the quantised readouts of the leaves, chunk by chunk, each chunk on its own.

For every leaf: the number of bands it keeps (its *width*), its constant as a difference to the leaf before (scaled to
its size), and the coefficients of its bands, in the contexts of `contexts`. All statistics are small integers stored
once in the stream (`ReadoutStatistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt, prod

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels import bands as kernels
from inrcodec_kernels.backend import REFERENCE, Backend

from .contexts import CONTEXTS, MEAN_UNIT, Bands, expected_alone
from .entropy import (
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

Coefficients = dict[int, NDArray[np.int32]]
"""Quantised readouts per level, shape (W, leaves of that level in order); row 0 is the constant."""


@dataclass(frozen=True)
class ReadoutGeometry:
    """What the coder knows of the leaves without decoding: their levels and the shape of their readouts.

    Attributes
    ----------
    cells : tuple of tuple of int
        Cell extents per tree level.
    bands : dict of int to Bands
        Per leaf level.
    level : ndarray of int, shape (B,)
        Level of each leaf, in file order.
    """

    cells: tuple[tuple[int, ...], ...]
    bands: dict[int, Bands]
    level: NDArray[np.int64]

    @classmethod
    def of(
        cls, cells: tuple[tuple[int, ...], ...], lattice: Callable[[int], NDArray[np.int64]], level: NDArray[np.int64]
    ) -> ReadoutGeometry:
        """Geometry of leaves at the levels given (B,); ``lattice(level)`` holds the frequency of each coefficient."""
        return cls(cells, {v: Bands.of_lattice(lattice(v)) for v in np.unique(level).tolist()}, level)

    @cached_property
    def levels(self) -> list[int]:
        """Leaf levels, coarsest first."""
        return sorted(self.bands)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Position of each leaf among the leaves of its level."""
        rank = np.empty(len(self.level), dtype=np.int64)
        for level in self.levels:
            here = self.level == level
            rank[here] = np.arange(here.sum())
        return rank

    @cached_property
    def constant_ratios(self) -> NDArray[np.int64]:
        """sqrt(size / size of the leaf before) in 1/65536, by level before and level.

        A whitened constant grows with the root of its leaf's size.
        """
        ratios = np.zeros((len(self.cells), len(self.cells)), dtype=np.int64)
        size = {level: prod(self.cells[level]) for level in self.levels}
        for a in size:
            for b in size:
                ratios[a, b] = isqrt((size[b] << 32) // size[a])
        return ratios

    def predict_constant(self, before: int, before_level: int, level: int) -> int:
        """Constant expected of a leaf after one of `before_level` with the quantised constant `before`."""
        return (before * int(self.constant_ratios[before_level, level]) + 32768) >> 16

    def chunk_levels(self, start: int, stop: int) -> dict[int, slice]:
        """For each level with leaves among [start, stop): where they stand among their level's leaves."""
        found = {}
        for level in self.levels:
            rank = self.rank[start:stop][self.level[start:stop] == level]
            if len(rank):
                found[level] = slice(int(rank[0]), int(rank[-1]) + 1)
        return found


def band_counts(bands: Bands, values: np.ndarray) -> NDArray[np.int64]:
    """Bands each leaf keeps: one more than its last band (past the constant) with a non-zero coefficient, or 0."""
    width = np.zeros(values.shape[1], dtype=np.int64)
    for band in range(1, bands.count):
        width[(values[bands.members[band]] != 0).any(axis=0)] = band
    return width


@dataclass(frozen=True)
class ReadoutStatistics:
    """Integer statistics of a stream's readouts: all a decoder needs besides the chunks.

    Attributes
    ----------
    widths : dict of int to ndarray of uint8
        Per level, relative frequency of each number of bands kept.
    constants : dict of int to tuple of MagnitudeTable
        Per level, tables of the constant's difference: for leaves that keep no band, and for the others.
    means : dict of int to ndarray of uint16
        Per level and band, mean magnitude of the coefficients kept, in 1/`MEAN_UNIT`.
    magnitudes : tuple of MagnitudeTable
        One per context.
    """

    widths: dict[int, NDArray[np.uint8]]
    constants: dict[int, tuple[MagnitudeTable, MagnitudeTable]]
    means: dict[int, NDArray[np.uint16]]
    magnitudes: tuple[MagnitudeTable, ...]

    def to_bytes(self) -> bytes:
        """Serialise: per level widths, constants and means, then the magnitude tables; little endian."""
        parts = []
        for level in sorted(self.widths):
            parts += [self.widths[level].tobytes(), _pack_tables(self.constants[level])]
            parts.append(self.means[level].astype("<u2").tobytes())
        return b"".join([*parts, _pack_tables(self.magnitudes)])

    @classmethod
    def from_bytes(cls, data: bytes, bands: dict[int, Bands]) -> ReadoutStatistics:
        """Inverse of `to_bytes`.

        Raises
        ------
        ContainerError
            If the length or a value is impossible.
        """
        need = sum(3 * b.count + 8 for b in bands.values()) + 4 * CONTEXTS
        if len(data) != need:
            raise ContainerError(f"expected {need} bytes of statistics, found {len(data)}; get a fresh copy of the file")
        widths, constants, means, at = {}, {}, {}, 0
        for level in sorted(bands):
            count = bands[level].count
            widths[level] = np.frombuffer(data, np.uint8, count, at)
            first, second = _unpack_tables(data[at + count : at + count + 8])
            constants[level] = (first, second)
            means[level] = np.frombuffer(data, "<u2", count, at + count + 8)
            at += 3 * count + 8
            if not widths[level].any():
                raise ContainerError("expected frequencies above 0 in the statistics, found none; get a fresh copy")
        return cls(widths, constants, means, _unpack_tables(data[at:]))

    @cached_property
    def width_models(self) -> dict[int, object]:
        """Distributions of the number of bands kept, per level."""
        return {level: categorical(w.astype(np.float64)) for level, w in self.widths.items()}

    @cached_property
    def models(self) -> list[object]:
        """Distributions of the magnitudes, per context."""
        return [t.model for t in self.magnitudes]

    @cached_property
    def cost(self) -> NDArray[np.float32]:
        """Bits of a magnitude with its sign, shape (CONTEXTS, 256)."""
        return np.stack([t.cost for t in self.magnitudes])

    def width_cost(self, level: int) -> NDArray[np.float64]:
        """Bits to say how many bands a leaf keeps."""
        weights = self.widths[level].astype(np.float64)
        return -np.log2(np.maximum(weights, 0.01) / weights.sum())


def _pack_tables(tables: Sequence[MagnitudeTable]) -> bytes:
    records = np.zeros(len(tables), dtype=[("nonzero", "<u2"), ("beyond", "u1"), ("decay", "u1")])
    for record, table in zip(records, tables, strict=True):
        record["nonzero"], record["beyond"], record["decay"] = table.nonzero, table.beyond, table.decay
    return records.tobytes()


def _unpack_tables(data: bytes) -> tuple[MagnitudeTable, ...]:
    records = np.frombuffer(data, dtype=[("nonzero", "<u2"), ("beyond", "u1"), ("decay", "u1")])
    tables = tuple(MagnitudeTable(int(n), int(b), int(d)) for n, b, d in records.tolist())
    if any(0 in (t.nonzero, t.beyond, t.decay) for t in tables):
        raise ContainerError("expected probabilities above 0 in the statistics, found 0; get a fresh copy of the file")
    return tables


def constant_differences(geometry: ReadoutGeometry, values: Coefficients, start: int, stop: int) -> NDArray[np.int64]:
    """Constants of the leaves [start, stop) less their prediction from the leaf before; the first one's is 0."""
    level, rank = geometry.level[start:stop], geometry.rank[start:stop]
    constants = np.empty(stop - start, dtype=np.int64)
    for number in np.unique(level).tolist():
        here = level == number
        constants[here] = values[number][0, rank[here]]
    before = np.concatenate([[0], constants[:-1]])
    ratio = geometry.constant_ratios[np.concatenate([level[:1], level[:-1]]), level]
    return constants - ((before * ratio + 32768) >> 16)


def write_chunk(
    geometry: ReadoutGeometry,
    statistics: ReadoutStatistics,
    values: Coefficients,
    widths: dict[int, NDArray[np.int64]],
    start: int,
    stop: int,
) -> bytes:
    """Code the leaves [start, stop)."""
    writer = SymbolWriter()
    here = geometry.chunk_levels(start, stop)
    for level, part in here.items():
        writer.symbols(widths[level][part], statistics.width_models[level])
    level_of = geometry.level[start:stop]
    kept = _by_leaf(level_of, {level: widths[level][part] for level, part in here.items()})
    group = _constant_group(geometry, level_of, kept)
    write_signed(writer, constant_differences(geometry, values, start, stop), group, _constant_tables(geometry, statistics))

    orders = {level: widest_first(widths[level][part]) for level, part in here.items()}
    parts = {level: values[level][:, part][:, orders[level]] for level, part in here.items()}
    magnitudes = {level: _context_magnitudes(v) for level, v in parts.items()}
    signs, escapes = [], []
    for band in range(1, max(geometry.bands[level].count for level in here)):
        symbols, contexts = [], []
        for level, part in here.items():
            rows, live, context = _band(geometry, statistics, level, band, magnitudes[level], widths[level][part])
            if live == 0:
                continue
            block = parts[level][rows, :live].ravel()
            symbols.append(magnitudes[level][rows, :live].ravel())
            contexts.append(context.ravel())
            signs.append((block[block != 0] < 0).astype(np.int32))
            escapes.append(np.abs(block[np.abs(block) >= ESCAPE]) - ESCAPE)
        if symbols:
            writer.grouped(np.concatenate(symbols), np.concatenate(contexts), statistics.models)
    if signs:
        writer.digits(np.concatenate(signs), 1)
        write_escapes(writer, np.concatenate(escapes))
    return writer.finish()


def read_chunk(
    data: bytes, geometry: ReadoutGeometry, statistics: ReadoutStatistics, start: int, stop: int
) -> Coefficients:
    """Inverse of `write_chunk`: the quantised readouts of the leaves [start, stop), per level.

    Raises
    ------
    ContainerError
        If the bytes cannot have been written by `write_chunk`.
    """
    reader = SymbolReader(data)
    here = geometry.chunk_levels(start, stop)
    counts = {level: part.stop - part.start for level, part in here.items()}
    widths = {level: reader.symbols(n, statistics.width_models[level]).astype(np.int64) for level, n in counts.items()}
    level_of = geometry.level[start:stop]
    group = _constant_group(geometry, level_of, _by_leaf(level_of, widths))
    differences = read_signed(reader, group, _constant_tables(geometry, statistics))

    magnitudes = {level: np.zeros((geometry.bands[level].width + 1, n), dtype=np.int32) for level, n in counts.items()}
    coded: list[tuple[int, NDArray[np.int64], int]] = []
    for band in range(1, max(geometry.bands[level].count for level in here)):
        pending = []
        for level in here:
            rows, live, context = _band(geometry, statistics, level, band, magnitudes[level], widths[level])
            if live:
                pending.append((level, rows, live, context))
        if not pending:
            continue
        symbols = reader.grouped(np.concatenate([p[3].ravel() for p in pending]), statistics.models)
        at = 0
        for level, rows, live, context in pending:
            magnitudes[level][rows, :live] = symbols[at : at + context.size].reshape(context.shape)
            coded.append((level, rows, live))
            at += context.size
    values = {level: m[:-1] for level, m in magnitudes.items()}
    _read_signs_and_escapes(reader, values, coded)
    for level, sorted_values in values.items():
        values[level] = np.empty_like(sorted_values)
        values[level][:, widest_first(widths[level])] = sorted_values
    _add_constants(geometry, values, differences, start, stop)
    return values


def _read_signs_and_escapes(
    reader: SymbolReader, values: Coefficients, coded: list[tuple[int, NDArray[np.int64], int]]
) -> None:
    blocks = [values[level][rows, :live].ravel() for level, rows, live in coded]
    if not blocks:
        return
    flat = np.concatenate(blocks).astype(np.int64)
    signs = np.where(reader.digits(int((flat > 0).sum()), 1) > 0, -1, 1)
    escaped = flat == ESCAPE
    flat[escaped] += read_escapes(reader, int(escaped.sum()))
    flat[flat > 0] *= signs
    at = 0
    for level, rows, live in coded:
        size = len(rows) * live
        values[level][rows, :live] = flat[at : at + size].reshape(len(rows), live)
        at += size


def _add_constants(
    geometry: ReadoutGeometry, values: Coefficients, differences: NDArray[np.int64], start: int, stop: int
) -> None:
    before, before_level = 0, int(geometry.level[start])
    seen = dict.fromkeys(values, 0)
    for level, difference in zip(geometry.level[start:stop].tolist(), differences.tolist(), strict=True):
        before = geometry.predict_constant(before, before_level, level) + difference
        if abs(before) >= 1 << 31:
            raise ContainerError("expected readouts of at most 31 bits, found larger ones; get a fresh copy of the file")
        before_level = level
        values[level][0, seen[level]] = before
        seen[level] += 1


def widest_first(widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order in which the leaves of a level are coded: those that keep more bands first, else as they stand.

    The leaves that keep a band then are the first ones, and no columns need be copied.
    """
    return np.argsort(-widths, kind="stable")


def _band(
    geometry: ReadoutGeometry,
    statistics: ReadoutStatistics,
    level: int,
    band: int,
    magnitude: np.ndarray,
    widths: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Coefficient numbers of a band, how many leaves keep it, and the contexts of both; leaves widest first."""
    bands = geometry.bands[level]
    live = int((widths >= band).sum()) if band < bands.count else 0
    if live == 0:
        none = np.empty(0, dtype=np.int64)
        return none, 0, none
    mean = int(statistics.means[level][band])
    return bands.members[band], live, bands.contexts(band, magnitude[:, :live], mean)


def _by_leaf(level_of: np.ndarray, per_level: dict[int, np.ndarray]) -> NDArray[np.int64]:
    merged = np.empty(len(level_of), dtype=np.int64)
    for level, values in per_level.items():
        merged[level_of == level] = values
    return merged


def _constant_group(geometry: ReadoutGeometry, level_of: np.ndarray, kept: np.ndarray) -> NDArray[np.int64]:
    return 2 * np.searchsorted(geometry.levels, level_of) + (kept > 0)


def _constant_tables(geometry: ReadoutGeometry, statistics: ReadoutStatistics) -> list[MagnitudeTable]:
    return [table for level in geometry.levels for table in statistics.constants[level]]


def _context_magnitudes(values: np.ndarray) -> NDArray[np.int32]:
    """Magnitudes as contexts see them: capped, the constant (coded apart) as 0, and a row of zeros for "none"."""
    magnitude = np.zeros((values.shape[0] + 1, values.shape[1]), dtype=np.int32)
    magnitude[1:-1] = np.minimum(np.abs(values[1:]), ESCAPE)
    return magnitude


def fit_statistics(
    geometry: ReadoutGeometry,
    values: Coefficients,
    widths: dict[int, NDArray[np.int64]],
    backend: Backend = REFERENCE,
) -> ReadoutStatistics:
    """Measure the statistics of quantised readouts.

    Parameters
    ----------
    geometry : ReadoutGeometry
    values : dict of int to ndarray of int, shape (W, n)
    widths : dict of int to ndarray of int
        Bands kept per leaf, see `band_counts`.
    backend : Backend
    """
    means = {level: _band_means(geometry.bands[level], values[level], widths[level], backend) for level in geometry.levels}
    counts = np.zeros((CONTEXTS, 4), dtype=np.int64)
    for level in geometry.levels:
        counts += context_counts(geometry.bands[level], values[level], widths[level], means[level], backend)
    tables = tuple(MagnitudeTable.fit(*c) for c in counts.tolist())
    constants = _fit_constants(geometry, values, widths)
    frequency = {level: _frequencies(widths[level], geometry.bands[level].count) for level in geometry.levels}
    return ReadoutStatistics(frequency, constants, means, tables)


def context_counts(
    bands: Bands, values: np.ndarray, widths: np.ndarray, means: np.ndarray, backend: Backend = REFERENCE
) -> NDArray[np.int64]:
    """Zeros, ones, larger magnitudes and the excess of the latter over 2, per context; shape (CONTEXTS, 4)."""
    return kernels.count_contexts(bands.graph, values.T, widths, expected_alone(means), cap=ESCAPE, backend=backend)


def _band_means(bands: Bands, values: np.ndarray, widths: np.ndarray, backend: Backend) -> NDArray[np.uint16]:
    sums = kernels.sum_bands(bands.graph, values.T, widths, cap=ESCAPE, backend=backend)
    means = np.zeros(bands.count, dtype=np.uint16)
    for band in range(1, bands.count):
        count = len(bands.members[band]) * int((widths >= band).sum())
        if count:
            means[band] = min(round(MEAN_UNIT * (int(sums[band]) / count)), 65535)
    return means


def _fit_constants(
    geometry: ReadoutGeometry, values: Coefficients, widths: dict[int, NDArray[np.int64]]
) -> dict[int, tuple[MagnitudeTable, MagnitudeTable]]:
    magnitude = np.abs(constant_differences(geometry, values, 0, len(geometry.level)))
    group = _constant_group(geometry, geometry.level, _by_leaf(geometry.level, widths))
    tables = {}
    for i, level in enumerate(geometry.levels):
        pair = []
        for kept in (0, 1):
            n = np.minimum(magnitude[group == 2 * i + kept], ESCAPE)
            pair.append(MagnitudeTable.fit((n == 0).sum(), (n == 1).sum(), (n > 1).sum(), np.maximum(n - 2, 0).sum()))
        tables[level] = (pair[0], pair[1])
    return tables


def _frequencies(values: np.ndarray, count: int) -> NDArray[np.uint8]:
    """Relative frequencies in 0..255; what occurs at all is at least 1."""
    histogram = np.bincount(values, minlength=count).astype(np.float64)
    scaled = np.round(255 * histogram / max(histogram.max(), 1))
    scaled[histogram > 0] = np.maximum(scaled[histogram > 0], 1)
    if not scaled.any():
        scaled[0] = 1
    return scaled.astype(np.uint8)


def estimate_bits(
    geometry: ReadoutGeometry,
    values: Coefficients,
    widths: dict[int, NDArray[np.int64]],
    statistics: ReadoutStatistics,
    backend: Backend = REFERENCE,
) -> float:
    """Bits `write_chunk` would need for all leaves, chunk overheads left out."""
    total = 0.0
    for level in geometry.levels:
        means = statistics.means[level]
        counts = context_counts(geometry.bands[level], values[level], widths[level], means, backend)
        total += _table_bits(counts, statistics.magnitudes)
        total += float(statistics.width_cost(level)[widths[level]].sum())
    return total + float(_constant_bits(geometry, values, widths, statistics).sum())


def leaf_bits(
    geometry: ReadoutGeometry, values: Coefficients, statistics: ReadoutStatistics, start: int, stop: int
) -> NDArray[np.float64]:
    """Bits that `write_chunk` would spend on each of the leaves [start, stop), as `estimate_bits` counts them.

    Parameters
    ----------
    geometry : ReadoutGeometry
        Of all leaves.
    values : dict of int to ndarray of int, shape (W, n)
        Of the leaves of the chunk alone, as `read_chunk` returns them.
    statistics : ReadoutStatistics
    start, stop : int
        The leaves of a chunk: the constant of its first one is coded without a leaf before it.

    Returns
    -------
    ndarray of float64, shape (stop - start,)
        The digits of escapes, rare, are left out.
    """
    chunk = replace(geometry, level=geometry.level[start:stop])
    widths = {level: band_counts(geometry.bands[level], part) for level, part in values.items()}
    bits = _constant_bits(chunk, values, widths, statistics)
    for level, part in values.items():
        bits[chunk.level == level] += _level_bits(chunk, statistics, level, part, widths[level])
    return bits


def _level_bits(
    geometry: ReadoutGeometry, statistics: ReadoutStatistics, level: int, values: np.ndarray, widths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Bits of each leaf of a level, shape (n,): its width and its coefficients, the constant left out."""
    order = widest_first(widths)
    magnitude = _context_magnitudes(values[:, order])
    coefficients = np.zeros(len(widths))
    for band in range(1, int(widths.max(initial=0)) + 1):
        rows, live, context = _band(geometry, statistics, level, band, magnitude, widths)
        coefficients[:live] += statistics.cost[context, magnitude[rows, :live]].sum(axis=0)
    bits = statistics.width_cost(level)[widths]
    bits[order] += coefficients
    return bits


def _constant_bits(
    geometry: ReadoutGeometry, values: Coefficients, widths: dict[int, NDArray[np.int64]], statistics: ReadoutStatistics
) -> NDArray[np.float64]:
    """Bits of the constant of each leaf, shape (B,), the first one's difference to 0 included."""
    magnitude = np.minimum(np.abs(constant_differences(geometry, values, 0, len(geometry.level))), ESCAPE)
    group = _constant_group(geometry, geometry.level, _by_leaf(geometry.level, widths))
    cost = np.stack([t.cost for t in _constant_tables(geometry, statistics)])
    return cost[group, magnitude].astype(np.float64)


def _table_bits(counts: NDArray[np.int64], tables: Sequence[MagnitudeTable]) -> float:
    """Bits of counted magnitudes: the tables' tails are geometric, so sums are enough."""
    total = 0.0
    for (zeros, ones, larger, excess), table in zip(counts.tolist(), tables, strict=True):
        step = float(table.cost[3] - table.cost[2])
        total += zeros * float(table.cost[0]) + ones * float(table.cost[1])
        total += larger * float(table.cost[2]) + excess * step
    return total
