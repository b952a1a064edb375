"""Compiled loops: one leaf after the other, all its bands while they are in the cache. See README.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from .reference import BandGraph

T = TypeVar("T")

_KNOWN = 1024
"""Weighted sums of neighbours whose context is looked up; for larger ones, rare, it is searched."""
_PART = 1 << 18
"""Coefficients that a thread takes at a time."""


def _in_parts(work: Callable[[slice], T], count: int, width: int) -> list[T]:
    """Call ``work(leaves)`` for ranges of the leaves, in threads."""
    step = max(1, _PART // width)
    return in_threads(lambda at: work(slice(at, min(at + step, count))), range(0, count, step))


def _context_table(graph: BandGraph, base: np.ndarray) -> NDArray[np.uint8]:
    """Context of each small weighted sum in each band, shape (C, _KNOWN)."""
    expected = graph.unit * np.arange(_KNOWN) + np.asarray(base, dtype=np.int64)[:, None]
    return np.searchsorted(graph.thresholds, expected, side="right").astype(np.uint8)


def sum_bands(graph: BandGraph, values: np.ndarray, widths: np.ndarray, cap: int) -> NDArray[np.int64]:
    """See `inrcodec_kernels.bands.sum_bands`."""

    def work(part: slice) -> NDArray[np.int64]:
        sums = np.zeros(len(graph.members), dtype=np.int64)
        _sum(values[part], widths[part], graph.order, graph.start, cap, sums)
        return sums

    return np.sum([np.zeros(len(graph.members), dtype=np.int64), *_in_parts(work, *values.shape)], axis=0)


def count_contexts(
    graph: BandGraph, values: np.ndarray, widths: np.ndarray, base: np.ndarray, cap: int
) -> NDArray[np.int64]:
    """See `inrcodec_kernels.bands.count_contexts`."""
    shape = (graph.order, graph.start, *graph.listeners)
    rule = (_context_table(graph, base), base.astype(np.int64), graph.thresholds, graph.unit)

    def work(part: slice) -> NDArray[np.int64]:
        counts = np.zeros((graph.contexts, 4), dtype=np.int64)
        _count(values[part], widths[part], *shape, *rule, cap, counts)
        return counts

    return np.sum([np.zeros((graph.contexts, 4), dtype=np.int64), *_in_parts(work, *values.shape)], axis=0)


def round_plain(
    graph: BandGraph, coefficients: np.ndarray, step: float, threshold: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """See `inrcodec_kernels.bands.round_plain`."""
    values = np.empty(coefficients.shape, dtype=np.int32)
    last = np.empty(len(coefficients), dtype=np.int64)

    def work(part: slice) -> None:
        _plain(coefficients[part], np.float32(step), np.float32(1 - threshold), graph.band_of, values[part], last[part])

    _in_parts(work, *coefficients.shape)
    return values, last


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
    shape = (graph.order, graph.start, *graph.listeners)
    rule = (_context_table(graph, base), base.astype(np.int64), graph.thresholds, graph.unit)
    priced = np.float32(price) * cost

    def work(part: slice) -> None:
        _round(
            coefficients[part], np.float32(step), *shape, *rule, priced, np.ascontiguousarray(priced[:, 0]),
            price * width_cost, values[part], kept[part],
        )  # fmt: skip

    _in_parts(work, *coefficients.shape)
    return values, kept


def leaf_costs(
    coefficients: np.ndarray, energy: np.ndarray, step: float, rounding: float, bits: tuple[float, float, float], price: float
) -> NDArray[np.float64]:
    """See `inrcodec_kernels.bands.leaf_costs`."""
    total = np.empty(len(coefficients))
    logarithms = np.log2(np.maximum(np.arange(256.0), 1)).astype(np.float32)
    outside = energy / step**2

    def work(part: slice) -> None:
        _costs(
            coefficients[part], outside[part], np.float32(step), np.float32(rounding), *bits[:2],
            np.float32(bits[2]), price, logarithms, total[part],
        )  # fmt: skip

    _in_parts(work, *coefficients.shape)
    return total


@njit(nogil=True, cache=True)
def _context(total, band, table, base, thresholds, unit):  # type: ignore[no-untyped-def]
    if total < table.shape[1]:
        return np.int64(table[band, total])
    return _at_most(thresholds, unit * np.int64(total) + base[band])


@njit(nogil=True, cache=True)
def _at_most(ascending, value):  # type: ignore[no-untyped-def]
    """How many of some ascending numbers are at most `value`."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def _sum(values, widths, order, start, cap, sums):  # type: ignore[no-untyped-def]
    for leaf in range(len(values)):
        for band in range(1, widths[leaf] + 1):
            total = 0
            for place in range(start[band], start[band + 1]):
                total += min(abs(np.int64(values[leaf, order[place]])), cap)
            sums[band] += total


