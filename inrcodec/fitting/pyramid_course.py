"""How a fit of a pyramid goes: what changes from its first step to its last, and how bits and errors fall on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MORE_BITS, _MORE_ERROR = 0.45, 0.42
"""How much more bits, where nothing better is known, and error there are at the beginning than at the end; on the way
it is that times the square of what is left."""
TELLING = 1 << 14
"""Samples of a fit from which on others take its course, and compare costs with it."""
_FAR = 3.0
"""Factor by which bits and errors on the way are off those of the end at most, for what is believed of a course."""
_DEARER = 0.03
"""Networks that know a sample have it end with fewer bits than a signal, by this."""
SETTLED, SETTLED_STEPS = (0.13, 0.38), (35, 100)
"""Parts of the steps, and least numbers of them, between which the step changes; afterwards it is the price of bits."""


@dataclass(frozen=True)
class Schedule:
    """How rounding and learning rates change; pairs are the values at the beginning and at the end of soft rounding.

    Attributes
    ----------
    temperature, deviation : tuple of float
        Of `soften`.
    least : float
        Lower limit of log2 of the Laplace scale: that of the tables, so that the fit counts what a stream will take.
    latent_rate, network_rate : float
        Learning rates; they fall to 0 along a cosine.
    hard : float
        Part of the steps, the last, that rounds.
    dear : float
        Price of bits at first, over that of the end: latents that must pay for themselves leave zero one by one.
    fair : float
        Part of the steps after which bits cost what they will.
    """

    temperature: tuple[float, float] = (0.35, 0.1)
    deviation: tuple[float, float] = (0.25, 0.15)
    least: float = -5.0
    latent_rate: float = 0.15
    network_rate: float = 0.03
    hard: float = 0.1
    dear: float = 2.0
    fair: float = 0.6

    def price(self, part: float) -> float:
        """Of a bit after a part of the steps, over that of the end."""
        return self.dear ** max(0.0, 1 - part / self.fair)


class Cost(NamedTuple):
    """What rounded latents cost: bits, and the mean squared error, where samples count 1, in units of the step."""

    bits: float
    error: float


class Course(NamedTuple):
    """Bits and errors on the way over those of the end, after parts of the steps; shapes (n,).

    Attributes
    ----------
    parts, bits, errors : ndarray of float64
    """

    parts: NDArray[np.float64]
    bits: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, costs: Sequence[tuple[float, Cost]], end: Cost, samples: int) -> Course:
        """That of a fit which cost so much on the way and has ended; the usual one where it had so few samples that another one would go another way."""
        if samples < TELLING or not costs or end.bits <= 0:
            return USUAL
        parts = np.array([part for part, _ in costs])
        ways = np.array([(cost.bits, cost.error) for _, cost in costs]).reshape(-1, 2)
        bits, errors = (np.clip(way / max(last, 1e-9), 1 / _FAR, _FAR) for way, last in zip(ways.T, end, strict=True))
        return cls(parts, bits, errors)

    def believed(self, share: float) -> Course:
        """The course of a sample's bits as a signal follows it: so much of its own, otherwise the usual one, to an end that is dearer."""
        usual = np.interp(self.parts, USUAL.parts, USUAL.bits)
        dearer = 1 + _DEARER * np.minimum((1 - self.parts) / (1 - SETTLED[1]), 1)
        return self._replace(bits=self.bits**share * usual ** (1 - share) / dearer)

    def at(self, part: float) -> tuple[float, float]:
        """Bits and error after a part of the steps."""
        return float(np.interp(part, self.parts, self.bits)), float(np.interp(part, self.parts, self.errors))


_PARTS = np.linspace(0, 1, 21)
USUAL = Course(_PARTS, 1 + _MORE_BITS * (1 - _PARTS) ** 2, 1 + _MORE_ERROR * (1 - _PARTS) ** 2)
