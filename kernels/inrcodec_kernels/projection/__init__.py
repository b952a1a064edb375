"""Projection of blocks onto separable bases. See README.md for the mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backend import Backend, compiled_on_host
from . import reference

__all__ = ["project"]


def project(
    blocks: np.ndarray, bases: Sequence[np.ndarray], place: NDArray[np.int64], *, backend: Backend
) -> np.ndarray:
    """Multiply every axis of each block by its matrix, and pick from the result.

    Parameters
    ----------
    blocks : ndarray of float32 or float64, shape (B, n_1 ... n_d)
        In raster order.
    bases : sequence of d ndarrays of the same dtype, shapes (n_j, m_j)
    place : ndarray of int64, shape (W,)
        Raster numbers, on the grid m_1 x ... x m_d, of the coefficients wanted.
    backend : Backend
        On the CPU whatever the device; the results are the same, bit by bit.

    Returns
    -------
    ndarray, shape (B, W)

    Raises
    ------
    ValueError
        If the blocks do not have ``n_1 ... n_d`` samples.
    """
    if blocks.shape[1] != math.prod(len(basis) for basis in bases):
        raise ValueError(f"expected blocks of {[len(b) for b in bases]} samples, found {blocks.shape[1]}; cut them to that")
    blocks, bases = np.ascontiguousarray(blocks), [np.ascontiguousarray(basis) for basis in bases]
    long = max(map(len, bases)) > reference.SHORT
    if long or not compiled_on_host(backend):
        return reference.project(blocks, bases, place)
    from . import cpu

    return cpu.project(blocks, bases, place)
