"""The SCI encoder's stages: what is measured of each block, widths, the fit, and quantisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.siren import Samples, draw, fit

from ..coding.networks import DRAWS
from ..models.sci import Widths, first_layers, forward, funnel, half_octaves, weight_count, weight_shapes
from ..options import SciOptions
from ..partition import octree, spectrum
from ..partition.allocation import leaf_widths
from ..partition.blocks import batches, gather
from ..region import Region
from .descent import Note

IntArray = NDArray[np.int64]

WEIGHTS_PER_BLOCK = 1500
"""Blocks are made so many that a network has about this many weights: fewer starve, more cost time without a gain."""
LEAST_WEIGHTS = 24
"""A smaller share of the budget makes a block a constant."""
SPREAD, MOST_CLASSES = 1.6, 8
"""Blocks whose dues differ by less than this factor share a class: many classes make slow steps, few unfitting widths."""
FINEST_BLOCK, LONGEST_BLOCK = 8, 32
"""Edge of the smallest block, in samples: on the axis of median bandwidth, and at most."""
GROUP_VOXELS = 1 << 25
"""Samples of the blocks that are fitted together: bounds the memory of large volumes."""
LEARNING_RATE = 3e-2
WARM_UP = 0.05
TRIAL = 0.05
"""Part of the steps after which the best of several starts is kept."""
GROWTH = 1.12
"""Each further sine layer widens the spectrum by about this much."""
_SENSITIVITY_POINTS, _SENSITIVITY_PROBES = 256, 4


@dataclass(frozen=True)
class BlockFacts:
    """What is known of each block before its network.

    Attributes
    ----------
    mean : ndarray of int, shape (B,)
        Rounded, the offset taken off.
    scale : ndarray of int, shape (B,)
        Half octaves of the standard deviation.
    bandwidth : ndarray of float, shape (B, d)
        RMS frequency in radians per unit coordinate.
    concentration : ndarray of float, shape (B,)
        Of the spectrum, 0 to 1; see `spectrum.concentration`.
    variance : ndarray of float, shape (B,)
    voxels : ndarray of int, shape (B,)
        Samples inside the signal.
    flat : ndarray of bool, shape (B,)
        Whether the block is its mean and noise.
    share, weight : ndarray of float, shape (B,), or 1
        Part of the block that lies in the region, and what its squared errors count; 1 where there is no region.
    """

    mean: IntArray
    scale: IntArray
    bandwidth: NDArray[np.float64]
    concentration: NDArray[np.float64]
    variance: NDArray[np.float64]
    voxels: IntArray
    flat: NDArray[np.bool_]
    share: NDArray[np.float64] | float = 1.0
    weight: NDArray[np.float32] | float = 1.0


def choose_partition(volume: np.ndarray, options: SciOptions, weights: int, channels: bool = False) -> octree.Octree:
    """Cover the volume by at most as many blocks as the budget of weights can feed, spectra as concentrated as can be."""
    # Channels share their edges; cut apart, every network would learn them anew.
    edges = (min(len(volume), LONGEST_BLOCK), *block_edges(volume[len(volume) // 2])) if channels else block_edges(volume)
    cells = octree.cell_pyramid(volume.shape, halved_edges(volume.shape, edges))
    counts = [math.prod(octree.grid_of(volume.shape, cell)) for cell in cells]
    most = max(options.blocks or weights // WEIGHTS_PER_BLOCK, counts[_coarsest(cells)])
    if options.partition == "uniform":
        level = max(i for i, count in enumerate(counts) if count <= most)
        return _unsplit_below(volume.shape, cells, level, [])
    levels = spectrum.levels_for(most, cells, volume.shape)
    noise = spectrum.noise_level(volume)
    scores, flat = spectrum.level_scores(volume, cells, levels, noise)
    voxels = [spectrum.sample_counts(volume.shape, cells[level]) for level in levels]
    fans = [octree.fan_of(cells, level) for level in levels[:-1]]
    decided = spectrum.best_cover(scores, voxels, fans, most, flat)
    return _unsplit_below(volume.shape, cells, levels[0], decided)


def _nameable(cells: octree.Cells) -> int:
    """The first level whose cells a stream can name as the deepest."""
    return next(level for level, cell in enumerate(cells) if max(cell) <= octree.MAX_EDGE)


def _coarsest(cells: octree.Cells) -> int:
    """The first level whose cells a decoder accepts as blocks."""
    small = next(level for level, cell in enumerate(cells) if math.prod(cell) <= octree.MAX_BLOCK)
    return max(small, _nameable(cells) + 1 - octree.MAX_DEPTH)


def _unsplit_below(
    shape: tuple[int, ...], cells: octree.Cells, top: int, splits: list[NDArray[np.bool_]]
) -> octree.Octree:
    """The tree of these splits, no deeper than it must be for a stream to name its deepest cell."""
    depth = max(top + len(splits), _nameable(cells))
    unsplit = [np.zeros(octree.grid_of(shape, cells[v]), dtype=bool) for v in range(top + len(splits), depth)]
    return octree.build(shape, cells[: depth + 1], top, splits + unsplit)


def halved_edges(shape: tuple[int, ...], edges: tuple[int, ...]) -> tuple[int, ...]:
    """Edges near those given that halving the axes leads to: so the blocks of every level are of nearly one size."""
    halvings = [max(0, round(math.log2(n / e))) for n, e in zip(shape, edges, strict=True)]
    return tuple(-(-n // 2**k) for n, k in zip(shape, halvings, strict=True))


def block_edges(volume: np.ndarray) -> tuple[int, ...]:
    """Edges of the smallest blocks: long where the signal changes slowly, so that a block is as hard along every axis."""
    step = [max(1, n // 96) for n in volume.shape]
    slope = []
    for axis, n in enumerate(volume.shape):
        if n == 1:
            slope.append(0.0)
            continue
        picks: list[NDArray[np.int64]] = [np.arange(0, m, s) for m, s in zip(volume.shape, step, strict=True)]
        picks[axis] = np.arange(0, n - 1, step[axis])
        here = volume[np.ix_(*picks)].astype(np.float32)
        picks[axis] = picks[axis] + 1
        slope.append(float(np.mean((volume[np.ix_(*picks)] - here) ** 2)) ** 0.5)
    known = [s for s in slope if s > 0]
    if not known:
        return (FINEST_BLOCK,) * volume.ndim
    middle = math.exp(sum(map(math.log, known)) / len(known))
    octaves = [round(math.log2(middle / s)) if s > 0 else 0 for s in slope]
    return tuple(int(min(max(FINEST_BLOCK * 2.0**o, 2), LONGEST_BLOCK)) for o in octaves)


def measure_blocks(volume: np.ndarray, tree: octree.Octree, offset: int, region: Region | None = None) -> BlockFacts:
    """Measure every block, a bounded batch at a time."""
    inside = None if region is None else region.mask(volume.shape)
    count, ndim = tree.count, len(tree.shape)
    mean, concentration, variance = np.zeros(count), np.ones(count), np.zeros(count)
    bandwidth, flat, share = np.zeros((count, ndim)), np.zeros(count, dtype=bool), np.zeros(count)
    held = np.minimum(tree.extent, np.array(tree.shape) - tree.origin)
    noise = spectrum.noise_level(volume)
    for extent in np.unique(held, axis=0):
        members = np.flatnonzero((held == extent).all(axis=1))
        cell = tuple(extent.tolist())
        for part in batches(len(members), math.prod(cell)):
            here = members[part]
            samples = gather(volume, tree.origin[here], cell).reshape(-1, *cell) - np.float32(offset)
            axes = tuple(range(1, ndim + 1))
            mean[here] = samples.mean(axis=axes, dtype=np.float64)
            variance[here] = samples.var(axis=axes, dtype=np.float64)
            concentration[here], flat[here] = spectrum.concentration(samples, noise), spectrum.is_flat(samples, noise)
            bandwidth[here] = _bandwidth(samples, variance[here], tree.extent[here])
            if inside is not None:
                share[here] = gather(inside, tree.origin[here], cell).mean(axis=1)
    scale = np.rint(np.log2(np.maximum(variance, 2.0**-40))).astype(np.int64)
    facts = BlockFacts(
        np.rint(mean).astype(np.int64), scale, bandwidth, concentration, variance, held.prod(axis=1), flat
    )
    return facts if region is None else replace(facts, share=share, weight=region.weight(share))


def _bandwidth(samples: np.ndarray, variance: np.ndarray, extent: IntArray) -> NDArray[np.float64]:
    """RMS frequency along each axis from finite differences, in radians per unit coordinate; shape (n, d)."""
    found = np.zeros((len(samples), samples.ndim - 1))
    for axis in range(1, samples.ndim):
        if samples.shape[axis] > 1:
            slope = np.square(np.diff(samples, axis=axis), dtype=np.float64).mean(axis=tuple(range(1, samples.ndim)))
            found[:, axis - 1] = np.sqrt(slope / np.maximum(variance, 1e-12)) * extent[:, axis - 1] / 2
    return found


_WEIGHT_POWER = 0.45
"""Of what a block's errors count, which its weights are proportional to: errors fall with the power 1.2 of them, and the
weighted sum is least at 1 / 2.2. Measured on a chest CT: 0.45 gives the least weighted error, 0.7 and 1 give 4 and 5 % more."""


def importance(facts: BlockFacts, options: SciOptions) -> NDArray[np.float64]:
    """Relative share of the budget of every block; flat blocks get none."""
    weight = {
        "equal": np.ones(len(facts.mean)),
        "size": facts.voxels.astype(float),
        "variance": facts.voxels * facts.variance,
        "concentration": facts.voxels / facts.concentration,
        "spread": facts.voxels * facts.variance**0.25,
    }[options.allocation]
    return np.where(facts.flat, 0.0, weight * facts.weight**_WEIGHT_POWER)


def choose_classes(
    facts: BlockFacts, options: SciOptions, ndim: int, weights: int
) -> tuple[tuple[Widths, ...], IntArray]:
    """Widths of the classes of networks, and the class of every block; 0 is a constant.

    What rounding down to a class leaves over lifts the most important blocks by one class while it lasts.
    """
    share = importance(facts, options)
    live = np.flatnonzero(share)
    kind = np.zeros(len(share), dtype=np.int64)
    if not len(live) or weights < LEAST_WEIGHTS:
        return ((),), kind
    most = np.maximum(facts.voxels[live] // 2, 1)
    wanted = leaf_widths(max(weights, len(live)), share[live], most)
    if options.allocation == "equal":
        wanted[:] = weights // len(live)
    sizes = np.array([0, *_class_sizes(wanted, MOST_CLASSES)])
    found = [funnel(ndim, int(size), options.layers, options.taper) for size in sizes]
    classes = [(), *dict.fromkeys(widths for widths in found if widths)]
    counts = np.array([weight_count(ndim, widths) if widths else 0 for widths in classes])
    # The class nearest to what a block is due: what one gets too much another gets too little.
    middle = (counts[1:] + counts[:-1]) / 2
    kind[live] = np.searchsorted(middle, wanted, side="right")
    _spend(kind, live[np.argsort(-wanted, kind="stable")], counts, weights)
    used = np.unique(kind[kind > 0])
    return ((), *(classes[k] for k in used)), np.where(kind > 0, np.searchsorted(used, kind) + 1, 0)


def _class_sizes(wanted: IntArray, most: int) -> list[int]:
    """Weights of the classes, ascending: blocks due nearly alike, as few classes as `SPREAD` allows and at most so many."""
    due = np.sort(wanted[wanted >= LEAST_WEIGHTS])
    spread = SPREAD
    while len(due):
        groups: list[list[int]] = []
        for value in due.tolist():
            if not groups or value > spread * groups[-1][0]:
                groups.append([])
            groups[-1].append(value)
        if len(groups) <= most:
            return sorted({int(np.mean(group)) for group in groups})
        spread *= 1.2
    return []


def _spend(kind: IntArray, order: IntArray, counts: IntArray, weights: int) -> None:
    """Move blocks by one class, the least important down while too much is spent, then the most important up."""
    left = weights - int(counts[kind].sum())
    for block in order[::-1]:
        while left < 0 and kind[block] > 0:
            left += counts[kind[block]] - counts[kind[block] - 1]
            kind[block] -= 1
    for block in order:
        if kind[block] + 1 < len(counts) and counts[kind[block] + 1] - counts[kind[block]] <= left:
            left -= counts[kind[block] + 1] - counts[kind[block]]
            kind[block] += 1


def bandwidth_exponents(
    facts: BlockFacts, classes: Sequence[Widths], kind: IntArray, options: SciOptions, ndim: int
) -> IntArray:
    """Half octaves of the first layers' frequencies, per block and axis, capped by what a network can carry."""
    found = np.zeros_like(facts.bandwidth, dtype=np.int64)
    for number, widths in enumerate(classes):
        here = kind == number
        if not widths or not here.any():
            continue
        cap = math.pi / 2 * weight_count(ndim, widths) ** (1 / ndim)
        wide = np.full_like(facts.bandwidth[here], options.bandwidth) if options.bandwidth else facts.bandwidth[here]
        per_layer = GROWTH ** (len(widths) - 1)
        target = np.clip(wide, 0.25, cap) * options.bandwidth_share / per_layer
        found[here] = np.rint(2 * np.log2(target)).astype(np.int64)
    return found


