"""The descent on a pyramid: latents and both networks together, for rate and distortion.

In units of the step the cost is ``squared error + pressure * FAIR * bits``, squared errors times their weights where these are given. So the step is what decides the size, and everything else
stays the same from the finest to the coarsest.

On a device the target, the latents, their moments and gradients stay there (`there.py`). A step fetches the gradients of the networks, which
move on the host; only checks fetch costs, and only what asks for rounded latents fetches those.

While latents are still real numbers, they are rounded softly with noise (`inrcodec_kernels.pyramid.soften`); the last part of
the steps rounds them, and gradients pass as if it had not. Without noise latents would hide between integers, where no symbol is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend, best_on_cpu, on_device
from inrcodec_kernels.pyramid import (
    ALL,
    NONE,
    Context,
    Layout,
    Sampling,
    Synthesis,
    Turn,
    Workspace,
    context_curvature,
    distortion,
    rate,
    soften,
    synthesis_curvature,
    synthesise,
)

from ..models.pyramid import PyramidLayout, initial_networks
from .goal import Goal
from .pyramid_course import SETTLED, SETTLED_STEPS, USUAL, Cost, Course, Schedule
from .pyramid_networks import Moving, Networks
from .pyramid_start import first_latents, halved, sample_weights
from .there import down, up

Floats = NDArray[np.float32]
Note = Callable[[float, str], None]
Settle = Callable[[bool], Goal | None]
Distortion = Callable[[list[Any], Synthesis, Layout, Any, Backend, Any, Workspace, Turn], tuple[float, list[Any], Synthesis]]

FAIR = math.log(2) / 12
"""Squared error that a bit is worth, in units of the step: half the slope of ``step^2 / 12`` over the bits it costs. Most
latents are zero; a coarser step with cheaper bits makes a little less error of a size than the slope itself."""
_DUE, _USUAL = 0.5, 1.1
"""Power of what a change of the step is to bring that is still to come at the next check, of what is more than the usual factor."""
_MOST = 4.0
"""Most that the price of bits changes by."""
_PATIENT = 0.6
"""Power of what is too much that the price is multiplied by at every check."""
_TURNS, _TURNS_OF_ERRORS = 4, 3
"""Of a large signal one in so many parts says in each step how networks are to move, that of bits and that of errors: it says the same as all."""
_LINES, _MANY = 2, 1 << 16
"""While latents are rounded softly, errors of one in so many lines say how those of so many samples and more are to change, but for frames that move: a step takes a
sixth to a third less time, and as many more are worth more than that costs."""
_WARM = 20
"""Steps until learning rates are whole."""
_SETTLE = 0.8, 0.97
"""Parts of the steps after which it is foretold what networks take, and after which they are settled."""
_TURN, _OCTAVES = 0.6, 0.18
"""Part of the steps after which `PyramidFit.again` begins, and its `octaves`."""
_NEAR, _NEAR_TURN, _NEAR_OCTAVES = 1.06, 0.75, 0.08
"""The same where the bits that are foretold are this near their goal: later is shorter, and better for a small change."""
_COARSER, _COARSEST = 2.0, 16.0
"""Learning rate of a lattice's latents, over that of the next finer one, and over the finest at most: coarse ones are larger numbers."""
LARGEST = float(1 << 19)
"""Latents stay below this."""


