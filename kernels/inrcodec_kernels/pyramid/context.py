"""What the stream's integers say of a latent before it is read: the definition, in numpy's integers.

A latent's mean and scale come from latents of its own level that come before it, and from the coarser levels, by a
network of two hidden layers whose weights are integers. CODING.md has the mathematics; `context_cpu` the compiled twin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

AXES = 4
"""t, z, y, x; an axis that the signal has not is absent, with an extent of 1."""
LARGEST = 127
"""Latents are clipped to this magnitude where they say something of others."""
UNIT_BITS = (3, 4)
"""Inputs and means are in eighths or sixteenths: the binary logarithms of their units in a latent's."""
HIDDEN_BITS = (11, 14)
"""The least and the most bits of a hidden number's magnitude."""
EXACT = 1 << 24
"""Sums stay below it: then float32 holds them exactly, in whatever order they are taken."""
SHIFT = 24
"""The largest shift."""
SLOPE_SHIFT = 3
"""A hidden number below zero loses so many bits more: a slope of 1/8."""
MOST_SCALE = 63
"""The last of the scales of `context_tables`."""
WEIGHTS = (8, 4, 2, 1)
"""A latent at (t, z, y, x) of its tile is decoded in the stage ``8 t + 4 z + 2 y + x``."""

Flags = Sequence[bool]
Extents = tuple[int, int, int, int]


class IntegerContext(NamedTuple):
    """The network: whole numbers, one first bias for each of K levels.

    Attributes
    ----------
    first : ndarray of int32 or int64, shape (n_in, H)
        Input, hidden number; the inputs are those of `inputs`, H is a multiple of 4.
    level_bias : ndarray, shape (K, H)
    second : ndarray, shape (H, H)
        Hidden number of the first layer, of the second.
    second_bias : ndarray, shape (H,)
    last : ndarray, shape (H, 2)
        To the mean and to the number of the scale.
    last_bias : ndarray, shape (2,)
    skip : ndarray, shape (n_in, 2)
        From the inputs straight to the same.
    shifts : tuple of 4 int
        Of the first and second layer, of the mean and of the scale.
    unit_bits : int
        Of inputs and means: one of `UNIT_BITS`.
    hidden_bits : int
        Bits of the largest magnitude of a hidden number, within `HIDDEN_BITS`.
    wide : bool
        Whether its inputs reach beyond the nearest latents: see `causal_taps`.
    """

    first: NDArray[np.int64]
    level_bias: NDArray[np.int64]
    second: NDArray[np.int64]
    second_bias: NDArray[np.int64]
    last: NDArray[np.int64]
    last_bias: NDArray[np.int64]
    skip: NDArray[np.int64]
    shifts: tuple[int, int, int, int]
    unit_bits: int
    hidden_bits: int
    wide: bool = False

    @property
    def arrays(self) -> tuple[NDArray[np.int64], ...]:
        """Weights and biases, from `first` to `skip`."""
        return self[:7]

    @property
    def units(self) -> int:
        """Units of inputs and means in a latent's."""
        return 1 << self.unit_bits

    @property
    def input(self) -> int:
        """The largest magnitude of an input and of a mean."""
        return LARGEST * self.units

    @property
    def hidden(self) -> int:
        """The largest magnitude of a hidden number."""
        return (1 << self.hidden_bits) - 1


class Tile(NamedTuple):
    """A part of a lattice that is coded by itself, and what is known of it beforehand.

    Attributes
    ----------
    level : int
    start, shape : tuple of 4 int
        The part.
    present : tuple of 4 bool
        The axes that the signal has.
    u, v : ndarray of int16, shape of the whole lattice, or None
        What `parents` gave; None stands for zeros.
    """

    level: int
    start: Extents
    shape: Extents
    present: tuple[bool, bool, bool, bool]
    u: NDArray[np.int16] | None
    v: NDArray[np.int16] | None


