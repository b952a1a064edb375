"""The SCI encoder's stages: partitions within their limits, measured blocks, budgets spent, fits that fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.fitting import sci
from inrcodec.fitting.sci import BlockFacts, ClassFit, choose_classes, choose_partition, measure_blocks
from inrcodec.models.sci import forward, half_octaves, weight_count, weight_shapes
from inrcodec.options import NetworkAllocation, SciOptions
from inrcodec.partition import octree
from inrcodec.payload.sci import SciStream
from inrcodec.region import Region
from inrcodec_kernels.backend import choose
from samples import scan

OPTIONS = SciOptions()


def covers(tree: octree.Octree) -> bool:
    seen = np.zeros(tree.shape, dtype=int)
    for origin, extent in zip(tree.origin, tree.extent, strict=True):
        seen[tuple(slice(o, o + e) for o, e in zip(origin, extent, strict=True))] += 1
    return bool(np.all(seen == 1))


def noiseless(shape: tuple[int, ...]) -> np.ndarray:
    """No two cells alike, none flat."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return np.rint(sum(300 * np.sin((0.2 + 0.1 * i) * x + 0.003 * x**2) for i, x in enumerate(axes))).astype(np.int16)


@pytest.mark.parametrize("partition", ["spectrum", "uniform"])
@pytest.mark.parametrize("blocks", [1, 2, 7, 8, 20, 100])
def test_partitions_have_at_most_the_blocks_asked_for(partition: Any, blocks: int) -> None:
    volume = noiseless((24, 30, 35))
    tree = choose_partition(volume, SciOptions(partition=partition, blocks=blocks), 10**6)
    assert covers(tree) and tree.count <= blocks
    # Halving every axis makes eight blocks out of one: below that there is one.
    assert partition == "uniform" or blocks < 8 or 3 * tree.count > blocks, "and make use of them"
    if partition == "uniform":
        assert len(set(tree.level.tolist())) == 1


