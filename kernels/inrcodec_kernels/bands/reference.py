"""The definition of the operations on banded coefficients, in numpy. See README.md for the mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH = 4096
"""Leaves at a time: bounds the memory of intermediate results."""


class Neighbours(NamedTuple):
    """Neighbours that count alike.

    Attributes
    ----------
    weight : int
    number : ndarray of int64, shape (k, W)
        Coefficient numbers; W stands for "none".
    """

    weight: int
    number: NDArray[np.int64]


@dataclass(frozen=True)
class BandGraph:
    """Bands of coefficients, and which earlier ones tell what to expect of each.

    Attributes
    ----------
    members : list of ndarray of int64
        Coefficient numbers of each band; band 0 is coefficient 0 alone, the constant.
    neighbours : tuple of Neighbours
        All in earlier bands.
    unit : int
        Multiplies the weighted sum of the neighbours' magnitudes.
    thresholds : ndarray of int64, shape (contexts - 1,)
        Ascending boundaries between the contexts.
    """

    members: list[NDArray[np.int64]]
    neighbours: tuple[Neighbours, ...]
    unit: int
    thresholds: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Number of coefficients W."""
        return self.neighbours[0].number.shape[1]

    @property
    def contexts(self) -> int:
        """Number of contexts."""
        return len(self.thresholds) + 1

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Coefficient numbers band by band, shape (W,)."""
        return np.concatenate(self.members)

    @cached_property
    def start(self) -> NDArray[np.int64]:
        """First place of each band in `order`, and the end."""
        return np.cumsum([0, *map(len, self.members)], dtype=np.int64)

    @cached_property
    def band_of(self) -> NDArray[np.int64]:
        """Band of each coefficient, shape (W,)."""
        band_of = np.empty(self.width, dtype=np.int64)
        band_of[self.order] = np.repeat(np.arange(len(self.members)), np.diff(self.start))
        return band_of

    @cached_property
    def listeners(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """The neighbours seen from the other side: whose expectation each coefficient raises.

        All by places in `order`: those of place p are ``place[first[p] : first[p + 1]]``, raised by ``weight[...]``
        times its magnitude. Returns `first`, `place`, `weight`.
        """
        place_of = np.empty(self.width + 1, dtype=np.int64)
        place_of[self.order], place_of[self.width] = np.arange(self.width), self.width
        source = np.concatenate([place_of[n.number].ravel() for n in self.neighbours])
        target = np.concatenate([np.tile(place_of[:-1], len(n.number)) for n in self.neighbours])
        weight = np.concatenate([np.full(n.number.size, n.weight) for n in self.neighbours])
        by_source = np.argsort(source, kind="stable")[: int((source < self.width).sum())]
        first = np.searchsorted(source[by_source], np.arange(self.width + 1))
        return first.astype(np.int64), target[by_source].astype(np.int32), weight[by_source].astype(np.int32)


def band_contexts(graph: BandGraph, band: int, magnitude: np.ndarray, base: int) -> NDArray[np.int64]:
    """Contexts of a band, shape (len(members[band]), n), from the magnitudes so far, shape (W + 1, n), the last row 0."""
    rows = graph.members[band]
    total = np.zeros((len(rows), magnitude.shape[1]), dtype=np.int32)
    for weight, number in graph.neighbours:
        alike = np.zeros(total.shape, dtype=np.int32)
        for choice in number[:, rows]:
            alike += magnitude[choice]
        total += weight * alike
    found: NDArray[np.int64] = np.searchsorted(graph.thresholds, graph.unit * total + base, side="right")
    return found


def capped(values: np.ndarray, cap: int) -> NDArray[np.int32]:
    """Magnitudes (W + 1, n) of values (n, W) as contexts see them: the constant (coded apart) and "none" as 0."""
    magnitude = np.zeros((values.shape[1] + 1, values.shape[0]), dtype=np.int32)
    magnitude[1:-1] = np.minimum(np.abs(values[:, 1:]), cap).T
    return magnitude


def widest_first(widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leaves that keep more bands first: those that keep a band then are the first ones."""
    return np.argsort(-widths, kind="stable")


def sum_bands(graph: BandGraph, values: np.ndarray, widths: np.ndarray, cap: int) -> NDArray[np.int64]:
    """See `inrcodec_kernels.bands.sum_bands`."""
    sums = np.zeros(len(graph.members), dtype=np.int64)
    for at in range(0, len(values), BATCH):
        magnitude, kept = capped(values[at : at + BATCH], cap), widths[at : at + BATCH]
        for band in range(1, int(kept.max(initial=0)) + 1):
            sums[band] += magnitude[graph.members[band]][:, kept >= band].sum(dtype=np.int64)
    return sums


def count_contexts(
    graph: BandGraph, values: np.ndarray, widths: np.ndarray, base: np.ndarray, cap: int
) -> NDArray[np.int64]:
    """See `inrcodec_kernels.bands.count_contexts`."""
    counts = np.zeros((graph.contexts, 4), dtype=np.int64)
    for at in range(0, len(values), BATCH):
        kept = widths[at : at + BATCH]
        magnitude = capped(values[at : at + BATCH][widest_first(kept)], cap)
        for band in range(1, int(kept.max(initial=0)) + 1):
            part = magnitude[:, : int((kept >= band).sum())]
            context = band_contexts(graph, band, part, int(base[band])).ravel()
            n = part[graph.members[band]].ravel()
            counts[:, :3] += np.bincount(3 * context + np.minimum(n, 2), minlength=3 * len(counts)).reshape(-1, 3)
            # Sums of whole numbers below 2^53: exact in float64.
            counts[:, 3] += np.bincount(context, np.maximum(n - 2, 0), len(counts)).astype(np.int64)
    return counts


