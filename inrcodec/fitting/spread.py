"""What frames hold at every scale, from which bits and error at any step are guessed before any fit.

Along time and channels a cosine transform, as what stays where it is costs once however many frames there are; across frames differences of means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from .pyramid_start import doubled, halved
from .sizes import Sizes

_OF_OCTAVE = 4
"""Parts of an octave in which differences are counted: few, for every part of a clip keeps them."""
_LOWEST, _HIGHEST = -4, 24
"""Octaves of steps; differences below are roundings, and count as none."""
_LEAST_EXTENT = 4
_FINER = 3.3
"""Bits at a step are those that an ideal coder takes at a step so much finer: streams of TINC from 0.008 to 0.1 bits/sample have then the bits of the measure, to 40 %, and its error, to 20 %."""


@dataclass(frozen=True, eq=False)
class Spread:
    """Differences between means of one scale and those of the next, by their sizes.

    Attributes
    ----------
    sizes : Sizes
        Each difference is scaled to be an error of all the samples that it moves.
    """

    sizes: Sizes

    @classmethod
    def of(cls, frames: np.ndarray) -> Spread:
        """Measure frames (..., t, y, x), of which none moves against the others; axes before time are channels."""
        means, moved = frames.astype(np.float32), 1
        for axis in range(means.ndim - 2):
            means = np.moveaxis(np.tensordot(_cosines(means.shape[axis]), means, (1, axis)), 0, axis)
        constant = means[(0,) * (means.ndim - 2)]
        constant -= constant.mean()
        scales = []
        while any(flags := (*[False] * (means.ndim - 2), *(n > _LEAST_EXTENT for n in means.shape[-2:]))):
            coarse = halved(means, flags)
            scales.append((means - doubled(coarse, flags, means.shape)) * np.float32(math.sqrt(moved)))
            means, moved = coarse, moved << sum(flags)
        scales.append(means * np.float32(math.sqrt(moved)))
        return cls(reduce(Sizes.and_those, (Sizes.of(scale, _OF_OCTAVE, 2.0**_LOWEST) for scale in scales)))

    def bits(self, step: float) -> float:
        """A measure of the bits at a step of quantisation."""
        return self.sizes.bits(step / _FINER) / 4

    def error(self, step: float) -> float:
        """A measure of the sum of squared errors at a step: what is smaller is lost, the rest is rounded."""
        return self.sizes.error(step)


def step_at(rising: Callable[[float], float], wanted: float) -> float:
    """The step at which a measure that rises with it is what is wanted."""
    low, high = float(_LOWEST), float(_HIGHEST)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(2.0**middle) < wanted else (low, middle)
    return float(2.0**middle)


def _cosines(count: int) -> NDArray[np.float32]:
    """The orthonormal cosine transform of so many values."""
    wave, place = np.ogrid[:count, :count]
    cosines = np.cos(np.pi / count * wave * (place + 0.5)) * math.sqrt(2 / count)
    cosines[0] /= math.sqrt(2)
    return cosines.astype(np.float32)
