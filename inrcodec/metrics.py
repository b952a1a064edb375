"""How far a decoded signal is from its original: PSNR, SSIM and absolute errors.

Everything here runs tile by tile, so that memory does not grow with the volume and memory-mapped input stays
on disk. Integers are compared in exact integer arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from inrcodec_formats.errors import SignalError

TILE_VOXELS = 1 << 20
"""Voxels worked on at once: about 100 MB of float64 temporaries inside SSIM."""

SSIM_WINDOW = 7
"""Edge of the uniform SSIM window, in voxels."""


@dataclass(frozen=True)
class ErrorStatistics:
    """Sums over all voxels of one comparison, from which every pointwise measure follows.

    Attributes
    ----------
    voxels : int
        Number of samples.
    sum_squares, sum_abs : int or float
        Of the differences; exact integers for coded dtypes.
    max_abs : int or float
        Largest absolute difference.
    """

    voxels: int
    sum_squares: float
    sum_abs: float
    max_abs: float

    def __add__(self, other: ErrorStatistics) -> ErrorStatistics:
        """Statistics of two parts together."""
        return ErrorStatistics(
            voxels=self.voxels + other.voxels,
            sum_squares=self.sum_squares + other.sum_squares,
            sum_abs=self.sum_abs + other.sum_abs,
            max_abs=max(self.max_abs, other.max_abs),
        )

    def psnr(self, data_range: float) -> float:
        """Peak signal-to-noise ratio in dB over `data_range`; infinite without error."""
        if self.sum_squares == 0:
            return math.inf
        return 20 * math.log10(data_range) - 10 * math.log10(self.sum_squares / self.voxels)


NOTHING = ErrorStatistics(0, 0, 0, 0)
"""Of no voxels."""


@dataclass(frozen=True)
class SplitErrors:
    """Statistics of the voxels inside and outside a region; without one, all are inside."""

    inside: ErrorStatistics = NOTHING
    outside: ErrorStatistics = NOTHING

    def __add__(self, other: SplitErrors) -> SplitErrors:
        """Statistics of two parts together."""
        return SplitErrors(self.inside + other.inside, self.outside + other.outside)

    @property
    def whole(self) -> ErrorStatistics:
        """Of all voxels."""
        return self.inside + self.outside


def split_errors(reference: np.ndarray, decoded: np.ndarray, inside: np.ndarray | None) -> SplitErrors:
    """`error_statistics` inside and outside a mask of the arrays' shape, or of all voxels without one."""
    if inside is None:
        return SplitErrors(error_statistics(reference, decoded))
    parts = ((reference[chosen], decoded[chosen]) for chosen in (inside, ~inside))
    return SplitErrors(*(error_statistics(*pair) if pair[0].size else NOTHING for pair in parts))


def own_range(reference: np.ndarray) -> float:
    """Largest minus smallest value of `reference`; 1 (one stored unit) when it is constant.

    A constant signal has no range of its own. With one unit in its place the PSNR of a changed copy stays
    finite and says how large the error is: ``-10 log10(mean squared error)``.
    """
    low, high = reference.min().item(), reference.max().item()
    return float(high - low) or 1.0


def error_statistics(reference: np.ndarray, decoded: np.ndarray) -> ErrorStatistics:
    """Accumulate the differences of two arrays of the same shape, tile by tile.

    Raises
    ------
    SignalError
        If the shapes differ or there is nothing to compare.
    """
    reference, decoded = _same_shape(reference, decoded)
    # Squares of 16-bit differences fit int64, and so does their sum over a tile; Python integers take the total.
    wide = np.int64 if _is_small_integer(reference) and _is_small_integer(decoded) else np.float64
    squares, total, largest = 0, 0, 0
    for tile in _tiles(reference.shape):
        difference = np.subtract(reference[tile], decoded[tile], dtype=wide).ravel()
        squares += np.dot(difference, difference).item()
        np.abs(difference, out=difference)
        total += difference.sum().item()
        largest = max(largest, difference.max().item())
    return ErrorStatistics(voxels=reference.size, sum_squares=squares, sum_abs=total, max_abs=largest)


