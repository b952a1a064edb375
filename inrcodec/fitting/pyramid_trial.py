"""Whole fits of a sample: from them come the finest level, the step and the networks to begin with, and how bits and errors fall on the way.

Where a stream is small, latents on the lattice of the signal are all zero in the end, and what noise they carry until then disturbs the
others. So a pyramid without them is tried first, which takes half the time, and whatever seems to be better after that, at the same step; where a
stream is large, one with them. Then the best of them is tried with its finest lattices split into bands.

Networks learn more slowly than latents. So those of the trial go on with another sample, a lesson, and the signal's own fit begins with what
they are then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Synthesis, pace

from ..models.pyramid import MOST_ABOVE, PyramidLayout
from .goal import Goal
from .pyramid import FAIR, PyramidFit
from .pyramid_course import TELLING, Course, Schedule
from .pyramid_start import Box, Differences, cut_weights, middle_box, typical_boxes

Floats = NDArray[np.float32]
Pair = tuple[Context, Synthesis]

GUESS, GUESS_OF_ERROR = 0.8, 0.5
"""Part of `Differences.bits`, and of its error, that a fit takes."""
BITS_PER_PARAMETER = 7.0
"""Of both networks, about, as they are stored."""
_LEAST_SAMPLES, _TRIAL_SAMPLES, _LESSON_SAMPLES = 1 << 15, 1 << 18, 1 << 20
"""Of a sample at least; of one that is tried on, and of one that networks are taught with, at most."""
_PART, _DENSER = 8, 2
"""A sample is at most the signal over this, or the least. A lesson of a dense signal is as many times smaller: there it is worth little."""
_MOST_TRIALS = 6
"""Before the lesson: three layouts, each at a second step if the first was far off."""
_SPLIT = 2
"""Lattices that are tried in bands: a third one has so few latents that it gains a hundredth of the cost."""
_MOST_OFF = 4.0
"""Factor by which the guess of a step is corrected at most."""
_NEAR = 1.3
"""Factor within which a step is near enough to another for what was seen there."""
_DEAD, _ALIVE = 0.1, 0.3
"""Part of the bits that the finest level takes, below which it may be left out, and above which a finer one may pay."""
_DENSE, _GUESS_OF_DENSE = 0.25, 1.5
"""Bits for each sample, as guessed, from which on latents on the signal's lattice are tried first, and the part of `Differences.bits` that a trial takes then."""
_SHORTER = 2
"""A trial takes so many times fewer steps than a lesson, which says the last word on step and course; without a lesson, as many."""
_BY_STEPS = 0.93
"""Factor in the cost that the further steps make which a fit of wide networks takes, and no trial, where the finest lattice holds no latents."""


class Guess(NamedTuple):
    """Where to begin.

    Attributes
    ----------
    layout : PyramidLayout
        The one that was given, or that without its finest levels.
    step : float
    course : Course
        How bits and errors of a fit fall to those of its end.
    network_bits : float
        What the networks took.
    networks : tuple of Context and Synthesis
        Those to begin with: taught, if the signal has more than one box.
    """

    layout: PyramidLayout
    step: float
    course: Course
    network_bits: float
    networks: Pair


class _Sample(NamedTuple):
    """Boxes of a signal, and all of them side by side."""

    boxes: list[Box]
    samples: np.ndarray


@dataclass(frozen=True)
class _Trial:
    """A fit of boxes at a step.

    Squared error and bits of a sample, those of networks too; the part of the bits that the finest lattice has; the step that the signal needs
    then, and whether this is the second trial of a layout, whatever that is.
    """

    layout: PyramidLayout
    step: float
    error: float
    bits: float
    finest: float
    course: Course
    needed: float
    networks: Pair
    network_bits: float
    corrected: bool = False


