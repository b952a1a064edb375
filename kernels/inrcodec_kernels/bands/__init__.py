"""Coefficients in bands of rising frequency: contexts, statistics, rounding. See README.md for the mathematics.

Arrays of coefficients are leaf by leaf here, shape (n, W), and copied where they are not contiguous so.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..backend import Backend, compiled_on_host
from . import reference
from .reference import BandGraph, Neighbours, band_contexts

__all__ = ["BandGraph", "Neighbours", "band_contexts", "count_contexts", "leaf_costs", "round_bands", "round_plain", "sum_bands"]


def _module(backend: Backend) -> ModuleType:
    """Loops over coefficients run on the CPU whatever the device; without Numba, in numpy."""
    if not compiled_on_host(backend):
        return reference
    from . import cpu

    return cpu


def sum_bands(
    graph: BandGraph, values: np.ndarray, widths: np.ndarray, *, cap: int, backend: Backend
) -> NDArray[np.int64]:
    """Sum of the magnitudes in each band over the leaves that keep it.

    Parameters
    ----------
    graph : BandGraph
    values : ndarray of int32, shape (n, W)
    widths : ndarray of int64, shape (n,)
        Bands kept past the constant.
    cap : int
        Larger magnitudes count as this one.
    backend : Backend

    Returns
    -------
    ndarray of int64, shape (C,)
        0 for band 0.
    """
    return _module(backend).sum_bands(graph, np.ascontiguousarray(values), widths, cap)


def count_contexts(
    graph: BandGraph, values: np.ndarray, widths: np.ndarray, base: np.ndarray, *, cap: int, backend: Backend
) -> NDArray[np.int64]:
    """Count the magnitudes of the bands kept, by context.

    Parameters
    ----------
    graph : BandGraph
    values : ndarray of int32, shape (n, W)
    widths : ndarray of int64, shape (n,)
        Bands kept past the constant.
    base : ndarray of int64, shape (C,)
        What is expected in each band where all neighbours are 0.
    cap : int
        Larger magnitudes count as this one.
    backend : Backend

    Returns
    -------
    ndarray of int64, shape (contexts, 4)
        Zeros, ones, larger magnitudes, and the sum of what the latter exceed 2 by.
    """
    return _module(backend).count_contexts(graph, np.ascontiguousarray(values), widths, base, cap)


def round_plain(
    graph: BandGraph, coefficients: np.ndarray, step: float, *, threshold: float, backend: Backend
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Round to multiples of `step`; what lies below `threshold` steps past an integer goes down.

    Parameters
    ----------
    graph : BandGraph
    coefficients : ndarray of float32, shape (n, W)
        The constants, first of each leaf, are rounded to the nearest.
    step : float
        A float32.
    threshold : float
    backend : Backend

    Returns
    -------
    values : ndarray of int32, shape (n, W)
    last : ndarray of int64, shape (n,)
        Last band with a value that is not 0, or 0.
    """
    return _module(backend).round_plain(graph, np.ascontiguousarray(coefficients), step, threshold)


def round_bands(
    graph: BandGraph,
    coefficients: np.ndarray,
    step: float,
    *,
    cost: np.ndarray,
    base: np.ndarray,
    width_cost: np.ndarray,
    price: float,
    backend: Backend,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Round so that squared error and priced bits together are least, and drop the bands that do not pay.

    Parameters
    ----------
    graph : BandGraph
    coefficients : ndarray of float32, shape (n, W)
    step : float
        A float32.
    cost : ndarray of float32, shape (contexts, symbols)
        Bits of each magnitude; those beyond the last cost the same.
    base : ndarray of int64, shape (C,)
        What is expected in each band where all neighbours are 0.
    width_cost : ndarray of float64, shape (C,)
        Bits to say how many bands a leaf keeps.
    price : float
        Squared steps a bit.
    backend : Backend

    Returns
    -------
    values : ndarray of int32, shape (n, W)
    kept : ndarray of int64, shape (n,)
        Bands kept past the constant.
    """
    coefficients = np.ascontiguousarray(coefficients)
    return _module(backend).round_bands(graph, coefficients, step, cost, base, width_cost, price)


def leaf_costs(
    coefficients: np.ndarray,
    energy: np.ndarray,
    step: float,
    *,
    rounding: float,
    bits: tuple[float, float, float],
    price: float,
    backend: Backend,
) -> NDArray[np.float64]:
    """Roughly the squared error and priced bits of each leaf, in squared steps, without contexts.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (n, W)
    energy : ndarray of float64, shape (n,)
        Sum of squared samples.
    step : float
    rounding : float
        Added before magnitudes are rounded down, below 1/2.
    bits : tuple of float
        Of a leaf, of a value that is not 0, and for each doubling of it.
    price : float
        Squared steps a bit.
    backend : Backend

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    return _module(backend).leaf_costs(np.ascontiguousarray(coefficients), energy, step, rounding, bits, price)
