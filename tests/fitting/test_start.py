"""Decisions before the fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inrcodec.fitting import start
from inrcodec.fitting.analysis import SPLIT_LAMBDA, CellAnalysis
from inrcodec.models.tinc import TincModel
from inrcodec.options import TincOptions
from inrcodec.partition import octree


def waves(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Fast along one axis, constant along the others, with a little noise."""
    grid = np.indices(shape)[axis]
    return (100 * np.sin(grid * 1.7) + np.random.default_rng(0).normal(0, 2, shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(90,), (300, 200), (100, 70, 130), (40, 33, 50, 36)])
def test_crops_stay_inside_and_hold_about_the_samples_asked_for(shape: tuple[int, ...]) -> None:
    volume = np.arange(math.prod(shape)).reshape(shape)
    wanted = volume.size // 3
    boxes = start.crops(volume, seed=0, voxels=wanted)
    assert all(np.shares_memory(box, volume) for box in boxes)
    assert len({box.shape for box in boxes}) == 1
    assert len(boxes) == max(1, wanted // boxes[0].size)


def test_a_small_volume_is_its_own_crop() -> None:
    volume = np.zeros((20, 30, 10))
    assert start.crops(volume, 0, volume.size)[0] is volume


def test_crops_differ_by_place_and_repeat_by_seed() -> None:
    volume = np.arange(200**3).reshape(200, 200, 200)
    first, again = start.crops(volume, 3, 1 << 20), start.crops(volume, 3, 1 << 20)
    assert [box.flat[0] for box in first] == [box.flat[0] for box in again]
    assert len({int(box.flat[0]) for box in first}) == len(first)


def test_leaves_short_along_the_fast_axis_cost_less_than_leaves_short_along_another() -> None:
    volume = waves((32, 32, 32), axis=0) * np.repeat([0, 1], 16)[:, None, None]
    options = TincOptions(leaf_levels=1)
    short_fast = start.cost_of_edges([volume], 0.0, options, (4, 8, 8), 20.0)
    short_slow = start.cost_of_edges([volume], 0.0, options, (8, 8, 4), 20.0)
    assert short_fast < short_slow


def test_best_cost_is_that_of_the_chosen_tree() -> None:
    volume = waves((32, 24, 16), axis=1)
    layout = start.search_layout(volume.shape, TincOptions(), (8, 8, 8))
    analysis = CellAnalysis(TincModel.initial(layout), volume, 0.0, np.ones(layout.grid(layout.top), dtype=bool))
    tree = octree.build(layout.shape, layout.cells, layout.top, analysis.splits(10.0))
    leaves = 0.0
    for level, readouts in analysis.levels.items():
        number = np.ravel_multi_index(tuple(tree.index[tree.level == level].T), layout.grid(level))
        leaves += float(readouts.cost(10.0)[np.isin(readouts.number, number)].sum())
    flags = sum(flags.size for flags in tree.split_flags())
    splits = sum(int(flags.sum()) for flags in tree.split_flags())
    assert 0 < splits <= flags
    assert analysis.best_cost(10.0) == pytest.approx(leaves + SPLIT_LAMBDA * splits)


def test_neighbouring_edges_change_one_axis_and_stay_within_limits() -> None:
    found = start.neighbouring_edges((64, 64, 3), (8, 8, 2))
    assert (4, 8, 2) in found and (16, 8, 2) in found and (8, 8, 4) in found
    for edges in found:
        assert sum(a != b for a, b in zip(edges, (8, 8, 2), strict=True)) == 1
        assert 64 <= math.prod(edges) <= 2048 and min(edges) >= 2


@pytest.mark.parametrize("root", ["separable", "dense"])
def test_larger_leaves_are_added_for_separable_roots_only(root: str) -> None:
    options = TincOptions(root=root)  # type: ignore[arg-type]
    searched = start.search_layout((256, 256, 256), options, (8, 8, 8))
    final = start.final_layout(searched, options)
    assert math.prod(searched.cells[searched.top]) == 32**3
    assert math.prod(final.cells[final.top]) == (64**3 if root == "separable" else 32**3)
    assert final.cells == searched.cells
