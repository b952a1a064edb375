"""Decisions before the fit: the offset, the sample to try things on, the shape of the leaves, widths of segments."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import REFERENCE, Backend

from ..models.tinc import TincLayout, TincModel
from ..options import TincOptions
from ..partition import octree
from ..partition.allocation import level_budgets, widths_for_budgets
from .analysis import CellAnalysis

_MOST_LEAF_SAMPLES = 1 << 18
_SEARCH_LEAF_SAMPLES = 1 << 15
"""Most samples of a largest leaf: in the stream, and (so that a sample is many cells) while shapes are compared."""
_LEAF_SAMPLES = (64, 2048)
"""Fewest and most samples of a smallest leaf that the search for its shape considers."""


def typical_value(volume: np.ndarray) -> int:
    """Median of a coarse subset: taken off all samples, so that background needs no readout."""
    stride = tuple(slice(n // 2 % max(1, n // 48), None, max(1, n // 48)) for n in volume.shape)
    return int(np.rint(np.median(volume[stride])))


def first_edges(shape: tuple[int, ...], options: TincOptions) -> tuple[int, ...]:
    """Edges of the smallest leaves to start from: alike on all axes, shorter in four dimensions."""
    edge = options.leaf_edge if len(shape) < 4 else max(2, options.leaf_edge // 2)
    return (edge,) * len(shape)


def search_layout(shape: tuple[int, ...], options: TincOptions, edges: tuple[int, ...]) -> TincLayout:
    """Layout to try smallest leaves near `edges` with."""
    return _layout(shape, octree.cell_pyramid(shape, octree.finest_cell(shape, edges)), options, _SEARCH_LEAF_SAMPLES)


def final_layout(searched: TincLayout, options: TincOptions) -> TincLayout:
    """The same leaves, and larger ones above them where the root is separable (a dense basis would not fit)."""
    if options.root == "dense":
        return searched
    return _layout(searched.shape, searched.cells, options, _MOST_LEAF_SAMPLES)


def _layout(shape: tuple[int, ...], cells: octree.Cells, options: TincOptions, most: int) -> TincLayout:
    top = len(cells) - 1
    while top > 0 and len(cells) - top < options.leaf_levels and math.prod(cells[top - 1]) <= most:
        top -= 1
    return TincLayout(shape=shape, cells=cells, top=top, features=options.features, axis_weights=(16,) * len(shape))


def sample_cells(layout: TincLayout, seed: int, voxels: int) -> NDArray[np.bool_]:
    """Top cells, spread evenly, that hold about `voxels` samples; all where the signal is small."""
    grid = layout.grid(layout.top)
    count = math.prod(grid)
    wanted = min(max(16, math.ceil(voxels / math.prod(layout.cells[layout.top]))), count)
    chosen = np.zeros(count, dtype=bool)
    # Multiples of the golden ratio fall evenly at every scale; the seed turns the start.
    golden = (math.sqrt(5) - 1) / 2
    start = np.random.default_rng(seed).random()
    chosen[((start + golden * np.arange(wanted)) % 1 * count).astype(np.int64)] = True
    chosen[np.flatnonzero(~chosen)[: wanted - int(chosen.sum())]] = True
    return chosen.reshape(grid)


def crops(volume: np.ndarray, seed: int, voxels: int) -> list[np.ndarray]:
    """Boxes of a volume that hold about `voxels` samples together, spread evenly; the volume itself where it is small.

    Shapes of leaves are compared on the same boxes: cells of different shapes never cover the same samples, and
    the difference between places is larger than that between shapes.
    """
    edge = 64 if volume.ndim < 4 else 32
    extent = tuple(min(n, edge) for n in volume.shape)
    count = max(1, voxels // math.prod(extent))
    if count * math.prod(extent) >= volume.size:
        return [volume]
    # Additive recurrence in d dimensions: powers of the root of x^(d+1) = x + 1 fill boxes evenly.
    root = 2.0
    for _ in range(50):
        root = (1 + root) ** (1 / (volume.ndim + 1))
    turn = np.random.default_rng(seed).random(volume.ndim)
    place = (turn + np.arange(1, count + 1)[:, None] / root ** np.arange(1, volume.ndim + 1)) % 1
    starts = (place * (np.array(volume.shape) - extent + 1)).astype(np.int64)
    return [volume[tuple(slice(o, o + e) for o, e in zip(start, extent, strict=True))] for start in starts.tolist()]


def cost_of_edges(
    boxes: list[np.ndarray],
    offset: float,
    options: TincOptions,
    edges: tuple[int, ...],
    step: float,
    backend: Backend = REFERENCE,
    limit: float = math.inf,
) -> float:
    """Estimated ``D + lambda R`` a voxel, in squared steps, of the best trees over boxes of one shape.

    Once it is clear that it will be above `limit`, what it comes to so far is returned.
    """
    layout = search_layout(boxes[0].shape, options, edges)
    model, everything = TincModel.initial(layout), np.ones(layout.grid(layout.top), dtype=bool)
    total, voxels = 0.0, sum(box.size for box in boxes)
    for box in boxes:
        total += CellAnalysis(model, box, offset, everything, backend).best_cost(step)
        if total / voxels > limit:
            break
    return total / voxels


def neighbouring_edges(shape: tuple[int, ...], edges: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of leaves to try next: one axis shorter or longer by 2 or 4, within `_LEAF_SAMPLES` samples a leaf.

    Steps of 4 matter: an axis of few samples may fit quarters of an edge well and halves badly.
    """
    found = []
    for axis, edge in enumerate(edges):
        for changed in (edge // 4, edge // 2, edge * 2, edge * 4):
            rival = tuple(changed if j == axis else e for j, e in enumerate(edges))
            if 2 <= changed <= min(32, 2 * shape[axis]) and _LEAF_SAMPLES[0] <= math.prod(rival) <= _LEAF_SAMPLES[1]:
                found.append(rival)
    return found


def with_segments(layout: TincLayout, options: TincOptions, budget_bits: float) -> TincLayout:
    """Size a dense root and the segments of further levels to their part of the budget."""
    if options.root == "separable":
        return layout
    weights = options.network_share * budget_bits / options.bits_per_weight
    deepest = min(len(options.layers) - 1, layout.top)
    layers, ratios = options.layers[: deepest + 1], options.level_ratios[: deepest + 1]
    base = replace(layout, coordinates=options.root_coordinates)
    nodes = [math.prod(base.grid(level)) for level in range(deepest + 1)]
    budgets = level_budgets(weights, ratios, nodes)

    def shaped(widths: list[int]) -> TincLayout:
        hidden = (widths[0],) * layers[0]
        segments = tuple(zip(layers[1:], widths[1:], strict=False))
        return replace(base, root=options.root, hidden=hidden, segments=segments)

    def count(level: int, n_in: int, width: int) -> int:
        extra = layout.ndim if level and options.root_coordinates == "global" else 0
        first = (n_in + extra + 1) * width
        return nodes[level] * (first + (layers[level] - 1) * (width + 1) * width)

    widths = widths_for_budgets(budgets, count, layout.ndim)
    widths = [min(width, 4096) for width in widths]
    return shaped(widths)
