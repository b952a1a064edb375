"""The TINC encoder's stages, from samples to quantised readouts; `inrcodec.encoder` strings them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import REFERENCE, Backend

from ..coding.contexts import Bands
from ..coding.lanes import lanes_for
from ..coding.quantise import optimised_rounding
from ..coding.readouts import Coefficients, ReadoutGeometry, ReadoutStatistics, estimate_bits
from ..models.tinc import TincLayout, TincModel
from ..options import TincOptions
from ..partition import octree
from ..partition.allocation import interest, leaf_widths, variance
from ..partition.blocks import batches, gather
from ..region import Region
from . import start
from .analysis import CellAnalysis, CellReadouts, LeafReadouts, select_leaves
from .descent import Note, SegmentFit, TrainingCells
from .goal import Goal
from .search import Trial, search_step

GROUP_VOXELS = 1 << 23
"""Samples analysed at a time: bounds the memory of large volumes."""
STEP_BOUNDS = (0.2, 3e7)
"""Below the smallest step hardly any sample is wrong by one half: the result is identical."""
_WORTHWHILE = 0.99
"""Leaves change their shape only where the cost falls below this part of what it was."""


@dataclass(frozen=True)
class QuantisedReadouts:
    """Integers at a step, and their statistics."""

    step: float
    values: Coefficients
    widths: dict[int, NDArray[np.int64]]
    statistics: ReadoutStatistics


def quantise(
    geometry: ReadoutGeometry,
    leaves: LeafReadouts,
    step: float,
    turns: int,
    pressure: float = 1.0,
    backend: Backend = REFERENCE,
    region: Region | None = None,
) -> QuantisedReadouts:
    """Rate-distortion optimised rounding of all leaves at `step`, which is rounded to float32; see `optimised_rounding`."""
    step = float(np.float32(step))
    weights = None if region is None else {level: region.weight(share) for level, share in leaves.share.items()}
    rounded = optimised_rounding(geometry, leaves.coefficients, step, turns, pressure, backend, weights)
    return QuantisedReadouts(step, *rounded)


class Trials:
    """Sizes and errors of a sample of the signal at a step, the tree chosen anew for each."""

    def __init__(
        self,
        model: TincModel,
        volume: np.ndarray,
        offset: float,
        chosen: NDArray[np.bool_],
        backend: Backend = REFERENCE,
        region: Region | None = None,
    ) -> None:
        self.layout, self.backend, self.region = model.layout, backend, region
        self.chosen = chosen
        self.analysis = CellAnalysis(model, volume, offset, chosen, backend, region)
        self.part = self.analysis.samples / math.prod(self.layout.shape)
        self._bands = {level: Bands.of_lattice(self.layout.lattice(level)) for level in self.layout.leaf_levels}

    def tree(self, step: float) -> octree.Octree:
        """The best tree at a step; meaningful below the chosen cells."""
        layout = self.layout
        return octree.build(layout.shape, layout.cells, layout.top, self.analysis.splits(step))

    def measure(self, step: float) -> tuple[float, float]:
        """Estimated bits of the whole signal's readouts and mean squared error, of the region if there is one, at a step."""
        leaves = select_leaves(self.tree(step), [self.analysis.levels], self.chosen)
        geometry = ReadoutGeometry(self.layout.cells, {v: self._bands[v] for v in leaves.coefficients}, leaves.level)
        quantised = quantise(geometry, leaves, step, turns=1, backend=self.backend, region=self.region)
        bits = estimate_bits(geometry, quantised.values, quantised.widths, quantised.statistics, self.backend)
        error = leaves.distortion(quantised.values, quantised.step) / max(self.analysis.samples * self._share(leaves), 1.0)
        return bits / self.part, error

    def _share(self, leaves: LeafReadouts) -> float:
        """Part of the leaves' samples that lies in the region."""
        size = {level: math.prod(self.layout.cells[level]) for level in leaves.share}
        inside = sum(float(share.sum()) * size[level] for level, share in leaves.share.items())
        return inside / sum(len(share) * size[level] for level, share in leaves.share.items()) if size else 1.0

    def step_for(self, goal: Goal, guess: float) -> float:
        """Step at which the sample meets the goal, to a few per cent."""

        def attempt(step: float) -> Trial:
            bits, error = self.measure(step)
            amount = math.log2(max(bits, 1.0)) if goal.error is None else -math.log2(max(error, 1e-9))
            return Trial(step, amount)

        if goal.error is None:
            assert goal.bits is not None
            aim, slope, slack = math.log2(max(goal.bits, 1.0)), -1.2, 0.02
        else:
            aim, slope, slack = -math.log2(goal.error), -1.5, 0.03
        trials = search_step(
            attempt, start=guess, low=aim - slack, high=aim + slack, slope=slope, bounds=STEP_BOUNDS, trials=9
        )
        return min(trials, key=lambda t: abs(t.amount - aim)).step


