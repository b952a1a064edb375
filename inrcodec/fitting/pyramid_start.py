"""Where a pyramid's fit begins: which axes levels halve, first latents, and guesses of the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import best_on_cpu
from inrcodec_kernels.pyramid import parted

from ..models.pyramid import AXES, PyramidLayout
from ..region import box_around, sample_inside
from .goal import Goal
from .sizes import Sizes

Floats = NDArray[np.float32]
Box = tuple[slice, ...]


_DEAD = 0.6
"""The finest latents begin nearer to zero by this: most of them will be zero in the end."""


def first_latents(target: Floats, layout: PyramidLayout, gains: Floats, weights: Floats | None = None) -> list[Floats]:
    """Differences of means: every lattice holds what the coarser ones leave, the finest one only what is large; bands hold what they see of it.

    Where errors count less, only what is larger: a step is worth its bits there if it is longer by the root of that.

    Parameters
    ----------
    target : ndarray, shape of the finest lattice
    layout : PyramidLayout
    gains : ndarray, one of each lattice with latents
    weights : ndarray of float32, shape of the signal, or 1 along some axes, optional
        What squared errors count.
    """
    absent = len(layout.above)
    means = [target]
    for flags in layout.kernel.whole.halved:
        means.append(halved(means[-1], flags))
    means = means[absent:]
    coarser = [doubled(coarse, flags, fine.shape) for fine, coarse, flags in zip(means[:-1], means[1:], layout.kernel.halved, strict=True)]
    rests = [fine - coarse for fine, coarse in zip(means, [*coarser, np.zeros_like(means[-1])], strict=True)]
    found = parted([rest / gain for rest, gain in zip(rests, gains, strict=True)], layout.kernel, best_on_cpu())
    dead = [_DEAD * (not lattice and not absent) for lattice in layout.kernel.lattice] if weights is None else _dead_zones(weights, layout)
    return [np.ascontiguousarray(_nearer(y, by), dtype=np.float32) for y, by in zip(found, dead, strict=True)]


def _nearer(values: Floats, dead: Any) -> Floats:
    """Values nearer to zero by so much."""
    return np.sign(values) * np.maximum(np.abs(values) - dead, 0)


def _dead_zones(weights: Floats, layout: PyramidLayout) -> list[Floats]:
    """By what the latents of each level begin nearer to zero."""
    absent = len(layout.above)
    with np.errstate(divide="ignore"):
        longer: list[Floats] = [np.reciprocal(np.sqrt(w)) for w in level_weights(weights, layout)]
    return [np.float32(_DEAD) * (steps - np.float32(lattice + absent > 0)) for lattice, steps in zip(layout.kernel.lattice, longer, strict=True)]


def halved(values: Floats, flags: tuple[bool, ...]) -> Floats:
    """Means of pairs along some axes; an odd last one stands for itself."""
    for axis in np.flatnonzero(flags).tolist():
        last = values.take(range(0, values.shape[axis], 2), axis)
        other = values.take(np.minimum(np.arange(0, values.shape[axis], 2) + 1, values.shape[axis] - 1), axis)
        values = (last + other) / 2
    return values


def doubled(values: Floats, flags: tuple[bool, ...], shape: tuple[int, ...]) -> Floats:
    """Linear interpolation back to a shape."""
    for axis in np.flatnonzero(flags).tolist():
        place = np.arange(shape[axis])
        near = place >> 1
        other = np.clip(near + 2 * (place & 1) - 1, 0, values.shape[axis] - 1)
        values = np.float32(0.75) * values.take(near, axis) + np.float32(0.25) * values.take(other, axis)
    return values


def level_weights(weights: Floats, layout: PyramidLayout) -> list[Floats]:
    """What squared errors count around the latents of every level: means of what those of the samples, `weights`, do.

    Parameters
    ----------
    weights : ndarray of float32, shape of the signal, or 1 along some axes
    layout : PyramidLayout

    Returns
    -------
    list of ndarray of float32
        With the four axes of kernels.
    """
    found = [sample_weights(weights)]
    for flags in layout.kernel.whole.halved:
        found.append(halved(found[-1], flags))
    return list(layout.kernel.of_levels(found[len(layout.above) :]))


def sample_weights(weights: Floats) -> Floats:
    """With the four axes of kernels."""
    return weights.reshape((1,) * (AXES - weights.ndim) + weights.shape)


def middle_box(shape: tuple[int, ...], most: int, weights: Floats | None) -> tuple[slice, ...]:
    """A box of at most so many samples: the middle, or of a region, whose weights are 1, about the middle."""
    extent = list(shape)
    while math.prod(extent) > most:
        longest = max(range(len(extent)), key=lambda axis: extent[axis])
        extent[longest] = -(-extent[longest] // 2)
    if weights is None:
        return tuple(slice((n - e) // 2, (n - e) // 2 + e) for n, e in zip(shape, extent, strict=True))
    place = sample_inside(weights >= 1)
    return box_around([n // 2 if m == 1 else p for n, m, p in zip(shape, weights.shape, place, strict=True)], extent, shape)


def typical_boxes(shape: tuple[int, ...], most: int, density: Callable[[Box], float], turn: int = 0) -> list[Box]:
    """Boxes of at most so many samples together: of some all over a signal those that stand for as many of them each.

    Parameters
    ----------
    shape : tuple of int
    most : int
    density : callable
        ``density(box)``: what boxes differ by. A signal is dense in few places, and those take most of its bits.
    turn : int
        Further turns find the next denser ones.
    """
    if math.prod(shape) <= 2 * most:
        return [middle_box(shape, most, None)]
    extent = [s.stop - s.start for s in middle_box(shape, most // _BOXES, None)]
    places = [sorted({(n - e) * i // (_PLACES - 1) for i in range(_PLACES)}) for n, e in zip(shape, extent, strict=True)]
    boxes = [tuple(slice(p, p + e) for p, e in zip(place, extent, strict=True)) for place in itertools.product(*places)]
    ordered = sorted(boxes, key=density)
    return [ordered[min((2 * i + 1) * len(ordered) // (2 * _BOXES) + turn, len(ordered) - 1)] for i in range(_BOXES)]


_BOXES, _PLACES = 4, 5
"""Boxes of a sample, and places along each axis of those that it is taken from."""


def cut_weights(weights: Floats | None, box: tuple[slice, ...]) -> Floats | None:
    """Those of a box; along axes on which they are the same they stay so."""
    if weights is None:
        return None
    return weights[tuple(slice(None) if n == 1 else part for n, part in zip(weights.shape, box, strict=True))]


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


_OF_OCTAVE = 256
"""Parts of an octave in which differences are counted: sums are then true to a millionth or so."""


class Differences:
    """What a signal's levels hold as differences of means: from them steps can be guessed before any fit.

    Parameters
    ----------
    volume : ndarray
    offset : float
    layout : PyramidLayout
    weights : ndarray of float32, shape of the signal, or 1 along some axes, optional
        What squared errors count: differences count by its root. The error is that where it is 1.
    """

    def __init__(self, volume: np.ndarray, offset: float, layout: PyramidLayout, weights: Floats | None = None) -> None:
        target = (volume - np.float32(offset)).astype(np.float32).reshape(layout.kernel.shape)
        self._levels, self._strides = first_latents(target, layout, layout.gains), layout.strides
        self._coarsest = math.log2(max(float(np.abs(target).max()), 1.0))
        if layout.halved:
            flags = layout.kernel.halved[0]
            self._levels[0] = target - doubled(halved(target, flags), flags, target.shape)
        self._inside: Any = True
        if weights is not None:
            counted = level_weights(weights, layout)
            self._levels = [y * np.sqrt(w) for y, w in zip(self._levels, counted, strict=True)]
            self._inside = counted[0] >= 1
        self._sizes = reduce(Sizes.and_those, (Sizes.of(y, _OF_OCTAVE) for y in self._levels))
        finest = self._levels[0]
        seen = finest if weights is None else finest[np.broadcast_to(self._inside, finest.shape)]
        self._finest, self._seen = Sizes.of(seen, _OF_OCTAVE), max(seen.size, 1)

    def bits(self, step: float) -> float:
        """A measure of the bits at a step: a fit takes about half."""
        return self._sizes.bits(step)

    def density(self, step: float, box: Box) -> float:
        """The measure of bits for a sample of a box."""
        total = 0.0
        for y, strides in zip(self._levels, self._strides, strict=True):
            part = tuple(slice(s.start // n, -(-s.stop // n)) for s, n in zip(box, strides, strict=True))
            inside = y[(0,) * (AXES - len(box)) + part]
            # At its edges a box has more latents of coarse levels than samples under them.
            total += float(np.log2(1 + np.square(inside / np.float32(step))).mean(dtype=np.float64)) / math.prod(strides)
        return total

    def error(self, step: float, box: Box = ()) -> float:
        """A measure of the mean squared error at a step, of a box or of all: what is smaller than the step is lost, the rest is rounded."""
        if not box:
            return self._finest.error(step) / self._seen
        place = (slice(None),) * (AXES - len(box)) + box
        fine, inside = self._levels[0][place], self._inside
        if inside is not True:
            inside = np.broadcast_to(inside, self._levels[0].shape)[place]
        return float(np.minimum(np.square(fine), np.float32(step**2 / 12)).mean(dtype=np.float64, where=inside))

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
