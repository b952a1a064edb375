"""Partition by concentration of the spectrum: few blocks, each as nearly one wave as the octree allows.

A block whose spectrum is concentrated in few waves is easily fitted by a small sine network, so the cells that cover
the volume are chosen for the greatest mean concentration among covers of at most so many blocks.

Source: SCI, arXiv:2209.15180 (AAAI 2023). There the DC bin counts and an integer-programming solver chooses the cells.
Here the score ignores offset and noise and can be compared between levels, and dynamic programming chooses exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from . import blocks
from .octree import Cells, IntArray, coarsen, grid_of, refine

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# How often white noise alone fails each of the two tests of a flat block: of its samples, and of its waves.
_FALSE_ALARMS = 0.01

_NOISE_EDGE = 8
_NOISE_SAMPLES = 1 << 20
_MEDIAN_OF_NORMAL = 0.6745

# Scores count in steps of 2^-20: sums over up to 2^33 samples are then exact, and ties are ties.
_SCORE_STEPS = 1 << 20


def wave_count(cell: tuple[int, ...]) -> int:
    """Real waves, besides the constant, that a block of these extents is a sum of.

    A frequency and its negative are one wave; the frequencies that are their own negative are a wave each.
    """
    own_negatives = 2 ** sum(edge % 2 == 0 for edge in cell) - 1
    return (math.prod(cell) - 1 + own_negatives) // 2


def concentration(samples: NDArray[np.float32], noise: float) -> FloatArray:
    """Share of the strongest wave in the amplitudes of all waves of each block.

    ``max|F| / sum|F|`` over the waves of the block's Fourier transform, the constant left out. Waves that white noise
    might have made count nothing. A pure wave scores 1 if it fits the block and about 0.1 in cubes of 8 to 32 if it
    does not, M waves of the same amplitude (an impulse) 1/M, and white noise about ``1.13 sqrt(ln M) / M``.

    Parameters
    ----------
    samples : ndarray of float32, shape (B, *cell)
    noise : float
        Standard deviation of the noise, in grey levels.

    Returns
    -------
    ndarray of float64, shape (B,)
        Exactly 1 for a block without a wave above the noise, such as a constant.
    """
    return _judge(samples, noise)[0]


def is_flat(samples: NDArray[np.float32], noise: float) -> BoolArray:
    """Whether each block is its mean and noise: neither a sample nor a wave stands out; shapes as `concentration`."""
    return _judge(samples, noise)[1]


def normalised(concentrations: FloatArray, waves: int) -> FloatArray:
    """Concentration as a score from 0 to 1 that can be compared between blocks of different size.

    ``1 + ln c / ln M``: 0 is M equal waves and 1 a single wave or a constant. A spectrum that falls as a power ``-a``
    of the frequency has c near ``M^(a/d - 1)`` in d dimensions, so its score tends to a/d whatever the size, where c
    itself falls up to sevenfold each time the edges of a cubic cell are doubled. White noise scores
    ``ln(1.13 sqrt(ln M)) / ln M``: measured 0.19, 0.15, 0.13 and 0.12 in cubes of 8, 16, 32 and 64; 1/f noise 0.29,
    0.30, 0.30 and 0.32; volumes of CT, MR and electron microscopy between 0.53 and 0.61 at each of these sizes.

    Parameters
    ----------
    concentrations : ndarray, any shape
        See `concentration`.
    waves : int
        M, see `wave_count`; a block of at most one wave scores 1.
    """
    if waves <= 1:
        return np.ones_like(concentrations)
    return 1 + np.log(concentrations) / math.log(waves)


def _judge(samples: NDArray[np.float32], noise: float) -> tuple[FloatArray, BoolArray]:
    """Concentration of each block, and whether it is flat; shapes (B,)."""
    axes = tuple(range(1, samples.ndim))
    cell = samples.shape[1:]
    size, waves = math.prod(cell), wave_count(cell)
    if waves == 0:
        return np.ones(len(samples)), np.ones(len(samples), dtype=bool)
    # In double precision the mean of a constant is that constant, so that nothing is left of it.
    centred = samples - samples.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    within = np.abs(centred).max(axis=axes) <= noise * math.sqrt(2 * math.log(size / _FALSE_ALARMS))
    magnitude = _magnitudes(centred, axes)
    # Power at a frequency of white noise is exponentially distributed with mean size * noise^2. The loudest of the
    # waves stays below this with the chance wanted. Dropping waves rather than subtracting the noise from them keeps
    # the score from depending much on how well the noise is known, which differs from place to place.
    magnitude[magnitude <= noise * math.sqrt(size * math.log(waves / _FALSE_ALARMS))] = 0
    strongest, total = _strongest_and_total(magnitude, cell)
    silent = total == 0
    return np.where(silent, 1.0, strongest / np.where(silent, 1.0, total)), within & silent


def _magnitudes(centred: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    """Magnitudes of the non-negative half of the spectrum, the constant's set to zero: a rounded mean leaves some."""
    magnitude = np.abs(fft.rfftn(centred, axes=axes))
    magnitude.reshape(len(magnitude), -1)[:, 0] = 0
    return magnitude