def check(network: IntegerContext) -> None:
    """Refuse a network whose sums might leave the numbers that float32 holds exactly.

    Raises
    ------
    ValueError
        If shapes do not fit each other, an array holds no integers, H is no multiple of 4, a shift lies outside 0..24,
        units or bits are none of those known, or ``sum |weights| largest input + |bias|`` of an output is not below 2^24.
    """
    arrays, shifts = network.arrays, network.shifts
    if any(array.dtype.kind != "i" for array in arrays):
        raise ValueError(f"expected signed integers, found {[str(a.dtype) for a in arrays]}; round the weights first")
    count, width, levels = len(network.first), len(network.second), len(network.level_bias)
    wanted = [(count, width), (levels, width), (width, width), (width,), (width, 2), (2,), (count, 2)]
    found = [array.shape for array in arrays]
    if found != wanted or min(count, width, levels) < 1 or width % 4:
        raise ValueError(
            f"expected layers that fit each other, of a multiple of 4 numbers, found {found}; pad them with zeros"
        )
    if len(shifts) != 4 or not all(0 <= shift <= SHIFT for shift in shifts):
        raise ValueError(f"expected four shifts of 0..{SHIFT}, found {shifts}; scale the weights")
    least, most = HIDDEN_BITS
    if network.unit_bits not in UNIT_BITS or not least <= network.hidden_bits <= most:
        raise ValueError(
            f"expected units of {UNIT_BITS} bits and numbers of {least} to {most}, found {network.unit_bits} and "
            f"{network.hidden_bits}; take those of a stream"
        )
    if (largest := _largest_sum(network)) >= EXACT:
        raise ValueError(f"expected sums below {EXACT}, found one of up to {largest}; use smaller weights and shifts")


def _largest_sum(network: IntegerContext) -> int:
    """The largest magnitude that a sum of the network can have, or an entry that alone is too large."""
    entry = max(max(int(array.max()), -int(array.min())) for array in network.arrays)
    return entry if entry >= EXACT else max(int(each.max()) for each in largest_sums(network))


def largest_sums(network: IntegerContext) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The largest magnitudes that sums of the first and the second layer, shape (H,), and the outputs, shape (2,), can have."""
    first, level_bias, second, second_bias, last, last_bias, skip = (np.abs(array.astype(np.int64)) for array in network.arrays)
    return (
        network.input * first.sum(axis=0) + level_bias.max(axis=0),
        network.hidden * second.sum(axis=0) + second_bias,
        network.hidden * last.sum(axis=0) + network.input * skip.sum(axis=0) + last_bias,
    )


@cache
def _taps(present: tuple[bool, ...], wide: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    near = itertools.product(*((-1, 0, 1) if here else (0,) for here in (False, *present[1:])))
    before = [tap for tap in near if tap < (0,) * AXES]
    if wide:
        before += [tap for tap in _further(present) if tap not in before]
    at_once = np.array(before, dtype=np.int64).reshape(-1, AXES)
    if not present[0]:
        return at_once, _cross(present)
    return np.concatenate([_cross((False, *present[1:])) - np.eye(AXES, dtype=np.int64)[0], at_once]), _cross(present)


def _further(present: tuple[bool, ...]) -> Iterator[tuple[int, ...]]:
    """What a wide context sees of its own time: two planes of 5 x 5 and one of 3 x 3, as far as they have been decoded."""
    for z, reach in ((-2, 1), (-1, 2), (0, 2)):
        spans = [range(-reach, reach + 1) if here else (0,) for here in present[2:]]
        for y, x in itertools.product(*spans):
            if (present[1] or z == 0) and np.dot(WEIGHTS, (0, z, y, x)) < 0:
                yield 0, z, y, x


def _cross(present: tuple[bool, ...]) -> NDArray[np.int64]:
    unit = np.eye(AXES, dtype=np.int64)
    return np.array([0 * unit[0]] + [step * unit[axis] for axis in np.flatnonzero(present) for step in (-1, 1)])


def causal_taps(present: Flags, wide: bool = False) -> NDArray[np.int64]:
    """Latents of the own level that a context sees, all of earlier stages; shape (n, 4).

    If there is an axis t, those at t - 1: the one itself, then its neighbours at -1 and +1 along z, y and x. Then those
    of the 3 x 3 x 3 around it that come before it in raster order. A *wide* context sees besides, in raster order, what else has an
    earlier stage of the 3 x 3 at z - 2, the 5 x 5 at z - 1 and the 5 x 5 around it.
    """
    return _taps(tuple(map(bool, present)), bool(wide))[0]


def cross_taps(present: Flags) -> NDArray[np.int64]:
    """Places of the upsampled coarser level that a context sees: the centre, then -1 and +1 along each axis."""
    return _taps(tuple(map(bool, present)), False)[1]


def inputs(present: Flags, wide: bool = False) -> int:
    """Number of the network's inputs: `causal_taps`, `cross_taps`, and one of the level after next."""
    return len(causal_taps(present, wide)) + len(cross_taps(present)) + 1


