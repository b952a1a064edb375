"""The descent on a pyramid: latents and both networks together, for rate and distortion.

In units of the step the cost is ``squared error + pressure * FAIR * bits``: at a pressure of 1 the step is the one that uniform
quantisation would take at this exchange rate. So the step is what decides the size, and everything else stays
the same from the finest to the coarsest.

While latents are still real numbers, they are rounded softly with noise (`inrcodec_kernels.pyramid.soften`); the last part of
the steps rounds them, and gradients pass as if it had not. Without noise latents would hide between integers, where no symbol is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Synthesis, adam, distortion, rate, soften

from ..models.pyramid import PyramidLayout
from .goal import Goal
from .pyramid_start import Differences, first_latents

Floats = NDArray[np.float32]
Note = Callable[[float, str], None]

FAIR = math.log(2) / 6
"""Squared error that a bit is worth, in units of the step: the slope of ``step^2 / 12`` over the bits it costs."""
_MORE_BITS, _MORE_ERROR = 0.65, 0.12
"""How much more bits and error soft rounding has at its beginning than at its end."""
_SETTLED, _SETTLED_STEPS = (0.11, 0.26), (35, 70)
"""Parts of the steps, and least numbers of them, between which the step changes; afterwards it is the price of bits."""
_MOST = 4.0
"""Most that the price of bits changes by."""
_WARM = 20
"""Steps until learning rates are whole."""
_TURN = 0.8
"""Part of the steps after which `PyramidFit.again` begins."""
_DECAYS = 0.9, 0.95
"""Of Adam's moments: gradients shrink fast at first, and so must their squares."""
_SLOWER = {"gains": 0.0, "filters": 0.1, "skip": 0.1}
"""Of the networks' learning rate. Gains keep still: skips and first weights can do what they could."""
LARGEST = float(1 << 19)
"""Latents stay below this."""


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
    """

    temperature: tuple[float, float] = (0.35, 0.1)
    deviation: tuple[float, float] = (0.2, 0.15)
    least: float = -5.0
    latent_rate: float = 0.1
    network_rate: float = 0.03
    hard: float = 0.1


class Cost(NamedTuple):
    """What rounded latents cost: bits of each level, and the mean squared error in units of the step."""

    bits: float
    error: float


@dataclass
class _Moving:
    """An array, its two moments, and how often it moved."""

    values: Floats
    moments: tuple[Floats, Floats] = field(init=False)
    moved: int = 0

    def __post_init__(self) -> None:
        self.moments = np.zeros(self.values.size, np.float32), np.zeros(self.values.size, np.float32)

    def copy(self) -> _Moving:
        """Another one that moves on from here."""
        found = _Moving(self.values.copy(), self.moved)
        found.moments = self.moments[0].copy(), self.moments[1].copy()
        return found

    def move(self, gradient: Floats, rate: float, backend: Backend) -> None:
        """A step of Adam."""
        self.moved += 1
        adam(self.values.reshape(-1), gradient.reshape(-1), self.moments, self.moved, rate, _DECAYS, backend=backend)


class PyramidFit:
    """A pyramid in the making.

    Parameters
    ----------
    volume : ndarray
        The signal.
    offset : float
        Taken off the samples.
    step : float
        First guess.
    layout : PyramidLayout
    networks : tuple of Context and Synthesis
        To begin with.
    seed : int
    backend : Backend
    """

    def __init__(
        self,
        volume: np.ndarray,
        offset: float,
        step: float,
        layout: PyramidLayout,
        networks: tuple[Context, Synthesis],
        seed: int,
        backend: Backend,
    ) -> None:
        self.layout, self.step, self.pressure = layout, step, 1.0
        self._seed, self._backend = seed, backend
        self._target = ((volume - np.float32(offset)) / np.float32(step)).astype(np.float32).reshape(layout.kernel.shape)
        self.set_networks(*networks)
        self._latents = [_Moving(y) for y in first_latents(self._target, layout, networks[1].gains)]
        self._done = 0

    @property
    def context(self) -> Context:
        """The context model as it is now."""
        return Context(*(p.values for p in self._parts[0]))

    @property
    def synthesis(self) -> Synthesis:
        """The synthesis as it is now."""
        return Synthesis(*(p.values for p in self._parts[1]))

    def set_networks(self, context: Context, synthesis: Synthesis) -> None:
        """Replace the networks."""
        self._parts = [[_Moving(np.array(p, np.float32)) for p in network] for network in (context, synthesis)]

    @property
    def samples(self) -> int:
        """Samples of the signal."""
        return self._target.size

    @property
    def rounded(self) -> list[NDArray[np.int32]]:
        """The latents as integers."""
        return [np.clip(np.rint(y.values), -LARGEST, LARGEST).astype(np.int32) for y in self._latents]

    def begin(self, steps: int, schedule: Schedule) -> None:
        """Take up a schedule of so many steps."""
        self._steps, self._schedule, self._turn = steps, schedule, math.ceil(_TURN * steps)

    def share_networks(self, other: PyramidFit) -> None:
        """Move another fit's networks from now on, beside it."""
        self._parts = other._parts

    def run(self, steps: int, goal: Goal | None, schedule: Schedule, note: Note) -> None:
        """Descend; the step, and later the price of bits, follow the goal, if there is one."""
        self.begin(steps, schedule)
        checks = max(5, steps // 25)
        for number in range(steps):
            if number == self._turn:
                self._before = [y.copy() for y in self._latents], self._done
            self.advance(number)
            if (number + 1) % checks == 0:
                cost, part = self.cost(), (number + 1) / steps
                if goal is not None:
                    self._follow(goal, cost, part)
                note(part, self._told(cost))

    def again(self, pressure: float, note: Note) -> list[NDArray[np.int32]]:
        """Rounded latents of a fit whose last part is done again, with the networks of now and at another price of bits.

        Parameters
        ----------
        pressure : float
            The price over that of the fit.
        note : callable
        """
        kept = self._latents, self.pressure, self._done
        before, self._done = self._before
        self._latents, self.pressure = [y.copy() for y in before], self.pressure * pressure
        for number in range(self._turn, self._steps):
            self.advance(number, networks=False)
            note((number + 1 - self._turn) / (self._steps - self._turn), "")
        found = self.rounded
        self._latents, self.pressure, self._done = kept
        return found

    def advance(self, number: int, networks: bool = True) -> None:
        """Take step `number` of the schedule, with the latents alone if the networks are to keep still."""
        schedule, steps = self._schedule, self._steps
        network_rate = schedule.network_rate if networks else 0.0
        soft = max(1.0, (1 - schedule.hard) * steps)
        fade = 0.5 * (1 + math.cos(math.pi * number / steps)) * min(1.0, (number + 1) / _WARM)
        if number >= soft:
            self._move(self._whole(), schedule.least, 0.3 * schedule.latent_rate * fade, network_rate * fade)
            return
        part = number / soft
        temperature, deviation = (a + part * (b - a) for a, b in (schedule.temperature, schedule.deviation))
        self._move(self._softened(temperature, deviation), schedule.least, schedule.latent_rate * fade, network_rate * fade)

    def bits(self, latents: list[NDArray[np.int32]]) -> float:
        """Bits of whole latents."""
        floats = [y.astype(np.float32) for y in latents]
        return float(rate(floats, self.context, self.layout.kernel, Schedule.least, self._backend)[0].sum())

    def squares(self, latents: list[NDArray[Any]]) -> float:
        """Sum of squared errors of latents, in units of the step."""
        floats = [y.astype(np.float32) for y in latents]
        return distortion(floats, self.synthesis, self.layout.kernel, self._target, self._backend)[0]

    def slopes(self, latents: list[NDArray[np.int32]]) -> tuple[list[Floats], list[Floats]]:
        """Gradients of the squared error, in units of the step, and of the bits at whole latents."""
        floats = [y.astype(np.float32) for y in latents]
        _, of_error, _ = distortion(floats, self.synthesis, self.layout.kernel, self._target, self._backend)
        _, of_rate, _ = rate(floats, self.context, self.layout.kernel, Schedule.least, self._backend)
        return of_error, of_rate

    def cost(self, least: float = Schedule.least) -> Cost:
        """Of the rounded latents."""
        whole = [y.round() for y, _ in self._whole()]
        bits, _, _ = rate(whole, self.context, self.layout.kernel, least, self._backend)
        squares, _, _ = distortion(whole, self.synthesis, self.layout.kernel, self._target, self._backend)
        return Cost(float(bits.sum()), squares / self._target.size)

    def _told(self, cost: Cost) -> str:
        return f"{cost.bits / self._target.size:.4f} bits/voxel, RMS error {math.sqrt(cost.error) * self.step:.4g}"

    def _softened(self, temperature: float, deviation: float) -> list[tuple[Floats, Floats | None]]:
        keys = [(self._seed * 8 + k) * 0x9E3779B1 + self._done * 0x85EBCA6B for k in range(self.layout.levels)]
        return [
            soften(y.values, temperature, deviation, key % 2**32, self._backend)
            for y, key in zip(self._latents, keys, strict=True)
        ]

    def _whole(self) -> list[tuple[Floats, Floats | None]]:
        return [(np.rint(y.values), None) for y in self._latents]

    def _move(
        self, latents: list[tuple[Floats, Floats | None]], least: float, latent_rate: float, network_rate: float
    ) -> None:
        """A step down the gradients at some values of the latents, given with their slopes."""
        values = [value for value, _ in latents]
        _, of_rate, of_context = rate(values, self.context, self.layout.kernel, least, self._backend)
        _, of_error, of_synthesis = distortion(values, self.synthesis, self.layout.kernel, self._target, self._backend)
        weight = np.float32(FAIR * self.pressure)
        self._done += 1
        for y, (_, slope), a, b in zip(self._latents, latents, of_rate, of_error, strict=True):
            a *= weight
            a += b
            if slope is not None:
                a *= slope
            y.move(a, latent_rate, self._backend)
        if network_rate:
            gradients = [of_context._asdict(), of_synthesis._asdict()]
            for network, named in zip(self._parts, gradients, strict=True):
                for p, (name, gradient) in zip(network, named.items(), strict=True):
                    own = _SLOWER.get(name, 1.0) * network_rate
                    p.move(np.asarray(gradient, np.float32), own, self._backend)

    def _follow(self, goal: Goal, cost: Cost, part: float) -> None:
        """Change the step, or later the price of bits, so that the end meets the goal."""
        if goal.bits is not None:
            # Soft rounding leaves more symbols than the end will have.
            excess = cost.bits / (goal.bits * (1 + _MORE_BITS * (1 - part) ** 2))
        else:
            assert goal.error is not None
            excess = goal.error * (1 + _MORE_ERROR * (1 - part)) / max(cost.error * self.step**2, 1e-30)
        first, last = (max(share, min(least / self._steps, 2 * share)) for share, least in zip(_SETTLED, _SETTLED_STEPS, strict=True))
        if part < first:
            return
        if part <= last:
            power = 0.75 if goal.bits is not None else 0.6
            self._rescale(min(max(excess**power, 0.5), 2.0))
        else:
            self.pressure = min(max(self.pressure * min(max(excess, 0.85), 1.18), 1 / _MOST), _MOST)

    def _rescale(self, factor: float) -> None:
        """Multiply the step, which divides everything that is measured in it."""
        self.step *= factor
        shrink = np.float32(1 / factor)
        self._target *= shrink
        for y in self._latents:
            y.values *= shrink


def calibrated_step(
    volume: np.ndarray, offset: float, layout: PyramidLayout, networks: tuple[Context, Synthesis], goal: Goal, seed: int, backend: Backend
) -> float:
    """The step to fit a signal with: guessed, then corrected by a short fit of its middle.

    Parameters
    ----------
    volume : ndarray
    offset : float
    layout : PyramidLayout
    networks : tuple of Context and Synthesis
        To begin with.
    goal : Goal
    seed : int
    backend : Backend
    """
    whole = Differences(volume, offset, layout)
    step = whole.step(goal, GUESS)
    part = _middle(volume)
    sketch = replace(layout, shape=part.shape)
    trial = PyramidFit(part, offset, step, sketch, networks, seed, backend)
    trial.run(_TRIAL_STEPS, None, Schedule(), lambda fraction, note: None)
    cost, known = trial.cost(), Differences(part, offset, sketch)
    if goal.bits is not None:
        return whole.step(goal, cost.bits / max(known.bits(step), 1e-9))
    return whole.step(goal, cost.error * step**2 / max(known.error(step), 1e-9))


def _middle(volume: np.ndarray) -> np.ndarray:
    """The middle of a signal, of at most `_TRIAL_SAMPLES`."""
    extent = list(volume.shape)
    while math.prod(extent) > _TRIAL_SAMPLES:
        longest = max(range(len(extent)), key=lambda axis: extent[axis])
        extent[longest] = -(-extent[longest] // 2)
    return np.ascontiguousarray(volume[tuple(slice((n - e) // 2, (n - e) // 2 + e) for n, e in zip(volume.shape, extent, strict=True))])


GUESS = 0.5
"""Part of `Differences.bits`, or of its error, that a fit takes."""
_TRIAL_SAMPLES, _TRIAL_STEPS = 1 << 18, 80
"""Of the fit that corrects the guess."""
