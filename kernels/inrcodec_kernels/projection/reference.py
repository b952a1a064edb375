"""The definition of the projection. See README.md for the mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

SHORT = 8
"""Where all axes have at most so many samples, sums are taken term by term: loops can do that, exactly so."""


def project(blocks: np.ndarray, bases: Sequence[np.ndarray], place: NDArray[np.int64]) -> np.ndarray:
    """See `inrcodec_kernels.projection.project`."""
    along = _term_by_term if max(map(len, bases)) <= SHORT else _product
    spectrum, lead, tail = blocks, len(blocks), blocks.shape[1]
    for basis in bases:
        tail //= len(basis)
        spectrum = along(spectrum.reshape(lead, len(basis), tail), basis)
        lead *= basis.shape[1]
    found: np.ndarray = spectrum.reshape(len(blocks), math.prod(basis.shape[1] for basis in bases))[:, place]
    return found


def _term_by_term(before: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """``after[l, q, t] = sum_p basis[p, q] before[l, p, t]``, p ascending, every product rounded before it is added."""
    after = np.zeros((len(before), basis.shape[1], before.shape[2]), dtype=before.dtype)
    for number, row in enumerate(basis):
        after += row[:, None] * before[:, number, None]
    return after


def _product(before: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The same by matrix products, in whatever order those have."""
    samples, matrix = torch.from_numpy(before), torch.from_numpy(basis)
    if before.shape[2] == 1:
        return (samples[..., 0] @ matrix).numpy()
    return torch.matmul(matrix.T, samples).numpy()