def ring_of(present: Flags, wide: bool = False) -> tuple[int, ...]:
    """Sites around a tile that a context sees along each axis."""
    return tuple(np.abs(np.concatenate([causal_taps(present, wide), cross_taps(present)])).max(0).tolist())


def clipped(latents: NDArray[np.int32]) -> NDArray[np.int32]:
    """Latents as others see them."""
    return np.clip(latents, -LARGEST, LARGEST)


def parents(
    coarse: NDArray[np.int32], coarser_parents: NDArray[np.int16] | None, halved: Flags, shape: Extents, units: int
) -> tuple[NDArray[np.int16], NDArray[np.int16] | None]:
    """Upsample the next coarser level for the contexts of this one.

    Parameters
    ----------
    coarse : ndarray of int32, four axes
        Latents of the coarser level.
    coarser_parents : ndarray of int16 or None
        The first result for the coarser level; None if it is the coarsest.
    halved : sequence of 4 bool
        The axes that are halved between the two levels.
    shape : tuple of 4 int
        Extents of this level.
    units : int
        Those of the network.

    Returns
    -------
    u : ndarray of int16, `shape`
        The coarser level's latents in such units, interpolated.
    v : ndarray of int16, `shape`, or None
        `coarser_parents`, interpolated.

    Raises
    ------
    ValueError
        If the extents of the levels do not follow from each other.
    """
    check_extents(coarse, coarser_parents, halved, shape)
    u = _upsampled(clipped(coarse), halved, shape, units)
    return u, None if coarser_parents is None else _upsampled(coarser_parents, halved, shape, 1)


