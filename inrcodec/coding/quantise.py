"""Rate-distortion optimised rounding of whitened readouts.

The error of a block is the error of its coefficients, so each integer is chosen by ``(c / step - n)^2 + lambda bits``
with the real tables' costs in the contexts that the decoder will see; then each leaf keeps the number of bands that
pays. Statistics and decisions are improved in turns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .contexts import Bands
from .entropy import ESCAPE
from .readouts import (
    Coefficients,
    ReadoutGeometry,
    ReadoutStatistics,
    band_counts,
    fit_statistics,
    widest_first,
)

LAMBDA = 0.12
"""Lagrangian in squared steps per bit; measured best at equal size on CT and electron microscopy."""

BATCH_SIZE = 1 << 21
"""Coefficients rounded at a time."""


def plain_rounding(coefficients: dict[int, np.ndarray], step: float, threshold: float = 0.55) -> Coefficients:
    """Round to multiples of `step`; what lies below `threshold` steps past an integer goes down."""
    return {level: _round(c, step, threshold) for level, c in coefficients.items()}


def optimised_rounding(
    geometry: ReadoutGeometry, coefficients: dict[int, np.ndarray], step: float, turns: int = 2, pressure: float = 1.0
) -> tuple[Coefficients, dict[int, NDArray[np.int64]], ReadoutStatistics]:
    """Quantise whitened readouts.

    Parameters
    ----------
    geometry : ReadoutGeometry
    coefficients : dict of int to ndarray of float32, shape (W, n)
        Per level.
    step : float
        Quantisation step in stored units (times the root of the samples that a coefficient spans).
    turns : int
        How often statistics and decisions are improved in turn; 0 rounds plainly.
    pressure : float
        Part of `LAMBDA` to use. Small signals jump between sizes as whole bands come and go together; with less
        pressure the jumps get smaller, at 0 each coefficient is rounded by itself.

    Returns
    -------
    values : dict of int to ndarray of int32
    widths : dict of int to ndarray of int64
        Bands kept per leaf.
    statistics : ReadoutStatistics
        Fitted to `values`.
    """
    values = plain_rounding(coefficients, step)
    widths = {level: band_counts(geometry.bands[level], v) for level, v in values.items()}
    statistics = fit_statistics(geometry, values, widths)
    for _ in range(turns if pressure > 0 else 0):
        for level, scaled in coefficients.items():
            bands = geometry.bands[level]
            width_cost = statistics.width_cost(level)
            batch = max(1, BATCH_SIZE // scaled.shape[0])
            for at in range(0, scaled.shape[1], batch):
                part = slice(at, at + batch)
                exact = np.abs(scaled[:, part]) / np.float32(step)
                limit = band_counts(bands, exact >= 0.5)
                chosen, kept = _choose(
                    bands, exact, limit, statistics, statistics.means[level], width_cost, pressure * LAMBDA
                )
                values[level][:, part] = np.where(scaled[:, part] < 0, -chosen, chosen)
                values[level][0, part] = np.rint(scaled[0, part] / step)
                widths[level][part] = kept
        statistics = fit_statistics(geometry, values, widths)
    return values, widths, statistics


def _round(coefficients: np.ndarray, step: float, threshold: float) -> NDArray[np.int32]:
    rounded = np.floor(np.abs(coefficients) / step + (1 - threshold))
    rounded[0] = np.rint(np.abs(coefficients[0]) / step)
    return np.where(coefficients < 0, -rounded, rounded).astype(np.int32)


def _choose(
    bands: Bands,
    exact: NDArray[np.float32],
    limit: NDArray[np.int64],
    statistics: ReadoutStatistics,
    means: np.ndarray,
    width_cost: NDArray[np.float64],
    price: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Magnitudes and bands kept of a batch of leaves; bands in coding order, so contexts are the decoder's."""
    order = widest_first(limit)
    exact, limit = exact[:, order], limit[order]
    count = exact.shape[1]
    magnitude = np.zeros((bands.width + 1, count), dtype=np.int32)
    chosen = np.zeros(exact.shape, dtype=np.int32)
    best_gain = np.full(count, -price * float(width_cost[0]))
    gain = np.zeros(count)
    kept = np.zeros(count, dtype=np.int64)
    for band in range(1, int(limit.max(initial=0)) + 1):
        rows = bands.members[band]
        live = int((limit >= band).sum())
        context = bands.contexts(band, magnitude[:, :live], int(means[band]))
        number, saved = _best_magnitude(exact[rows, :live], context, statistics.cost, np.float32(price))
        chosen[rows, :live] = number
        magnitude[rows, :live] = np.minimum(number, ESCAPE)
        gain[:live] += saved.sum(axis=0)
        ahead = np.flatnonzero(gain[:live] - price * width_cost[band] > best_gain[:live])
        best_gain[ahead] = gain[ahead] - price * width_cost[band]
        kept[ahead] = band
    for band in range(1, int(limit.max(initial=0)) + 1):
        chosen[np.ix_(bands.members[band], np.flatnonzero(kept < band))] = 0
    unsorted_values, unsorted_kept = np.empty_like(chosen), np.empty_like(kept)
    unsorted_values[:, order], unsorted_kept[order] = chosen, kept
    return unsorted_values, unsorted_kept


def _best_magnitude(
    exact: NDArray[np.float32], context: NDArray[np.int64], cost: NDArray[np.float32], price: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Of the nearest integer, the one below and zero: the cheapest, and what it gains over dropping the value."""
    nearest = np.floor(exact + np.float32(0.5)).astype(np.int32)
    best = np.zeros_like(nearest)
    zero_cost = exact**2 + price * cost[context, 0]
    best_cost = zero_cost.copy()
    for candidate in (nearest - 1, nearest):
        bits = cost[context, np.clip(candidate, 0, ESCAPE)]
        total = (exact - candidate) ** 2 + price * bits
        better = (candidate > 0) & (total < best_cost)
        best[better] = candidate[better]
        best_cost[better] = total[better]
    return best, (exact.astype(np.float64) ** 2 - best_cost)
