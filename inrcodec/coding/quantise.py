"""Rate-distortion optimised rounding of whitened readouts.

The error of a block is the error of its coefficients, so each integer is chosen by ``(c / step - n)^2 + lambda bits``
with the real tables' costs in the contexts that the decoder will see; then each leaf keeps the number of bands that
pays. Statistics and decisions are improved in turns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels import bands as kernels
from inrcodec_kernels.backend import REFERENCE, Backend

from .contexts import Bands
from .readouts import Coefficients, ReadoutGeometry, ReadoutStatistics, fit_statistics

LAMBDA = 0.12
"""Lagrangian in squared steps per bit; measured best at equal size on CT and electron microscopy."""

_LEAST_WEIGHT = 2.0**-20
"""Errors that count less, like those that do not count, are not looked at: no coefficient is large enough."""

THRESHOLD = 0.55
"""Plain rounding: what lies below so many steps past an integer goes down."""


def optimised_rounding(
    geometry: ReadoutGeometry,
    coefficients: dict[int, np.ndarray],
    step: float,
    turns: int = 2,
    pressure: float = 1.0,
    backend: Backend = REFERENCE,
    weights: dict[int, NDArray[np.float32]] | None = None,
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
    backend : Backend
        Changes the time taken, not the result.
    weights : dict of int to ndarray of float32, shape (n,), optional
        Per level, what squared errors of each leaf count; 1 without. With less, bits are dearer there.

    Returns
    -------
    values : dict of int to ndarray of int32
        Leaf by leaf in memory, as transposed.
    widths : dict of int to ndarray of int64
        Bands kept per leaf.
    statistics : ReadoutStatistics
        Fitted to `values`.
    """
    values, widths = plain_rounding(geometry, coefficients, step, backend)
    statistics = fit_statistics(geometry, values, widths, backend)
    for _ in range(turns if pressure > 0 else 0):
        for level, exact in coefficients.items():
            for leaves, price in _prices(None if weights is None else weights[level]):
                found, kept = kernels.round_bands(
                    geometry.bands[level].graph,
                    exact.T[leaves],
                    step,
                    cost=statistics.cost,
                    base=Bands.mean_share(statistics.means[level].astype(np.int64)),
                    width_cost=statistics.width_cost(level),
                    price=pressure * LAMBDA * price,
                    backend=backend,
                )
                values[level].T[leaves], widths[level][leaves] = found, kept
        statistics = fit_statistics(geometry, values, widths, backend)
    return values, widths, statistics


def _prices(weights: NDArray[np.float32] | None) -> Iterator[tuple[slice | NDArray[np.int64], float]]:
    """Leaves whose errors count alike, to a quarter of an octave, and the price of bits over that where they count 1."""
    if weights is None:
        yield slice(None), 1.0
        return
    quarters = np.rint(4 * np.log2(np.maximum(weights, _LEAST_WEIGHT)))
    for quarter in np.unique(quarters).tolist():
        yield np.flatnonzero(quarters == quarter), 2.0 ** (-quarter / 4)


def plain_rounding(
    geometry: ReadoutGeometry, coefficients: dict[int, np.ndarray], step: float, backend: Backend = REFERENCE
) -> tuple[Coefficients, dict[int, NDArray[np.int64]]]:
    """Round to multiples of `step`, see `THRESHOLD`; integers (W, n) per level, and the bands that hold any but 0 (n,)."""
    values, widths = {}, {}
    for level, exact in coefficients.items():
        graph = geometry.bands[level].graph
        found, widths[level] = kernels.round_plain(graph, exact.T, step, threshold=THRESHOLD, backend=backend)
        values[level] = found.T
    return values, widths