@pytest.mark.parametrize("weights", [1, 999, 2500, 9000])
def test_partitions_are_as_fine_as_the_budget_feeds(weights: int) -> None:
    tree = choose_partition(noiseless((24, 30, 35)), OPTIONS, weights)
    assert covers(tree) and tree.count <= max(1, weights // sci.WEIGHTS_PER_BLOCK)


SHAPES = [(1,), (5,), (4000,), (300, 2), (600, 2, 2), (2, 500, 3), (1, 1, 3000), (3, 40, 50), (7, 9, 8), (3, 3, 3, 200)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from([1, 1000, 5000, 10**5]), st.sampled_from(["spectrum", "uniform"]))
def test_every_partition_can_be_named_in_a_stream(shape: tuple[int, ...], weights: int, partition: Any) -> None:
    tree = choose_partition(scan(shape), SciOptions(partition=partition), weights)
    stream = SciStream(tree, ((),), ((),), 0, 1.0, 0, 0, 1, 1)
    found = SciStream.from_section(stream.tree_section(), shape, tree.count).tree
    assert found.cells == tree.cells and found.top == tree.top
    assert np.array_equal(found.level, tree.level) and np.array_equal(found.index, tree.index)
    assert math.prod(shape) > 5000 or covers(tree)


@pytest.mark.parametrize("partition", ["spectrum", "uniform"])
def test_giants_are_cut_into_blocks_that_a_decoder_accepts(partition: Any) -> None:
    """A volume of one number, so that 2^27 samples cost no memory; and a line longer than twelve levels reach."""
    for shape in ((1 << 8, 1 << 9, 1 << 10), (1 << 21,)):
        volume = np.broadcast_to(np.int16(3), shape)
        if partition == "spectrum" and len(shape) == 3:
            continue
        tree = choose_partition(volume, SciOptions(partition=partition, blocks=1), 10)
        stream = SciStream(tree, ((),), ((),), 0, 1.0, 0, 0, 1, 1)
        assert SciStream.from_section(stream.tree_section(), shape, tree.count).tree.count == tree.count
        assert int(tree.extent.prod(axis=1).max()) <= octree.MAX_BLOCK


def test_anisotropic_signals_get_anisotropic_cells() -> None:
    z, y, x = np.indices((40, 40, 40))
    volume = np.rint(500 * (np.sin(0.05 * z) + np.sin(0.8 * x) + np.sin(0.25 * y))).astype(np.int16)
    edges = sci.block_edges(volume)
    assert edges[0] > edges[1] > edges[2] and edges[0] >= 4 * edges[2]
    assert sci.block_edges(volume.transpose(2, 0, 1)) == (edges[2], edges[0], edges[1])
    assert sci.block_edges(np.zeros((9, 9), np.int16)) == (8, 8)
    assert sci.block_edges(np.zeros((1,), np.int16)) == (8,)
    # An axis of one sample, or without change, has no say.
    assert sci.block_edges(scan((1, 40, 40))) == (8, *sci.block_edges(scan((1, 40, 40))[0]))
    assert all(2 <= e <= 32 for e in sci.block_edges(np.tile(np.array([0, 30000], np.int16), (50, 60, 20))))


def test_thin_volumes_are_not_cut_into_plates() -> None:
    for slices in range(1, 8):
        volume = (
            np.broadcast_to(noiseless((40, 50)), (slices, 40, 50)) + np.arange(slices, dtype=np.int16)[:, None, None]
        )
        tree = choose_partition(volume, SciOptions(blocks=40), 10**5)
        assert covers(tree) and set(tree.extent[:, 0].tolist()) == {slices} and tree.count > 10


SHAPE = (19, 22, 13)


def tree_of(shape: tuple[int, ...] = SHAPE, edge: int = 6, seed: int = 0) -> octree.Octree:
    cells = octree.cell_pyramid(shape, tuple(min(edge, n) for n in shape))
    top = max(len(cells) - 2, 0)
    random = np.random.default_rng(seed)
    splits = [random.random(octree.grid_of(shape, cell)) < 0.5 for cell in cells[top:-1]]
    return octree.build(shape, cells, top, splits)


def inside_of(tree: octree.Octree, k: int) -> tuple[slice, ...]:
    return tuple(slice(o, min(o + e, n)) for o, e, n in zip(tree.origin[k], tree.extent[k], tree.shape, strict=True))


@pytest.mark.parametrize("shape", [SHAPE, (40,), (1, 30, 21), (5, 6, 7, 5)])
def test_measures_are_those_of_the_samples_inside(shape: tuple[int, ...]) -> None:
    volume, tree = scan(shape, "int16", 3), tree_of(shape)
    facts = measure_blocks(volume, tree, 100)
    assert any((tree.origin[k] + tree.extent[k] > shape).any() for k in range(tree.count)), "some reach beyond"
    for k in range(tree.count):
        samples = volume[inside_of(tree, k)].astype(np.float64)
        assert facts.voxels[k] == samples.size
        assert abs(facts.mean[k] - (samples.mean() - 100)) <= 0.5 + 1e-6
        assert facts.variance[k] == pytest.approx(samples.var(), rel=1e-4, abs=1e-6)
        assert abs(facts.scale[k] - np.log2(max(samples.var(), 2.0**-40))) <= 0.5 + 1e-3
        for axis in range(len(shape)):
            expected = 0.0
            if samples.shape[axis] > 1 and samples.var() > 0:
                slope = np.mean(np.diff(samples, axis=axis) ** 2) / samples.var()
                expected = math.sqrt(slope) * tree.extent[k, axis] / 2
            assert facts.bandwidth[k, axis] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert np.all((facts.concentration > 0) & (facts.concentration <= 1))


def test_the_bandwidth_of_a_wave_is_its_frequency() -> None:
    x = np.arange(64)
    volume = np.rint(3000 * np.sin(0.2 * x)).astype(np.int16)
    tree = tree_of((64,), 32)
    facts = measure_blocks(volume, tree, 0)
    # 0.2 radians a sample are 3.2 per half of 32 samples.
    for k in np.flatnonzero(tree.extent[:, 0] == 32):
        assert facts.bandwidth[k, 0] == pytest.approx(3.2, rel=0.1)


def test_flat_blocks_are_told_from_others() -> None:
    volume = np.zeros((16, 16, 16), np.int16)
    volume[8:] = noiseless((8, 16, 16))
    tree = octree.build(volume.shape, octree.cell_pyramid(volume.shape, (8, 8, 8)), 1, [])
    facts = measure_blocks(volume, tree, 0)
    assert np.array_equal(facts.flat, tree.origin[:, 0] < 8)
    assert np.all(facts.variance[facts.flat] == 0) and np.all(facts.mean[facts.flat] == 0)


def facts_of(voxels: np.ndarray, variance: np.ndarray, flat: np.ndarray | None = None, seed: int = 0) -> BlockFacts:
    n = len(voxels)
    random = np.random.default_rng(seed)
    return BlockFacts(
        np.zeros(n, dtype=np.int64),
        np.rint(np.log2(variance)).astype(np.int64),
        random.uniform(0.5, 8, (n, 3)),
        random.uniform(0.05, 1, n),
        variance,
        voxels,
        np.zeros(n, dtype=bool) if flat is None else flat,
    )


def test_blocks_that_count_more_get_more_weights() -> None:
    facts = facts_of(np.full(60, 4096), np.full(60, 100.0))
    region = Region(np.arange(60) < 20)
    share = np.repeat([1.0, 0.0], [20, 40])
    known = replace(facts, share=share, weight=region.weight(share))
    _, plain = choose_classes(facts, SciOptions(), 3, 20_000)
    classes, kind = choose_classes(known, SciOptions(), 3, 20_000)
    counts = np.array([weight_count(3, widths) if widths else 0 for widths in classes])[kind]
    assert len(np.unique(plain)) <= 2 and counts[:20].mean() > 2 * counts[20:].mean()
    nothing = replace(known, weight=Region(np.arange(60) < 20, np.inf).weight(share))
    assert not choose_classes(nothing, SciOptions(), 3, 20_000)[1][20:].any()


def test_blocks_are_measured_with_their_share_of_a_region() -> None:
    volume, mask = noiseless((16, 16, 16)), np.zeros((16, 16), bool)
    mask[:8, :12] = True
    tree = octree.build(volume.shape, octree.cell_pyramid(volume.shape, (8, 8, 8)), 1, [])
    facts = measure_blocks(volume, tree, 0, Region(mask, 4.0))
    expected = {(0, 0): 1.0, (0, 8): 0.5, (8, 0): 0.0, (8, 8): 0.0}
    assert np.allclose(facts.share, [expected[tuple(o)] for o in tree.origin[:, 1:].tolist()])
    assert np.allclose(facts.weight, 0.25 + 0.75 * facts.share)


def spent(classes: tuple[tuple[int, ...], ...], kind: np.ndarray) -> int:
    counts = [weight_count(3, widths) if widths else 0 for widths in classes]
    return sum(counts[k] for k in kind.tolist())


@pytest.mark.parametrize("allocation", get_args(NetworkAllocation))
@pytest.mark.parametrize("weights", [5000, 20_000, 60_000])
def test_blocks_that_are_alike_spend_the_budget(allocation: Any, weights: int) -> None:
    facts = replace(facts_of(np.full(40, 4096), np.full(40, 900.0)), concentration=np.full(40, 0.2))
    classes, kind = choose_classes(facts, SciOptions(allocation=allocation), 3, weights)
    assert 0.9 * weights < spent(classes, kind) <= weights


@settings(max_examples=80, deadline=None)
@given(
    allocation=st.sampled_from(get_args(NetworkAllocation)),
    weights=st.integers(0, 30_000),
    count=st.integers(1, 60),
    seed=st.integers(0, 2**32),
    taper=st.sampled_from([0.0, 0.7, 2.0]),
)
def test_budgets_are_never_exceeded(allocation: Any, weights: int, count: int, seed: int, taper: float) -> None:
    random = np.random.default_rng(seed)
    flat = random.random(count) < 0.3
    voxels = random.choice([6, 64, 512, 4096], count)
    facts = facts_of(voxels, 4.0 ** random.integers(0, 9, count), flat, seed)
    classes, kind = choose_classes(facts, SciOptions(allocation=allocation, taper=taper), 3, weights)
    assert classes[0] == () and kind.shape == (count,) and kind.min() >= 0
    assert spent(classes, kind) <= weights
    assert np.all(kind[flat] == 0)
    assert sorted(set(kind[kind > 0].tolist())) == list(range(1, len(classes))), "no class without a block"
    assert len(classes) < 64 and len(set(classes)) == len(classes)
    sizes = [weight_count(3, widths) for widths in classes[1:]]
    assert sizes == sorted(sizes)


def test_shares_follow_what_the_allocation_names() -> None:
    voxels = np.array([4096, 4096, 512, 4096])
    facts = facts_of(voxels, np.array([16.0, 4096.0, 16.0, 16.0]), np.array([False, False, False, True]))
    facts = replace(facts, concentration=np.array([0.5, 0.5, 0.5, 0.1]))

    def share(allocation: Any) -> list[float]:
        found = sci.importance(facts, SciOptions(allocation=allocation))
        return (found / found[0]).tolist()

    assert share("equal") == [1, 1, 1, 0]
    assert share("size") == [1, 1, 0.125, 0]
    assert share("variance") == [1, 256, 0.125, 0]
    assert share("spread") == [1, 4, 0.125, 0]
    assert share("concentration") == [1, 1, 0.125, 0]
    facts = replace(facts, concentration=np.array([0.5, 0.25, 0.5, 0.1]))
    assert share("concentration") == [1, 2, 0.125, 0]


def test_all_flat_or_no_budget_means_constants() -> None:
    facts = facts_of(np.full(5, 512), np.full(5, 9.0))
    for nothing, weights in ((facts, sci.LEAST_WEIGHTS - 1), (replace(facts, flat=np.ones(5, dtype=bool)), 9999)):
        classes, kind = choose_classes(nothing, OPTIONS, 3, weights)
        assert classes == ((),) and not kind.any()


def test_equal_allocation_makes_one_class() -> None:
    facts = facts_of(np.array([64, 4096, 4096]), np.array([1.0, 100.0, 1e4]))
    classes, kind = choose_classes(facts, SciOptions(allocation="equal"), 3, 3000)
    assert kind.tolist() == [1, 1, 1] and len(classes) == 2 and 800 < weight_count(3, classes[1]) <= 1000


def test_bandwidths_are_halves_of_octaves_within_what_a_network_carries() -> None:
    facts = facts_of(np.full(3, 4096), np.full(3, 100.0))
    facts = replace(facts, bandwidth=np.array([[1.0, 4.0, 0.0], [1e5, 1e5, 1e5], [2.0, 2.0, 2.0]]))
    classes, kind = ((), (8,), (8, 8)), np.array([1, 1, 2])
    found = sci.bandwidth_exponents(facts, classes, kind, SciOptions(bandwidth_share=0.5), 3)
    cap = math.pi / 2 * weight_count(3, (8,)) ** (1 / 3)
    expected = [[0.5, 2.0, 0.125], [cap / 2] * 3, [1 / sci.GROWTH] * 3]
    assert np.array_equal(found, np.rint(2 * np.log2(expected)))
    fixed = sci.bandwidth_exponents(facts, classes, kind, SciOptions(bandwidth=3.0, bandwidth_share=1.0), 3)
    assert fixed[:2].tolist() == [[round(2 * math.log2(3))] * 3] * 2
    assert not sci.bandwidth_exponents(facts, ((),), np.zeros(3, dtype=int), OPTIONS, 3).any()


def fit_of(volume: np.ndarray, tree: octree.Octree, widths: tuple[int, ...], seed: int = 0, **options: Any) -> ClassFit:
    choices = SciOptions(**options)
    facts = measure_blocks(volume, tree, 5)
    leaves = np.arange(tree.count)
    kind = np.ones(tree.count, dtype=np.int64)
    bandwidth = sci.bandwidth_exponents(facts, ((), widths), kind, choices, volume.ndim)
    return ClassFit(volume, 5, tree, facts, bandwidth, leaves, widths, choices, seed, choose("cpu"))


@pytest.mark.parametrize("halo", [0, 1, 3])
@pytest.mark.parametrize("shape", [SHAPE, (40,), (1, 30, 21), (5, 6, 7, 5)])
def test_points_drawn_are_samples_of_the_signal(shape: tuple[int, ...], halo: int) -> None:
    volume, tree = scan(shape, "int16", 3), tree_of(shape)
    fit = fit_of(volume, tree, (3,), halo=halo)
    facts = measure_blocks(volume, tree, 5)
    for which in (None, torch.tensor([tree.count - 1, 0])):
        points, targets = fit.draw_points(400, which)
        for row, leaf in enumerate(range(tree.count) if which is None else which.tolist()):
            at = (points[row].double().numpy() + 1) / 2 * tree.extent[leaf] - 0.5 + tree.origin[leaf]
            assert np.abs(at - np.rint(at)).max() < 1e-4
            place = np.rint(at).astype(int)
            assert np.all(place >= 0) and np.all(place < shape)
            assert np.all(place >= tree.origin[leaf] - halo)
            assert np.all(place < tree.origin[leaf] + tree.extent[leaf] + halo)
            stored = (volume[tuple(place.T)] - 5.0 - facts.mean[leaf]) / half_octaves(facts.scale[leaf : leaf + 1])
            assert targets[row].numpy() == pytest.approx(stored, rel=1e-4, abs=1e-4)
            # Every corner of the block with its halo can be drawn.
            low = np.maximum(tree.origin[leaf] - halo, 0)
            high = np.minimum(tree.origin[leaf] + tree.extent[leaf] + halo, shape) - 1
            assert np.array_equal(place.min(axis=0), low) and np.array_equal(place.max(axis=0), high)


def band_limited() -> np.ndarray:
    z, y, x = np.indices((16, 16, 16))
    return np.rint(1000 * np.sin(0.3 * z + 0.2 * y) + 500 * np.sin(0.35 * x - 0.1 * z + 1)).astype(np.int16)


def cubes(shape: tuple[int, ...] = (16, 16, 16)) -> octree.Octree:
    return octree.build(shape, octree.cell_pyramid(shape, (8, 8, 8)), 1, [])


def silent(fraction: float, text: str) -> None:
    assert 0 <= fraction <= 1 and "error" in text


def test_smooth_signals_are_fitted() -> None:
    volume, tree = band_limited(), cubes()
    fit = fit_of(volume, tree, (12, 8, 6))
    found = fit.run(250, silent)
    assert np.array_equal(found.leaves, np.arange(8)) and found.loss.shape == (8,)
    assert found.loss.max() < 5e-3
    # The loss is what a fresh look at the samples says too.
    points, targets = fit.draw_points(2000)
    error = (forward(found.weights, points) - targets).square().mean(1).numpy()
    assert error.max() < 5e-3
    assert all(not w.requires_grad and w.grad is None for w in found.weights)
    assert [tuple(w.shape) for w in found.weights] == [(8, *s) for s in weight_shapes(3, (12, 8, 6))]


def test_fits_repeat_with_the_seed_and_differ_without() -> None:
    volume, tree = band_limited(), cubes()
    first, again, other = (fit_of(volume, tree, (6, 4), seed).run(30, silent) for seed in (4, 4, 5))
    assert np.array_equal(first.draw, again.draw) and np.array_equal(first.loss, again.loss)
    assert np.array_equal(first.sensitivity, again.sensitivity)
    assert all(torch.equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.weights, other.weights, strict=True))