@dataclass
class FittedClass:
    """Networks of the blocks of one class.

    Attributes
    ----------
    leaves : ndarray of int, shape (n,)
    draw : ndarray of int, shape (n,)
    weights : list of Tensor, shapes (n, n_in + 1, n_out)
    sensitivity : ndarray of float, shape (layers,)
        Mean squared derivative of an output by a weight of each layer.
    loss : ndarray of float, shape (n,)
        Mean squared error in units of each block's variance, smoothed over the last steps.
    """

    leaves: IntArray
    draw: IntArray
    weights: list[Tensor]
    sensitivity: NDArray[np.float64]
    loss: NDArray[np.float64]


class ClassFit:
    """Fits the networks of some blocks of one class.

    Parameters
    ----------
    volume : ndarray
    offset : int
        Taken off the samples.
    tree : Octree
    facts : BlockFacts
    bandwidth : ndarray of int, shape (B, d)
    leaves : ndarray of int, shape (n,)
    widths : tuple of int
    options : SciOptions
    seed : int
    backend : Backend
    """

    def __init__(
        self,
        volume: np.ndarray,
        offset: int,
        tree: octree.Octree,
        facts: BlockFacts,
        bandwidth: IntArray,
        leaves: IntArray,
        widths: Widths,
        options: SciOptions,
        seed: int,
        backend: Backend,
    ) -> None:
        self.backend = backend
        self.tree, self.leaves, self.widths, self.options, self.seed = tree, leaves, widths, options, seed
        self.bandwidth, self.ndim = bandwidth, len(tree.shape)
        self._random = torch.Generator().manual_seed(seed)
        self._keys = np.random.default_rng(seed)
        self._prepare(volume, offset, facts)

    def _prepare(self, volume: np.ndarray, offset: int, facts: BlockFacts) -> None:
        """Copy every block with its halo, scaled; note which samples lie inside the signal."""
        halo, tree, leaves = self.options.halo, self.tree, self.leaves
        shape = np.array(tree.shape)
        low = np.maximum(tree.origin[leaves] - halo, 0)
        high = np.minimum(tree.origin[leaves] + tree.extent[leaves] + halo, shape)
        spread = half_octaves(facts.scale[leaves])
        pieces, starts = [], []
        at = 0
        for i, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            box = volume[tuple(slice(x, y) for x, y in zip(a, b, strict=True))].astype(np.float32)
            pieces.append(((box - np.float32(offset + facts.mean[leaves[i]])) / np.float32(spread[i])).ravel())
            starts.append(at)
            at += pieces[-1].size
        self._samples = Samples(
            np.concatenate(pieces),
            np.array(starts),
            high - low,
            (low - tree.origin[leaves]).astype(np.float32) + np.float32(0.5),
            np.float32(2.0) / tree.extent[leaves].astype(np.float32),
            np.zeros(len(leaves), dtype=np.uint32),
        )

    def _fresh_samples(self) -> Samples:
        """The samples with new keys: a block's depend on nothing but the seed, the block and how often this was asked."""
        every = self._keys.integers(0, 1 << 32, self.tree.count, dtype=np.uint32)
        return self._samples._replace(key=every[self.leaves])

    def draw_points(self, count: int, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Random samples of each block: block coordinates (n, count, d) and targets (n, count)."""
        values, begin, box, shift, unit, key = self._fresh_samples()
        pick = slice(None) if which is None else which.numpy()
        return draw(Samples(values, begin[pick], box[pick], shift[pick], unit[pick], key[pick]), 0, count)

    def initial(self, draw: IntArray) -> list[Tensor]:
        """Weights to start from."""
        key = np.uint64(self.seed) << np.uint64(32) | (self.leaves * DRAWS + draw).astype(np.uint64)
        weights = [torch.from_numpy(first_layers(self.bandwidth[self.leaves], self.widths[0], key))]
        for n_in, n_out in weight_shapes(self.ndim, self.widths)[1:-1]:
            layer = torch.zeros(len(self.leaves), n_in, n_out)
            layer[:, :-1] = _uniform((len(self.leaves), n_in - 1, n_out), math.sqrt(6 / (n_in - 1)), self._random)
            weights.append(layer)
        return [*weights, torch.zeros(len(self.leaves), self.widths[-1] + 1, 1)]

    def run(self, steps: int, note: Note) -> FittedClass:
        """Fit; of several random starts every block keeps the best after `TRIAL` of the steps."""
        draw, weights = self._best_start(max(1, round(TRIAL * steps)))
        loss = self.descend(weights, steps, note)
        return FittedClass(self.leaves, draw, weights, self.sensitivity(weights), loss)

    def _best_start(self, steps: int) -> tuple[IntArray, list[Tensor]]:
        starts = min(self.options.starts, DRAWS)
        best: tuple[IntArray, list[Tensor], NDArray[np.float64]] | None = None
        for number in range(starts):
            draw = np.full(len(self.leaves), number, dtype=np.int64)
            weights = self.initial(draw)
            if starts == 1:
                return draw, weights
            loss = self.descend(weights, steps, lambda fraction, text: None)
            if best is None:
                best = draw, weights, loss
                continue
            better = loss < best[2]
            taken = torch.from_numpy(better)[:, None, None]
            best = (
                np.where(better, draw, best[0]),
                [torch.where(taken, new, old) for new, old in zip(weights, best[1], strict=True)],
                np.minimum(loss, best[2]),
            )
        assert best is not None
        return best[0], best[1]

    def descend(self, weights: list[Tensor], steps: int, note: Note) -> NDArray[np.float64]:
        """SOAP with a cosine schedule, in place; returns each block's smoothed loss."""
        rates = LEARNING_RATE * np.array([_schedule((step + 1) / steps) for step in range(steps)])
        return fit(
            weights, self._fresh_samples(), self._points, rates.astype(np.float32),
            lambda fraction, loss: note(fraction, f"error {loss:.4f} of the variance"), self.backend,
        )  # fmt: skip

    @property
    def _points(self) -> int:
        """Samples drawn from every block in a step: some fewer than half its weights."""
        weights = weight_count(self.ndim, self.widths)
        return int(2 ** min(max(round(math.log2(0.4 * weights)), 7), 11))

    def sensitivity(self, weights: list[Tensor]) -> NDArray[np.float64]:
        """Mean squared derivative of an output by a weight, per layer: random signs on the outputs average the cross terms away."""
        total = np.zeros(len(weights))
        points, _ = self.draw_points(_SENSITIVITY_POINTS)
        probed = [w.detach().requires_grad_(True) for w in weights]
        for _ in range(_SENSITIVITY_PROBES):
            outputs = forward(probed, points)
            signs = torch.randint(0, 2, outputs.shape, generator=self._random) * 2.0 - 1
            for layer, gradient in enumerate(torch.autograd.grad((outputs * signs).sum(), probed)):
                total[layer] += float(gradient.square().mean()) / (_SENSITIVITY_POINTS * _SENSITIVITY_PROBES)
        return np.maximum(total, 1e-12)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def _schedule(part: float) -> float:
    return min(part / WARM_UP, 1.0) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, part - WARM_UP) / (1 - WARM_UP)))


def fit_groups(tree: octree.Octree, kind: IntArray) -> list[tuple[int, IntArray]]:
    """Blocks to fit together, (class, leaves): those of a class, cut so that their samples stay bounded."""
    groups = []
    for number in np.unique(kind[kind > 0]).tolist():
        leaves = np.flatnonzero(kind == number)
        filled = np.cumsum(tree.extent[leaves].prod(axis=1)) // GROUP_VOXELS
        groups += [(number, leaves[filled == part]) for part in np.unique(filled)]
    return groups


def exponents_of(
    fitted: Sequence[FittedClass], kind: IntArray, classes: Sequence[Widths]
) -> tuple[tuple[int, ...], ...]:
    """Half octaves by which each class's layers are quantised more finely, from their sensitivities."""
    found: list[tuple[int, ...]] = [()] * len(classes)
    for number in range(1, len(classes)):
        mine = [(len(f.leaves), f.sensitivity) for f in fitted if kind[f.leaves[0]] == number]
        mean = sum(n * s for n, s in mine) / sum(n for n, _ in mine)
        found[number] = tuple(int(e) for e in np.clip(np.rint(np.log2(mean)), -100, 100))
    return tuple(found)
