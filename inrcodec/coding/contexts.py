"""What a coefficient may be expected to be, from what the decoder already knows. Integer arithmetic only.

Readout coefficients are coded band by band, low frequencies first (a band holds the indices of equal |k|_1). The
expected magnitude of a coefficient is a weighted sum of the magnitudes of its up to d neighbours one step lower in
frequency (k - e_j), of those two steps lower, and of its band's mean; its logarithm in half octaves is the context
that selects one of `CONTEXTS` magnitude tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.bands import BandGraph, Neighbours, band_contexts

CONTEXTS = 32
MEAN_UNIT = 64
"""Band means are stored in 1/64."""

# Measured by non-negative least squares on coefficients of CT, MRI and microscopy; in 1/256.
_MEAN, _NEAR, _FAR, _DIAGONAL = 33, 33, 9, 13

# Boundaries between contexts at 2^((2 i + 1) / 4 - 10), in 1/(256 MEAN_UNIT): exact integer roots.
THRESHOLDS = np.array([isqrt(isqrt(1 << (2 * i + 17))) for i in range(CONTEXTS - 1)], dtype=np.int64)


@dataclass(frozen=True)
class Bands:
    """Coding order and neighbourhoods of the coefficients of the leaves of one level.

    Attributes
    ----------
    members : list of ndarray of int
        Coefficient numbers of each band; band 0 is the constant alone.
    near, far, diagonal : ndarray of int, shapes (n, W)
        Neighbours' numbers; W stands for "none".
    """

    members: list[NDArray[np.int64]]
    near: NDArray[np.int64]
    far: NDArray[np.int64]
    diagonal: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.members)

    @property
    def width(self) -> int:
        """Number of coefficients."""
        return self.near.shape[1]

    @property
    def neighbours(self) -> NDArray[np.int64]:
        """All neighbours' numbers, shape (K, W)."""
        return np.concatenate([self.near, self.far, self.diagonal])

    @property
    def gains(self) -> NDArray[np.int64]:
        """How much of each neighbour's magnitude is expected, shape (K,)."""
        share = [_NEAR] * len(self.near) + [_FAR] * len(self.far) + [_DIAGONAL] * len(self.diagonal)
        return MEAN_UNIT * np.array(share, dtype=np.int64)

    @staticmethod
    def mean_share(mean: NDArray[np.int64]) -> NDArray[np.int64]:
        """What is expected on account of a band's mean, in 1/`MEAN_UNIT`."""
        return _MEAN * mean

    @classmethod
    def of_lattice(cls, lattice: NDArray[np.int64]) -> Bands:
        """Bands of a frequency lattice, shape (W, d); a lattice whose indices repeat is a mere ranking."""
        band = lattice.sum(axis=1)
        members = [np.flatnonzero(band == b) for b in range(int(band.max()) + 1)]
        # Numbers of the frequencies on their grid; a border of two catches the steps that leave it.
        missing = len(lattice)
        number = np.full(lattice.max(axis=0) + 3, missing, dtype=np.int64)
        number[tuple(lattice.T + 2)] = np.arange(missing)
        if np.count_nonzero(number < missing) < missing:
            return cls(members, *_ranked_neighbours(members, missing))
        eye = np.eye(lattice.shape[1], dtype=np.int64)
        pairs = [eye[i] + eye[j] for i in range(len(eye)) for j in range(i)]

        def towards(steps: list[NDArray[np.int64]]) -> NDArray[np.int64]:
            found = [number[tuple((lattice - step).T + 2)] for step in steps]
            return np.array(found, dtype=np.int64).reshape(len(steps), missing)

        return cls(members, towards(list(eye)), towards(list(2 * eye)), towards(pairs))

    @cached_property
    def graph(self) -> BandGraph:
        """Bands, neighbours and their weights, as the kernels take them."""
        neighbours = Neighbours(_NEAR, self.near), Neighbours(_FAR, self.far), Neighbours(_DIAGONAL, self.diagonal)
        return BandGraph(self.members, neighbours, MEAN_UNIT, THRESHOLDS)

    def contexts(self, band: int, magnitude: np.ndarray, mean: int) -> NDArray[np.int64]:
        """Contexts of a band's coefficients.

        Parameters
        ----------
        band : int
        magnitude : ndarray of int, shape (W + 1, n)
            Magnitudes of n leaves so far, at most 255; the last row is zero.
        mean : int
            The band's mean magnitude in 1/`MEAN_UNIT`.

        Returns
        -------
        ndarray of int, shape (len(members[band]), n)
        """
        return band_contexts(self.graph, band, magnitude, _MEAN * int(mean))


def _ranked_neighbours(
    members: list[NDArray[np.int64]], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours where features have a rank but no frequency: the nearest ranks of the two bands before."""
    near = np.full((3, width), width, dtype=np.int64)
    far = np.full((1, width), width, dtype=np.int64)
    for band in range(1, len(members)):
        place = np.arange(len(members[band])) * len(members[band - 1]) // len(members[band])
        for n, shift in enumerate((-1, 0, 1)):
            near[n, members[band]] = members[band - 1][np.clip(place + shift, 0, len(members[band - 1]) - 1)]
        if band > 1:
            place = place * len(members[band - 2]) // len(members[band - 1])
            far[0, members[band]] = members[band - 2][place]
    return near, far, np.full((1, width), width, dtype=np.int64)