class Trials:
    """Fits of some boxes of a signal, side by side as if they were one, or of the middle of its region.

    Parameters
    ----------
    volume : ndarray
    offset : float
    known : Differences
        Of the signal.
    full : PyramidLayout
        With latents on the signal's lattice.
    networks : callable
        ``networks(layout)``: those to begin with.
    settling : callable
        ``settling(fit)()``: rounds the networks of a fit to what a decoder will have of them, and tells the bits that they take.
    goal : callable
        ``goal(layout)``: what is left for latents.
    steps, seed : int
    backend : Backend
    weights : ndarray of float32, shape of the signal, or 1 along some axes, optional
    note : callable
        ``note(fraction, text)``.
    """

    def __init__(
        self,
        volume: np.ndarray,
        offset: float,
        known: Differences,
        full: PyramidLayout,
        networks: Callable[[PyramidLayout], Pair],
        settling: Callable[[PyramidFit], Callable[[], float]],
        goal: Callable[[PyramidLayout], Goal],
        steps: int,
        seed: int,
        backend: Backend,
        weights: Floats | None,
        note: Callable[[float, str], None],
    ) -> None:
        first, most = goal(full), _part_of(volume.size, _TRIAL_SAMPLES)
        self._whole, self._first_step = known, known.step(first, GUESS if first.bits is not None else GUESS_OF_ERROR)
        self._dense = GUESS * known.bits(self._first_step) > _DENSE * volume.size
        if self._dense and first.bits is not None:
            self._first_step = known.step(first, _GUESS_OF_DENSE)
        self._volume = volume
        self._first = self._sample(most) if weights is None else self._of_boxes([middle_box(volume.shape, most, weights)])
        self._weights = cut_weights(weights, self._first.boxes[0])
        self._offset, self._full, self._networks, self._goal, self._samples = offset, full, networks, goal, volume.size
        self._steps, self._seed, self._backend, self._note, self._settling = steps, seed, backend, note, settling
        self._teaches = teaches(volume.size, weights is not None)
        self._by_steps = _BY_STEPS if pace(full.context, 1, full.wide, backend) > pace(full.context, 0, full.wide, backend) else 1.0
        self._shorter = max(steps // _SHORTER, 1) if self._teaches else steps
        self._of_trials = _MOST_TRIALS * self._first.samples.size * self._shorter / steps
        self._lesson = max(_part_of(volume.size, _LESSON_SAMPLES) // (_DENSER if self._dense else 1), self._first.samples.size)
        self._done, self._most = 0.0, self._of_trials + self._teaches * self._lesson

    def _sample(self, most: int, turn: int = 0) -> _Sample:
        """Boxes of all densities, of at most so many samples; other ones at each turn."""
        return self._of_boxes(typical_boxes(self._volume.shape, most, partial(self._whole.density, self._first_step), turn))

    def _of_boxes(self, boxes: list[Box]) -> _Sample:
        return _Sample(boxes, np.concatenate([self._volume[box] for box in boxes], _longest(self._volume.shape)))

    def guess(self, above: int | None, split: int | None = None) -> Guess:
        """Find out where to begin.

        Parameters
        ----------
        above : int or None
            Lattices that are to hold no latents, if that is not to be found out.
        split : int or None
            The same of those that are to be split into bands.
        """
        step = self._first_step
        self._full = replace(self._full, split=min(split or 0, self._full.resolutions - 1))
        if above is not None or self._first.samples.size < TELLING or self._full.resolutions < 3:
            best = self._tried(self._without(above or 0), step)
        elif self._dense:
            best = self._better_than_all(self._tried(self._full, step))
        else:
            best = self._better(self._trial(self._without(1), step))
        if split is None and self._teaches and best.layout.resolutions > 1:
            in_bands = replace(best.layout, split=min(_SPLIT, best.layout.resolutions - 1))
            best = self._cheaper(best, self._trial(in_bands, best.needed))
        networks = self._networks(best.layout)
        if self._teaches:
            self._done = self._of_trials
            taught = self._sample(self._lesson, turn=1)
            best = self._trial(best.layout, best.needed, best.networks, taught)
            networks = best.networks
        self._note(1.0, "")
        return Guess(best.layout, best.needed, best.course, best.network_bits, networks)

    def _without(self, above: int) -> PyramidLayout:
        """The layout with so many lattices without latents, or as many as it can spare."""
        layout = self._full
        while len(layout.above) < min(above, MOST_ABOVE) and layout.resolutions > 1:
            layout = layout.without_finest
        return layout

    def _better_than_all(self, full: _Trial) -> _Trial:
        """The best of latents everywhere, and of none on the signal's lattice if they say little."""
        return full if full.finest > _ALIVE else self._cheaper(full, self._trial(self._without(1), full.needed))

    def _better(self, first: _Trial) -> _Trial:
        """The best of the trial and what its finest level suggests."""
        if first.finest > _ALIVE and first.needed * _NEAR < first.step:
            # What such lattices take for all those bits says nothing of the step that finer ones need.
            return self._cheaper(first, self._trial(self._full, first.step))
        first = self._corrected(first)
        if first.finest > _ALIVE:
            return self._cheaper(first, self._trial(self._full, first.needed))
        if first.finest < _DEAD and first.layout.resolutions > 2:
            return self._cheaper(first, self._trial(first.layout.without_finest, first.needed))
        return first

    def _cheaper(self, first: _Trial, rival: _Trial) -> _Trial:
        """The one that is better where both meet the goal: at other steps they may compare the other way round."""
        first, rival = self._corrected(first), self._corrected(rival)
        price = FAIR * first.needed * rival.needed
        return min(first, rival, key=lambda trial: self._cost(trial, price))

    def _cost(self, trial: _Trial, price: float) -> float:
        """Error and bits, at a price, that a trial near the step that the signal needs would have with it."""
        near, there = (max(self._density(step), 1e-9) for step in (trial.step, trial.needed))
        bits = trial.bits * there / near
        error = trial.error + FAIR * trial.step * trial.needed * (trial.bits - bits)
        return (error + price * bits) * (self._by_steps if trial.layout.above else 1.0)

    def _density(self, step: float) -> float:
        """The measure of the first sample's bits."""
        return sum(self._whole.density(step, box) for box in self._first.boxes)

    def _tried(self, layout: PyramidLayout, step: float) -> _Trial:
        """A trial at about the step that the signal needs."""
        return self._corrected(self._trial(layout, step))

    def _corrected(self, first: _Trial) -> _Trial:
        """The trial, or another one at the step that the signal needs."""
        if first.corrected or 1 / _NEAR < first.needed / first.step < _NEAR:
            return first
        second = replace(self._trial(first.layout, first.needed), corrected=True)
        lacks, more = math.log(first.needed / first.step), math.log(second.needed / second.step)
        if lacks * more < 0:
            # Each trial asks for the other's side: what is needed lies between.
            return replace(second, needed=first.step * math.exp(lacks * lacks / (lacks - more)))
        return second

    def _trial(self, layout: PyramidLayout, step: float, networks: Pair | None = None, sample: _Sample | None = None) -> _Trial:
        """Fit the first sample with untaught networks, or another one with those that are given."""
        boxes, samples = sample or self._first
        fit, network_bits = self._fitted(samples, layout, step, networks)
        of_levels, cost = fit.level_bits(fit.rounded), fit.cost()
        error, bits = fit.squares(fit.rounded) * step**2 / samples.size, cost.bits / samples.size + network_bits / self._samples
        course = Course.of(fit.costs, cost, samples.size)
        if networks is not None:
            # The fewer bits there are beside those of networks, the more of these networks only know the boxes.
            course = course.believed(min(cost.bits / max(network_bits, 1.0), 1.0))
        finest = float(sum(b for b, lattice in zip(of_levels, layout.kernel.lattice, strict=True) if not lattice)) / max(cost.bits, 1e-9)
        needed = self._needed(layout, step, boxes, cost.bits / samples.size, cost.error * step**2)
        return _Trial(layout, step, error, bits, finest, course, needed, (fit.context, fit.synthesis), network_bits)

    def _fitted(self, samples: np.ndarray, layout: PyramidLayout, step: float, taught: Pair | None) -> tuple[PyramidFit, float]:
        """A whole fit, with networks that were taught or with first ones, and what its networks take."""
        steps = self._steps if taught else self._shorter
        work = samples.size * steps / self._steps
        fit = PyramidFit(
            samples, self._offset, step, replace(layout, shape=samples.shape), taught or self._networks(layout), self._seed,
            self._backend, self._weights,
        )  # fmt: skip
        fit.start_at_half(steps // 2, Schedule(), lambda fraction, text: None, taught=taught is not None)
        # What networks take, and lose by rounding, is little where there are many bits, and the same for all that is tried.
        rounds = taught is not None or not (self._dense and self._teaches)
        settling, stored = self._settling(fit), [BITS_PER_PARAMETER * layout.parameters]
        fit.run(steps, None, Schedule(), partial(self._told, work), lambda last: stored.append(settling()) if last and rounds else None)
        self._done += work
        return fit, stored[-1]

    def _told(self, work: float, fraction: float, text: str) -> None:
        """Progress of a fit of so many samples, counted where steps are as many as in a lesson, as that of all trials and the lesson."""
        self._note(min((self._done + fraction * work) / self._most, 1.0), text)

    def _needed(self, layout: PyramidLayout, step: float, boxes: list[Box], bits: float, error: float) -> float:
        """The step at which the signal meets the goal, if it takes as much of its measure as boxes do."""
        goal = self._goal(layout)
        if goal.bits is not None:
            share = bits / max(sum(self._whole.density(step, box) for box in boxes) / len(boxes), 1e-9)
        else:
            share = error / max(sum(self._whole.error(step, box) for box in boxes) / len(boxes), 1e-9)
        # Where the measure has run into its limits, its inverse says nothing.
        return min(max(self._whole.step(goal, share), step / _MOST_OFF), step * _MOST_OFF)


def teaches(samples: int, weighted: bool) -> bool:
    """Whether networks learn with other boxes of a signal before its own fit."""
    return not weighted and samples > 2 * _part_of(samples, _TRIAL_SAMPLES)


def _part_of(samples: int, most: int) -> int:
    """Samples to try on, or to teach with."""
    return min(max(samples // _PART, _LEAST_SAMPLES), most)


def _longest(shape: tuple[int, ...]) -> int:
    """The axis along which boxes are put side by side: never one of channels, which is short."""
    return max(range(len(shape)), key=lambda axis: shape[axis])
