"""Closed-form readouts of cells: least squares, energies, errors, and the choice of leaves."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from inrcodec.fitting import analysis
from inrcodec.fitting.analysis import CellAnalysis, CellReadouts, batches, readouts_of, select_leaves
from inrcodec.models.tinc import TincLayout, TincModel
from inrcodec.partition import octree
from inrcodec.partition.blocks import gather
from inrcodec.region import Region

SHAPE = (13, 10, 9)
OFFSET = 40.0
KINDS: list[dict[str, Any]] = [
    {},
    {"root": "dense", "hidden": (6,)},
    {"root": "dense", "hidden": (6,), "coordinates": "global", "segments": ((1, 9),)},
]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=["separable", "dense, local", "dense, global"])


def model_of(kind: dict[str, Any], features: int = 20) -> TincModel:
    cells = octree.cell_pyramid(SHAPE, (4, 4, 4))
    layout = TincLayout(SHAPE, cells, 1, features, axis_weights=(16, 16, 16), **kind)
    return TincModel.initial(layout, seed=1, bandwidth=2.0)


def volume() -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    return np.rint(50 + 30 * np.sin(z / 3) * np.cos(y / 4) + 5 * (x > 4) + noise).astype(np.int16)


def everywhere(model: TincModel) -> np.ndarray:
    return np.ones(model.layout.grid(model.layout.top), dtype=bool)


def design_of(model: TincModel, level: int, index: np.ndarray) -> np.ndarray:
    """Columns: what each coefficient alone adds to a leaf's samples."""
    width = len(model.layout.lattice(level))
    rows = [model.readout(level, index[None]).reconstruct(row[None])[0] for row in torch.eye(width)]
    return torch.stack(rows, dim=1).double().numpy()


@EVERY_KIND
def test_readouts_are_least_squares(kind: dict[str, Any]) -> None:
    model, signal = model_of(kind), volume()
    for level in model.layout.leaf_levels:
        cell, count = model.layout.cells[level], math.prod(model.layout.grid(level))
        number = np.arange(0, count, 2)
        found = readouts_of(model, signal, OFFSET, level, number)
        assert np.array_equal(found.number, number)
        for k, n in enumerate(number):
            index = np.array(np.unravel_index(n, model.layout.grid(level)))
            samples = gather(signal, index[None] * np.asarray(cell), cell)[0].astype(np.float64) - OFFSET
            best, *_ = np.linalg.lstsq(design_of(model, level, index), samples, rcond=None)
            np.testing.assert_allclose(found.coefficients[:, k], best, rtol=0, atol=0.02)
            assert found.energy[k] == pytest.approx((samples**2).sum(), rel=1e-6)


@EVERY_KIND
@pytest.mark.parametrize("step", [1.0, 30.0])
def test_distortion_is_that_of_the_reconstructed_blocks(kind: dict[str, Any], step: float) -> None:
    model, signal = model_of(kind), volume()
    cells = CellAnalysis(model, signal, OFFSET, everywhere(model))
    layout = model.layout
    tree = octree.build(SHAPE, layout.cells, layout.top, cells.splits(step))
    leaves = select_leaves(tree, [cells.levels])
    values = {level: np.rint(c / step).astype(np.int32) for level, c in leaves.coefficients.items()}
    error = 0.0
    for level, integers in values.items():
        here = tree.level == level
        samples = gather(signal, tree.origin[here], layout.cells[level]).astype(np.float64) - OFFSET
        decoded = model.readout(level, tree.index[here]).reconstruct(
            torch.from_numpy(integers.T.astype(np.float32)) * step
        )
        error += float(((samples - decoded.double().numpy()) ** 2).sum())
    assert leaves.distortion(values, step) == pytest.approx(error, rel=2e-3)


def test_energy_of_all_leaves_is_that_of_the_signal() -> None:
    """Where blocks tile the signal exactly nothing is counted twice."""
    cells = octree.cell_pyramid((8, 8), (4, 4))
    model = TincModel.initial(TincLayout((8, 8), cells, 0, 16, axis_weights=(16, 16)))
    signal = np.random.default_rng(0).integers(-50, 50, (8, 8)).astype(np.int16)
    found = CellAnalysis(model, signal, 3.0, np.ones((1, 1), dtype=bool))
    energy = float(((signal - 3.0) ** 2).sum())
    assert [float(r.energy.sum()) for r in found.levels.values()] == pytest.approx([energy, energy])
    assert float((found.levels[1].coefficients.astype(np.float64) ** 2).sum()) == pytest.approx(energy, rel=1e-5)


def test_the_best_tree_is_the_cheapest_of_all() -> None:
    model, signal, step = model_of({}), volume(), 12.0
    found = CellAnalysis(model, signal, OFFSET, everywhere(model))
    layout = model.layout

    def paid(splits: list[np.ndarray]) -> float:
        tree = octree.build(SHAPE, layout.cells, layout.top, splits)
        costs = {level: readouts.cost(step) for level, readouts in found.levels.items()}
        numbers = [
            np.ravel_multi_index(tuple(i), tree.grid(v)) for v, i in zip(tree.level.tolist(), tree.index, strict=True)
        ]
        leaves = sum(float(costs[v][n]) for v, n in zip(tree.level.tolist(), numbers, strict=True))
        return leaves + analysis.SPLIT_LAMBDA * sum(int(f.sum()) for f in tree.split_flags())

    assert len(layout.leaf_levels) == 2
    grid = layout.grid(layout.top)
    every = [[np.array(choice).reshape(grid)] for choice in itertools.product([False, True], repeat=math.prod(grid))]
    least = min(paid(splits) for splits in every)
    assert paid(found.splits(step)) == pytest.approx(least, rel=0.005)
    assert least < paid(every[-1]) and least <= paid(every[0])


