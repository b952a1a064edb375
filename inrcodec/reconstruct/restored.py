"""Decoded samples after the restoration network, on the grid and between its samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.backend import Backend

from ..models.restoration import Restoration

_TILE = 32
"""Points are corrected together where they fall into the same cube of this edge."""
_SLAB_SAMPLES = 1 << 24
"""Samples of a grid corrected at a time."""

ReadBox = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


class Restorer:
    """The correction of a signal's decoded samples; between samples it is interpolated linearly.

    Parameters
    ----------
    network : Restoration
    strength : float
        What corrections are measured in, in stored units.
    read : callable
        ``read(start, stop)``: decoded samples of a box.
    shape : tuple of int
        Of the signal.
    backend : Backend
    """

    def __init__(
        self, network: Restoration, strength: float, read: ReadBox, shape: tuple[int, ...], backend: Backend
    ) -> None:
        self.network, self.strength, self.read, self.shape = network, strength, read, shape
        self.backend = backend

    def box(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float32]:
        """Corrected samples of a box."""
        return self._restored(start, stop, np.dtype(np.float32), 0, 0)[0]

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], dtype: np.dtype[Any], low: int, high: int
    ) -> NDArray[Any]:
        """Corrected samples of a box, rounded and clipped."""
        return self._restored(start, stop, dtype, low, high)[0]

    def ringed(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The box with what the signal has of the ring that its correction needs."""
        radius = np.array(self.network.radius)
        return np.maximum(start - radius, 0), np.minimum(stop + radius, self.shape)

    def write(self, box: Tensor, before: list[int], out: Tensor, low: int, high: int) -> None:
        """Correct samples on the backend's device, see `Restoration.restore`."""
        self.network.write(box, before, out, self.strength, low, high, self.backend)

    def change(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the correction adds to the samples of a box."""
        restored, plain = self._restored(start, stop, np.dtype(np.float32), 0, 0)
        change: NDArray[np.float32] = restored - plain
        return change

    def change_on_grid(self, grids: list[NDArray[np.float64]], out: NDArray[np.float32]) -> None:
        """Add the correction to values on the grid of ascending positions along each axis."""
        rows = max(1, _SLAB_SAMPLES // max(1, out[0].size))
        for at in range(0, len(out), rows):
            part = [grids[0][at : at + rows], *grids[1:]]
            neighbours = [_neighbours(g, n) for g, n in zip(part, self.shape, strict=True)]
            start = np.array([low.min() for low, _, _ in neighbours])
            stop = np.array([high.max() + 1 for _, high, _ in neighbours])
            values = self.change(start, stop)
            for axis, (low, high, share) in enumerate(neighbours):
                weight = share.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
                first, second = values.take(low - start[axis], axis), values.take(high - start[axis], axis)
                values = first + weight * (second - first)
            out[at : at + rows] += values

    def change_at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the correction adds at points (n, d)."""
        result = np.zeros(len(points))
        tile = np.clip(np.floor(points).astype(np.int64), 0, None) // _TILE
        tiles, member = np.unique(tile, axis=0, return_inverse=True)
        for number in range(len(tiles)):
            here = np.flatnonzero(member.ravel() == number)
            result[here] = self._interpolated(points[here])
        return result

    def _interpolated(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for points close together."""
        neighbours = [_neighbours(points[:, axis], n) for axis, n in enumerate(self.shape)]
        start = np.array([low.min() for low, _, _ in neighbours])
        values = self.change(start, np.array([high.max() + 1 for _, high, _ in neighbours]))
        result = np.zeros(len(points))
        for corner in itertools.product((0, 1), repeat=len(neighbours)):
            weight = np.ones(len(points))
            place = []
            for side, (low, high, share), first in zip(corner, neighbours, start, strict=True):
                weight *= share if side else 1 - share
                place.append((high if side else low) - first)
            result += weight * values[tuple(place)]
        return result

    def _restored(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], dtype: np.dtype[Any], low: int, high: int
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Corrected samples of a box, integers rounded and clipped, and the samples that they were."""
        first, last = self.ringed(start, stop)
        box, before = self.read(first, last), (start - first).tolist()
        out = np.empty(tuple((stop - start).tolist()), dtype=dtype)
        self.network.restore(box, before, out, self.strength, low, high, self.backend)
        return out, box[tuple(slice(b, b + n) for b, n in zip(before, out.shape, strict=True))]


def _neighbours(
    positions: NDArray[np.float64], extent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Samples below and above each position of an axis, and the share of the one above."""
    inside = np.clip(positions, 0, extent - 1)
    low = np.floor(inside).astype(np.int64)
    return low, np.minimum(low + 1, extent - 1), inside - low