@dataclass(frozen=True)
class Sample:
    """How to draw the part of a volume that decisions are tried on.

    Attributes
    ----------
    offset : float
        Taken off the samples.
    seed : int
    voxels : int
        About how many samples to use.
    backend : Backend
        What tries.
    region : Region, optional
    """

    offset: float
    seed: int
    voxels: int
    backend: Backend = REFERENCE
    region: Region | None = None

    def trials(self, model: TincModel, volume: np.ndarray) -> Trials:
        """Analyse the sample with a network."""
        chosen = start.sample_cells(model.layout, self.seed, self.voxels)
        return Trials(model, volume, self.offset, chosen, self.backend, self.region)


def choose_layout(
    volume: np.ndarray, sample: Sample, options: TincOptions, goal: Goal, note: Note
) -> tuple[TincLayout, float]:
    """Shape of the smallest leaves, and the step that meets the goal with it, both tried on a sample.

    Edges start alike; one axis at a time is halved or doubled as long as the estimated rate-distortion cost falls.
    """
    guess = max(1.0, float(np.std(volume[tuple(slice(None, None, max(1, n // 64)) for n in volume.shape)])))
    edges = start.first_edges(volume.shape, options)
    layout = start.search_layout(volume.shape, options, edges)
    note(0.05, "finding the step on a sample")
    step = sample.trials(TincModel.initial(layout), volume).step_for(goal, guess)
    boxes = start.crops(volume, sample.seed, sample.voxels)
    cost = start.cost_of_edges(boxes, sample.offset, options, edges, step, sample.backend)
    tried = {edges}
    for turn in range(4):
        rivals = [e for e in start.neighbouring_edges(volume.shape, edges) if e not in tried]
        tried.update(rivals)
        best, best_cost = edges, _WORTHWHILE * cost
        for rival in rivals:
            note(0.3 + 0.15 * turn, "trying leaves of " + "x".join(map(str, rival)))
            rival_cost = start.cost_of_edges(boxes, sample.offset, options, rival, step, sample.backend, limit=best_cost)
            if rival_cost < best_cost:
                best, best_cost = rival, rival_cost
        if best == edges:
            break
        edges, cost = best, best_cost
    layout = start.final_layout(start.search_layout(volume.shape, options, edges), options)
    return layout, sample.trials(TincModel.initial(layout), volume).step_for(goal, step)


def fit_segments(
    layout: TincLayout, volume: np.ndarray, sample: Sample, starts: int, step: float, steps: int, note: Note
) -> TincModel:
    """Fit the shared segments to the leaves of a provisional tree over a sample."""
    provisional = replace(layout, root="separable", coordinates="local", hidden=(), segments=())
    trials = sample.trials(TincModel.initial(provisional), volume)
    tree = trials.tree(step)
    below = trials.chosen.ravel()[tree.ancestor(tree.top)]
    cells = TrainingCells(tree.level[below], tree.index[below])
    return SegmentFit(layout, volume, sample.offset, cells, step, sample.seed, sample.backend).run(steps, starts, note)


def partition(
    model: TincModel,
    volume: np.ndarray,
    offset: float,
    step: float,
    note: Note,
    backend: Backend = REFERENCE,
    region: Region | None = None,
) -> tuple[octree.Octree, LeafReadouts]:
    """Choose the whole signal's tree and solve its leaves' readouts, a bounded group of top cells at a time."""
    layout = model.layout
    levels = list(layout.leaf_levels)
    splits = [np.zeros(layout.grid(level), dtype=bool) for level in levels[:-1]]
    pieces: list[dict[int, CellReadouts]] = []
    count = math.prod(layout.grid(layout.top))
    group = max(1, GROUP_VOXELS // math.prod(layout.cells[layout.top]))
    for first in range(0, count, group):
        chosen = np.zeros(count, dtype=bool)
        chosen[first : first + group] = True
        analysis = CellAnalysis(model, volume, offset, chosen.reshape(layout.grid(layout.top)), backend, region)
        decided = analysis.splits(step)
        for mine, new in zip(splits, decided, strict=True):
            mine |= new
        pieces.append(_leaves_only(analysis, decided))
        note(min(first + group, count) / count, "")
    tree = octree.build(layout.shape, layout.cells, layout.top, splits)
    return tree, select_leaves(tree, pieces)


def _leaves_only(analysis: CellAnalysis, splits: list[NDArray[np.bool_]]) -> dict[int, CellReadouts]:
    """Drop the readouts of cells that are no leaves."""
    layout = analysis.layout
    kept = {}
    present = analysis.present[layout.top]
    for level, readouts in analysis.levels.items():
        split = splits[level - layout.top] & present if level + 1 < len(layout.cells) else np.zeros_like(present)
        mine = (present & ~split).ravel()[readouts.number]
        coefficients = readouts.coefficients.T[mine].T
        share = None if readouts.share is None else readouts.share[mine]
        kept[level] = CellReadouts(readouts.number[mine], coefficients, readouts.energy[mine], share)
        if level + 1 < len(layout.cells):
            present = octree.refine(split, octree.fan_of(layout.cells, level), layout.grid(level + 1))
    return kept


def allocate(
    layout: TincLayout, tree: octree.Octree, leaves: LeafReadouts, volume: np.ndarray, options: TincOptions, weights: int
) -> NDArray[np.int64]:
    """Limit each leaf's readout to its share of `weights`; returns the widths (B,). Changes `leaves` in place."""
    most = np.array([len(layout.lattice(level)) for level in range(len(layout.cells)) if level >= layout.top])
    limit = most[tree.level - layout.top]
    importance = np.empty(tree.count)
    threshold = float(np.mean(volume)) if options.interest_threshold is None else options.interest_threshold
    for level in range(tree.top, tree.depth + 1):
        members = np.flatnonzero(tree.level == level)
        for part in batches(len(members), math.prod(layout.cells[level])):
            samples = gather(volume, tree.origin[members[part]], layout.cells[level])
            importance[members[part]] = {
                "equal": lambda s: np.ones(len(s)),
                "interest": lambda s: interest(s, threshold),
                "variance": variance,
            }[options.allocation](samples)
    widths = leaf_widths(weights, importance, limit)
    for level, coefficients in leaves.coefficients.items():
        rank = np.arange(len(coefficients))[:, None]
        coefficients[rank >= widths[tree.level == level][None, :]] = 0
    return widths


def chunk_bounds(
    geometry: ReadoutGeometry,
    quantised: QuantisedReadouts,
    least_bytes: int,
    most_bytes: int,
    most_leaves: int = 1024,
    backend: Backend = REFERENCE,
) -> tuple[list[int], int]:
    """Cut the leaves into runs that code into 1/256 of the stream, within limits.

    Returns
    -------
    bounds : list of int
        First leaf of each run, and the end.
    lanes : int
        For the coder of runs of this size.
    """
    weight = np.zeros(len(geometry.level))
    for level in geometry.levels:
        weight[geometry.level == level] = 6.0 + 5.0 * (quantised.values[level] != 0).sum(axis=0)
    size = estimate_bits(geometry, quantised.values, quantised.widths, quantised.statistics, backend) / 8
    wanted = min(max(size / 256, least_bytes), most_bytes)
    chunk = np.floor(np.cumsum(weight) * (size / weight.sum()) / wanted).astype(np.int64)
    bounds = [0]
    for cut in [*(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(weight)]:
        while cut - bounds[-1] > most_leaves:
            bounds.append(bounds[-1] + most_leaves)
        bounds.append(cut)
    # A last chunk that came out small is joined to the one before.
    if len(bounds) > 2 and bounds[-1] - bounds[-3] <= most_leaves and weight[bounds[-2] :].sum() * size < wanted * weight.sum() / 2:
        del bounds[-2]
    return bounds, lanes_for(size / (len(bounds) - 1))