def round_plain(
    graph: BandGraph, coefficients: np.ndarray, step: float, threshold: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """See `inrcodec_kernels.bands.round_plain`."""
    values = np.floor(np.abs(coefficients) / np.float32(step) + np.float32(1 - threshold))
    values[:, 0] = np.rint(np.abs(coefficients[:, 0]) / np.float32(step))
    return np.where(coefficients < 0, -values, values).astype(np.int32), last_bands(graph, values != 0)


def last_bands(graph: BandGraph, used: np.ndarray) -> NDArray[np.int64]:
    """Last band past the constant with a coefficient in use, or 0; `used` is (n, W), the result (n,)."""
    last = np.zeros(len(used), dtype=np.int64)
    for band in range(1, len(graph.members)):
        last[used[:, graph.members[band]].any(axis=1)] = band
    return last


def round_bands(
    graph: BandGraph,
    coefficients: np.ndarray,
    step: float,
    cost: np.ndarray,
    base: np.ndarray,
    width_cost: np.ndarray,
    price: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """See `inrcodec_kernels.bands.round_bands`."""
    values = np.empty(coefficients.shape, dtype=np.int32)
    kept = np.empty(len(coefficients), dtype=np.int64)
    for at in range(0, len(values), BATCH):
        part = slice(at, at + BATCH)
        exact = np.abs(coefficients[part]) / np.float32(step)
        chosen, kept[part] = _choose(graph, exact, cost, base, width_cost, price)
        values[part] = np.where(coefficients[part] < 0, -chosen, chosen)
    values[:, 0] = np.rint(coefficients[:, 0] / np.float32(step))
    return values, kept


def _choose(
    graph: BandGraph,
    exact: NDArray[np.float32],
    cost: np.ndarray,
    base: np.ndarray,
    width_cost: np.ndarray,
    price: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Magnitudes (n, W) and bands kept of a batch of leaves."""
    limit = last_bands(graph, exact >= 0.5)
    order = widest_first(limit)
    rows, limit = np.ascontiguousarray(exact[order].T), limit[order]
    cap, count = cost.shape[1] - 1, len(exact)
    magnitude = np.zeros((len(rows) + 1, count), dtype=np.int32)
    chosen = np.zeros(rows.shape, dtype=np.int32)
    best_gain = np.full(count, -price * float(width_cost[0]))
    gain, kept = np.zeros(count), np.zeros(count, dtype=np.int64)
    for band in range(1, int(limit.max(initial=0)) + 1):
        members, live = graph.members[band], int((limit >= band).sum())
        context = band_contexts(graph, band, magnitude[:, :live], int(base[band]))
        number, saved = _best_magnitude(rows[members, :live], context, cost, np.float32(price))
        chosen[members, :live] = number
        magnitude[members, :live] = np.minimum(number, cap)
        gain[:live] += saved
        ahead = np.flatnonzero(gain[:live] - price * width_cost[band] > best_gain[:live])
        best_gain[ahead] = gain[ahead] - price * width_cost[band]
        kept[ahead] = band
    for band in range(1, int(limit.max(initial=0)) + 1):
        chosen[np.ix_(graph.members[band], np.flatnonzero(kept < band))] = 0
    values, unsorted_kept = np.empty(exact.shape, dtype=np.int32), np.empty_like(kept)
    values[order], unsorted_kept[order] = chosen.T, kept
    return values, unsorted_kept


def _best_magnitude(
    exact: NDArray[np.float32], context: NDArray[np.int64], cost: NDArray[np.float32], price: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Of the nearest integer, the one below and zero: the cheapest, and each leaf's gain over dropping the band."""
    nearest = np.floor(exact + np.float32(0.5)).astype(np.int32)
    best = np.zeros_like(nearest)
    best_cost = exact**2 + price * cost[context, 0]
    for candidate in (nearest - 1, nearest):
        bits = cost[context, np.clip(candidate, 0, cost.shape[1] - 1)]
        total = (exact.astype(np.float64) - candidate) ** 2 + price * bits
        better = (candidate > 0) & (total < best_cost)
        best[better] = candidate[better]
        best_cost[better] = total[better]
    saved = np.zeros(exact.shape[1])
    for row in exact.astype(np.float64) ** 2 - best_cost:
        saved += row
    return best, saved


def leaf_costs(
    coefficients: np.ndarray, energy: np.ndarray, step: float, rounding: float, bits: tuple[float, float, float], price: float
) -> NDArray[np.float64]:
    """See `inrcodec_kernels.bands.leaf_costs`."""
    head, nonzero_bits, doubling = bits
    total = np.empty(len(coefficients))
    for at in range(0, len(total), BATCH):
        part = slice(at, at + BATCH)
        inside, error, count = np.zeros((3, *total[part].shape))
        logarithm = np.zeros(total[part].shape, dtype=np.float32)
        # Coefficient by coefficient: the order of the sums is part of the definition.
        for column in np.ascontiguousarray(coefficients[part].T):
            exact = np.abs(column) / np.float32(step)
            rounded = np.floor(exact + np.float32(rounding))
            inside += exact.astype(np.float64) ** 2
            error += (exact - rounded).astype(np.float64) ** 2
            count += rounded > 0
            # In double precision: single ones differ in the last bit from machine to machine, and from vectors to numbers.
            logarithm += np.log2(np.maximum(rounded, 1), dtype=np.float64).astype(np.float32)
        spent = head + nonzero_bits * count + (np.float32(doubling) * logarithm).astype(np.float64)
        total[part] = np.maximum(energy[part] / step**2 - inside, 0) + error + price * spent
    return total
