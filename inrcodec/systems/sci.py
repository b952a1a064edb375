"""SCI: blocks of concentrated spectra, each with a private funnel of sine layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.container import Section
from inrcodec_formats.zstd import compress

from ..coding.lanes import lanes_for
from ..coding.networks import UNIT_CONTEXT, BlockNetworks, block_bits, fit_statistics, write_networks
from ..fitting import sci, start
from ..fitting.goal import Goal
from ..models.sci import Widths, weight_count
from ..partition.octree import Octree
from ..payload.sci import SciStream
from .base import SIZE_WINDOW, Draft, Task

CHUNK_BYTES = (2000, 4000)
"""Size of a chunk, in bytes: 1/256 of the stream within these limits."""
MOST_BLOCKS = 1024
"""Blocks of a chunk."""
QUANTISATION_SHARE = 0.1
"""Part of the fit's error that the first guess of the step adds."""
WEIGHTS_PER_VOXEL, FEW_WEIGHTS = 0.06, 60_000
"""With more weights than this for every voxel, and more in all, steps are fewer: so the time per voxel stays bounded."""
MARGIN = 0.8
"""Part of the error allowed that the fit may use up; quantisation takes the rest."""
_SLOPE = 1.2
"""The fit's error falls about with this power of the number of weights."""
_SAMPLE_BLOCKS = 16


@dataclass
class Networks:
    """What is decided before the weights are quantised."""

    tree: Octree
    facts: sci.BlockFacts
    classes: tuple[Widths, ...]
    kind: NDArray[np.int64]
    bandwidth: NDArray[np.int64]
    fitted: list[sci.FittedClass]

    @property
    def error(self) -> float:
        """Mean squared error of the fit per voxel, of the region if there is one, constants included."""
        relative = np.ones(self.tree.count)
        for group in self.fitted:
            relative[group.leaves] = group.loss
        voxels = self.facts.voxels * self.facts.share
        # Blocks that were not fitted (a sample only) say nothing.
        known = (self.kind == 0) | np.isin(
            np.arange(self.tree.count), np.concatenate([[-1], *(f.leaves for f in self.fitted)])
        )
        return float((relative * self.facts.variance * voxels)[known].sum() / max(float(voxels[known].sum()), 1.0))