def test_first_layers_start_where_the_decoder_s_do() -> None:
    volume, tree = band_limited(), cubes()
    fit = fit_of(volume, tree, (6, 4), 2**32 - 1)
    stream = SciStream(tree, ((), (6, 4)), ((), (0, 0, 0)), 2**32 - 1, 1.0, 5, -2000, 2000, 1)
    draw = np.arange(8) % 4
    start = fit.initial(draw)
    assert np.array_equal(start[0].numpy(), stream.starts(1, np.arange(8), fit.bandwidth, draw))
    assert not start[1][:, -1].any() and start[1][:, :-1].abs().max() <= 1 and not start[2].any()


def test_the_better_start_is_kept() -> None:
    volume, tree = band_limited(), cubes()
    fit = fit_of(volume, tree, (6, 4), starts=4)
    losses = {}

    def descend(weights: list[torch.Tensor], steps: int, note: Any) -> np.ndarray:
        number = len(losses)
        losses[number] = np.random.default_rng(number).random(8)
        for w in weights:
            w.fill_(number)
        return losses[number]

    fit.descend = descend  # type: ignore[method-assign]
    draw, weights = fit._best_start(3)
    expected = np.argmin([losses[n] for n in range(4)], axis=0)
    assert np.array_equal(draw, expected) and len(set(expected.tolist())) > 2
    for w in weights:
        assert np.array_equal(w[:, 0, 0].numpy(), expected)


