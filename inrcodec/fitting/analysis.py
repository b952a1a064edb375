"""Closed-form readouts of octree cells, and the choice of the tree that spends bits best.

Readouts are linear, so for given features every cell of every level has its best readout in one product with the
whitened basis. The tree is then pruned bottom-up by rate and distortion of the quantised readouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.bands import leaf_costs
from inrcodec_kernels.chains import suited

from ..models.readout import ChainReadout
from ..models.tinc import TincModel
from ..partition import octree
from ..partition.blocks import batches, gather
from ..region import Region

SPLIT_LAMBDA = 0.11
"""Lagrangian of the split decision, in squared steps per bit."""

# Rough cost of a leaf, in bits: a head, and for each non-zero coefficient its place, sign and size. Only the order
# of the alternatives matters; measured against trees chosen with the real coder.
_HEAD_BITS, _NONZERO_BITS, _DOUBLING_BITS, _FLAG_BITS = 5.0, 5.0, 1.6, 1.0
_ROUNDING = 0.36
"""Added to magnitudes before they are rounded down: about what rate-distortion optimised rounding comes to."""

@dataclass
class CellReadouts:
    """Whitened readouts of a set of cells of one level.

    Attributes
    ----------
    number : ndarray of int64, shape (n,)
        Raster numbers of the cells in their level's grid, ascending.
    coefficients : ndarray of float32, shape (W, n)
        Leaf by leaf in memory, as transposed.
    energy : ndarray of float64, shape (n,)
        Sum of squared samples of each cell, the offset taken off.
    share : ndarray of float32, shape (n,), or None
        Part of each cell that lies in the region; None where there is none.
    """

    number: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    energy: NDArray[np.float64]
    share: NDArray[np.float32] | None = None

    def cost(self, step: float, backend: Backend = REFERENCE, region: Region | None = None) -> NDArray[np.float64]:
        """Estimated ``w D + lambda R`` of each cell as a leaf, in squared steps; w is what errors count, 1 without a region.

        That is the cost of readouts that are smaller by the root of w.
        """
        bits = _HEAD_BITS, _NONZERO_BITS, _DOUBLING_BITS
        coefficients, energy = self.coefficients.T, self.energy
        if region is not None and self.share is not None:
            count = region.weight(self.share)
            coefficients, energy = coefficients * np.sqrt(count)[:, None], energy * count
        return leaf_costs(
            coefficients,
            energy,
            step,
            rounding=_ROUNDING,
            bits=bits,
            price=SPLIT_LAMBDA,
            backend=backend,
        )


def readouts_of(
    model: TincModel,
    volume: np.ndarray,
    offset: float,
    level: int,
    number: NDArray[np.int64],
    backend: Backend = REFERENCE,
    inside: NDArray[np.bool_] | None = None,
) -> CellReadouts:
    """Best readouts of the given cells of a level.

    Parameters
    ----------
    model : TincModel
    volume : ndarray, shape `model.layout.shape`
    offset : float
        Taken off the samples.
    level : int
    number : ndarray of int64
        Raster numbers of cells.
    backend : Backend
    inside : ndarray of bool, shape of the volume, optional
        What is in the region.
    """
    cell = model.layout.cells[level]
    index = np.stack(np.unravel_index(number, model.layout.grid(level)), axis=1)
    width = len(model.layout.lattice(level))
    coefficients = np.empty((len(number), width), dtype=np.float32)
    energy = np.empty(len(number))
    share = None if inside is None else np.empty(len(number), dtype=np.float32)
    networks = suited(backend, model.layout.ndim, model.layout.widths) if model.layout.root == "dense" else backend
    stored = model.layout.shared or networks.name != "reference"
    for part in batches(len(number), int(np.prod(cell)) * (1 if stored else width)):
        samples = torch.from_numpy(gather(volume, index[part] * np.asarray(cell), cell) - np.float32(offset))
        readout = model.leaves(level, index[part], networks)
        found = readout.project(samples) if isinstance(readout, ChainReadout) else readout.project(samples, backend)
        coefficients[part] = found.numpy()
        energy[part] = np.einsum("bn,bn->b", samples.numpy(), samples.numpy(), dtype=np.float64)
        if inside is not None and share is not None:
            share[part] = gather(inside, index[part] * np.asarray(cell), cell).mean(axis=1)
    return CellReadouts(number, coefficients.T, energy, share)


class CellAnalysis:
    """Readouts of all cells below a chosen set of top cells."""

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
        inside = None if region is None else region.mask(volume.shape)
        self.present: dict[int, NDArray[np.bool_]] = {}
        self.levels: dict[int, CellReadouts] = {}
        present = chosen
        for level in self.layout.leaf_levels:
            if level > self.layout.top:
                fan = octree.fan_of(self.layout.cells, level - 1)
                present = octree.refine(present, fan, self.layout.grid(level))
            self.present[level] = present
            self.levels[level] = readouts_of(model, volume, offset, level, np.flatnonzero(present), backend, inside)

    @property
    def samples(self) -> int:
        """Samples of the signal that the chosen cells hold."""
        cell = self.layout.cells[self.layout.top]
        index = np.argwhere(self.present[self.layout.top])
        held = np.minimum((index + 1) * cell, self.layout.shape) - index * cell
        return int(held.prod(axis=1).sum())

    def splits(self, step: float) -> list[NDArray[np.bool_]]:
        """The best split decisions for a quantisation step; see `octree.choose_splits`."""
        return octree.choose_splits(self._costs(step), self._fans, SPLIT_LAMBDA * _FLAG_BITS)

    def best_cost(self, step: float) -> float:
        """Estimated ``D + lambda R`` of the best tree, in squared steps, its flags included."""
        *coarser, best = self._costs(step)
        for cost, fan in zip(reversed(coarser), reversed(self._fans), strict=True):
            best = np.minimum(cost, octree.coarsen(best, fan) + SPLIT_LAMBDA * _FLAG_BITS)
        return float(best[self.present[self.layout.top]].sum())

    @property
    def _fans(self) -> list[tuple[int, ...]]:
        return [octree.fan_of(self.layout.cells, level) for level in self.layout.leaf_levels[:-1]]

    def _costs(self, step: float) -> list[NDArray[np.float64]]:
        """Cost of every analysed cell as a leaf, 0 elsewhere: one full grid per level, coarsest first."""
        costs = []
        for level, readouts in self.levels.items():
            cost = np.zeros(self.layout.grid(level))
            cost[self.present[level]] = readouts.cost(step, self.backend, self.region)
            costs.append(cost)
        return costs


@dataclass
class LeafReadouts:
    """Readouts of a tree's leaves, ready to be quantised.

    Attributes
    ----------
    level : ndarray of int64, shape (B,)
        Level of each leaf in file order.
    coefficients : dict of int to ndarray of float32, shape (W, n)
        Per level, leaves in file order.
    energy : float
        Sum of squared samples of all leaves, of each its share.
    share : dict of int to ndarray of float32, shape (n,)
        Per level, part of each leaf that lies in the region; empty where there is none.
    """

    level: NDArray[np.int64]
    coefficients: dict[int, NDArray[np.float32]]
    energy: float
    share: dict[int, NDArray[np.float32]]

    def distortion(self, values: dict[int, np.ndarray], step: float) -> float:
        """Sum of squared errors of quantised readouts, of each leaf its share of them (border cells counted whole)."""
        total = self.energy
        for level, exact in self.coefficients.items():
            # Where the integer is 0 the error is the value itself: nothing changes.
            number = np.ascontiguousarray(values[level].T).ravel()
            kept = np.flatnonzero(number)
            part = np.ascontiguousarray(exact.T).ravel()[kept].astype(np.float64)
            changes = (part - number[kept] * step) ** 2 - part**2
            if level in self.share:
                changes *= self.share[level][kept // len(exact)]
            total += float(changes.sum())
        return max(total, 0.0)


def select_leaves(tree: octree.Octree, pieces: list[dict[int, CellReadouts]], only: NDArray[np.bool_] | None = None) -> LeafReadouts:
    """Pick the readouts of a tree's leaves out of analysed cells.

    Parameters
    ----------
    tree : Octree
    pieces : list of dict of int to CellReadouts
        Analysed cells per level; together they hold every leaf wanted.
    only : ndarray of bool, shape of the top level's grid, optional
        Keep just the leaves below these top cells.
    """
    wanted = np.ones(tree.count, dtype=bool) if only is None else only.ravel()[tree.ancestor(tree.top)]
    level_of = tree.level[wanted]
    coefficients, energy, share = {}, 0.0, {}
    for level in range(tree.top, tree.depth + 1):
        here = wanted & (tree.level == level)
        if not here.any():
            continue
        number = np.ravel_multi_index(tuple(tree.index[here].T), tree.grid(level))
        known = np.concatenate([piece[level].number for piece in pieces])
        order = np.argsort(known, kind="stable")
        place = order[np.searchsorted(known, number, sorter=order)]
        coefficients[level] = _take_columns([piece[level].coefficients for piece in pieces], place)
        squares = np.concatenate([piece[level].energy for piece in pieces])[place]
        parts = [each for piece in pieces if (each := piece[level].share) is not None]
        if parts:
            share[level] = np.concatenate(parts)[place]
        energy += float((squares * share.get(level, 1)).sum())
    return LeafReadouts(level_of, coefficients, energy, share)


def _take_columns(arrays: list[np.ndarray], place: np.ndarray) -> NDArray[np.float32]:
    """Columns `place` of the arrays laid side by side, without joining them first; leaf by leaf in memory."""
    taken = np.empty((len(place), arrays[0].shape[0]), dtype=np.float32)
    start = 0
    for array in arrays:
        stop = start + array.shape[1]
        here = np.flatnonzero((place >= start) & (place < stop))
        taken[here] = array.T[place[here] - start]
        start = stop
    return taken.T
