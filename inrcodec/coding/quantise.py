"""Rate-distortion optimised rounding of whitened readouts.

The error of a block is the error of its coefficients, so each integer is chosen by ``(c / step - n)^2 + lambda bits``
with the real tables' costs in the contexts that the decoder will see; then each leaf keeps the number of bands that
pays. Statistics and decisions are improved in turns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels import bands as kernels
from inrcodec_kernels.backend import REFERENCE, Backend

from .contexts import Bands
from .readouts import Coefficients, ReadoutGeometry, ReadoutStatistics, fit_statistics

LAMBDA = 0.12
"""Lagrangian in squared steps per bit; measured best at equal size on CT and electron microscopy."""

THRESHOLD = 0.55
"""Plain rounding: what lies below so many steps past an integer goes down."""


def optimised_rounding(
    geometry: ReadoutGeometry,
    coefficients: dict[int, np.ndarray],
    step: float,
    turns: int = 2,
    pressure: float = 1.0,
    backend: Backend = REFERENCE,
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
            found, widths[level] = kernels.round_bands(
                geometry.bands[level].graph,
                exact.T,
                step,
                cost=statistics.cost,
                base=Bands.mean_share(statistics.means[level].astype(np.int64)),
                width_cost=statistics.width_cost(level),
                price=pressure * LAMBDA,
                backend=backend,
            )
            values[level] = found.T
        statistics = fit_statistics(geometry, values, widths, backend)
    return values, widths, statistics


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
