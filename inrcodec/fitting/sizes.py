"""Numbers by their size: what quantisation makes of all of them, at any step, without a look at each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_OCTAVES = 64
"""Octaves that are told apart, half of them below 1; numbers beyond count as the last of these."""
_TOGETHER = 1 << 20
"""Numbers that are looked at together: what is made of them takes some 30 bytes each."""


class Sizes(NamedTuple):
    """How many numbers there are of every size.

    Attributes
    ----------
    counts, squares : ndarray of float64, as long as each other
        Of sizes within equal parts of an octave: how many that are not zero, and the sum of their squares.
    """

    counts: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float32], of_octave: int, least: float = 0.0) -> Sizes:
        """Those of some numbers, wherever they are, with so many parts of an octave; numbers up to the least count as zero."""
        bins, flat = _OCTAVES * of_octave, values.reshape(-1)
        counts, squares = np.zeros(bins), np.zeros(bins)
        for start in range(0, flat.size, _TOGETHER):
            part = np.square(flat[start : start + _TOGETHER])
            part = part[part > least**2]
            size = np.clip(of_octave / 2 * np.log2(part) + bins // 2, 0, bins - 1).astype(np.intp)
            counts += np.bincount(size, minlength=bins)
            squares += np.bincount(size, weights=part, minlength=bins)
        return cls(counts, squares)

    def and_those(self, other: Sizes) -> Sizes:
        """Those of the numbers of both, whose octaves have as many parts."""
        return Sizes(self.counts + other.counts, self.squares + other.squares)

    def bits(self, step: float) -> float:
        """The sum of ``log2(1 + (number / step)^2)``."""
        square = self.squares / np.maximum(self.counts, 1)
        return float(self.counts @ np.log2(1 + square / step**2))

    def error(self, step: float) -> float:
        """The sum of squares, those above ``step^2 / 12`` being this: what is smaller is lost, the rest is rounded."""
        return float(np.minimum(self.squares, self.counts * (step**2 / 12)).sum())