def check_extents(
    coarse: NDArray[np.int32], coarser_parents: NDArray[np.int16] | None, halved: Flags, shape: Extents
) -> None:
    """As the errors of `parents`."""
    wanted = tuple(-(-n // 2) if h else n for n, h in zip(shape, halved, strict=True))
    found = [coarse.shape] if coarser_parents is None else [coarse.shape, coarser_parents.shape]
    if len(shape) != AXES or min(shape) < 1 or any(each != wanted for each in found):
        raise ValueError(
            f"expected a coarser level of {wanted} for one of {shape}, found {found}; take the one that belongs to it"
        )


def _upsampled(
    coarse: NDArray[np.int32] | NDArray[np.int16], halved: Flags, shape: Extents, unit: int
) -> NDArray[np.int16]:
    """``floor((unit S + 4^h / 2) / 4^h)`` with the sum S of weights 1 and 3 along each of h halved axes."""
    total = coarse.astype(np.int64)
    for axis in np.flatnonzero(halved):
        places = np.arange(shape[axis])
        nearest = places >> 1
        other = np.clip(nearest + 2 * (places & 1) - 1, 0, total.shape[axis] - 1)
        total = 3 * total.take(nearest, axis) + total.take(other, axis)
    bits = 2 * int(np.count_nonzero(halved))
    return (unit * total + (1 << bits >> 1) >> bits).astype(np.int16)


def check_tile(tile: Tile, network: IntegerContext) -> None:
    """Refuse a tile that does not lie in its lattice, or that the network was not made for.

    Raises
    ------
    ValueError
    """
    wanted = inputs(tile.present, network.wide)
    if len(network.first) != wanted or not 0 <= tile.level < len(network.level_bias):
        raise ValueError(
            f"expected a network of {wanted} inputs with a level {tile.level}, found one of "
            f"{len(network.first)} with {len(network.level_bias)} levels; take the one of this signal"
        )
    ends = [s + n for s, n in zip(tile.start, tile.shape, strict=True)]
    lattices = [lattice.shape for lattice in (tile.u, tile.v) if lattice is not None]
    inside = min(tile.start) >= 0 and min(tile.shape) >= 1
    if not inside or any(e > n for lattice in lattices for e, n in zip(ends, lattice, strict=True)):
        raise ValueError(f"expected a tile within {lattices}, found {tile.start} to {ends}; cut it to the lattice")
    if any(n > 1 and not here for n, here in zip(tile.shape, tile.present, strict=True)):
        raise ValueError(
            f"expected an extent of 1 along absent axes, found {tile.shape} with {tile.present}; correct the axes"
        )


def check_latents(latents: NDArray[np.int32], tile: Tile) -> None:
    """Refuse latents that are not those of a tile, or too large to be coded.

    Raises
    ------
    ValueError
    """
    if latents.shape != tile.shape:
        raise ValueError(f"expected latents of {tile.shape}, found {latents.shape}; cut out the tile")
    if latents.max() >= LIMIT or latents.min() <= -LIMIT:
        raise ValueError(f"expected latents below {LIMIT} in magnitude, found larger ones; use a larger step")


LIMIT = 1 << 20
"""Latents are smaller than this in magnitude."""


class Surroundings:
    """The inputs of a tile's contexts, site by site; latents enter when they are known.

    All lies in flat arrays with a ring around the tile, so that a tap is a shift.
    """

    def __init__(self, tile: Tile, network: IntegerContext) -> None:
        self._units = network.units
        ring = ring_of(tile.present, network.wide)
        padded = [n + 2 * r for n, r in zip(tile.shape, ring, strict=True)]
        pitch = np.array([padded[1] * padded[2] * padded[3], padded[2] * padded[3], padded[3], 1])
        self._causal, self._cross = causal_taps(tile.present, network.wide) @ pitch, cross_taps(tile.present) @ pitch
        self._own = np.zeros(padded, dtype=np.int64).ravel()
        self._u, self._v = _with_ring(tile.u, tile, ring).ravel(), _with_ring(tile.v, tile, ring).ravel()
        grid = np.indices(tile.shape).reshape(AXES, -1)
        self._places = pitch @ (grid + np.array(ring)[:, None])

    def put(self, sites: NDArray[np.int64], latents: NDArray[np.int32]) -> None:
        """Latents at flat positions of the tile become known."""
        self._own[self._places[sites]] = self._units * clipped(latents)

    def rows(self, sites: NDArray[np.int64]) -> NDArray[np.int64]:
        """Inputs at flat positions of the tile, shape (n, n_in)."""
        places = self._places[sites][:, None]
        return np.concatenate(
            [self._own[places + self._causal], self._u[places + self._cross], self._v[places]], axis=1
        )


def _with_ring(lattice: NDArray[np.int16] | None, tile: Tile, ring: Sequence[int]) -> NDArray[np.int64]:
    """A tile's part of a lattice with a ring; beyond the lattice, the nearest site."""
    if lattice is None:
        return np.zeros([n + 2 * r for n, r in zip(tile.shape, ring, strict=True)], dtype=np.int64)
    spans = [
        np.clip(np.arange(start - r, start + n + r), 0, extent - 1)
        for start, n, extent, r in zip(tile.start, tile.shape, lattice.shape, ring, strict=True)
    ]
    return lattice[np.ix_(*spans)].astype(np.int64)


def evaluate(
    rows: NDArray[np.int64], level: int, network: IntegerContext
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Means, in units, and numbers of scales of n latents.

    Parameters
    ----------
    rows : ndarray of int64, shape (n, n_in)
    level : int
    network : IntegerContext
        Checked by `check`.

    Returns
    -------
    means, scales : ndarray of int64, shape (n,)
    """
    first, second, *final = network.shifts
    hidden = _requantised(rows @ network.first + network.level_bias[level], first, network.hidden)
    hidden = _requantised(hidden @ network.second + network.second_bias, second, network.hidden)
    total = hidden @ network.last + rows @ network.skip + network.last_bias
    means, scales = (total >> np.array(final)).T
    return np.clip(means, -network.input, network.input), np.clip(scales, 0, MOST_SCALE)


def _requantised(total: NDArray[np.int64], shift: int, largest: int) -> NDArray[np.int64]:
    return np.clip(np.where(total >= 0, total >> shift, total >> shift + SLOPE_SHIFT), -largest, largest)


def predictions(
    latents: NDArray[np.int32], tile: Tile, network: IntegerContext
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Means, in units, and numbers of scales of all latents of a tile, from the latents themselves.

    Parameters
    ----------
    latents : ndarray of int32, the tile's shape
    tile : Tile
    network : IntegerContext
        Checked by `check`.

    Returns
    -------
    means, scales : ndarray of int32, the tile's shape

    Raises
    ------
    ValueError
        If latents, tile and network do not fit each other.
    """
    check_tile(tile, network)
    check_latents(latents, tile)
    known, sites = Surroundings(tile, network), np.arange(latents.size)
    known.put(sites, latents.ravel())
    means, scales = evaluate(known.rows(sites), tile.level, network)
    return means.reshape(tile.shape).astype(np.int32), scales.reshape(tile.shape).astype(np.int32)


def stages(shape: Extents) -> list[NDArray[np.int64]]:
    """Flat positions of a tile's latents, stage by stage; those of a stage know nothing of each other."""
    weight = np.tensordot(np.array(WEIGHTS), np.indices(shape), axes=1).ravel()
    order = np.argsort(weight, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(weight[order])) + 1)