class Frames(NamedTuple):
    """Frames of a signal that is fitted as still ones.

    Attributes
    ----------
    samples : ndarray
    error : callable
        What takes the place of `distortion`, with frames for its target.
    weights : ndarray of float32, shape of the frames, or 1 along some axes, or None
    """

    samples: np.ndarray
    error: Distortion
    weights: Floats | None


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
        With "triton", lattices are kept on its device.
    weights : ndarray of float32, shape of the signal, or 1 along some axes, optional
        What squared errors count.
    frames : Frames, optional
        The signal's frames where `volume` are still ones; on the CPU only.
    """

    networks: Networks
    """What moves beside the latents."""
    octaves: float
    """How many fewer bits `again` leaves when they cost twice as much, about."""

    def __init__(
        self,
        volume: np.ndarray,
        offset: float,
        step: float,
        layout: PyramidLayout,
        networks: tuple[Context, Synthesis],
        seed: int,
        backend: Backend,
        weights: Floats | None = None,
        frames: Frames | None = None,
    ) -> None:
        self.layout, self.step, self.pressure, self.course = layout, step, 1.0, USUAL
        self.costs: list[tuple[float, Cost]] = []
        self._seed, self._backend, self._workspace = seed, backend, Workspace()
        self._networks_backend = best_on_cpu() if on_device(backend) else backend
        target = _in_steps(volume, offset, step).reshape(layout.kernel.shape)
        self.set_networks(*networks)
        self._latents = [Moving(up(y, backend)) for y in first_latents(target, layout, networks[1].gains, weights)]
        self._first = self._target = up(target, backend)
        self._weights = self._first_weights = None if weights is None else up(sample_weights(weights), backend)
        self._displaced: Distortion | None = None
        if frames is not None:
            self._target, self._displaced = _in_steps(frames.samples, offset, step), frames.error
            self._weights = None if frames.weights is None else sample_weights(frames.weights)
        self._done = 0

    @property
    def context(self) -> Context:
        """The context model as it is now."""
        return self.networks.context

    @property
    def synthesis(self) -> Synthesis:
        """The synthesis as it is now."""
        return self.networks.synthesis

    def set_networks(self, context: Context, synthesis: Synthesis) -> None:
        """Replace the networks."""
        self.networks = Networks(context, synthesis)

    @property
    def samples(self) -> int:
        """Samples of the signal."""
        return math.prod(self._target.shape)

    @property
    def rounded(self) -> list[NDArray[np.int32]]:
        """The latents as integers."""
        return [np.clip(np.rint(down(y.values)), -LARGEST, LARGEST).astype(np.int32) for y in self._latents]

    @property
    def went(self) -> Course:
        """How it went, if it has ended."""
        return Course.of(self.costs, self.cost(), self.samples)

    def begin(self, steps: int, schedule: Schedule) -> None:
        """Take up a schedule of so many steps."""
        self._steps, self._schedule, self._excess, self._due = steps, schedule, math.inf, 1.0
        self._before: tuple[list[Moving], int] = [], 0

    def share_networks(self, other: PyramidFit) -> None:
        """Move another fit's networks from now on, beside it."""
        self.networks = other.networks

    def start_at_half(self, steps: int, schedule: Schedule, note: Note, taught: bool = False) -> None:
        """Take all lattices but one as fine as the signal, and the context model, from a fit of the signal at half its resolution.

        There a step costs an eighth; and what coarse levels can say need not be said, and then unlearned, by finer ones.

        Parameters
        ----------
        steps : int
        schedule : Schedule
        note : callable
        taught : bool
            Whether networks have learned from such samples: those of the finest level alone are kept then; otherwise they begin as the next one.
        """
        layout = self.layout
        if len(layout.above) + layout.resolutions < 3:
            return
        flags, coarse = layout.kernel.whole.halved[0], layout.coarser
        means, unit = halved(down(self._first), flags), 2 ** (-sum(flags) / 2)
        first, fewer = layout.levels - coarse.levels, layout.networks - coarse.networks
        networks = _without(self.context, first, fewer), initial_networks(coarse, self._seed)[1]
        weights = None if self._first_weights is None else halved(down(self._first_weights), flags)
        half = PyramidFit(means.reshape(coarse.shape), 0.0, unit, coarse, networks, self._seed, self._backend, weights)
        half.run(steps, None, schedule, note)
        for own, found in zip(self._latents[first:], half._latents, strict=True):
            own.values = found.values
        finest = coarse.kernel.lattice.count(0)
        self.set_networks(_with(half.context, first, finest, fewer, self.context if taught else None), self.synthesis)

    def run(self, steps: int, goal: Goal | None, schedule: Schedule, note: Note, settle: Settle | None = None) -> None:
        """Descend; the step, and later the price of bits, follow the goal, if there is one.

        Parameters
        ----------
        steps : int
        goal : Goal or None
        schedule : Schedule
        note : callable
        settle : callable, optional
            ``settle(last)`` says what remains of the goal beside the networks, and may round them the last time, after which they stay as they are.
        """
        self.begin(steps, schedule)
        checks = max(5, steps // 25)
        first, last = (min(math.ceil(part * steps), steps - 1) for part in _SETTLE)
        for number in range(steps):
            if number == math.ceil(_TURN * steps):
                self._keep(number, _OCTAVES)
            elif number == math.ceil(_NEAR_TURN * steps) and 1 / _NEAR <= self._excess <= _NEAR:
                self._keep(number, _NEAR_OCTAVES)
            if settle is not None and number in (first, last):
                goal = settle(number == last)
            self.advance(number, networks=settle is None or number < last)
            if (number + 1) % checks == 0:
                cost, part = self.cost(), (number + 1) / steps
                self.costs.append((part, cost))
                if goal is not None:
                    self._follow(goal, cost, part)
                note(part, self._told(cost))

    def _keep(self, number: int, octaves: float) -> None:
        """Keep the latents before a step, for `again`."""
        self._turn, self.octaves = number, octaves
        self._before = [y.copy() for y in self._latents], self._done

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
        soft, price = max(1.0, (1 - schedule.hard) * steps), self.pressure * schedule.price(number / steps)
        fade = 0.5 * (1 + math.cos(math.pi * number / steps)) * min(1.0, (number + 1) / _WARM)
        network_rate = schedule.network_rate * fade if networks else 0.0
        if number >= soft:
            self._move(self._whole(), 1, price, 0.3 * schedule.latent_rate * fade, network_rate)
            return
        part = number / soft
        temperature, deviation = (a + part * (b - a) for a, b in (schedule.temperature, schedule.deviation))
        lines = _LINES if self.samples >= _MANY and self._displaced is None else 1
        self._move(self._softened(temperature, deviation), lines, price, schedule.latent_rate * fade, network_rate)

    def bits(self, latents: list[NDArray[np.int32]]) -> float:
        """Bits of whole latents."""
        return float(self.level_bits(latents).sum())

    def level_bits(self, latents: list[NDArray[np.int32]]) -> NDArray[np.float64]:
        """Bits of whole latents, those of each level."""
        return down(self._rate(self._there(latents), turn=NONE)[0])

    def squares(self, latents: list[NDArray[Any]]) -> float:
        """Sum of squared errors of latents as they count, in units of the step."""
        return self._squares(self._there(latents), self._weights)

    def slopes(self, latents: list[NDArray[np.int32]]) -> tuple[list[Floats], list[Floats]]:
        """Gradients of the squared error, in units of the step, and of the bits at whole latents."""
        there = self._there(latents)
        _, of_error, _ = self._errors(there, self._weights)
        _, of_rate, _ = self._rate(there)
        # Those of bands hold only until the next ones are made.
        return [down(by).copy() for by in of_error], [down(by) for by in of_rate]

    def curvatures(self, sites: int) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """How bits bend with each network of the context model, and squared errors, in units of the step, with the synthesis; of whole latents.

        From so many sites of each level. Of displaced frames as if they were still.
        """
        kernel, sampling = self.layout.kernel, Sampling(np.random.default_rng(self._seed), sites, self._backend.device)
        latents = [y.astype(np.float32) for y in self.rounded]
        weights = None if self._weights is None or self._displaced is not None else down(self._weights)
        of_context = [
            context_curvature(latents, self.context, kernel, Schedule.least, own, sampling)
            for own in range(self.context.networks)
        ]
        frames = self.samples / math.prod(kernel.shape)
        return of_context, frames * synthesis_curvature(latents, self.synthesis, kernel, weights, sampling)

    def _there(self, latents: list[NDArray[Any]]) -> list[Any]:
        """Latents where the fit has its own."""
        return [up(y.astype(np.float32), self._backend) for y in latents]

    def cost(self, least: float = Schedule.least) -> Cost:
        """Of the rounded latents."""
        whole = [y for y, _ in self._whole()]
        bits, _, _ = self._rate(whole, least, NONE)
        if self._weights is None:
            return Cost(float(bits.sum()), self._squares(whole, None) / self.samples)
        inside = self._weights * (self._weights >= 1)
        counted = float(inside.sum()) * self.samples / math.prod(inside.shape)
        return Cost(float(bits.sum()), self._squares(whole, inside) / max(counted, 1.0))

    def _squares(self, latents: list[Any], weights: Any) -> float:
        """The first of `_errors`; on the host by a synthesis, a quarter of the work of gradients."""
        if self._displaced is not None or on_device(self._backend):
            return float(self._errors(latents, weights)[0])
        rest = synthesise(latents, self.synthesis, self.layout.kernel, self._backend)
        rest -= self._target
        np.square(rest, out=rest)
        if weights is not None:
            rest *= weights
        return float(rest.sum(dtype=np.float64))

    def _errors(self, latents: list[Any], weights: Any, turn: Turn = ALL) -> tuple[float, list[Any], Synthesis]:
        """Sum of squared errors as they count, in units of the step, and its gradients."""
        error = self._displaced or distortion
        return error(latents, self.synthesis, self.layout.kernel, self._target, self._backend, weights, self._workspace, turn)

    def _rate(self, latents: list[Any], least: float = Schedule.least, turn: Turn = ALL) -> tuple[NDArray[np.float64], list[Any], Context]:
        """Bits of every level, and their gradients."""
        return rate(latents, self.context, self.layout.kernel, least, self._backend, self._workspace, turn)

    def _told(self, cost: Cost) -> str:
        return f"{cost.bits / self.samples:.4f} bits/voxel, RMS error {math.sqrt(cost.error) * self.step:.4g}"

    def _softened(self, temperature: float, deviation: float) -> list[tuple[Floats, Floats | None]]:
        keys = [(self._seed * 8 + k) * 0x9E3779B1 + self._done * 0x85EBCA6B for k in range(self.layout.levels)]
        return [
            soften(y.values, temperature, deviation, key % 2**32, self._backend)
            for y, key in zip(self._latents, keys, strict=True)
        ]

    def _whole(self) -> list[tuple[Floats, Floats | None]]:
        return [(y.values.round(), None) for y in self._latents]

    def _move(
        self, latents: list[tuple[Floats, Floats | None]], lines: int, price: float, latent_rate: float, network_rate: float
    ) -> None:
        """A step down the gradients at some values of the latents, given with their slopes; errors are those of one in so many lines."""
        values, backend = [value for value, _ in latents], self._backend
        of_bits, of_errors = (turns if network_rate else 0 for turns in (_TURNS, _TURNS_OF_ERRORS))
        _, of_rate, of_context = self._rate(values, self._schedule.least, Turn(self._done, of_bits))
        _, of_error, of_synthesis = self._errors(values, self._weights, Turn(self._done, of_errors, lines))
        self._done += 1
        for lattice, y, (_, slope), a, b in zip(self.layout.kernel.lattice, self._latents, latents, of_rate, of_error, strict=True):
            a *= np.float32(FAIR * price)
            a += b
            if slope is not None:
                a *= slope
            y.move(a, latent_rate * min(_COARSER**lattice, _COARSEST), backend)
        if network_rate:
            # The latents' step comes first: a device works on it while the networks' gradients are fetched.
            gradients = Context(*map(down, of_context)), Synthesis(*map(down, of_synthesis))
            self.networks.move(*gradients, network_rate, self._networks_backend)

    def _follow(self, goal: Goal, cost: Cost, part: float) -> None:
        """Change the step, or later the price of bits, so that the end meets the goal."""
        more_bits, more_error = self.course.at(part)
        if goal.bits is not None:
            excess = cost.bits / (goal.bits * more_bits)
        else:
            assert goal.error is not None
            excess = goal.error * more_error / max(cost.error * self.step**2, 1e-30)
        self._excess = excess
        first, last = (max(share, min(least / self._steps, 2 * share)) for share, least in zip(SETTLED, SETTLED_STEPS, strict=True))
        if part < first:
            return
        if part <= last:
            power = 0.75 if goal.bits is not None else 0.6
            # What a large change has yet to bring is not asked for again.
            factor = min(max((excess / self._due) ** power, 0.5), 2.0)
            self._rescale(factor)
            asked = self._due * factor ** (1 / power)
            self._due = max(asked / _USUAL, min(asked * _USUAL, 1.0)) ** _DUE
        else:
            # Bits take several checks to answer a price.
            self.pressure = min(max(self.pressure * min(max(excess, 0.5), 2.0) ** _PATIENT, 1 / _MOST), _MOST)

    def _rescale(self, factor: float) -> None:
        """Multiply the step, which divides everything that is measured in it."""
        self.step *= factor
        shrink = np.float32(1 / factor)
        self._target *= shrink
        # Of a few steps so many change it that `again` may begin before.
        for y in (*self._latents, *self._before[0]):
            y.values *= shrink


def _without(context: Context, levels: int, networks: int) -> Context:
    """A context model without what serves so many of the finest levels alone: their biases, and so many networks."""
    others = Context(*(values[networks:] for values in context))
    return others._replace(level_bias=context.level_bias[levels:])


def _with(context: Context, levels: int, finest: int, networks: int, taught: Context | None) -> Context:
    """The other way round: the finest levels have what has been taught, or begin as those of the next lattice, which has so many."""
    first = Context(*(values[:1].repeat(networks, axis=0) for values in context)) if taught is None else taught
    biases = context.level_bias[np.arange(levels) % finest] if taught is None else taught.level_bias[:levels]
    more = Context(*(np.concatenate([own[:networks], values]) for own, values in zip(first, context, strict=True)))
    return more._replace(level_bias=np.concatenate([biases, context.level_bias]))


def _in_steps(samples: np.ndarray, offset: float, step: float) -> Floats:
    return ((samples - np.float32(offset)) / np.float32(step)).astype(np.float32)

