"""The pyramid: latents on lattices of several resolutions, a context model and a synthesis, fitted together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.container import Section
from inrcodec_kernels.backend import best_on_cpu, in_threads, on_device
from inrcodec_kernels.pyramid import SITES, Context, Synthesis, pace

from ..coding.latents import LatentCoder, Place
from ..fitting import motion, pyramid, pyramid_start, start
from ..fitting.goal import Goal
from ..fitting.pyramid_course import Schedule
from ..fitting.pyramid_trial import BITS_PER_PARAMETER, GUESS, Guess, Trials, teaches
from ..fitting.rounding import Curvature, curvatures, disturbances, trimmed
from ..fitting.shares import Measures
from ..fitting.splicing import spliced
from ..models.pyramid import (
    AXES,
    Flags,
    PyramidLayout,
    initial_networks,
    parted,
)
from ..models.shipped import first_shipped
from ..payload.pyramid import PyramidStream, network_section, write_chunk
from ..payload.sections import MAX_STEP
from .base import SIZE_WINDOW, Draft, Task
from .pyramid_networks import FEWER_SITES, Settling

_SIZES: tuple[tuple[int, int, int, tuple[int, int, tuple[int, int]]], ...] = (
    (200_000, 0, 0, (3, 32, (32, 16))), (30_000, 52_000, 1 << 22, (3, 32, (32, 16))), (27_000, 52_000, 1 << 22, (2, 32, (32, 16))),
    (20_000, 52_000, 0, (1, 32, (32, 16))), (20_000, 0, 0, (1, 24, (16, 16))), (5_000, 0, 0, (1, 16, (8, 8))), (2_500, 0, 0, (1, 8, (8, 4))),
    (0, 0, 0, (1, 8, (4, 4))),
)  # fmt: skip
"""Least bytes of a stream, alone and with those that its errors are worth, and least samples, for so many networks of the context model, their
width, and widths of the synthesis: wide ones pay where there is much to save, bits or errors, several where many samples share them."""
_WIDE = 200_000
"""Bytes of a stream, and samples, from which on networks see further: they have half as many parameters more."""
_SAMPLES_A_BYTE = 150
"""Samples whose errors are worth a byte, about."""
Parameters = dict[str, NDArray[np.float32]]

_LARGE, _LARGE_SIZE_WINDOW = 1 << 20, 0.97
"""Samples from which on a size is less narrow: coming nearer takes minutes, for some hundredths of a dB."""
_BELOW = 0.995
"""Of the error that is left for the latents: what is near enough lies below a goal."""
_SERIES_EDGE = 32
"""Largest extent of a tile of a series."""
CHUNK_BYTES = 2000
"""Tiles are put into chunks of at least so many bytes."""
CHUNK_TILES = 256
"""Most tiles of a chunk."""
_LEAST_CHANGE, _MOST_CHANGE = 0.94, 1.16
"""Bits of the fit over those that are wanted, within which its latents are changed; beyond, all is fitted anew with another step."""
_OF_STEP, _AS_STEP = 0.8, 0.3
"""Powers of the factor by which bits are too many, and of their price, that the step is multiplied by for a fit anew."""
_LEAST_LATENTS = 16
"""A stream's bits over those of its latents at most, whatever the networks take."""
OF_ERROR = 0.8
"""Power of the bits, the other way round, that the squared error follows."""
_LEAST_PRICE, _MOST_PRICE = -0.75, 1.5
"""Octaves of the price for which `PyramidFit.octaves` is true, about."""
_PRICES = 16
"""Prices of an octave that are tried."""
_JUST_TRIMMED = 1.004
"""Factor in bits that single latents are changed for where nothing else is known: that costs five times the error of another price."""
_BEYOND, _TRIES = 1.015, 3
"""Factor by which another price is to go beyond the bits that are wanted, the first time, and how often it is tried."""
_TRIMS = 4


