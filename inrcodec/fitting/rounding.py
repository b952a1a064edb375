"""Taking the last few bytes off a pyramid: single latents, where the error that it costs is smallest.

All of this runs on the host, but for the gradients that it is given and for syntheses of small probes.

A latent that changes by d changes the squared error by ``gradient d + curvature d^2 / 2``, and the rate by the difference of its
symbols' bits and by what it costs those whose contexts it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend, in_threads
from inrcodec_kernels.pyramid import Layout, Synthesis, synthesise

from ..coding.latents import LatentCoder, Place
from ..partition.tiles import TilePyramid

Integers = list[NDArray[np.int32]]
Curvature = Sequence[float | NDArray[np.float32]]
Slopes = Callable[[Integers], tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]]

_FINE = 3
"""Lattices whose latents are tried: the coarser ones have few, and each matters to many samples."""
_CHANGED = 0.01
"""Latents other than 0 that are changed to see what it costs."""
_LEAST_SAVED = 0.5
"""Bits that a change must save to be looked at."""
_PROBE = 24
"""Extent of the signal in which a latent's effect is looked at."""


def curvatures(layout: Layout, synthesis: Synthesis, backend: Backend) -> list[float]:
    """Second derivatives of the squared error by a latent of each fine level, in the middle of nothing."""
    present = [n > 1 for n in layout.shape]
    shape: Any = tuple(_PROBE if here else 1 for here in present)
    probe = replace(layout, shape=shape)
    nothing = [np.zeros(s, dtype=np.float32) for s in probe.shapes]
    plain = synthesise(nothing, synthesis, probe, backend)
    found = []
    for level in _fine(layout):
        one = [y.copy() for y in nothing]
        one[level][tuple(n // 2 for n in one[level].shape)] = 1
        found.append(2 * float(np.square(synthesise(one, synthesis, probe, backend) - plain).sum()))
    return found


def _fine(layout: Layout) -> range:
    """Levels whose latents are tried."""
    return range(sum(lattice < _FINE for lattice in layout.lattice))


def trimmed(
    latents: Integers,
    bits: float,
    tiles: TilePyramid,
    coder: LatentCoder,
    slopes: Slopes,
    curvature: Curvature,
    disturbed: list[float],
) -> Integers:
    """Take single latents one nearer to zero where that costs the least error for what it saves, until enough is saved.

    Parameters
    ----------
    latents : list of ndarray of int32
        Not changed.
    bits : float
        To save, a few hundredths of all at most: changes are taken to be far from each other.
    tiles : TilePyramid
    coder : LatentCoder
    slopes : callable
        ``slopes(latents)``: gradients of the squared error, and of the bits.
    curvature : list of float, or of ndarray
        As `curvatures` gives them; where errors have weights, times those of the latents, of extent 1 where they repeat.
    disturbed : list of float
        As `disturbances` gives them; further levels keep still.
    """
    gradients, rates = slopes(latents)
    found = []
    for level, (bent, more) in enumerate(zip(curvature, disturbed, strict=True)):
        lower, raised, own = _changes(latents, level, tiles, coder)
        places = np.flatnonzero(latents[level])
        towards = np.sign(latents[level].ravel()[places])
        # What a change costs others, whose contexts it changes, is known to the first order and on average. That others gain is
        # not believed: it is foretold where scales are small, and first orders do not reach far there.
        others = np.maximum(more - towards * (rates[level] - own).ravel()[places], 0)
        saved = -np.where(towards > 0, lower.ravel()[places], raised.ravel()[places]) - others
        error = np.broadcast_to(bent, latents[level].shape).flat[places] / 2 - towards * gradients[level].ravel()[places]
        pays = saved > _LEAST_SAVED
        found.append(np.stack([np.full(pays.sum(), level), places[pays], error[pays] / saved[pays], saved[pays]]))
    level, place, price, saved = np.concatenate(found, axis=1)
    order = np.argsort(price)
    chosen = order[: int(np.searchsorted(np.cumsum(saved[order]), bits)) + 1]
    trimmed = [y.copy() for y in latents]
    for k, values in enumerate(trimmed):
        at = place[chosen][level[chosen] == k].astype(np.int64)
        values.reshape(-1)[at] -= np.sign(values.reshape(-1)[at])
    return trimmed


def disturbances(
    latents: Integers, tiles: TilePyramid, coder: LatentCoder, slopes: Slopes, bits: Callable[[Integers], float], seed: int
) -> list[float]:
    """Bits that a change of a latent costs beyond what is known to the first order, for each fine level.

    A fit leaves latents that agree with each other: whatever changes one of them makes others less likely. Some
    are changed, far from each other, and the bits counted.

    Parameters
    ----------
    latents, tiles, coder, slopes
        As for `trimmed`.
    bits : callable
        ``bits(latents)``: all bits.
    seed : int
    """
    _, rates = slopes(latents)
    draw, before, found = np.random.default_rng(seed), bits(latents), []
    for level in _fine(coder.layout):
        less, more, own = _changes(latents, level, tiles, coder)
        picked = (latents[level] != 0) & (draw.random(latents[level].shape) < _CHANGED)
        towards = np.sign(latents[level])[picked]
        foreseen = np.where(towards > 0, less[picked], more[picked]) - towards * (rates[level] - own)[picked]
        changed = list(latents)
        changed[level] = latents[level].copy()
        changed[level][picked] -= towards
        excess = (bits(changed) - before - float(foreseen.sum())) / max(len(towards), 1)
        found.append(max(0.0, excess))
    return found


def _changes(latents: Integers, level: int, tiles: TilePyramid, coder: LatentCoder) -> NDArray[np.float32]:
    """Bits that every latent of a level would take more, one less and one more, and their derivatives."""
    found = np.empty((3, *latents[level].shape), dtype=np.float32)
    missing = latents[level].ndim - len(tiles.shape)

    def read(of: int, low: Place, high: Place) -> NDArray[np.int32]:
        return latents[of][tuple(slice(a, b) for a, b in zip(low, high, strict=True))]

    def work(tile: int) -> None:
        start, stop = tiles.box(tile)
        low: Place = (0,) * missing + start  # type: ignore[assignment]
        high: Place = (1,) * missing + stop  # type: ignore[assignment]
        inside = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        found[inside] = coder.changes(np.ascontiguousarray(read(level, low, high)), level, low, read)

    first = tiles.first[level]
    in_threads(work, range(first, first + int(np.prod(tiles.grid(level)))))
    return found
