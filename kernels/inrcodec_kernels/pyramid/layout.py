"""Shapes of a pyramid of latents, which latents its networks see, and their parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .context import WEIGHTS

AXES = 4
"""Axes of every lattice: t, z, y, x."""
MOST_LATTICES = 8
_LEAST_PARTS = 4
"""Parts that gradients are taken from at least."""
_WIDE = {-2: 1, -1: 2, 0: 2}
"""How far wide contexts reach along y and x, in each plane along z."""


Floats = NDArray[np.float32]
Place = tuple[int, int, int, int]
"""Indices, extents or offsets along the four axes."""
Flags = tuple[bool, bool, bool, bool]
"""Which of the four axes."""
Box = tuple[Place, Place]
"""Start and stop along the four axes."""

CENTRE: Place = (0, 0, 0, 0)

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Extents of the levels, and the taps that follow from them.

    Attributes
    ----------
    shape : tuple of 4 int
        Extents of the signal; missing leading axes have extent 1.
    halved : tuple of tuples of 4 bool
        Axes that each lattice with latents halves of the one before.
    above : tuple of tuples of 4 bool
        Axes that are halved from the signal to the first lattice with latents, once for each tuple: lattices that would be finer hold none. Without
        any, the first one is as fine as the signal.
    apart : tuple of 4 int
        Samples between the synthesis's neighbouring taps.
    wide : bool
        Whether the context model, and the synthesis in channel 0, see further than the nearest latents and samples.
    split : int
        Of the lattices with latents so many, the finest, are split into bands on the next one, each a level. Otherwise a lattice is a level.

    Raises
    ------
    ValueError
        If an extent or a distance is not positive, there are too many lattices, or more are split than have a next one.
    """

    shape: Place
    halved: tuple[Flags, ...]
    above: tuple[Flags, ...] = ()
    apart: Place = (1, 1, 1, 1)
    wide: bool = False
    split: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != AXES or min(self.shape) < 1:
            raise ValueError(
                f"expected {AXES} positive extents, found {self.shape}; give missing leading axes extent 1"
            )
        if len(self.apart) != AXES or min(self.apart) < 1:
            raise ValueError(f"expected {AXES} positive distances of taps, found {self.apart}; neighbours are 1 apart")
        steps = self.above + self.halved
        if len(steps) >= MOST_LATTICES or any(len(axes) != AXES for axes in steps):
            raise ValueError(f"expected at most {MOST_LATTICES} levels of lattices with {AXES} axes, found {steps}; halve less often")
        if not 0 <= self.split <= len(self.halved) or not all(map(any, self.halved[: self.split])):
            raise ValueError(f"expected 0 to {len(self.halved)} lattices to split that are halved, found {self.split}; split fewer")

    @property
    def levels(self) -> int:
        """Number of levels, K."""
        return len(self.lattice)

    @cached_property
    def bands(self) -> tuple[tuple[Flags, ...], ...]:
        """Axes along which each band is odd, those that are coded last first; for each lattice that is split."""
        found = []
        for axes in self.halved[: self.split]:
            odd = [flags for flags in itertools.product(*((False, True) if half else (False,) for half in axes)) if any(flags)]
            found.append(tuple(sorted(odd, key=lambda flags: (sum(flags), flags), reverse=True)))
        return tuple(found)  # type: ignore[arg-type]

    @cached_property
    def lattice(self) -> tuple[int, ...]:
        """Number of the lattice that every level belongs to, 0 for the finest with latents."""
        split = (number for number, bands in enumerate(self.bands) for _ in bands)
        return (*split, *range(self.split, len(self.halved) + 1))

    @cached_property
    def steps(self) -> tuple[Flags, ...]:
        """Axes that level k + 1 halves of level k, of all levels but the last: none among the bands of a lattice."""
        # Bands lie on the next lattice, as the level does that follows them if that is not split.
        on = [number + (number < self.split) for number in self.lattice]
        none: Flags = (False,) * AXES  # type: ignore[assignment]
        return tuple(none if a == b else self.halved[a] for a, b in itertools.pairwise(on))

    @cached_property
    def channels(self) -> Layout:
        """The same where nothing is split: what the synthesis has."""
        return replace(self, split=0) if self.split else self

    @property
    def whole(self) -> Layout:
        """The same with latents on every lattice from that of the signal on, and nothing split: lattice k is its level ``k + len(above)``."""
        return Layout(self.shape, self.above + self.halved, (), self.apart, self.wide)

    @cached_property
    def shapes(self) -> tuple[Place, ...]:
        """Extents of every level, the finest first."""
        found = [self.shape]
        for axes in self.above + self.halved:
            found.append(place_of(-(-n // 2) if half else n for n, half in zip(found[-1], axes, strict=True)))
        return self.of_levels(found[len(self.above) :])

    def of_levels(self, lattices: Sequence[T]) -> tuple[T, ...]:
        """What lattices with latents have, for every level: bands lie on the next lattice."""
        return tuple(lattices[number + (number < self.split)] for number in self.lattice)

    @property
    def present(self) -> tuple[int, ...]:
        """Axes along which the signal has more than one sample."""
        return tuple(a for a, n in enumerate(self.shape) if n > 1)

    @cached_property
    def causal(self) -> tuple[Place, ...]:
        """Taps on latents of the own level that come before: at t - 1 centre and neighbours, then raster order, then those further away."""
        before = [place_of((-1, *tap[1:])) for tap in self._cross(range(1, AXES))] if 0 in self.present else []
        near = [tap for tap in self._block if tap < CENTRE]
        return (*before, *near, *(tap for tap in self._further if tap not in near))

    @cached_property
    def cross(self) -> tuple[Place, ...]:
        """Taps on what the coarser level says: the centre and its neighbours along every axis."""
        return tuple(self._cross(range(AXES)))

    @cached_property
    def seen(self) -> tuple[tuple[int, Place], ...]:
        """Channel and tap of every input of the synthesis: taps around in channels 0 and 1, the centres of the others.

        Those around are a block of 3 x 3 x 3 in raster order, then before and after along t; in channel 0 of a wide layout then the rest of the
        5 x 5 in its plane.
        """
        along = [(-1, 0, 0, 0), (1, 0, 0, 0)] if 0 in self.present else []
        near, further = [*self._block, *along], self._edge if self.wide else ()
        channels = len(self.halved) + 1
        around = [(channel, tap) for channel in range(min(2, channels)) for tap in (*near, *(() if channel else further))]
        apart = [(channel, place_of(s * d for s, d in zip(tap, self.apart, strict=True))) for channel, tap in around]
        return (*apart, *((channel, CENTRE) for channel in range(2, channels)))

    @cached_property
    def context_reach(self) -> Place:
        """How far the context model's taps reach along each axis."""
        return place_of(max(abs(tap[a]) for tap in (*self.causal, *self.cross)) for a in range(AXES))

    @cached_property
    def synthesis_reach(self) -> Place:
        """How far the synthesis's taps reach along each axis."""
        return place_of(max(abs(tap[a]) for _, tap in self.seen) for a in range(AXES))

    @property
    def thinned(self) -> tuple[int, ...]:
        """Axes along which lines take turns (`Turn.lines`), by the sum of their places: z and y, where latents of the next lattice are coarser along them.

        Where every sample has a latent of its own it is the first of these alone: whole planes, or every second line of each (`docs/pyramid.md`).
        """
        coarser = self.whole.halved[:1]
        axes = tuple(axis for axis in (1, 2) if coarser and coarser[0][axis])
        return axes if self.above or self.split else axes[:1]

    @property
    def context_inputs(self) -> int:
        """Inputs of the context model."""
        return len(self.causal) + len(self.cross) + 1

    @property
    def synthesis_inputs(self) -> int:
        """Inputs of the synthesis."""
        return len(self.seen)

    @property
    def _block(self) -> Iterator[Place]:
        reach = [range(-1, 2) if a in self.present and a else range(1) for a in range(AXES)]
        return map(place_of, itertools.product(*reach))

    @property
    def _edge(self) -> Iterator[Place]:
        """The edge of the 5 x 5 in a plane, in raster order."""
        return ((0, 0, y, x) for y, x in self._plane(2) if max(abs(y), abs(x)) == 2)

    @property
    def _further(self) -> Iterator[Place]:
        """All that a wide context sees of its own time and that has an earlier stage, in raster order."""
        planes = _WIDE.items() if self.wide else ()
        places = ((0, z, y, x) for z, reach in planes if z == 0 or 1 in self.present for y, x in self._plane(reach))
        return (place for place in places if sum(w * d for w, d in zip(WEIGHTS, place, strict=True)) < 0)

    def _plane(self, reach: int) -> Iterator[tuple[int, ...]]:
        """Places so far around along y and x."""
        return itertools.product(*(range(-reach, reach + 1) if a in self.present else range(1) for a in (2, 3)))

    def _cross(self, axes: range) -> Iterator[Place]:
        yield CENTRE
        for a, step in itertools.product([a for a in axes if a in self.present], (-1, 1)):
            yield place_of(step if b == a else 0 for b in range(AXES))


class Context(NamedTuple):
    """Float parameters of the context model: G networks of n inputs and two hidden layers of H.

    The first ones serve the levels of a lattice each, the finest first; the last one serves those of all coarser lattices too.

    Attributes
    ----------
    first : shape (G, n, H)
    level_bias : shape (K, H)
        Bias of the first layer on every level.
    second : shape (G, H, H)
        Channel in, channel out.
    second_bias : shape (G, H)
    last : shape (G, H, 2)
        Of location and log2 scale.
    last_bias : shape (G, 2)
    skip : shape (G, n, 2)
        From the inputs to both outputs.
    """

    first: Floats
    level_bias: Floats
    second: Floats
    second_bias: Floats
    last: Floats
    last_bias: Floats
    skip: Floats

    @property
    def networks(self) -> int:
        """Number of networks, G."""
        return len(self.first)

    def of_level(self, level: int, lattice: int) -> tuple[Floats, ...]:
        """Parameters of the network of a level of a lattice, with that level's bias."""
        first, level_bias, *others = self
        number = network_of(lattice, self.networks)
        return first[number], level_bias[level], *(each[number] for each in others)

    @classmethod
    def of_levels(
        cls, levels: Sequence[Sequence[Any]], lattices: Sequence[int], networks: int, stack: Callable[[Sequence[Any]], Any]
    ) -> Context:
        """Add up what is given for the parameters of every level, as `of_level` orders them, where levels share a network."""
        served = [[k for k, lattice in enumerate(lattices) if network_of(lattice, networks) == own] for own in range(networks)]
        _, biases, *_ = per_parameter = list(zip(*levels, strict=True))
        found = [stack([sum((parts[k] for k in of[1:]), parts[of[0]]) for of in served]) for parts in per_parameter]
        return cls(*found)._replace(level_bias=stack(biases))


def network_of(lattice: int, networks: int) -> int:
    """Which of the context model's networks the levels of a lattice have."""
    return min(lattice, networks - 1)


class Synthesis(NamedTuple):
    """Float parameters of the synthesis; n inputs, hidden layers of S1 and S2.

    Attributes
    ----------
    gains : shape (K,)
        What a latent of each level is worth, in samples.
    filters : shape (A + K - 1, 4)
        Of every upsampling, the finest first: A from level 0 to the signal, then from level k + 1 to level k.
    first : shape (n, S1)
    first_bias : shape (S1,)
    second : shape (S1, S2)
    second_bias : shape (S2,)
    last : shape (S2,)
    last_bias : shape ()
    skips : shape (K,)
        From the channels to the sample.
    """

    gains: Floats
    filters: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    last: Floats
    last_bias: Floats
    skips: Floats


class Turn(NamedTuple):
    """Which samples gradients are taken from: of many, some are enough, others at each turn.

    Attributes
    ----------
    number : int
    of : int
        All turns of the gradients of parameters; each has those of one in so many parts of the samples, times so many. With 0 there are none.
    lines : int
        Errors, and all their gradients, are those of one in so many lines along x, times so many; see `Layout.thinned`. `of` should have
        no factor in common with it, or a part would always have the same lines.
    """

    number: int = 0
    of: int = 1
    lines: int = 1

    def share(self, part: int, parts: int) -> int:
        """What a part counts: where there are few, all count."""
        if not self.of:
            return 0
        if parts < _LEAST_PARTS * self.of:
            return 1
        return self.of if (part - self.number) % self.of == 0 else 0


ALL, NONE = Turn(), Turn(of=0)


def needed(layout: Layout, start: Sequence[int], stop: Sequence[int]) -> list[Box]:
    """Latents that the samples of a box depend on.

    Parameters
    ----------
    layout : Layout
    start, stop : sequence of 4 int
        The box, within the signal.

    Returns
    -------
    list of (start, stop)
        For every level, within its lattice.

    Raises
    ------
    ValueError
        If the box is empty or leaves the signal.
    """
    return list(layout.of_levels(needed_of_all(layout, start, stop)[len(layout.above) :]))


def needed_of_all(layout: Layout, start: Sequence[int], stop: Sequence[int]) -> list[Box]:
    """As `needed`, of every lattice from that of the signal on, whatever holds latents."""
    axes = tuple(zip(start, stop, layout.shape, strict=True))
    if any(not 0 <= a < b <= n for a, b, n in axes):
        raise ValueError(
            f"expected a box of samples within {layout.shape}, found {start} to {stop}; cut it to the signal"
        )
    # Channels 0 and 1 are seen as far around as taps reach.
    spans = [(max(0, a - r), min(n, b + r)) for (a, b, n), r in zip(axes, layout.synthesis_reach, strict=True)]
    found = [spans]
    for axes_halved, shape in zip(layout.above + layout.halved, layout.whole.shapes[1:], strict=True):
        spans = [coarser_span(*span, n) if half else span for span, n, half in zip(spans, shape, axes_halved, strict=True)]
        found.append(spans)
    return [(place_of(a for a, _ in spans), place_of(b for _, b in spans)) for spans in found]


def coarser_span(start: int, stop: int, extent: int) -> tuple[int, int]:
    """What four taps see, on the coarser of two levels, from samples [start, stop) of the finer one."""
    last = stop - 1
    return max(0, start // 2 - 2 + start % 2), min(extent, last // 2 + 2 + last % 2)


def place_of(numbers: Iterable[int]) -> Place:
    """Four numbers as a place."""
    t, z, y, x = numbers
    return t, z, y, x