class PyramidSystem:
    """See `base.System`; its step is about the bytes of the first fit, all of them, over those of a draft.

    Parameters
    ----------
    task : Task
    """

    name: ClassVar[str] = "pyramid"
    step_bounds: ClassVar[tuple[float, float]] = (1 / 64, 64.0)
    size_slope: ClassVar[float] = -1.0
    restorable: ClassVar[bool] = False
    psnr_slope: ClassVar[float] = -2.5
    overhead_bytes: ClassVar[int] = 220
    shared_bytes: ClassVar[int] = 2400

    def __init__(self, task: Task) -> None:
        self.task, self.options = task, task.options.pyramid
        moved = task.moving is not None and on_device(task.backend)
        self.backend = best_on_cpu("displaced frames are fitted on the CPU") if moved else task.backend
        self.choices: dict[str, object] = {}
        self.step = self._reached = 1.0
        self.size_window = size_window(task.volume.size)
        self.offsets = self._typical_values()
        self.volume, self.offset = self._centred()
        # A fit to displaced frames leaves what no frame sees to itself, so that only a region asked for weighs anything.
        region = task.options.region
        self._weights = None if region is None else region.weights(task.volume.shape)

    def _typical_values(self) -> tuple[int, ...]:
        """Of each channel; of all samples where there are none."""
        parts = self.task.volume if self.task.channels else [self.task.volume]
        return tuple(start.typical_value(part) for part in parts)

    def _centred(self) -> tuple[np.ndarray, int]:
        """What is fitted, and what is taken off all of it: channels that lie far from each other are brought together first."""
        volume = self.task.volume
        if len(self.offsets) == 1:
            return volume, self.offsets[0]
        return volume - np.array(self.offsets, dtype=np.int32).reshape(-1, *[1] * (volume.ndim - 1)), 0

    def prepare(self, goal: Goal) -> None:
        """Fit latents and networks."""
        halved = pyramid_start.choose_halvings(self._seen, self.options.levels, channels=self.task.channels)
        guess = self.task.timed("trial", lambda: self._guessed(halved, goal))
        self.layout, self._goal, self._course, self._network_bits = guess.layout, goal, guess.course, guess.network_bits
        self._networks = guess.networks
        self._fit_at(guess.step, goal)
        self.choices.update(
            unit=self.fit.step, pressure=round(self.fit.pressure, 3), steps=self._steps(self.layout),
            lattices=["x".join(map(str, lattice)) for lattice in self.layout.lattices], split=self.layout.split,
        )  # fmt: skip

    def _guessed(self, halved: tuple[Flags, ...], goal: Goal) -> Guess:
        """Where to begin."""
        known = pyramid_start.Differences(self.volume, self.offset, PyramidLayout(self.volume.shape, halved), self._weights)
        full, options = self._sized(PyramidLayout(self.volume.shape, halved, apart=True), known, goal), self.task.options
        trials = Trials(
            self.volume, self.offset, known, full, self._first_networks, self._settling_bits,
            lambda layout: self._first_goal(goal, layout), self._steps(full), options.seed, self.backend, self._weights,
            self.task.note("trial"),
        )  # fmt: skip
        # Frames that move are matched by still ones as they are, and bands were not measured on a device.
        plain = self.task.moving is not None or on_device(self.backend)
        return trials.guess(self.options.above, 0 if plain else self.options.split)

    @property
    def measures(self) -> Measures:
        """What the samples say of bits and errors, before anything is fitted, and what the smallest networks take."""
        volume, weights, (*_, (_, context, synthesis)) = self.volume, self._weights, _SIZES[-1]
        halved = pyramid_start.choose_halvings(volume, self.options.levels, channels=self.task.channels)
        layout = PyramidLayout(volume.shape, halved, self.options.context or context, self.options.synthesis or synthesis)
        inside = volume.size if weights is None else int(np.count_nonzero(weights >= 1)) * (volume.size // weights.size)
        known = pyramid_start.Differences(volume, self.offset, layout, weights)
        return Measures.of(known, inside, BITS_PER_PARAMETER * layout.parameters)

    @property
    def error(self) -> float:
        """Mean squared error of the fit where samples count 1."""
        return self.fit.cost().error * self.fit.step**2

    @property
    def _seen(self) -> np.ndarray:
        """The volume, with NaN where no frame of a clip says anything."""
        moving = self.task.moving
        return self.volume if moving is None else np.where(moving.known, self.volume, np.float32(np.nan))

    @property
    def _frames(self) -> pyramid.Frames | None:
        """What a fit is to match in the place of still frames."""
        moving = self.task.moving
        if moving is None:
            return None
        weights = None if moving.region is None else moving.region.weights(moving.frames.shape)
        return pyramid.Frames(moving.frames, motion.Displaced(moving.field), weights)

    def _fit_at(self, step: float, goal: Goal) -> None:
        """Fit, round the networks, and learn what trimming must know."""
        task, seed, backend = self.task, self.task.options.seed, self.backend
        self._base_name, _ = self._shipped(self.layout)
        self.fit = pyramid.PyramidFit(
            self.volume, self.offset, step, self.layout, self._networks, seed, backend, self._weights, self._frames
        )
        self.fit.course = self._course
        steps = self._steps(self.layout)
        task.timed("half", lambda: self.fit.start_at_half(steps // 2, Schedule(), task.note("half"), self._teaches))

        settling = self._settling(self.fit)

        def settle(last: bool) -> Goal:
            self._rounded = settling(last)
            return self._of_latents(goal, 8 * len(self._network_section()))

        first = self._of_latents(goal, self._network_bits)
        task.timed("fit", lambda: self.fit.run(steps, first, Schedule(), task.note("fit"), settle))
        self._known = {1.0: self.fit.rounded}
        # Another fit of the same signal knows better than a sample what comes.
        self._course, self._network_bits = self.fit.went, 8 * len(self._network_section())
        self._coder = LatentCoder(self.layout.kernel, self._rounded.context, backend)
        self._curvature = self._weighted(curvatures(self.layout.kernel, self.fit.synthesis, backend))
        self._disturbed = disturbances(
            self.fit.rounded, self._stream.tiles, self._coder, self.fit.slopes, self.fit.bits, seed
        )

    def _weighted(self, curvature: list[float]) -> Curvature:
        """Of every latent of a level, where errors have weights."""
        if self._weights is None:
            return curvature
        counted = pyramid_start.level_weights(self._weights, self.layout)
        return [bent * w for bent, w in zip(curvature, counted, strict=False)]

    def _sized(self, layout: PyramidLayout, known: pyramid_start.Differences, goal: Goal) -> PyramidLayout:
        """A layout with networks as are asked for, or as the stream's size can feed."""
        bits, wish = goal.bits, self.options
        if bits is None:
            bits = GUESS * known.bits(known.step(goal, 1.0))
        samples, stream = math.prod(layout.shape), bits / 8
        both = stream + samples / _SAMPLES_A_BYTE
        networks, context, synthesis = next(
            sizes for least, worth, many, sizes in _SIZES if stream >= least and both >= worth and samples >= many
        )
        return replace(
            layout, networks=min(wish.networks or networks, layout.resolutions),
            context=wish.context or context, synthesis=wish.synthesis or synthesis,
            wide=min(stream, samples) >= _WIDE if wish.wide is None else wish.wide,
        )  # fmt: skip

    def _steps(self, layout: PyramidLayout) -> int:
        """As many as take about the time that an effort stands for: the faster one is, the more."""
        return round(self.task.options.pyramid_steps * pace(layout.context, len(layout.above), layout.wide, self.backend))

    def _first_goal(self, goal: Goal, layout: PyramidLayout) -> Goal:
        """What is left for the latents before networks are known."""
        return self._of_latents(goal, BITS_PER_PARAMETER * layout.parameters)

    def _of_latents(self, goal: Goal, network_bits: float) -> Goal:
        """What is left of a goal for the latents, less a little."""
        if goal.bits is not None:
            # A third of what is near enough: a little more is trimmed at once.
            below = 1 - (1 - self.size_window) / 3
            return Goal(bits=below * max(goal.bits - network_bits, goal.bits / _LEAST_LATENTS))
        assert goal.error is not None
        return Goal(error=_BELOW * goal.error)

    @property
    def _teaches(self) -> bool:
        """Whether a guess's networks have learned from parts of the signal."""
        return teaches(self.volume.size, self._weights is not None)

    def _shipped(self, layout: PyramidLayout) -> tuple[str, Parameters]:
        """Name and parameters of the networks that come with the package for such a signal, to which streams hold differences."""
        wish = self.options.warm_start
        if wish == "auto":
            wish = not self._teaches
        found = first_shipped(layout) if wish else None
        return ("", {}) if found is None else (found.name, found.fitted_to(layout) or {})

    def _first_networks(self, layout: PyramidLayout) -> tuple[Context, Synthesis]:
        """Untaught ones: those that come with the package, or random ones."""
        _, base = self._shipped(layout)
        return parted(base) if base else initial_networks(layout, self.task.options.seed)

    def _settling(self, fit: pyramid.PyramidFit, sites: int = SITES) -> Settling:
        """What rounds the networks of a fit."""
        return Settling(fit, self._shipped(fit.layout)[1], self.task.volume.size, sites)

    def _settling_bits(self, fit: pyramid.PyramidFit) -> Callable[[], float]:
        """The same of a trial, from fewer sites, telling the bits that a stream takes for them."""
        settling, (base, _) = self._settling(fit, FEWER_SITES), self._shipped(fit.layout)
        return lambda: 8 * len(network_section(settling(last=True).differences, base))

    def _network_section(self) -> bytes:
        return network_section(self._rounded.differences, self._base_name)

    @property
    def blocks(self) -> int:
        """Number of tiles."""
        return self._stream.tiles.count

    @property
    def decoder_bytes(self) -> int:
        """Decoded tiles, channels of a part that is synthesised at once, and what their contexts hold."""
        return (256 << 20) + 4 * (1 << 22) * (self.layout.resolutions + 3) + 16 * self._edge**self.layout.ndim

    @property
    def extents(self) -> tuple[int, ...]:
        """Samples under the finest tiles."""
        return self._stream.tiles.reach

    @property
    def _edge(self) -> int:
        """Latents of a tile along each axis: fewer in four dimensions, where a tile has so many more."""
        return self.options.tile_edge if self.layout.ndim < AXES else min(self.options.tile_edge, _SERIES_EDGE)

    @property
    def _stream(self) -> PyramidStream:
        step = float(np.float32(self.fit.step))
        first, *further = self.offsets
        return PyramidStream(self.layout, self._edge, step, first, self.task.low, self.task.high, tuple(further), self._rounded.precision)

    def draft(self, step: float, pressure: float) -> Draft:
        """Change the latents until the stream takes the fit's bytes over the step, about, and code them."""
        fewer = self._of_latents_alone(step / self._reached)
        if not _LEAST_CHANGE <= fewer <= _MOST_CHANGE:
            nearer = self.fit.step * self.fit.pressure**_AS_STEP * fewer**_OF_STEP
            # Where no step makes a stream as small as is asked, each try would go further.
            self._fit_at(min(nearer, MAX_STEP), scaled(self._goal, step, 8 * self.task.section_bytes))
            self._reached, fewer = step, 1.0
        stream, latents = self._stream, self._changed(fewer)
        tiles = _coded(stream, latents, self._coder)
        sections = [Section("TREE", stream.tree_section()), Section("NETW", self._network_section())]
        weights = self.layout.parameters + sum(int(np.count_nonzero(y)) for y in latents)
        return Draft(sections, _chunks(tiles), weights, None)

    def of_all(self, fewer: float) -> float:
        """The factor in the fit's bytes, all of them, that one in its latents' bits makes."""
        latents, rest = self._latent_bits, self._other_bits
        return (latents + rest) / (latents / fewer + rest)

    def _of_latents_alone(self, fewer: float) -> float:
        """The other way round, as far as it can be."""
        latents, rest = self._latent_bits, self._other_bits
        whole = (latents + rest) / fewer
        return latents / max(whole - rest, whole / _LEAST_LATENTS)

    @property
    def _latent_bits(self) -> float:
        return max(self.fit.bits(self._known[1.0]), 1.0)

    @property
    def _other_bits(self) -> float:
        return self._network_bits + 8 * (self.overhead_bytes + self.task.section_bytes)

    def _changed(self, fewer: float) -> list[NDArray[np.int32]]:
        """Latents that take the fit's bits over `fewer`, or less where no price makes so many of them."""
        wanted, latents = self.fit.bits(self._known[1.0]) / fewer, self._nearest(fewer)
        before = self.fit.bits(latents)
        found, saved, asked = latents, 0.0, before - wanted
        for _ in range(_TRIMS):
            if saved >= before - wanted:
                break
            tried = trimmed(latents, asked, self._stream.tiles, self._coder, self.fit.slopes, self._curvature, self._disturbed)
            now = before - self.fit.bits(tried)
            # Of small signals at fine steps a change may cost others more than it saves.
            if now > saved:
                found, saved = tried, now
            # Changes near each other save less than each alone.
            asked *= min(max((before - wanted) / max(now, 1e-9), 1.2), 3.0)
        return found

    def _nearest(self, fewer: float) -> list[NDArray[np.int32]]:
        """Latents of about the fit's bits over `fewer`: the fit's own, or what lies between those of two prices."""
        wanted = self.fit.bits(self._known[1.0]) / fewer
        if 1 <= fewer <= _JUST_TRIMMED:
            return self._known[1.0]
        for tries in range(1, _TRIES + 2):
            sizes = sorted((self.fit.bits(latents), price) for price, latents in self._known.items())
            smaller, larger = ([self._known[price] for size, price in sizes if (size > wanted) == above] for above in (False, True))
            if smaller and larger:
                return spliced(larger[0], smaller[-1], wanted, self.layout.strides, self.fit.bits)
            if tries <= _TRIES:
                # A little beyond, so that both sides are known then.
                self._at_price(self._octaves(fewer / _BEYOND**tries if smaller else fewer * _BEYOND**tries))
        return smaller[-1] if smaller else larger[0]

    def _octaves(self, fewer: float) -> float:
        """By how many octaves bits must be dearer for the fit's bits over `fewer`, by the nearest prices that were tried."""
        whole, wanted, usual = self.fit.bits(self._known[1.0]), math.log2(fewer), self.fit.octaves
        # The fit itself is none of them: doing its last part again changes bits even at the same price.
        tried = [(math.log2(whole / self.fit.bits(y)), math.log2(price)) for price, y in self._known.items() if price != 1.0]
        if not tried:
            return wanted / usual
        (less, dearer), *others = sorted(tried, key=lambda one: abs(one[0] - wanted))
        # Whether the only one tells of such a change or of a price that does more than usual: what lies nearer to it is tried first.
        slope = (others[0][0] - less) / (others[0][1] - dearer) if others else max(less / dearer, usual)
        return dearer + (wanted - less) / min(max(slope, usual / 4), 4 * usual)

    def _at_price(self, octaves: float) -> list[NDArray[np.int32]]:
        """Latents of the fit, or of its last part done again where bits cost more by so many octaves, which is done once for each price."""
        price = 2.0 ** (math.floor(_PRICES * min(max(octaves, _LEAST_PRICE), _MOST_PRICE)) / _PRICES)
        if price not in self._known:
            self._known[price] = self.task.timed("fit", lambda: self.fit.again(price, self.task.note("fit")))
        return self._known[price]


def size_window(samples: int) -> float:
    """Least part of a size that is near enough to it, of a signal of so many samples."""
    return _LARGE_SIZE_WINDOW if samples >= _LARGE else SIZE_WINDOW


def scaled(goal: Goal, fewer: float, besides: int = 0) -> Goal:
    """The goal of a fit that, with what is there `besides`, is to take fewer bits by a factor."""
    if goal.bits is not None:
        return Goal(bits=max((goal.bits + besides) / fewer - besides, goal.bits / fewer / _LEAST_LATENTS))
    assert goal.error is not None
    return Goal(error=goal.error * fewer**OF_ERROR)


def _coded(
    stream: PyramidStream, latents: list[NDArray[np.int32]], coder: LatentCoder
) -> list[tuple[int, bytes]]:
    """Lanes and bytes of all tiles."""
    missing = AXES - stream.layout.ndim

    def read(level: int, low: Place, high: Place) -> NDArray[np.int32]:
        return latents[level][tuple(slice(a, b) for a, b in zip(low, high, strict=True))]

    def code(tile: int) -> tuple[int, bytes]:
        start, stop = stream.tiles.box(tile)
        low: Place = (0,) * missing + start  # type: ignore[assignment]
        high: Place = (1,) * missing + stop  # type: ignore[assignment]
        level = int(stream.tiles.level[tile])
        return coder.encode(np.ascontiguousarray(read(level, low, high)), level, low, read)

    return in_threads(code, range(stream.tiles.count))


def _chunks(tiles: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Put tiles into chunks."""
    found: list[tuple[int, bytes]] = []
    held: list[tuple[int, bytes]] = []
    for tile in tiles:
        held.append(tile)
        if sum(len(body) for _, body in held) >= CHUNK_BYTES or len(held) == CHUNK_TILES:
            found.append((len(held), write_chunk(held)))
            held = []
    return found + ([(len(held), write_chunk(held))] if held else [])