def psnr(reference: np.ndarray, decoded: np.ndarray, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB.

    Parameters
    ----------
    reference, decoded : ndarray
        Same shape, any real dtype.
    data_range : float, optional
        The peak; default the reference's own range, see `own_range` (also for constant references).

    Returns
    -------
    float
        ``20 log10(data_range) - 10 log10(mean squared error)``, infinite for identical arrays.

    Raises
    ------
    SignalError
        If the shapes differ, the arrays are empty or `data_range` is not positive.
    """
    statistics = error_statistics(reference, decoded)
    return statistics.psnr(_checked_range(np.asanyarray(reference), data_range))


def absolute_errors(reference: np.ndarray, decoded: np.ndarray) -> tuple[float, float]:
    """Return the largest and the mean absolute difference of two arrays of the same shape.

    Raises
    ------
    SignalError
        If the shapes differ or the arrays are empty.
    """
    statistics = error_statistics(reference, decoded)
    return float(statistics.max_abs), statistics.sum_abs / statistics.voxels


def ssim3d(reference: np.ndarray, decoded: np.ndarray, data_range: float | None = None) -> float | None:
    """Mean structural similarity with a uniform window of 7 voxels on every axis.

    Parameters
    ----------
    reference, decoded : ndarray
        Same shape, 1-D to 4-D. Axes of one sample are left out; of a 4-D series, axis 0 is time and the
        result is the mean over its volumes.
    data_range : float, optional
        Default the reference's own range (of the whole series), see `own_range`.

    Returns
    -------
    float or None
        1 for identical arrays. Where an axis has fewer than 7 samples the window shrinks to the largest odd
        number that fits; None when an axis has only two samples, or all have one.

    Raises
    ------
    SignalError
        If the shapes differ, the arrays are empty, have more than four axes or `data_range` is not positive.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Trans. Image Process. 13(4), 2004. https://doi.org/10.1109/TIP.2003.819861
    """
    reference, decoded = _same_shape(reference, decoded)
    if reference.ndim > 4:
        raise SignalError(f"expected 1 to 4 dimensions, found {reference.ndim}; compare one part at a time")
    data_range = _checked_range(reference, data_range)
    series = zip(reference, decoded, strict=True) if reference.ndim == 4 else [(reference, decoded)]
    scores = [_ssim_volume(np.squeeze(a), np.squeeze(b), data_range) for a, b in series]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _ssim_volume(reference: np.ndarray, decoded: np.ndarray, data_range: float) -> float | None:
    """SSIM of one volume without axes of one sample: the mean over tiles of window centres."""
    if reference.ndim == 0 or min(reference.shape) < 3:
        return None
    from skimage.metrics import structural_similarity

    window = min(SSIM_WINDOW, (min(reference.shape) - 1) // 2 * 2 + 1)
    border = window - 1
    edge = max(1, round(TILE_VOXELS ** (1 / reference.ndim)))
    total = 0.0
    # A tile of n window centres needs n + border samples, and scikit-image's mean is over exactly those n.
    for starts in product(*(range(0, size - border, edge) for size in reference.shape)):
        tile = tuple(slice(start, start + edge + border) for start in starts)
        part = reference[tile].astype(np.float64)
        score = structural_similarity(part, decoded[tile].astype(np.float64), win_size=window, data_range=data_range)
        total += float(score) * math.prod(size - border for size in part.shape)
    return total / math.prod(size - border for size in reference.shape)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice | int, ...]]:
    """Index `shape` in slabs of about `TILE_VOXELS`, descending into axes whose rows alone are larger."""
    row = math.prod(shape[1:])
    if not shape:
        yield ()
    elif row <= TILE_VOXELS:
        step = max(1, TILE_VOXELS // max(1, row))
        for start in range(0, shape[0], step):
            yield (slice(start, start + step),)
    else:
        for index in range(shape[0]):
            for rest in _tiles(shape[1:]):
                yield (index, *rest)


def _same_shape(reference: np.ndarray, decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, decoded = np.asanyarray(reference), np.asanyarray(decoded)
    if reference.shape != decoded.shape:
        raise SignalError(f"expected two arrays of the same shape, found {reference.shape} and {decoded.shape}")
    if reference.size == 0:
        raise SignalError(f"expected at least one sample, found an empty array of shape {reference.shape}")
    return reference, decoded


def _checked_range(reference: np.ndarray, data_range: float | None) -> float:
    if data_range is None:
        return own_range(reference)
    if not (math.isfinite(data_range) and data_range > 0):
        raise SignalError(f"expected a positive data_range, found {data_range}; leave it out for the own range")
    return float(data_range)


def _is_small_integer(array: np.ndarray) -> bool:
    return array.dtype.kind in "iub" and array.dtype.itemsize <= 2