def _strongest_and_total(magnitude: NDArray[np.float32], cell: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Greatest amplitude of a wave, and all amplitudes together; overwrites `magnitude`.

    The amplitude of a real wave is that at its frequency and at the negative of it, which the half spectrum leaves
    out except where the last frequency is its own negative.
    """
    copies = np.full(magnitude.shape[-1], 2.0)
    copies[0] = 1
    if cell[-1] % 2 == 0:
        copies[-1] = 1
    inner = tuple(range(1, magnitude.ndim - 1))
    total = magnitude.sum(axis=inner, dtype=np.float64) @ copies
    own_negatives = np.ix_(range(len(magnitude)), *([0, edge // 2] if edge % 2 == 0 else [0] for edge in cell))
    magnitude[own_negatives] *= 0.5
    return 2 * magnitude.max(axis=(*inner, magnitude.ndim - 1)).astype(np.float64), total


def noise_level(volume: np.ndarray) -> float:
    """Standard deviation of the noise, in grey levels, from a bounded sample of small cells.

    The median magnitude of the second difference along all axes at once, which smooth signals and straight edges
    hardly touch, over cells that are not constant: a masked background says nothing of the noise. 0 where most of
    these differences vanish, as in a label map. Noise that was smoothed, by resampling say, is underestimated.

    Parameters
    ----------
    volume : ndarray, 1 to 4 axes
        May be memory-mapped; at most about a million samples are read.

    Notes
    -----
    The estimator is the median of the finest diagonal details of Donoho & Johnstone, Biometrika 81 (1994), with
    second differences in place of a wavelet.
    """
    cell = tuple(min(extent, _NOISE_EDGE) for extent in volume.shape)
    grid = tuple(extent // edge for extent, edge in zip(volume.shape, cell, strict=True))
    count = math.prod(grid)
    # Drawn, not evenly spaced: a spacing might run in step with the grid and see one side of the volume only.
    picked = np.sort(np.random.default_rng(0).permutation(count)[: max(1, _NOISE_SAMPLES // math.prod(cell))])
    origin = np.stack(np.unravel_index(picked, grid), axis=1) * np.asarray(cell)
    samples = blocks.gather(volume, origin, cell)
    live = samples[samples.max(axis=1) > samples.min(axis=1)]
    if not live.size:
        return 0.0
    return float(np.median(np.abs(_differences(live.reshape(-1, *cell))))) / _MEDIAN_OF_NORMAL


def _differences(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Second differences along all axes at once (first along axes of two samples), of unit gain for white noise."""
    gain = 1.0
    for axis in range(1, samples.ndim):
        order = min(2, samples.shape[axis] - 1)
        samples = np.diff(samples, order, axis=axis)
        gain *= math.comb(2 * order, order)
    return samples / np.float32(math.sqrt(gain))


def level_scores(
    volume: np.ndarray, cells: Cells, levels: Sequence[int], noise: float
) -> tuple[list[FloatArray], list[BoolArray]]:
    """Score every cell of some levels, holding no more of the volume than a batch of blocks.

    Border cells are scored on their samples inside the volume: repeated samples are not white noise.

    Parameters
    ----------
    volume : ndarray, 1 to 4 axes
        May be memory-mapped.
    cells : tuple of tuple of int
        Cell extents per level, coarsest first; see `octree.cell_pyramid`.
    levels : sequence of int
        Levels to score, see `levels_for`.
    noise : float
        Standard deviation of the noise, in grey levels; see `noise_level`.

    Returns
    -------
    scores : list of ndarray of float64
        `normalised` concentration, one full grid per level.
    flat : list of ndarray of bool
        Cells that are their mean and noise, see `is_flat`.
    """
    graded = [_grade(volume, cells[level], noise) for level in levels]
    return [score for score, _ in graded], [flat for _, flat in graded]


def _grade(volume: np.ndarray, cell: tuple[int, ...], noise: float) -> tuple[FloatArray, BoolArray]:
    """Scores and flatness of the full grid of one level."""
    grid = grid_of(volume.shape, cell)
    score, flat = np.ones(grid), np.ones(grid, dtype=bool)
    for part, extent in _parts(volume.shape, cell):
        index = np.stack([axis.ravel() for axis in np.mgrid[part]], axis=1)
        waves = wave_count(extent)
        for batch in blocks.batches(len(index), math.prod(extent)):
            samples = blocks.gather(volume, index[batch] * np.asarray(cell), extent).reshape(-1, *extent)
            concentrations, quiet = _judge(samples, noise)
            place = tuple(index[batch].T)
            score[place], flat[place] = normalised(concentrations, waves), quiet
    return score, flat


def _parts(shape: tuple[int, ...], cell: tuple[int, ...]) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...]]]:
    """Parts of the grid whose cells hold equally many samples along each axis, with these extents."""
    axes = []
    for extent, edge in zip(shape, cell, strict=True):
        whole, rest = divmod(extent, edge)
        spans = [(slice(0, whole), edge), (slice(whole, whole + 1), rest)]
        axes.append([(span, inside) for span, inside in spans if span.stop > span.start and inside])
    for part in itertools.product(*axes):
        yield tuple(span for span, _ in part), tuple(inside for _, inside in part)


