"""Cells, splits and leaves of the octree over signals of any shape."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.partition import octree
from inrcodec.partition.octree import Octree

extents = st.lists(st.integers(1, 23), min_size=1, max_size=4).filter(lambda s: math.prod(s) <= 4000).map(tuple)


@st.composite
def trees(draw: st.DrawFn) -> Octree:
    """Trees of random splits over random shapes of 1 to 4 axes."""
    shape = draw(extents)
    finest = octree.finest_cell(shape, tuple(draw(st.integers(2, 6)) for _ in shape))
    cells = octree.cell_pyramid(shape, finest)
    top = draw(st.integers(0, len(cells) - 1))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    chance = draw(st.sampled_from([0.0, 0.4, 0.8, 1.0]))
    splits = [random.random(octree.grid_of(shape, cell)) < chance for cell in cells[top:-1]]
    return octree.build(shape, cells, top, splits)


def box(tree: Octree, leaf: int) -> tuple[slice, ...]:
    origin, extent = tree.origin[leaf].tolist(), tree.extent[leaf].tolist()
    return tuple(slice(o, o + e) for o, e in zip(origin, extent, strict=True))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_leaves_hold_every_sample_once(tree: Octree) -> None:
    held = np.zeros(tree.shape, dtype=int)
    for leaf in range(tree.count):
        assert held[box(tree, leaf)].size > 0, "a leaf wholly outside"
        held[box(tree, leaf)] += 1
    assert np.all(held == 1)
    assert np.all((tree.level >= tree.top) & (tree.level <= tree.depth))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_flags_describe_the_tree(tree: Octree) -> None:
    flags = tree.split_flags()
    asked = []

    def read(level: int, count: int) -> np.ndarray:
        asked.append(level)
        assert len(flags[level - tree.top]) == count
        return flags[level - tree.top]

    again = octree.from_flags(tree.shape, tree.cells, tree.top, read)
    assert asked == list(range(tree.top, tree.depth))
    assert np.array_equal(again.level, tree.level) and np.array_equal(again.index, tree.index)


@settings(max_examples=60, deadline=None)
@given(trees())
def test_cells_double_until_one_holds_everything(tree: Octree) -> None:
    assert tree.grid(0) == (1,) * len(tree.shape)
    assert all(a >= n for a, n in zip(tree.cells[0], tree.shape, strict=True))
    for level in range(tree.depth):
        for a, b, n in zip(tree.cells[level], tree.cells[level + 1], tree.shape, strict=True):
            assert a == (2 * b if b < n else b)
        assert max(tree.fan(level)) == 2


@settings(max_examples=60, deadline=None)
@given(trees())
def test_leaves_are_in_depth_first_order(tree: Octree) -> None:
    """The leaves below any cell are consecutive, children in raster order."""
    for level in range(tree.depth + 1):
        below = tree.level >= level
        cell = tree.ancestor(level)[below]
        runs = [
            key
            for key, _ in itertools.groupby(
                zip(cell.tolist(), np.flatnonzero(below).tolist(), strict=True), lambda p: p[0]
            )
        ]
        assert len(runs) == len(set(runs))
        if level == 0:
            continue
        parent = tree.ancestor(level - 1)[below]
        raster = [_child_number(tree, level, int(c)) for c in cell]
        for i in range(1, len(cell)):
            assert parent[i] != parent[i - 1] or raster[i] >= raster[i - 1]


def _child_number(tree: Octree, level: int, cell: int) -> int:
    place = np.unravel_index(cell, tree.grid(level))
    fan = tree.fan(level - 1)
    return int(np.ravel_multi_index(tuple(int(p) % f for p, f in zip(place, fan, strict=True)), fan))


@settings(max_examples=40, deadline=None)
@given(trees())
def test_ancestors_hold_their_leaves(tree: Octree) -> None:
    for level in range(tree.depth + 1):
        place = np.stack(np.unravel_index(tree.ancestor(level), tree.grid(level)), axis=1)
        start = place * np.asarray(tree.cells[level])
        deeper = tree.level >= level
        assert np.all(start <= tree.origin)
        assert np.all((tree.origin + tree.extent <= start + tree.cells[level])[deeper])
    own = [int(np.ravel_multi_index(tuple(i), tree.grid(int(v)))) for v, i in zip(tree.level, tree.index, strict=True)]
    assert [int(tree.ancestor(int(v))[k]) for k, v in enumerate(tree.level)] == own


@settings(max_examples=40, deadline=None)
@given(trees(), st.data())
def test_overlapping_finds_the_leaves_with_a_sample_of_the_box(tree: Octree, data: st.DataObject) -> None:
    ends = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in tree.shape]
    wanted = np.zeros(tree.shape, dtype=bool)
    wanted[tuple(slice(a, b) for a, b in ends)] = True
    expected = [leaf for leaf in range(tree.count) if wanted[box(tree, leaf)].any()]
    start, stop = np.array(ends).T
    if wanted.any():
        assert tree.overlapping(start, stop).tolist() == expected


def brute_force(
    costs: list[np.ndarray], fans: list[tuple[int, ...]], flag: float, level: int, cell: tuple[int, ...]
) -> float:
    """Least cost of the subtree below a cell, by trying both choices everywhere."""
    own = float(costs[level][cell])
    if level + 1 == len(costs):
        return own
    grid = costs[level + 1].shape
    children = itertools.product(
        *(range(c * f, min(c * f + f, n)) for c, f, n in zip(cell, fans[level], grid, strict=True))
    )
    return min(own, flag + sum(brute_force(costs, fans, flag, level + 1, child) for child in children))


@settings(max_examples=40, deadline=None)
@given(extents.filter(lambda s: math.prod(s) <= 300), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 2.0]))
def test_choose_splits_is_optimal(shape: tuple[int, ...], seed: int, flag: float) -> None:
    cells = octree.cell_pyramid(shape, octree.finest_cell(shape, (2,) * len(shape)))
    grids = [octree.grid_of(shape, cell) for cell in cells]
    fans = [octree.fan_of(cells, level) for level in range(len(cells) - 1)]
    random = np.random.default_rng(seed)
    costs = [random.random(grid) * np.prod(cell) ** 0.9 for grid, cell in zip(grids, cells, strict=True)]
    splits = octree.choose_splits(costs, fans, flag)
    tree = octree.build(shape, cells, 0, splits)
    paid = sum(float(costs[v][tuple(i)]) for v, i in zip(tree.level.tolist(), tree.index, strict=True))
    paid += flag * sum(int(flags.sum()) for flags in tree.split_flags())
    assert paid == pytest.approx(brute_force(costs, fans, flag, 0, (0,) * len(shape)), rel=1e-12)


def test_choose_splits_leaves_ties_whole() -> None:
    splits = octree.choose_splits([np.array([2.0, 2.0]), np.array([1.0, 1.0, 1.0, 0.5])], [(2,)], 0.0)
    assert [s.tolist() for s in splits] == [[False, True]]


def test_refine_and_coarsen_known_values() -> None:
    fine = octree.refine(np.array([[1, 2], [3, 4]]), (2, 1), (3, 2))
    assert fine.tolist() == [[1, 2], [1, 2], [3, 4]]
    assert octree.coarsen(fine, (2, 1)).tolist() == [[2, 4], [3, 4]]


@settings(max_examples=50, deadline=None)
@given(extents, st.data())
def test_coarsen_keeps_the_sum_and_undoes_refine(grid: tuple[int, ...], data: st.DataObject) -> None:
    fan = tuple(data.draw(st.integers(1, 2)) for _ in grid)
    coarse = tuple(-(-n // f) for n, f in zip(grid, fan, strict=True))
    values = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(1, 99, coarse)
    fine = octree.refine(values, fan, grid)
    assert fine.shape == grid
    counts = octree.coarsen(np.ones(grid, dtype=int), fan)
    assert np.array_equal(octree.coarsen(fine, fan), values * counts)
    assert octree.coarsen(fine, fan).sum() == fine.sum()


def test_thin_axes_are_not_split_into_plates() -> None:
    cells = octree.cell_pyramid((100, 128, 9), (8, 8, 8))
    assert cells[:2] == ((128, 128, 16), (64, 64, 16)) and cells[-2:] == ((16, 16, 16), (8, 8, 8))


@pytest.mark.parametrize(
    ("extent", "edge", "expected"),
    [(5, 8, 5), (8, 8, 8), (16, 8, 8), (21, 8, 7), (9, 8, 6), (13, 8, 7), (1, 8, 1), (7, 2, 2)],
)
def test_finest_cell_wastes_least(extent: int, edge: int, expected: int) -> None:
    assert octree.finest_cell((extent,), (edge,)) == (expected,)


def test_known_tree() -> None:
    """A 6 x 4 image of 2 x 2 cells: the first 4 x 4 cell is split, the border cell is whole."""
    cells = octree.cell_pyramid((6, 4), (2, 2))
    assert cells == ((8, 4), (4, 4), (2, 2))
    tree = octree.build((6, 4), cells, 1, [np.array([[True], [False]])])
    assert tree.level.tolist() == [2, 2, 2, 2, 1]
    assert tree.origin.tolist() == [[0, 0], [0, 2], [2, 0], [2, 2], [4, 0]]
    assert tree.extent.tolist() == [[2, 2]] * 4 + [[4, 4]]
    assert [f.tolist() for f in tree.split_flags()] == [[True, False]]
    assert tree.ancestor(1).tolist() == [0, 0, 0, 0, 1]
    assert tree.overlapping(np.array([3, 1]), np.array([5, 3])).tolist() == [2, 3, 4]
