"""Distributions of symbols as the coder takes them: integers that sum to 2^16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRECISION = 16
"""Frequencies sum to ``1 << PRECISION``."""
TOTAL = 1 << PRECISION
ALPHABET = 256
"""Most symbols of a distribution."""


class Tables(NamedTuple):
    """T distributions.

    Attributes
    ----------
    starts : ndarray of uint32, shape (T, ALPHABET + 1)
        Symbol s has the slots [starts[s], starts[s + 1]); beyond the last symbol all are `TOTAL`.
    first : ndarray of uint8, shape (T, 256)
        The symbol that has slot ``256 i``: where a search for a slot of ``256 i .. 256 i + 255`` may begin.
    """

    starts: NDArray[np.uint32]
    first: NDArray[np.uint8]

    @classmethod
    def of(cls, frequencies: Sequence[NDArray[np.int64]]) -> Tables:
        """Tables of frequencies; symbols of frequency 0 cannot be coded.

        Raises
        ------
        ValueError
            If a distribution has too many symbols, a negative frequency, or does not sum to `TOTAL`.
        """
        starts = np.full((len(frequencies), ALPHABET + 1), TOTAL, dtype=np.uint32)
        for row, frequency in zip(starts, frequencies, strict=True):
            if not 0 < len(frequency) <= ALPHABET or frequency.min() < 0 or frequency.sum() != TOTAL:
                raise ValueError(
                    f"expected up to {ALPHABET} frequencies that sum to {TOTAL}, found {len(frequency)} that sum to "
                    f"{int(frequency.sum())}; scale them first"
                )
            row[0] = 0
            row[1 : len(frequency) + 1] = np.cumsum(frequency)
        slots = np.arange(256) << (PRECISION - 8)
        first = [np.searchsorted(row, slots, side="right") - 1 for row in starts]
        return cls(starts, np.array(first, dtype=np.uint8).reshape(-1, 256))

    def intervals(self, symbols: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Start and frequency of each symbol in its table, shape (2, n).

        Raises
        ------
        ValueError
            If a symbol has no frequency.
        """
        start = self.starts[table, symbols]
        frequency = self.starts[table, symbols + 1] - start
        if not frequency.all():
            raise ValueError("expected symbols that their tables hold, found one of frequency 0; use another table")
        return np.stack([start, frequency])


def proportional(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies proportional to integer weights: at least 1 where the weight is not 0, 0 where it is.

    ``1 + floor((TOTAL - m) w / sum w)`` for the m weights above 0; the first of the largest gets what is left.

    Raises
    ------
    ValueError
        If all weights are 0.
    """
    weights = np.asarray(weights, dtype=np.int64)
    if weights.min(initial=0) < 0 or not weights.any():
        raise ValueError("expected weights of which one is above 0 and none below, found others; count again")
    live = weights > 0
    found = np.where(live, 1 + (TOTAL - int(live.sum())) * weights // int(weights.sum()), 0)
    found[np.argmax(weights)] += TOTAL - int(found.sum())
    return found