def sample_counts(shape: tuple[int, ...], cell: tuple[int, ...]) -> IntArray:
    """Samples of the signal in each cell of a grid; cells at the border hold fewer."""
    counts = np.ones((1,) * len(shape), dtype=np.int64)
    for axis, (extent, edge) in enumerate(zip(shape, cell, strict=True)):
        inside = np.minimum(extent - np.arange(0, extent, edge), edge)
        counts = counts * inside.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return counts


def levels_for(most: int, cells: Cells, shape: tuple[int, ...]) -> range:
    """Levels to choose among for at most so many blocks.

    From the deepest level whose cells are no more than that, to two levels deeper where there are such. Cubes of 8
    children make this the levels ``floor(log8 N) .. + 2`` of SCI; here the cells are counted.

    Raises
    ------
    ValueError
        If even level 0 has more cells.
    """
    counts = [math.prod(grid_of(shape, cell)) for cell in cells]
    enough = [level for level, count in enumerate(counts) if count <= most]
    if not enough:
        raise ValueError(f"expected room for at least {counts[0]} blocks, the cells of level 0, got {most}")
    return range(enough[-1], min(enough[-1] + 3, len(cells)))


def best_cover(
    scores: Sequence[np.ndarray],
    voxels: Sequence[np.ndarray],
    fans: Sequence[tuple[int, ...]],
    most: int,
    free: Sequence[np.ndarray] | None = None,
) -> list[BoolArray]:
    """Cover the volume by at most `most` cells with the greatest mean score per sample: exactly, a tree knapsack.

    The best value of a cell's subtree with n blocks is the greater of its own and of the best share of the n among
    its children, a (max, +) convolution; n never exceeds the leaves below the cell. The cells of the first level are
    joined alike. Of covers equally good the one of fewest blocks is taken, and no cell is split for nothing.

    Parameters
    ----------
    scores : sequence of ndarray
        Finite score of every cell as a leaf, one full grid per level, coarsest first; differences below 1e-6 are lost.
    voxels : sequence of ndarray
        Samples of the signal in each cell, see `sample_counts`.
    fans : sequence of tuple of int
        Children per axis of each level but the last.
    most : int
        Blocks allowed.
    free : sequence of ndarray of bool, optional
        Cells that count no block, such as background; none if left out.

    Returns
    -------
    list of ndarray of bool
        Split decisions, one full grid for each level but the last. Where the levels are ``cells[top : end]`` of a
        pyramid, ``octree.build(shape, cells[:end], top, splits)`` is the tree.

    Raises
    ------
    ValueError
        If no cover has so few blocks.
    """
    costs = [np.ones(s.shape, dtype=np.int64) if free is None else 1 - free[i] for i, s in enumerate(scores)]
    _check_room(costs, fans, most)
    values = [np.rint(np.asarray(s) * _SCORE_STEPS) * v for s, v in zip(scores, voxels, strict=True)]
    table = _own_table(values[-1], costs[-1], min(1, most))
    plans = []
    for value, cost, fan, below in zip(values[-2::-1], costs[-2::-1], fans[::-1], values[:0:-1], strict=True):
        joined, shares = _join(_families(table, below.shape, fan), most)
        own = _own_table(value, cost, joined.shape[1] - 1)
        table = np.maximum(own, joined)
        plans.append((own < joined, shares))
    total, shares = _join(table[None], most)
    return _follow(plans[::-1], _share_out(shares, np.argmax(total, axis=1))[0], [s.shape for s in scores], fans)