class SciSystem:
    """See `base.System`.

    Parameters
    ----------
    task : Task
    """

    name: ClassVar[str] = "sci"
    step_bounds: ClassVar[tuple[float, float]] = (1e-4, 1e9)
    size_slope: ClassVar[float] = -0.2
    restorable: ClassVar[bool] = True
    size_window: float = SIZE_WINDOW
    psnr_slope: ClassVar[float] = -4.0
    overhead_bytes: ClassVar[int] = 420
    shared_bytes: ClassVar[int] = 1000

    def __init__(self, task: Task) -> None:
        self.task, self.options, self.backend = task, task.options.sci, task.backend
        self.choices: dict[str, object] = {}
        self.step = 1.0
        self.offset = start.typical_value(task.volume)
        self.seed = task.options.seed % 2**32

    def prepare(self, goal: Goal) -> None:
        """Partition, size the networks and fit them."""
        weights = self._weights(goal)
        networks = self._fitted(weights, 1.0)
        for _ in range(2):
            if goal.error is None or networks.error <= 0.95 * goal.error or weights >= self._most:
                break
            more = self._more(weights, networks.error, goal.error)
            fitted = self._fitted(more, 1.0)
            # Steps are few where weights are many: then more weights may fit worse.
            if fitted.error >= networks.error:
                break
            weights, networks = more, fitted
        self.networks = networks
        count = sum(
            len(f.leaves) * weight_count(self._ndim, networks.classes[networks.kind[f.leaves[0]]])
            for f in networks.fitted
        )
        self.exponents = sci.exponents_of(networks.fitted, networks.kind, networks.classes)
        self.step = max(
            math.sqrt(12 * QUANTISATION_SHARE * networks.error * self.task.volume.size / max(count, 1)), 1e-3
        )
        self.choices.update(
            budget_weights=weights,
            spent_weights=count,
            classes=["-".join(map(str, w)) for w in networks.classes[1:]],
            constants=int((networks.kind == 0).sum()),
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.networks.tree.count

    @property
    def decoder_bytes(self) -> int:
        """A batch of activations, a block with its halo and the cache of chunks."""
        return 16 * math.prod(e + 2 * self.options.halo for e in self._largest) + (256 << 20)

    @property
    def extents(self) -> tuple[int, ...]:
        """Those of the largest blocks."""
        return self._largest

    @property
    def _largest(self) -> tuple[int, ...]:
        return self.networks.tree.cells[self.networks.tree.top]

    @property
    def _ndim(self) -> int:
        return self.task.volume.ndim

    @property
    def _most(self) -> int:
        return max(1, self.task.volume.size // 2)

    @property
    def _affordable(self) -> float:
        """Weights that all steps can be taken with."""
        return max(WEIGHTS_PER_VOXEL * self.task.volume.size, FEW_WEIGHTS)

    def _weights(self, goal: Goal) -> int:
        """Weights that the budget pays, or that a sample of blocks needs to come near the error."""
        if goal.bits is not None:
            return min(int(goal.bits / self.options.bits_per_weight), self._most)
        assert goal.error is not None
        weights = max(64, int(0.04 * self.task.volume.size))
        best = math.inf, weights
        for _ in range(5):
            error = self._fitted(weights, 0.25, _SAMPLE_BLOCKS).error
            if weights > best[1] and error >= best[0]:
                # More weights fit worse in so few steps.
                return best[1]
            best = min(best, (error, weights))
            needed = self._more(weights, error, goal.error)
            if abs(math.log(needed / weights)) < 0.1:
                break
            weights = needed
        return weights

    def _more(self, weights: int, error: float, goal: float) -> int:
        factor = (max(error, 1e-9) / (MARGIN * goal)) ** (1 / _SLOPE)
        return int(min(max(weights * min(max(factor, 1 / 16), 16.0), 64), self._most))

    def _fitted(self, weights: int, effort: float, sample: int | None = None) -> Networks:
        task, options = self.task, self.options
        tree = sci.choose_partition(task.volume, options, weights, task.channels)
        facts = sci.measure_blocks(task.volume, tree, self.offset, task.region)
        classes, kind = sci.choose_classes(facts, options, self._ndim, weights)
        bandwidth = sci.bandwidth_exponents(facts, classes, kind, options, self._ndim)
        chosen = kind
        if sample is not None:
            order = np.random.default_rng(self.seed).permutation(np.flatnonzero(kind))
            chosen = np.where(np.isin(np.arange(len(kind)), order[:sample]), kind, 0)
            kind = np.where(kind == chosen, kind, -1)
        networks = Networks(tree, facts, classes, kind, bandwidth, [])
        steps = max(
            10,
            round(effort * task.options.network_steps * min(1.0, self._affordable / max(weights, 1))),
        )
        networks.fitted = task.timed("fit", lambda: self._fit(networks, chosen, steps))
        return networks

    def _fit(self, networks: Networks, chosen: NDArray[np.int64], steps: int) -> list[sci.FittedClass]:
        groups = sci.fit_groups(networks.tree, chosen)
        work = np.cumsum([0.0] + [len(leaves) * weight_count(self._ndim, networks.classes[k]) for k, leaves in groups])
        note, fitted = self.task.note("fit"), []
        for (kind, leaves), (before, after) in zip(groups, pairwise((work / max(work[-1], 1.0)).tolist()), strict=True):
            fit = sci.ClassFit(
                self.task.volume, self.offset, networks.tree, networks.facts, networks.bandwidth, leaves,
                networks.classes[kind], self.options, self.seed, self.backend,
            )  # fmt: skip

            def part(fraction: float, text: str, a: float = before, b: float = after) -> None:
                note(a + fraction * (b - a), text)

            fitted.append(fit.run(steps, part))
        return fitted

    def draft(self, step: float, pressure: float) -> Draft:
        """Quantise all weights at a step and code them."""
        networks = self.networks
        step = float(np.float32(step))
        stream = SciStream(
            networks.tree, networks.classes, self.exponents, self.seed, step, self.offset,
            self.task.low, self.task.high, self.options.halo,
        )  # fmt: skip
        blocks, offsets = self._quantised(stream)
        statistics = fit_statistics(stream.shapes, blocks, offsets)
        size = block_bits(stream.shapes, statistics, blocks) / 8
        bounds = _bounds(size)
        statistics = replace(statistics, lanes=lanes_for(float(size.sum()) / (len(bounds) - 1)))
        chunks = [
            (b - a, write_networks(stream.shapes, statistics, blocks.part(a, b), self.backend))
            for a, b in pairwise(bounds)
        ]
        sections = [Section("TREE", stream.tree_section()), Section("STAT", compress(statistics.to_bytes()))]
        return Draft(sections, chunks, int((1 + stream.shapes.totals[blocks.kind]).sum()), None, (stream, statistics))

    def _quantised(self, stream: SciStream) -> tuple[BlockNetworks, list[tuple[int, ...]]]:
        """Integers of all blocks, and the context of each class's layers."""
        networks = self.networks
        count, live = networks.tree.count, networks.kind > 0
        draw = np.zeros(count, dtype=np.int64)
        sums = [np.zeros((2, len(w) + 1)) for w in networks.classes]
        weights: dict[int, NDArray[np.int64]] = {}
        size = stream.sizes[networks.tree.level]
        for group in networks.fitted:
            kind = int(networks.kind[group.leaves[0]])
            draw[group.leaves] = group.draw
            steps = stream.steps(kind, networks.tree.level[group.leaves], networks.facts.scale[group.leaves])
            integers = []
            for layer, exact in enumerate(group.weights):
                values = exact.numpy().astype(np.float64)
                if layer == 0:
                    values = values - stream.starts(kind, group.leaves, networks.bandwidth[group.leaves], group.draw)
                found = np.rint(values / steps[:, layer, None, None]).reshape(len(group.leaves), -1)
                integers.append(np.clip(found, -(1 << 29), 1 << 29).astype(np.int64))
                fineness = (networks.facts.scale + size)[group.leaves]
                coarse = np.square(values).mean(axis=(1, 2)) / steps[:, layer] ** 2 * 2.0**-fineness
                sums[kind][:, layer] += coarse.sum(), len(coarse)
            joined = np.concatenate(integers, axis=1)
            weights.update(zip(group.leaves.tolist(), joined, strict=True))
        blocks = BlockNetworks(
            networks.kind,
            networks.facts.mean,
            np.where(live, networks.facts.scale, 0),
            np.where(live[:, None], networks.bandwidth, 0),
            draw,
            size,
            [weights[leaf] for leaf in np.flatnonzero(live).tolist()],
        )
        return blocks, [_offsets(s) if w else () for s, w in zip(sums, networks.classes, strict=True)]


def _offsets(sums: NDArray[np.float64]) -> tuple[int, ...]:
    mean = sums[0] / np.maximum(sums[1], 1)
    return tuple(
        int(o) for o in np.clip(np.rint(np.log2(np.maximum(mean, 2.0**-200))) + UNIT_CONTEXT, -(1 << 15), (1 << 15) - 1)
    )


def _bounds(size: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Cut blocks into chunks of 1/256 of the stream, within limits: first block of each, and the end."""
    wanted = min(max(float(np.sum(size)) / 256, CHUNK_BYTES[0]), CHUNK_BYTES[1])
    bounds, filled = [0], 0.0
    for i, bytes_ in enumerate(size):
        if i > bounds[-1] and (filled + bytes_ / 2 > wanted or i - bounds[-1] >= MOST_BLOCKS):
            bounds.append(i)
            filled = 0.0
        filled += float(bytes_)
    return [*bounds, len(size)]
