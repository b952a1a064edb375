"""What each part of a signal may cost when all share one goal: as if all were fitted at the same step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .goal import Goal
from .pyramid_start import Differences
from .pyramid_trial import GUESS, GUESS_OF_ERROR

_OCTAVES = np.arange(-2.0, 18.0)
"""Steps at which parts are measured, binary logarithms: samples are whole numbers of at most 16 bits."""
_NOTHING = 1e-12
"""Less than any bits or errors."""
_ROUNDING = 1 / 12
"""Mean squared error that rounding of samples adds to that of a fit."""
_LEAST = 1e-3
"""Least part of the goal's error that is asked of any part, and least share of bits: a part may be of one value."""


@dataclass(frozen=True)
class Measures:
    """What `Differences` says of a part: all that is kept of it.

    Attributes
    ----------
    bits, errors : ndarray of float64, shape (20,)
        At steps of whole octaves: bits, and the sum of squared errors of samples that count 1.
    inside : int
        Number of those samples.
    least : float
        Bits that the part takes whatever it holds.
    """

    bits: NDArray[np.float64]
    errors: NDArray[np.float64]
    inside: int
    least: float

    @classmethod
    def of(cls, known: Differences, inside: int, least: float) -> Measures:
        """Measure a part."""
        steps = np.exp2(_OCTAVES)
        return cls(np.array([known.bits(s) for s in steps]), inside * np.array([known.error(s) for s in steps]), inside, least)

    def outside(self, weight: float) -> Measures:
        """That of a part in which no sample counts 1, but all so much."""
        with np.errstate(divide="ignore"):
            coarser = -0.5 * np.log2(weight)
        bits = _between(_OCTAVES + coarser, self.bits) if np.isfinite(coarser) else np.zeros_like(self.bits)
        return replace(self, bits=bits, errors=np.zeros_like(self.errors), inside=0)


def unrounded(goal: Goal) -> Goal:
    """The goal of fits, whose samples are not rounded."""
    return goal if goal.error is None else Goal(error=max(goal.error - _ROUNDING, goal.error / 2))


def shares(goal: Goal, parts: Sequence[Measures]) -> list[Goal]:
    """Goals of parts: what each takes at the step where all together meet the goal.

    Parameters
    ----------
    goal : Goal
        Of all parts; an error is that of the samples that count 1. Parts without such get a goal of bits.
    parts : sequence of Measures
    """
    bits, errors = (np.stack([getattr(part, name) for part in parts]) for name in ("bits", "errors"))
    least, inside = (np.array([getattr(part, name) for part in parts], dtype=np.float64) for name in ("least", "inside"))
    if goal.bits is not None:
        rest = max(goal.bits - least.sum(), goal.bits / 4)
        weights = _at(bits, GUESS * bits.sum(0), rest)
        return [Goal(bits=float(b)) for b in least + rest * _parts_of_all(weights)]
    assert goal.error is not None
    total = goal.error * inside.sum()
    mean = GUESS_OF_ERROR * errors.sum(0)
    taken = total * _parts_of_all(_at(errors, mean, total)) / np.maximum(inside, 1)
    others = least + GUESS * _at(bits, mean, total)
    return [
        Goal(error=float(max(error, _LEAST * goal.error))) if count else Goal(bits=float(other))
        for error, other, count in zip(taken, others, inside, strict=True)
    ]


def largest_last(goals: Sequence[Goal], parts: Sequence[Measures]) -> list[int]:
    """Numbers of parts, those of small shares first; parts with a goal of bits come before those with one of error."""

    def share(number: int) -> tuple[bool, float]:
        bits, error = goals[number].bits, goals[number].error
        return bits is None, (error or 0.0) * parts[number].inside if bits is None else bits

    return sorted(range(len(parts)), key=share)


def _at(values: NDArray[np.float64], measure: NDArray[np.float64], wanted: float) -> NDArray[np.float64]:
    """Each part's value at the octave where a measure, which rises or falls with the step, is as wanted, or is nearest to it."""
    logs, sign = np.log2(np.maximum(measure, _NOTHING)), 1 if measure[-1] > measure[0] else -1
    octave = np.interp(sign * np.log2(wanted), np.maximum.accumulate(sign * logs), _OCTAVES)
    return np.array([_between(octave, row) for row in values])


def _between(octaves: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values between those of whole octaves: they change by factors."""
    return np.exp2(np.interp(octaves, _OCTAVES, np.log2(np.maximum(values, _NOTHING))))


def _parts_of_all(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values over their sum, none of them nothing."""
    floored = np.maximum(values, _LEAST * values.sum() / len(values))
    return np.asarray(floored / floored.sum())
