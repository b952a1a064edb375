"""Spectral scores of octree cells, and the exact choice of the cells that cover a volume best."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.partition import blocks, octree, spectrum

cell_shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


def normals(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def wave(cell: tuple[int, ...], frequency: tuple[int, ...], phase: float = 0.3) -> np.ndarray:
    """One block, shape (1, *cell), of a wave of amplitude 1."""
    turns = sum(k * i / n for k, i, n in zip(frequency, np.indices(cell), cell, strict=True))
    return np.cos(2 * np.pi * (turns + phase)).astype(np.float32)[None]


def by_definition(block: np.ndarray, threshold: float) -> float:
    """Concentration of one block from its full spectrum, in double precision, a frequency and its negative as one."""
    magnitude = np.abs(np.fft.fftn(block - block.mean()))
    amplitudes = {}
    for at in np.ndindex(*block.shape):
        negative = tuple(-k % n for k, n in zip(at, block.shape, strict=True))
        if any(at) and magnitude[at] > threshold:
            amplitudes[min(at, negative)] = magnitude[at] * (1 if at == negative else 2)
    return max(amplitudes.values()) / sum(amplitudes.values()) if amplitudes else 1.0


@settings(max_examples=60, deadline=None)
@given(cell_shapes, st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.5]))
def test_concentration_is_its_definition(cell: tuple[int, ...], seed: int, noise: float) -> None:
    samples = normals((2, *cell), seed)
    count = spectrum.wave_count(cell)
    threshold = noise * math.sqrt(math.prod(cell) * math.log(max(count, 1) / 0.01))
    expected = [by_definition(block.astype(float), threshold) for block in samples]
    assert spectrum.concentration(samples, noise) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("cell", "count"), [((1,), 0), ((2,), 1), ((5,), 2), ((8,), 4), ((2, 2), 3), ((3, 1, 4), 6)])
def test_wave_count_known_values(cell: tuple[int, ...], count: int) -> None:
    assert spectrum.wave_count(cell) == count


@settings(max_examples=40, deadline=None)
@given(cell_shapes, st.floats(-1000, 1000, width=16), st.sampled_from([0.0, 0.3]), st.integers(0, 2**32))
def test_an_offset_changes_nothing(cell: tuple[int, ...], offset: float, noise: float, seed: int) -> None:
    # Whole numbers of 1/64 stay exact whatever the offset.
    samples = np.round(normals((3, *cell), seed) * 64) / 64
    moved = samples + np.float32(round(offset * 64) / 64)
    assert spectrum.concentration(moved, noise) == pytest.approx(spectrum.concentration(samples, noise), rel=1e-3)
    assert np.array_equal(spectrum.is_flat(moved, noise), spectrum.is_flat(samples, noise))


def test_an_offset_that_rounds_the_mean_changes_nothing() -> None:
    samples = np.round(normals((5, 6, 6, 6)) * 2)
    expected = spectrum.concentration(samples, 0.1)
    assert spectrum.concentration(samples + np.float32(16_000_000), 0.1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-18, 1 / 8, 4096.0, 1e18])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_only_the_ratio_to_the_noise_matters(scale: float, noise: float) -> None:
    samples = normals((4, 5, 6, 4)) + 3 * wave((5, 6, 4), (1, 2, 0))
    samples[0] *= 0.01
    plain, scaled = spectrum.concentration(samples, noise), spectrum.concentration(samples * scale, noise * scale)
    assert scaled == pytest.approx(plain, rel=1e-4)
    assert np.array_equal(spectrum.is_flat(samples * scale, noise * scale), spectrum.is_flat(samples, noise))


@pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 3e7])
@pytest.mark.parametrize("cell", [(1,), (7,), (8, 8), (3, 5, 6), (2, 3, 4, 5)])
def test_a_constant_block_scores_exactly_one(value: float, cell: tuple[int, ...]) -> None:
    samples = np.full((3, *cell), value, dtype=np.float32)
    assert spectrum.concentration(samples, 0.0).tolist() == [1.0] * 3
    assert spectrum.normalised(np.ones(3), spectrum.wave_count(cell)).tolist() == [1.0] * 3
    assert spectrum.is_flat(samples, 0.0).all()


@pytest.mark.parametrize("frequency", [(1, 0, 0), (2, 3, 1), (4, 4, 4), (0, 0, 4), (4, 1, 0)])
def test_a_pure_wave_scores_far_above_white_noise(frequency: tuple[int, ...]) -> None:
    """Frequencies that are their own negative are no exception."""
    cell = (8, 8, 8)
    pure = spectrum.concentration(wave(cell, frequency), 0.0)
    assert pure == pytest.approx([1.0], abs=1e-3)
    assert pure > 50 * spectrum.concentration(normals((20, *cell)), 0.0).max()


def test_an_impulse_is_all_waves_alike() -> None:
    impulse = np.zeros((1, 6, 6, 5), dtype=np.float32)
    impulse[0, 2, 3, 1] = 9
    count = spectrum.wave_count((6, 6, 5))
    amplitudes = (180 - 1) / 2  # waves that are their own negative count half as much as the others
    assert spectrum.concentration(impulse, 0.0) == pytest.approx([1 / amplitudes], rel=1e-4)
    assert spectrum.normalised(np.array([1 / count]), count) == pytest.approx([0.0], abs=1e-12)


def power_law(shape: tuple[int, ...], slope: float) -> np.ndarray:
    frequency = np.sqrt(sum(g**2 for g in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    frequency.flat[0] = np.inf
    return np.fft.ifftn(np.fft.fftn(normals(shape)) * frequency**-slope).real.astype(np.float32)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.15), (1.0, 0.30), (2.0, 0.54)])
def test_normalised_scores_hardly_depend_on_the_size(slope: float, expected: float) -> None:
    """Between cubes of 8 and 32 the concentration itself falls seven- to fiftyfold for slopes up to 1."""
    volume = power_law((64, 64, 64), slope)
    cells = ((32, 32, 32), (16, 16, 16), (8, 8, 8))
    scores, _ = spectrum.level_scores(volume, cells, range(3), 0.0)
    assert [float(s.mean()) for s in scores] == pytest.approx([expected] * 3, abs=0.06)
    raw = [float((spectrum.wave_count(c) ** (s - 1)).mean()) for s, c in zip(scores, cells, strict=True)]
    assert slope == 2.0 or raw[2] > 6 * raw[0]


def test_noise_alone_is_background() -> None:
    samples = normals((300, 8, 8, 8)) * 5 + 100
    flat = spectrum.is_flat(samples, 5.0)
    assert flat.mean() > 0.95
    assert np.all(spectrum.concentration(samples, 5.0)[flat] == 1)
    # Noise that is known a quarter too low must not look complex either.
    scores = spectrum.normalised(spectrum.concentration(samples, 5.0 * 0.75), spectrum.wave_count((8, 8, 8)))
    assert scores.mean() > 0.95
    assert spectrum.concentration(samples, 0.0).max() < 0.05


def test_signal_in_noise_is_not_background() -> None:
    noisy = normals((20, 8, 8, 8)) + 2 * wave((8, 8, 8), (1, 2, 0))
    assert not spectrum.is_flat(noisy, 1.0).any()
    assert spectrum.concentration(noisy, 1.0).mean() > 0.9
    spotted = 0.1 * normals((20, 8, 8, 8))
    spotted[:, 3, 4, 5] += 10 * 0.1
    assert not spectrum.is_flat(spotted, 0.1).any(), "one bright voxel hides in the spectrum but not among the samples"


@pytest.mark.parametrize("shape", [(4000,), (90, 80), (40, 33, 50), (3, 60, 70), (1, 90, 80), (9, 10, 11, 12)])
@pytest.mark.parametrize("noise", [0.5, 20.0])
def test_noise_level_finds_the_noise(shape: tuple[int, ...], noise: float) -> None:
    ramps = sum(np.indices(shape)).astype(np.float32)
    assert spectrum.noise_level(ramps + noise * normals(shape)) == pytest.approx(noise, rel=0.1)


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1, 1), (64,), (30, 40), (7, 33, 30), (5, 6, 7, 8)])
def test_noise_level_of_noiseless_volumes_is_zero(shape: tuple[int, ...]) -> None:
    assert spectrum.noise_level(np.full(shape, 7, dtype=np.int16)) == 0
    halves = np.zeros(shape, dtype=np.uint8)
    halves[..., shape[-1] // 3 :] = 200
    assert spectrum.noise_level(halves) == 0
    assert spectrum.noise_level(sum(np.indices(shape)) * np.float32(0.5) if max(shape) > 2 else halves) == 0


def test_noise_level_ignores_a_masked_background() -> None:
    volume = np.zeros((40, 40, 80), dtype=np.float32)
    volume[:, :, :24] = 4 * normals((40, 40, 24))
    assert spectrum.noise_level(volume) == pytest.approx(4, rel=0.05)


def test_border_cells_are_scored_on_their_own_samples() -> None:
    volume = normals((9, 13, 6)) + 50
    cell = (4, 5, 8)
    (score,), (flat,) = spectrum.level_scores(volume, (cell,), [0], 0.2)
    assert score.shape == flat.shape == (3, 3, 1)
    for at in np.ndindex(score.shape):
        block = volume[tuple(slice(i * e, i * e + e) for i, e in zip(at, cell, strict=True))]
        alone = spectrum.concentration(block[None], 0.2)
        assert score[at] == pytest.approx(spectrum.normalised(alone, spectrum.wave_count(block.shape))[0], abs=1e-6)
        assert flat[at] == spectrum.is_flat(block[None], 0.2)[0]


@pytest.mark.parametrize("shape", [(1,), (50,), (3, 2), (17, 40), (1, 33, 20), (7, 30, 31), (5, 9, 10, 3)])
def test_any_number_of_axes(shape: tuple[int, ...]) -> None:
    cells = octree.cell_pyramid(shape, octree.finest_cell(shape, (8,) * len(shape)))
    levels = spectrum.levels_for(4, cells, shape)
    scores, flat = spectrum.level_scores(normals(shape), cells, levels, 0.0)
    voxels = [spectrum.sample_counts(shape, cells[level]) for level in levels]
    assert [s.shape for s in scores] == [v.shape for v in voxels] == [octree.grid_of(shape, cells[v]) for v in levels]
    assert all(np.all((s >= 0) & (s <= 1)) for s in scores) and all(v.sum() == math.prod(shape) for v in voxels)
    fans = [octree.fan_of(cells, level) for level in levels[:-1]]
    splits = spectrum.best_cover(scores, voxels, fans, 4, flat)
    assert octree.build(shape, cells[: levels[-1] + 1], levels[0], splits).count <= 4


def test_a_volume_smaller_than_a_cell() -> None:
    (score,), (flat,) = spectrum.level_scores(wave((4, 5, 6), (0, 1, 0))[0], ((8, 8, 8),), [0], 0.0)
    assert score.tolist() == [[[pytest.approx(1.0, abs=1e-3)]]] and not flat.any()


def test_a_volume_of_background() -> None:
    cells = octree.cell_pyramid((20, 30, 11), (4, 4, 4))
    levels = range(len(cells))
    scores, flat = spectrum.level_scores(np.full((20, 30, 11), -1000, dtype=np.int16), cells, levels, 0.0)
    assert all(f.all() for f in flat) and all(np.all(s == 1) for s in scores)
    voxels = [spectrum.sample_counts((20, 30, 11), cell) for cell in cells]
    fans = [octree.fan_of(cells, level) for level in levels[:-1]]
    splits = spectrum.best_cover(scores, voxels, fans, 0, flat)
    assert not any(s.any() for s in splits), "background needs no block and no split"


def test_one_bright_voxel_is_alone_in_a_small_cell() -> None:
    volume = np.zeros((32, 32, 32), dtype=np.uint8)
    volume[9, 21, 30] = 255
    cells = octree.cell_pyramid(volume.shape, (8, 8, 8))
    scores, flat = spectrum.level_scores(volume, cells, range(3), spectrum.noise_level(volume))
    assert [int((~f).sum()) for f in flat] == [1, 1, 1]
    voxels = [spectrum.sample_counts(volume.shape, cell) for cell in cells]
    tree = octree.build(volume.shape, cells, 0, spectrum.best_cover(scores, voxels, [(2, 2, 2)] * 2, 1, flat))
    assert np.bincount(tree.level).tolist() == [0, 7, 8]
    assert tree.overlapping(np.array([9, 21, 30]), np.array([10, 22, 31])).tolist() == [
        int(np.flatnonzero((tree.level == 2) & np.all(tree.index == [1, 2, 3], axis=1))[0])
    ]


def test_a_label_map_costs_blocks_only_where_labels_meet() -> None:
    volume = np.zeros((32, 32), dtype=np.uint16)
    volume[:, 16:] = 7
    volume[3:6, 20:27] = 0
    cells = octree.cell_pyramid(volume.shape, (8, 8))
    assert spectrum.noise_level(volume) == 0
    scores, flat = spectrum.level_scores(volume, cells, range(3), 0.0)
    assert (~flat[1]).tolist() == [[False, True], [False, False]]
    assert np.argwhere(~flat[2]).tolist() == [[0, 2], [0, 3]]
    voxels = [spectrum.sample_counts(volume.shape, cell) for cell in cells]
    splits = spectrum.best_cover(scores, voxels, [(2, 2)] * 2, 2, flat)
    assert splits[0].all() and splits[1].tolist() == [[False, True], [False, False]]


def test_a_mapped_volume_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = (normals((48, 96, 100)) * 100).astype(np.int16)
    np.save(tmp_path / "volume.npy", volume)
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="r")
    monkeypatch.setattr(blocks, "_BATCH_SAMPLES", 1 << 12)
    cells = ((16, 16, 16), (8, 8, 8))
    tracemalloc.start()
    try:
        scores, flat = spectrum.level_scores(mapped, cells, range(2), 30.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < volume.nbytes / 2
    expected, still = spectrum.level_scores(volume, cells, range(2), 30.0)
    assert all(np.array_equal(a, b) for a, b in zip([*scores, *flat], [*expected, *still], strict=True))


def test_noise_is_measured_on_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "_NOISE_SAMPLES", 1 << 14)
    gathered = []
    plain = blocks.gather

    def watched(volume: np.ndarray, origin: np.ndarray, cell: tuple[int, ...]) -> np.ndarray:
        gathered.append(len(origin) * math.prod(cell))
        return plain(volume, origin, cell)

    monkeypatch.setattr(blocks, "gather", watched)
    assert spectrum.noise_level(3 * normals((60, 60, 60))) == pytest.approx(3, rel=0.1)
    assert 0 < sum(gathered) <= 1 << 14


def test_sample_counts_known_values() -> None:
    assert spectrum.sample_counts((5, 6), (2, 4)).tolist() == [[8, 4], [8, 4], [4, 2]]
    assert spectrum.sample_counts((3,), (8,)).tolist() == [3]


def test_levels_for_counts_the_cells() -> None:
    cells = octree.cell_pyramid((128, 128, 128), (8, 8, 8))
    assert [spectrum.levels_for(n, cells, (128,) * 3) for n in (1, 7, 8, 64, 511, 512, 10**6)] == [
        range(0, 3), range(0, 3), range(1, 4), range(2, 5), range(2, 5), range(3, 5), range(4, 5),
    ]  # fmt: skip
    thin = octree.cell_pyramid((3, 100, 128), (3, 8, 8))
    assert spectrum.levels_for(8, thin, (3, 100, 128)) == range(1, 4), "four cells of level 1, sixteen of level 2"
    with pytest.raises(ValueError, match="at least 4 blocks, the cells of level 0, got 3"):
        spectrum.levels_for(3, thin[1:], (3, 100, 128))


def covers(
    values: list[np.ndarray], costs: list[np.ndarray], fans: list[tuple[int, ...]], level: int, cell: tuple[int, ...]
) -> list[tuple[float, int, int]]:
    """Value, blocks and leaves of every cover of a cell."""
    every = [(float(values[level][cell]), int(costs[level][cell]), 1)]
    if level + 1 < len(values):
        grid = values[level + 1].shape
        children = itertools.product(
            *(range(c * f, min(c * f + f, n)) for c, f, n in zip(cell, fans[level], grid, strict=True))
        )
        every += every_sum([covers(values, costs, fans, level + 1, child) for child in children])
    return every


def every_sum(parts: list[list[tuple[float, int, int]]]) -> list[tuple[float, int, int]]:
    """Sums of one of each part, alike ones once."""
    total = {(0.0, 0, 0)}
    for part in parts:
        total = {(a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a in total for b in part}
    return sorted(total)


trees = st.sampled_from(
    [
        ((7,), ((4,), (2,))),
        ((19,), ((8,), (4,), (2,))),
        ((5, 3), ((4, 4), (2, 2))),
        ((9, 4), ((8, 4), (4, 2), (2, 1))),
        ((6, 1, 7), ((4, 1, 4), (2, 1, 2))),
        ((3, 5, 2), ((4, 4, 2), (2, 2, 1))),
        ((2, 3, 2, 1), ((2, 2, 2, 1), (1, 1, 1, 1))),
        ((9, 5), ((4, 2),)),
    ]
)


@settings(max_examples=150, deadline=None)
@given(trees, st.integers(0, 2**32), st.sampled_from([3, 1000]), st.sampled_from([0.0, 0.4, 0.9]), st.data())
def test_best_cover_is_as_good_as_any(
    tree: tuple[tuple[int, ...], octree.Cells], seed: int, steps: int, background: float, data: st.DataObject
) -> None:
    shape, cells = tree
    random = np.random.default_rng(seed)
    voxels = [spectrum.sample_counts(shape, cell) for cell in cells]
    fans = [octree.fan_of(cells, level) for level in range(len(cells) - 1)]
    scores = [random.integers(0, steps + 1, v.shape) / 1024 for v in voxels]
    free = [random.random(v.shape) < background for v in voxels]
    values = [s * v for s, v in zip(scores, voxels, strict=True)]
    costs = [1 - f.astype(int) for f in free]
    every = every_sum([covers(values, costs, fans, 0, cell) for cell in np.ndindex(*scores[0].shape)])
    least, leaves = min(e[1] for e in every), voxels[-1].size
    most = data.draw(st.integers(max(0, least - 1), leaves + 1))
    given_free = free if background or data.draw(st.booleans()) else None
    if most < least:
        with pytest.raises(ValueError, match=f"room for at least {least} blocks"):
            spectrum.best_cover(scores, voxels, fans, most, given_free)
        return
    splits = spectrum.best_cover(scores, voxels, fans, most, given_free)
    assert [s.shape for s in splits] == [s.shape for s in scores[:-1]] and all(s.dtype == bool for s in splits)
    chosen = octree.build(shape, cells, 0, splits)
    assert sum(s.sum() for s in splits) == sum(f.sum() for f in chosen.split_flags()), "nothing below a whole cell"
    own = [(int(v), tuple(i)) for v, i in zip(chosen.level, chosen.index, strict=True)]
    value, count = sum(values[v][i] for v, i in own), sum(int(costs[v][i]) for v, i in own)
    best = max(e[0] for e in every if e[1] <= most)
    assert value == best, "all numbers here are exact in binary"
    assert count == min(e[1] for e in every if e[0] == best), "of equally good covers the one of fewest blocks"
    if background == 0:
        assert chosen.count == count


def test_best_cover_splits_only_where_it_gains() -> None:
    """Four cells of equal scores but one, whose children are better; the last has children better still but no room."""
    scores = [np.array([0.1, 0.1, 0.3, 0.5]), np.array([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.9, 0.7])]
    voxels = [np.full(4, 10), np.full(8, 5)]
    pick = [spectrum.best_cover(scores, voxels, [(2,)], most)[0].tolist() for most in (4, 5, 6, 8, 100)]
    one, both = [False, False, False, True], [False, True, False, True]
    assert pick == [[False] * 4, one, both, both, both]


def test_best_cover_gives_one_child_hundreds_of_blocks() -> None:
    cells = octree.cell_pyramid((1024,), (1,))
    scores = [np.zeros(1024 // cell[0]) for cell in cells]
    scores[-1][512:] = 1
    voxels = [spectrum.sample_counts((1024,), cell) for cell in cells]
    tree = octree.build((1024,), cells, 0, spectrum.best_cover(scores, voxels, [(2,)] * 10, 513))
    assert np.bincount(tree.level).tolist() == [0, 1] + [0] * 8 + [512]


def test_best_cover_does_not_split_for_rounding() -> None:
    """Sums of 0.1 times odd numbers of samples differ in their last bits, which is no reason to split."""
    shape, cells = (101, 103), octree.cell_pyramid((101, 103), (7, 7))
    voxels = [spectrum.sample_counts(shape, cell) for cell in cells]
    fans = [octree.fan_of(cells, level) for level in range(len(cells) - 1)]
    splits = spectrum.best_cover([np.full(v.shape, 0.1) for v in voxels], voxels, fans, 1000)
    assert not any(s.any() for s in splits)


def test_best_cover_needs_a_block_for_every_first_cell() -> None:
    scores, voxels = [np.ones(6), np.ones(12)], [np.full(6, 2), np.ones(12)]
    free = [np.arange(6) < 2, np.arange(12) < 6]
    with pytest.raises(ValueError, match="expected room for at least 6 blocks, those the coarsest cover has, got 5"):
        spectrum.best_cover(scores, voxels, [(2,)], 5)
    with pytest.raises(ValueError, match="at least 3 blocks"):
        spectrum.best_cover(scores, voxels, [(2,)], 2, free)
    assert spectrum.best_cover(scores, voxels, [(2,)], 3, free)[0].tolist() == [False, False, True] + [False] * 3
