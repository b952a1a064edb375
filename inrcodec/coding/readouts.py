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
from inrcodec_kernels.rans import BandCode, CodedError, Tables, coder, proportional

from .contexts import CONTEXTS, MEAN_UNIT, THRESHOLDS, Bands
from .entropy import ESCAPE, MagnitudeTable
from .lanes import impossible, pack_lanes, unpack_lanes

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
    def constant_ratio(self) -> dict[tuple[int, int], int]:
        """sqrt(size / size of the leaf before) in 1/65536: a whitened constant grows with the root of the size."""
        size = {level: prod(self.cells[level]) for level in self.levels}
        return {(a, b): isqrt((size[b] << 32) // size[a]) for a in size for b in size}

    def predict_constant(self, before: int, before_level: int, level: int) -> int:
        """Constant expected of a leaf after one of `before_level` with the quantised constant `before`."""
        return (before * self.constant_ratio[before_level, level] + 32768) >> 16

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
    lanes : int
        Of the entropy coder of the chunks.
    """

    widths: dict[int, NDArray[np.uint8]]
    constants: dict[int, tuple[MagnitudeTable, MagnitudeTable]]
    means: dict[int, NDArray[np.uint16]]
    magnitudes: tuple[MagnitudeTable, ...]
    lanes: int = 1

    def to_bytes(self) -> bytes:
        """Serialise: lanes, per level widths, constants and means, then the magnitude tables; little endian."""
        parts = [pack_lanes(self.lanes)]
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
        need = 1 + sum(3 * b.count + 8 for b in bands.values()) + 4 * CONTEXTS
        if len(data) != need:
            raise ContainerError(f"expected {need} bytes of statistics, found {len(data)}; get a fresh copy of the file")
        lanes = unpack_lanes(data)
        widths, constants, means, at = {}, {}, {}, 1
        for level in sorted(bands):
            count = bands[level].count
            widths[level] = np.frombuffer(data, np.uint8, count, at)
            first, second = _unpack_tables(data[at + count : at + count + 8])
            constants[level] = (first, second)
            means[level] = np.frombuffer(data, "<u2", count, at + count + 8)
            at += 3 * count + 8
            if not widths[level].any():
                raise ContainerError("expected frequencies above 0 in the statistics, found none; get a fresh copy")
        return cls(widths, constants, means, _unpack_tables(data[at:]), lanes)

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
    ratio = np.zeros((len(geometry.cells), len(geometry.cells)), dtype=np.int64)
    for levels, value in geometry.constant_ratio.items():
        ratio[levels] = value
    before, before_level = np.append(0, constants[:-1]), np.append(level[:1], level[:-1])
    return constants - ((before * ratio[before_level, level] + 32768) >> 16)


class ReadoutCoder:
    """Codes the readouts of a stream's leaves, chunk by chunk.

    Parameters
    ----------
    geometry : ReadoutGeometry
    statistics : ReadoutStatistics
    backend : Backend
    """

    def __init__(
        self, geometry: ReadoutGeometry, statistics: ReadoutStatistics, backend: Backend = REFERENCE
    ) -> None:
        self.geometry, self.statistics = geometry, statistics
        self._coder = coder(backend)
        self._rank_of = {level: v for v, level in enumerate(geometry.levels)}

    def write(self, values: Coefficients, widths: dict[int, NDArray[np.int64]], start: int, stop: int) -> bytes:
        """Code the leaves [start, stop); `values` and `widths` are those of all leaves."""
        rows, parts, kept = self._level_of(start, stop), [], np.empty(stop - start, dtype=np.int64)
        for level, part in self.geometry.chunk_levels(start, stop).items():
            padded = np.zeros((part.stop - part.start, values[level].shape[0] + 1), dtype=np.int32)
            padded[:, :-1] = values[level][:, part].T
            parts.append(padded.ravel())
            kept[rows == self._rank_of[level]] = widths[level][part]
        return self._coder.encode_chunk(np.concatenate(parts), kept, self.statistics.lanes, rows, self.code)

    def read(self, data: bytes, start: int, stop: int) -> Coefficients:
        """Inverse of `write`: the quantised readouts of the leaves [start, stop), per level.

        Raises
        ------
        ContainerError
            If the bytes cannot have been written by `write`.
        """
        level_of, coded = self._level_of(start, stop), np.frombuffer(data, dtype=np.uint8)
        try:
            flat, _ = self._coder.decode_chunk(coded, self.statistics.lanes, level_of, self.code)
        except CodedError as error:
            raise impossible(error) from None
        values, at = {}, 0
        for level, part in self.geometry.chunk_levels(start, stop).items():
            count, width = part.stop - part.start, self.geometry.bands[level].width + 1
            values[level] = flat[at : at + count * width].reshape(count, width)[:, :-1].T
            at += count * width
        return values

    @cached_property
    def code(self) -> BandCode:
        """What the kernels take."""
        geometry, statistics = self.geometry, self.statistics
        bands = [geometry.bands[level] for level in geometry.levels]
        most, width = max(b.count for b in bands), max(b.width for b in bands)
        order, begin = np.zeros((len(bands), width), dtype=np.int32), np.zeros((len(bands), most + 1), dtype=np.int32)
        gains = np.zeros((len(bands), max(len(b.neighbours) for b in bands)), dtype=np.int64)
        neighbours = np.zeros((*gains.shape, width), dtype=np.int32)
        means = np.zeros((len(bands), most), dtype=np.int64)
        for v, (level, b) in enumerate(zip(geometry.levels, bands, strict=True)):
            order[v, : b.width] = np.concatenate(b.members)
            begin[v] = np.cumsum([0, *(len(m) for m in b.members), *[0] * (most - b.count)])
            gains[v, : len(b.gains)] = b.gains
            # Neighbours that are not there lie behind a leaf's coefficients, where all is 0.
            neighbours[v] = b.width
            neighbours[v, : len(b.neighbours), : b.width] = b.neighbours
            means[v, : b.count] = b.mean_share(statistics.means[level].astype(np.int64))
        constants = [table for level in geometry.levels for table in statistics.constants[level]]
        widths = [proportional(statistics.widths[level].astype(np.int64)) for level in geometry.levels]
        magnitudes = [t.frequencies for t in statistics.magnitudes]
        found = [*magnitudes, *widths, *(t.frequencies for t in constants)]
        ratios = [[geometry.constant_ratio[a, b] for b in geometry.levels] for a in geometry.levels]
        return BandCode(
            np.array([b.width for b in bands], dtype=np.int32), order, begin, neighbours, gains, means, THRESHOLDS,
            np.array(ratios, dtype=np.int64), Tables.of(found), np.array([len(f) - 1 for f in found], dtype=np.int32),
        )

    def _level_of(self, start: int, stop: int) -> NDArray[np.int64]:
        """Ranks of the leaves' levels."""
        return np.searchsorted(self.geometry.levels, self.geometry.level[start:stop]).astype(np.int64)


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
    return kernels.count_contexts(bands.graph, values.T, widths, Bands.mean_share(means.astype(np.int64)), cap=ESCAPE, backend=backend)


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
    """Bits `ReadoutCoder.write` would need for all leaves, chunk overheads left out."""
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
    """Bits that `ReadoutCoder.write` would spend on each of the leaves [start, stop), as `estimate_bits` counts them.

    Parameters
    ----------
    geometry : ReadoutGeometry
        Of all leaves.
    values : dict of int to ndarray of int, shape (W, n)
        Of the leaves of the chunk alone, as `ReadoutCoder.read` returns them.
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
