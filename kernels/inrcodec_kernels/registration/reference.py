"""The definitions in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Hats:
    """Linear interpolation from the nodes of a grid to samples, and its transpose.

    Parameters
    ----------
    shape : tuple of 2 int
        Of samples.
    grid : tuple of 2 int
        Of nodes, one at every 2^shift-th sample.
    shift : int
    """

    def __init__(self, shape: tuple[int, ...], grid: tuple[int, ...], shift: int) -> None:
        self._axes = [self._axis(n, nodes, 2.0**shift) for n, nodes in zip(shape, grid, strict=True)]

    @staticmethod
    def _axis(extent: int, nodes: int, spacing: float) -> Floats:
        distance = np.abs(np.arange(extent)[:, None] / spacing - np.arange(nodes))
        return np.maximum(1 - distance, 0).astype(np.float32)

    def dense(self, nodes: Floats) -> Any:
        """What samples have of nodes (..., K_y, K_x)."""
        return self._axes[0] @ nodes @ self._axes[1].T

    def summed(self, samples: Floats) -> Any:
        """What nodes have of samples (..., h, w)."""
        return self._axes[0].T @ samples @ self._axes[1]


def sampled(values: Floats, at: Floats) -> Floats:
    """Values (..., H, W) at places (2, ...), linear between samples; the edge goes on."""
    (y, fy), (x, fx) = (_split(place, n) for place, n in zip(at, values.shape[-2:], strict=True))
    first = y * values.shape[-1] + x
    flat = values.reshape(*values.shape[:-2], -1)
    above, below = (_between(flat, first + line, fx) for line in (0, values.shape[-1]))
    return above + fy * (below - above)


def _between(flat: Floats, first: NDArray[np.intp], share: Floats) -> Floats:
    """Values between one place and the next."""
    before: Floats = flat.take(first, axis=-1)
    return before + share * (flat.take(first + 1, axis=-1) - before)


def _split(place: Floats, extent: int) -> tuple[NDArray[np.intp], Floats]:
    inside = np.clip(place, 0, extent - 1)
    whole = np.minimum(inside.astype(np.intp), extent - 2)
    return whole, inside - whole


def _places(shape: tuple[int, ...], nodes: Floats, shift: int) -> Floats:
    found: Floats = np.indices(shape, dtype=np.float32) + Hats(shape, nodes.shape[1:], shift).dense(nodes)
    return found


def sums(frame: Floats, known: Floats, nodes: Floats, shift: int, outlier: float) -> Floats:
    """As `inrcodec_kernels.registration.sums`."""
    at, extents = _places(frame.shape, nodes, shift), known.shape[:2]
    found, gy, gx = sampled(np.moveaxis(known, -1, 0), at)
    on_frame = (at[0] >= 0) & (at[1] >= 0) & (at[0] <= extents[0] - 1) & (at[1] <= extents[1] - 1)
    rest = frame - found
    trust = on_frame / (1 + np.square(rest / np.float32(outlier)))
    hats = Hats(frame.shape, nodes.shape[1:], shift)
    pairs = ((gy, gy), (gx, gx), (gy, gx), (gy, rest), (gx, rest))
    return np.stack([hats.summed(trust * a * b) for a, b in pairs]).astype(np.float32)


def difference(frame: Floats, other: Floats, nodes: Floats, shift: int) -> float:
    """As `inrcodec_kernels.registration.difference`."""
    return float(np.square(frame - sampled(other, _places(frame.shape, nodes, shift))).mean(dtype=np.float64))