def test_chosen_cells_are_analysed_alone_and_alike() -> None:
    model, signal = model_of({}), volume()
    chosen = np.zeros(model.layout.grid(1), dtype=bool)
    chosen[-1, 0, -1] = True
    some, every = (CellAnalysis(model, signal, OFFSET, c) for c in (chosen, everywhere(model)))
    held = np.zeros(SHAPE, dtype=bool)
    cell = model.layout.cells[1]
    held[tuple(slice(i * e, (i + 1) * e) for i, e in zip(np.argwhere(chosen)[0].tolist(), cell, strict=True))] = True
    assert some.samples == held.sum() and every.samples == math.prod(SHAPE)
    for level, readouts in some.levels.items():
        place = np.searchsorted(every.levels[level].number, readouts.number)
        np.testing.assert_allclose(readouts.coefficients, every.levels[level].coefficients[:, place], atol=1e-3)
        assert np.array_equal(np.flatnonzero(some.present[level]), readouts.number)


def test_leaves_are_found_in_several_pieces_and_in_file_order() -> None:
    model, signal = model_of({}), volume()
    whole = CellAnalysis(model, signal, OFFSET, everywhere(model))
    layout, splits = model.layout, whole.splits(5.0)
    splits[0].flat[::3] ^= True
    tree = octree.build(SHAPE, layout.cells, layout.top, splits)
    halves = []
    for odd in (1, 0):
        chosen = everywhere(model)
        chosen.flat[odd::2] = False
        halves.append(CellAnalysis(model, signal, OFFSET, chosen).levels)
    expected, found = select_leaves(tree, [whole.levels]), select_leaves(tree, halves)
    assert np.array_equal(found.level, tree.level)
    assert found.energy == pytest.approx(expected.energy, rel=1e-9)
    for level, coefficients in expected.coefficients.items():
        numbers = [int(np.ravel_multi_index(tuple(i), tree.grid(level))) for i in tree.index[tree.level == level]]
        np.testing.assert_allclose(found.coefficients[level], coefficients, atol=1e-3)
        assert np.array_equal(coefficients, whole.levels[level].coefficients[:, numbers])


def test_leaves_below_some_cells_only() -> None:
    model, signal = model_of({}), volume()
    whole = CellAnalysis(model, signal, OFFSET, everywhere(model))
    tree = octree.build(SHAPE, model.layout.cells, 1, [everywhere(model)])
    only = np.zeros(model.layout.grid(1), dtype=bool)
    only[0, 1, 0] = True
    found = select_leaves(tree, [whole.levels], only)
    inside = tree.ancestor(1) == np.flatnonzero(only)[0]
    assert len(found.level) == inside.sum() > 0
    numbers = [int(np.ravel_multi_index(tuple(i), tree.grid(2))) for i in tree.index[inside]]
    assert found.energy == pytest.approx(float(whole.levels[2].energy[numbers].sum()))


def test_cost_of_known_coefficients() -> None:
    """Coefficients of 0.2, 3.4 and -7 steps and an energy of 1 squared step outside the basis."""
    exact = np.array([[0.2], [3.4], [-7.0]])
    readouts = CellReadouts(np.array([0]), (2.0 * exact).astype(np.float32), 4.0 * ((exact**2).sum(0) + 1.0))
    bits = analysis._HEAD_BITS + 2 * analysis._NONZERO_BITS + analysis._DOUBLING_BITS * math.log2(3 * 7)
    expected = 1.0 + 0.2**2 + 0.4**2 + analysis.SPLIT_LAMBDA * bits
    assert readouts.cost(2.0).tolist() == pytest.approx([expected], rel=1e-5)


def test_shares_of_a_region_weigh_costs_and_errors() -> None:
    model, signal = model_of({}), volume()
    mask = np.zeros(SHAPE, bool)
    mask[:, :4, :6] = True
    region = Region(mask, 5.0)
    whole, plain = (CellAnalysis(model, signal, OFFSET, everywhere(model), region=r) for r in (region, None))
    for level, readouts in whole.levels.items():
        index = np.stack(np.unravel_index(readouts.number, model.layout.grid(level)), axis=1)
        shares = gather(mask, index * np.asarray(model.layout.cells[level]), model.layout.cells[level]).mean(axis=1)
        assert readouts.share is not None and np.allclose(readouts.share, shares)
        without = plain.levels[level].cost(5.0)
        assert np.all(readouts.cost(5.0, region=region)[shares == 1] == without[shares == 1])
        assert np.all(readouts.cost(5.0, region=region)[shares == 0] <= without[shares == 0])
    tree = octree.build(SHAPE, model.layout.cells, model.layout.top, whole.splits(5.0))
    leaves, others = (select_leaves(tree, [each.levels]) for each in (whole, plain))
    nothing = {level: np.zeros(c.shape, np.int64) for level, c in leaves.coefficients.items()}
    assert leaves.distortion(nothing, 5.0) == pytest.approx(leaves.energy)
    assert 0 < leaves.energy < others.energy and others.share == {}
    rounded = {level: np.rint(c / 5.0).astype(np.int64) for level, c in leaves.coefficients.items()}

    assert leaves.distortion(rounded, 5.0) < others.distortion(rounded, 5.0)



@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("each", [1, 1 << 19, 1 << 30])
def test_batches_cut_all_items_into_bounded_pieces(count: int, each: int) -> None:
    pieces = list(batches(count, each))
    assert [i for p in pieces for i in range(count)[p]] == list(range(count))
    assert all((p.stop - p.start) * each <= 1 << 22 or p.stop - p.start == 1 for p in pieces)