def test_one_start_is_not_tried() -> None:
    fit = fit_of(band_limited(), cubes(), (6, 4), starts=1)
    fit.descend = lambda *_: pytest.fail("no trial")  # type: ignore[method-assign]
    draw, _ = fit._best_start(3)
    assert not draw.any()


def test_sensitivities_are_mean_squared_derivatives() -> None:
    """Against finite differences at many points, in double precision."""
    volume, tree = band_limited(), cubes()
    fit = fit_of(volume, tree, (3, 2))
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(8, *s, generator=random) * 0.7 for s in weight_shapes(3, (3, 2))]
    found = np.mean([fit.sensitivity(weights) for _ in range(6)], axis=0)
    points, _ = fit.draw_points(400)
    exact = [w.double() for w in weights]
    for layer, w in enumerate(exact):
        squares = []
        for row in range(w.shape[1]):
            for column in range(w.shape[2]):
                moved = [v.clone() for v in exact]
                moved[layer][:, row, column] += 1e-5
                slope = (forward(moved, points.double()) - forward(exact, points.double())) / 1e-5
                squares.append(float(slope.square().mean()))
        assert found[layer] == pytest.approx(np.mean(squares), rel=0.2)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [sci._schedule(i / 100) for i in range(1, 101)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 1.0 and rates[4] == 1.0
    assert rates[-1] == pytest.approx(0, abs=1e-12) and np.all(np.diff(rates[4:]) < 0)


def test_groups_hold_every_block_of_a_class_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of()
    kind = np.arange(tree.count) % 3
    monkeypatch.setattr(sci, "GROUP_VOXELS", 1000)
    groups = sci.fit_groups(tree, kind)
    for number in (1, 2):
        mine = [leaves for k, leaves in groups if k == number]
        assert np.array_equal(np.concatenate(mine), np.flatnonzero(kind == number)) and len(mine) > 1
        for leaves in mine:
            assert tree.extent[leaves].prod(axis=1)[:-1].sum() <= 1000
    assert {k for k, _ in groups} == {1, 2} and sci.fit_groups(tree, np.zeros(tree.count, dtype=int)) == []


def test_exponents_are_octaves_of_the_mean_sensitivity() -> None:
    def group(leaves: list[int], sensitivity: list[float]) -> sci.FittedClass:
        at = np.array(leaves)
        return sci.FittedClass(at, at, [], np.array(sensitivity), at)

    kind = np.array([1, 1, 1, 2, 0])
    fitted = [group([0], [1.0, 64.0]), group([1, 2], [4.0, 64.0]), group([3], [0.25, 1e-40, 1e40])]
    assert sci.exponents_of(fitted, kind, ((), (3,), (2, 2))) == ((), (2, 6), (-2, -100, 100))