def _check_room(costs: Sequence[np.ndarray], fans: Sequence[tuple[int, ...]], most: int) -> None:
    """Refuse fewer blocks than the cover of fewest blocks has."""
    least = costs[-1]
    for cost, fan in zip(costs[-2::-1], fans[::-1], strict=True):
        least = np.minimum(cost, coarsen(least, fan))
    if most < least.sum():
        raise ValueError(f"expected room for at least {least.sum()} blocks, those the coarsest cover has, got {most}")


def _own_table(value: np.ndarray, cost: np.ndarray, width: int) -> FloatArray:
    """Value of each cell as a leaf with at most 0, 1, ... `width` blocks, shape (cells, width + 1)."""
    return np.where(np.arange(width + 1) >= cost.reshape(-1, 1), value.reshape(-1, 1).astype(float), -np.inf)


def _families(rows: np.ndarray, grid: tuple[int, ...], fan: tuple[int, ...]) -> np.ndarray:
    """Rows of a level's cells, shape (cells, n), as (parents, children, n); a child outside the signal is all zero."""
    padding = [(0, -n % f) for n, f in zip(grid, fan, strict=True)]
    padded = np.pad(rows.reshape(*grid, -1), [*padding, (0, 0)])
    paired = padded.reshape([v for n, f in zip(padded.shape, fan, strict=False) for v in (n // f, f)] + [-1])
    axes = len(fan)
    ordered = paired.transpose([*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes])
    return ordered.reshape(-1, math.prod(fan), rows.shape[1])


def _from_families(family: np.ndarray, grid: tuple[int, ...], fan: tuple[int, ...]) -> np.ndarray:
    """Inverse of `_families` for one number per child: shape (parents, children) to the cells' raster order."""
    parents = [-(-n // f) for n, f in zip(grid, fan, strict=True)]
    axes = len(fan)
    paired = family.reshape(*parents, *fan).transpose([v for a in range(axes) for v in (a, axes + a)])
    return paired.reshape([n * f for n, f in zip(parents, fan, strict=True)])[tuple(slice(n) for n in grid)].ravel()


def _join(tables: np.ndarray, most: int) -> tuple[FloatArray, list[np.ndarray]]:
    """Share blocks among the children of each parent in the best way.

    Parameters
    ----------
    tables : ndarray, shape (parents, children, n)
        Best value of each child with at most 0, 1, ... blocks.

    Returns
    -------
    joined : ndarray, shape (parents, m)
        Best value of the children together with at most 0, 1, ... blocks, m - 1 never above `most`.
    shares : list of ndarray of int
        For each child but the first, the blocks it takes of those it and the children before it have together.
    """
    joined, shares = tables[:, 0], []
    for child in range(1, tables.shape[1]):
        joined, share = _convolve(joined, tables[:, child], most)
        shares.append(share)
    return joined, shares


def _convolve(first: np.ndarray, second: np.ndarray, most: int) -> tuple[FloatArray, np.ndarray]:
    """(max, +) convolution of each row, cut at `most`, and what of each total goes to `second`."""
    width = min(first.shape[1] + second.shape[1] - 2, most)
    best = np.full((len(first), width + 1), -np.inf)
    share = np.zeros(best.shape, dtype=np.min_scalar_type(second.shape[1]))
    for n in range(min(second.shape[1], width + 1)):
        stop = min(n + first.shape[1], width + 1)
        candidate = first[:, : stop - n] + second[:, n : n + 1]
        better = candidate > best[:, n:stop]
        np.copyto(best[:, n:stop], candidate, where=better)
        np.copyto(share[:, n:stop], n, where=better, casting="unsafe")
    return best, share


def _share_out(shares: list[np.ndarray], totals: np.ndarray) -> np.ndarray:
    """Blocks of each child, shape (parents, children), of those its parent has; see `_join`."""
    taken = []
    rows = np.arange(len(totals))
    for share in reversed(shares):
        taken.append(share[rows, totals].astype(np.int64))
        totals = totals - taken[-1]
    return np.stack([totals, *reversed(taken)], axis=1)


def _follow(
    plans: list[tuple[np.ndarray, list[np.ndarray]]],
    allotted: np.ndarray,
    grids: list[tuple[int, ...]],
    fans: Sequence[tuple[int, ...]],
) -> list[BoolArray]:
    """Split decisions from the blocks that each cell of the first level has, down the levels."""
    splits = []
    present = np.ones(grids[0], dtype=bool)
    for (gains, shares), grid, below, fan in zip(plans, grids[:-1], grids[1:], fans, strict=True):
        split = present & gains[np.arange(len(allotted)), allotted].reshape(grid)
        splits.append(split)
        present = refine(split, fan, below)
        allotted = _from_families(_share_out(shares, allotted), below, fan)
    return splits