@njit(nogil=True, cache=True)
def _count(values, widths, order, start, first, listener, weight, table, base, thresholds, unit, cap, counts):  # type: ignore[no-untyped-def]
    expected = np.empty(len(order), dtype=np.int32)
    for leaf in range(len(values)):
        kept = widths[leaf]
        expected[: start[kept + 1]] = 0
        for band in range(1, kept + 1):
            for place in range(start[band], start[band + 1]):
                context = _context(expected[place], band, table, base, thresholds, unit)
                n = min(abs(np.int64(values[leaf, order[place]])), cap)
                counts[context, min(n, 2)] += 1
                if n:
                    counts[context, 3] += max(n - 2, 0)
                    for i in range(first[place], first[place + 1]):
                        expected[listener[i]] += np.int32(weight[i] * n)


@njit(nogil=True, cache=True)
def _plain(coefficients, step, shift, band_of, values, last):  # type: ignore[no-untyped-def]
    for leaf in range(len(coefficients)):
        for k in range(1, coefficients.shape[1]):
            c = coefficients[leaf, k]
            n = np.int32(np.floor(abs(c) / step + shift))
            values[leaf, k] = -n if c < 0 else n
        values[leaf, 0] = np.int32(np.rint(coefficients[leaf, 0] / step))
        band = 0
        for k in range(1, coefficients.shape[1]):
            if values[leaf, k] != 0:
                band = max(band, band_of[k])
        last[leaf] = band


@njit(nogil=True, cache=True)
def _limit(row, step, order, start):  # type: ignore[no-untyped-def]
    """Last band with a coefficient of half a step or more, or 0."""
    # A product is cheaper than a quotient: it sorts out what is far below.
    small = np.float32(0.499) * step
    for place in range(len(order) - 1, 0, -1):
        size = abs(row[order[place]])
        if size > small and size / step >= np.float32(0.5):
            return _at_most(start, place) - 1
    return 0


# No fast arithmetic: decisions must be those of the definition.
@njit(nogil=True, cache=True)
def _round(  # type: ignore[no-untyped-def]
    coefficients, step, order, start, first, listener, weight, table, base, thresholds, unit, priced, priced_zero,
    width_price, values, kept,
):  # fmt: skip
    cap = priced.shape[1] - 1
    expected = np.empty(len(order), dtype=np.int32)
    for leaf in range(len(coefficients)):
        row, out = coefficients[leaf], values[leaf]
        limit = _limit(row, step, order, start)
        out[:] = 0
        out[0] = np.int32(np.rint(row[0] / step))
        expected[: start[limit + 1]] = 0
        gain, best_gain, best_band = 0.0, -width_price[0], 0
        for band in range(1, limit + 1):
            saved = 0.0
            for place in range(start[band], start[band + 1]):
                k = order[place]
                exact = abs(row[k]) / step
                context = _context(expected[place], band, table, base, thresholds, unit)
                best, best_cost = 0, exact * exact + priced_zero[context]
                nearest = int(np.floor(exact + np.float32(0.5)))
                for n in range(max(nearest - 1, 1), nearest + 1):
                    error = np.float64(exact) - n
                    total = error * error + np.float64(priced[context, min(n, cap)])
                    if total < best_cost:
                        best, best_cost = n, np.float32(total)
                saved += np.float64(exact) * np.float64(exact) - np.float64(best_cost)
                if best:
                    out[k] = -best if row[k] < 0 else best
                    for i in range(first[place], first[place + 1]):
                        expected[listener[i]] += np.int32(weight[i] * min(best, cap))
            gain += saved
            if gain - width_price[band] > best_gain:
                best_gain, best_band = gain - width_price[band], band
        for place in range(start[best_band + 1], start[limit + 1]):
            out[order[place]] = 0
        kept[leaf] = best_band


@njit(nogil=True, cache=True)
def _costs(coefficients, outside, step, rounding, head, nonzero_bits, doubling, price, logarithms, total):  # type: ignore[no-untyped-def]
    known = np.float32(len(logarithms))
    for leaf in range(len(coefficients)):
        inside, error, count, logarithm = 0.0, 0.0, 0, np.float32(0)
        for k in range(coefficients.shape[1]):
            exact = abs(coefficients[leaf, k]) / step
            rounded = np.floor(exact + rounding)
            inside += np.float64(exact) * np.float64(exact)
            off = np.float64(exact - rounded)
            error += off * off
            if rounded > 0:
                count += 1
                logarithm += logarithms[np.int64(rounded)] if rounded < known else np.float32(np.log2(np.float64(rounded)))
        spent = head + nonzero_bits * count + np.float64(doubling * logarithm)
        total[leaf] = max(outside[leaf] - inside, 0.0) + error + price * spent
