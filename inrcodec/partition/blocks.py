"""Moving samples between a volume and the blocks of its partition."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BATCH_SAMPLES = 1 << 22


def batches(count: int, samples_each: int) -> Iterator[slice]:
    """Cut `count` items so that a batch holds a bounded number of samples."""
    size = max(1, _BATCH_SAMPLES // samples_each)
    return (slice(at, min(at + size, count)) for at in range(0, count, size))


def gather(volume: np.ndarray, origin: np.ndarray, cell: tuple[int, ...]) -> np.ndarray:
    """Copy blocks out of a volume; samples beyond the signal repeat the nearest one.

    Parameters
    ----------
    volume : ndarray, shape (D, H, W) or any dimension
        May be memory-mapped.
    origin : ndarray of int, shape (B, d)
        First sample of each block.
    cell : tuple of int
        Extents of a block.

    Returns
    -------
    ndarray of float32, shape (B, prod(cell))
    """
    block = np.empty((len(origin), *cell), dtype=np.float32)
    shape = np.asarray(volume.shape)
    fits = np.all((origin >= 0) & (origin + np.asarray(cell) <= shape), axis=1)
    if fits.any():
        # A view of all boxes of this extent, of which those wanted are copied.
        boxes = np.lib.stride_tricks.sliding_window_view(volume, cell)
        block[fits] = boxes[tuple(origin[fits].T)]
    for i in np.flatnonzero(~fits):
        axes = [np.clip(np.arange(o, o + e), 0, n - 1) for o, e, n in zip(origin[i], cell, volume.shape, strict=True)]
        block[i] = volume[np.ix_(*axes)]
    return block.reshape(len(origin), math.prod(cell))


def scatter(
    volume: np.ndarray, offset: np.ndarray, origin: np.ndarray, cell: tuple[int, ...], block: np.ndarray
) -> None:
    """Copy blocks into a box of the volume, leaving out what lies outside it.

    Parameters
    ----------
    volume : ndarray
        The box being filled, written in place.
    offset : ndarray of int, shape (d,)
        Position of ``volume[0, 0, 0]`` in the signal.
    origin : ndarray of int, shape (B, d)
    cell : tuple of int
    block : ndarray, shape (B, prod(cell))
    """
    blocks = block.reshape(len(origin), *cell)
    for start, values in zip(origin - offset, blocks, strict=True):
        inside = [(max(int(o), 0), min(int(o) + e, n)) for o, e, n in zip(start, cell, volume.shape, strict=True)]
        if all(a < b for a, b in inside):
            source = tuple(slice(a - int(o), b - int(o)) for (a, b), o in zip(inside, start, strict=True))
            volume[tuple(slice(a, b) for a, b in inside)] = values[source]


def blend_ramp(positions: NDArray[np.floating], origin: int, extent: int, halo: int) -> NDArray[np.float64]:
    """Weight of a block along one axis: 1 inside, falling linearly to 0 from `halo` samples within to as many beyond.

    The ramps of two neighbours add up to 1, so that blocks that overlap by the halo are blended without a seam.

    Parameters
    ----------
    positions : ndarray, shape (n,)
        Voxel indices.
    origin, extent : int
        First sample of the block and their number.
    halo : int
        0 cuts sharply.
    """
    low, high = origin - 0.5, origin + extent - 0.5
    if halo == 0:
        return ((positions >= low) & (positions < high)).astype(np.float64)
    ramp: NDArray[np.float64] = np.minimum(positions - low, high - positions) / (2 * halo) + 0.5
    return np.clip(ramp, 0.0, 1.0)
