"""What the coder of coefficients in bands must know, as plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .tables import Tables


class BandCode(NamedTuple):
    """Coding order, neighbourhoods and distributions of the coefficients of leaves of V levels.

    Attributes
    ----------
    width : ndarray of int32, shape (V,)
        Coefficients of a leaf of each level; number 0, the constant, is coded apart.
    order : ndarray of int32, shape (V, W)
        Coefficients band by band.
    begin : ndarray of int32, shape (V, N + 1)
        Where each of up to N bands begins in `order`; beyond a level's last band, its end. Band 0 is the constant.
    neighbours : ndarray of int32, shape (V, K, W)
        Coefficients of earlier bands that say what to expect of one; `width` stands for none.
    gains : ndarray of int64, shape (V, K)
        How much of a neighbour's magnitude is expected.
    means : ndarray of int64, shape (V, N)
        What is expected of a band without regard to neighbours.
    thresholds : ndarray of int64, shape (C - 1,)
        The context of a coefficient is the number of those that do not exceed what is expected of it.
    ratios : ndarray of int64, shape (V, V)
        A constant is expected to be ``(the constant before * ratio[its level, this level] + 2^15) >> 16``.
    tables : Tables
        C of magnitudes, by context; V of the number of bands kept; 2 V of the constants' magnitudes, for leaves that
        keep no band and for others.
    escape : ndarray of int32, shape (C + 3 V,)
        The symbol that stands for this magnitude and all larger ones.
    """

    width: NDArray[np.int32]
    order: NDArray[np.int32]
    begin: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    gains: NDArray[np.int64]
    means: NDArray[np.int64]
    thresholds: NDArray[np.int64]
    ratios: NDArray[np.int64]
    tables: Tables
    escape: NDArray[np.int32]

    @property
    def contexts(self) -> int:
        """Number of contexts, C."""
        return len(self.thresholds) + 1

    @property
    def levels(self) -> int:
        """Number of levels, V."""
        return len(self.width)

    def rows(self, level: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each leaf's coefficients begin in a flat array, level by level, and its end; shape (n + 1,).

        A row has one more element than the leaf has coefficients: 0, which is what a neighbour that is not there is.
        """
        sizes = self.width[level].astype(np.int64) + 1
        order = np.argsort(level, kind="stable")
        ends = np.cumsum(sizes[order])
        found = np.empty(len(level) + 1, dtype=np.int64)
        found[order] = ends - sizes[order]
        found[-1] = ends[-1] if len(ends) else 0
        return found


class CodedError(ValueError):
    """The bytes cannot have been written by the encoder."""

    def __init__(self) -> None:
        super().__init__("expected a valid entropy-coded chunk, found impossible data; get a fresh copy of the file")
