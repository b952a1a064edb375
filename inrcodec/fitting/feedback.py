"""Rounding numbers so that their errors make up for each other.

Where a cost rises by ``e' M e`` with errors e, and ``M = A' D A`` with ones on the diagonal of a triangular A, that is the sum of ``d_i (A e)_i^2``; and as
``(A e)_i`` is ``e_i`` and what errors behind it add, each number is rounded to where that is least, the last one first: Babai's nearest plane (1986,
doi:10.1007/BF02579403), of which GPTQ (arXiv:2210.17323) is the case of one row of weights. So the steps, and the order, decide what is lost:
``d_i step_i^2 / 12`` each.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_DAMPING, _LEAST = 1e-3, 1e-6
"""Part of M's diagonal that is added to it, as some directions were not seen by the sites that it is made from; and of the mean, what each has at least."""


class Feedback:
    """What rounds some numbers together.

    Parameters
    ----------
    curvature : ndarray of float64, shape (n, n)
        M, symmetric and without negative eigenvalues. Numbers that are finest, or cheapest, are best the first ones, which are rounded last.

    Attributes
    ----------
    variances : ndarray of float64, shape (n,)
        D.
    """

    def __init__(self, curvature: Numbers) -> None:
        known = bool(np.isfinite(curvature).all() and np.diag(curvature).any())
        # Where nothing is known, each number is rounded by itself.
        lower = _lower(curvature) if known else np.eye(len(curvature))
        scales = np.diag(lower)
        self.variances = scales**2 if known else np.zeros(len(curvature))
        self._behind = np.ascontiguousarray((lower / scales).T)
        np.fill_diagonal(self._behind, 0.0)

    def rounded(self, values: Numbers, steps: Numbers) -> Numbers:
        """Whole numbers of steps, shape (n,)."""
        found, errors = np.empty_like(values), np.zeros_like(values)
        for i in range(len(values) - 1, -1, -1):
            found[i] = np.rint((values[i] + self._behind[i] @ errors) / steps[i])
            errors[i] = values[i] - found[i] * steps[i]
        return found


def _lower(curvature: Numbers) -> Numbers:
    """Its Cholesky factor, with as much on the diagonal as it takes."""
    own, damping = np.diag(curvature), _DAMPING
    while True:
        with suppress(np.linalg.LinAlgError):
            return np.asarray(np.linalg.cholesky(curvature + np.diag(damping * own + _LEAST * own.mean())), np.float64)
        damping *= 10
