"""Where a pyramid's fit begins: which axes levels halve, first latents, and guesses of the step."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..models.pyramid import PyramidLayout
from .goal import Goal

Floats = NDArray[np.float32]


_DEAD = 0.6
"""The finest latents begin nearer to zero by this: most of them will be zero in the end."""


def first_latents(target: Floats, layout: PyramidLayout, gains: Floats) -> list[Floats]:
    """Differences of means: every level holds what the coarser ones leave, the finest one only what is large.

    Parameters
    ----------
    target : ndarray, shape of the finest lattice
    layout : PyramidLayout
    gains : ndarray, shape (K,)
    """
    means = [target]
    for flags in layout.kernel.halved:
        means.append(halved(means[-1], flags))
    found = [means[-1] / gains[-1]]
    for level in range(layout.levels - 2, -1, -1):
        coarse = _doubled(means[level + 1], layout.kernel.halved[level], means[level].shape)
        rest = (means[level] - coarse) / gains[level]
        found.append(rest if level else np.sign(rest) * np.maximum(np.abs(rest) - _DEAD, 0))
    return [np.ascontiguousarray(y, dtype=np.float32) for y in reversed(found)]


def halved(values: Floats, flags: tuple[bool, ...]) -> Floats:
    """Means of pairs along some axes; an odd last one stands for itself."""
    for axis in np.flatnonzero(flags).tolist():
        last = values.take(range(0, values.shape[axis], 2), axis)
        other = values.take(np.minimum(np.arange(0, values.shape[axis], 2) + 1, values.shape[axis] - 1), axis)
        values = (last + other) / 2
    return values


def _doubled(values: Floats, flags: tuple[bool, ...], shape: tuple[int, ...]) -> Floats:
    """Linear interpolation back to a shape."""
    for axis in np.flatnonzero(flags).tolist():
        place = np.arange(shape[axis])
        near = place >> 1
        other = np.clip(near + 2 * (place & 1) - 1, 0, values.shape[axis] - 1)
        values = np.float32(0.75) * values.take(near, axis) + np.float32(0.25) * values.take(other, axis)
    return values


def choose_halvings(
    volume: np.ndarray, most: int, least_extent: int = 4, channels: bool = False
) -> tuple[tuple[bool, ...], ...]:
    """Axes to halve from level to level: those along which the signal is smoothest first, until all are short.

    Thick slices differ more from one to the next than neighbours within them; there the axis of slices waits until the
    others have become as coarse.

    Parameters
    ----------
    volume : ndarray
        Samples that are not known are NaN.
    most : int
        Most levels.
    least_extent : int
        Shorter axes are not halved.
    channels : bool
        Axis 0 holds channels and is never halved: the mean of two channels is nothing to predict either from.
    """
    extents = list(volume.shape)
    rough = [_roughness(volume, axis) for axis in range(volume.ndim)]
    found: list[tuple[bool, ...]] = []
    while len(found) < most - 1:
        live = [axis for axis, n in enumerate(extents) if n > least_extent and not (channels and axis == 0)]
        if not live:
            break
        limit = _UNLIKE * min(rough[axis] for axis in live)
        flags = tuple(axis in live and rough[axis] <= limit for axis in range(volume.ndim))
        found.append(flags)
        extents = [-(-n // 2) if half else n for n, half in zip(extents, flags, strict=True)]
        rough = [r * 4 if half else r for r, half in zip(rough, flags, strict=True)]
    return tuple(found)


_UNLIKE = 3.0
"""Axes whose squared differences are within this factor of the smallest are halved together."""


def _roughness(volume: np.ndarray, axis: int) -> float:
    """Mean squared difference of neighbours along an axis, of a part of the signal."""
    if volume.shape[axis] < 2:
        return math.inf
    sparse = tuple(slice(None) if a == axis else slice(n // 2 % max(1, n // 64), None, max(1, n // 64)) for a, n in enumerate(volume.shape))
    return max(float(np.nanmean(np.diff(volume[sparse].astype(np.float64), axis=axis) ** 2)), 1e-12)


class Differences:
    """What a signal's levels hold as differences of means: from them steps can be guessed before any fit.

    Parameters
    ----------
    volume : ndarray
    offset : float
    layout : PyramidLayout
    """

    def __init__(self, volume: np.ndarray, offset: float, layout: PyramidLayout) -> None:
        target = (volume - np.float32(offset)).astype(np.float32).reshape(layout.kernel.shape)
        gains = np.sqrt(1 / np.prod(layout.strides, axis=1)).astype(np.float32)
        self._levels = first_latents(target, layout, gains)
        self._coarsest = math.log2(max(float(np.abs(target).max()), 1.0))
        if layout.halved:
            flags = layout.kernel.halved[0]
            self._levels[0] = target - _doubled(halved(target, flags), flags, target.shape)

    def bits(self, step: float) -> float:
        """A measure of the bits at a step: a fit takes about half."""
        return sum(float(np.log2(1 + np.square(y / np.float32(step))).sum(dtype=np.float64)) for y in self._levels)

    def error(self, step: float) -> float:
        """A measure of the mean squared error at a step: what is smaller than the step is lost, the rest is rounded."""
        fine = self._levels[0]
        return float(np.minimum(np.square(fine), np.float32(step**2 / 12)).mean(dtype=np.float64))

    def step(self, goal: Goal, share: float) -> float:
        """The step at which `share` of the measure meets the goal."""
        # Samples are whole numbers: a finer step than a quarter gains nothing. Where the finest level holds less than the error that
        # is asked for, no step is too coarse for the measure.
        low, high = -2.0, self._coarsest
        for _ in range(20):
            middle = (low + high) / 2
            if goal.bits is not None:
                finer = share * self.bits(2.0**middle) <= goal.bits
            else:
                assert goal.error is not None
                finer = share * self.error(2.0**middle) > goal.error
            low, high = (low, middle) if finer else (middle, high)
        return float(2.0**middle)
