"""Blended networks: every way to ask for a sample gives the same, seams are smooth, hostile weights are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.networks import BlockNetworks, fit_statistics
from inrcodec.models.sci import weight_shapes
from inrcodec.partition import octree
from inrcodec.partition.blocks import blend_ramp, gather
from inrcodec.payload.sci import SciStream
from inrcodec.reconstruct.base import Chunk
from inrcodec.reconstruct.sci import SciReconstruction
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import choose

CLASSES = ((), (6,), (5, 4))
EXPONENTS = ((), (0, 0), (0, 0, 0))
STEP = 0.25


class View:
    """A reconstruction with its blocks, cut into chunks."""

    def __init__(self, stream: SciStream, blocks: BlockNetworks, chunk: int = 5) -> None:
        offsets = [[6] * len(sizes) for sizes in stream.shapes.sizes]
        self.blocks, self.chunk, self.shape = blocks, chunk, stream.tree.shape
        self.inner = SciReconstruction(stream, fit_statistics(stream.shapes, blocks, offsets), choose("cpu"))

    def chunks(self, leaves: np.ndarray) -> Iterator[Chunk[BlockNetworks]]:
        for first in range(0, len(self.blocks), self.chunk):
            stop = min(first + self.chunk, len(self.blocks))
            wanted = np.isin(np.arange(first, stop), leaves)
            if wanted.any():
                yield Chunk(first, stop, self.blocks.part(first, stop), wanted)

    def box(self, start: Any, stop: Any) -> np.ndarray:
        return self.inner.box(np.array(start), np.array(stop), self.chunks)

    def grid(self, *axes: Any) -> np.ndarray:
        return self.inner.grid([np.asarray(a, dtype=np.float64) for a in axes], self.chunks)

    def points(self, points: Any) -> np.ndarray:
        return self.inner.points(np.asarray(points, dtype=np.float64), self.chunks)

    def whole(self) -> np.ndarray:
        return self.box([0] * len(self.shape), self.shape)


def tree_of(shape: tuple[int, ...], seed: int = 0) -> octree.Octree:
    cells = octree.cell_pyramid(shape, tuple(min(n, e) for n, e in zip(shape, (4, 3, 5, 4), strict=False)))
    top = max(len(cells) - 3, 0)
    random = np.random.default_rng(seed)
    splits = [random.random(octree.grid_of(shape, cell)) < 0.6 for cell in cells[top:-1]]
    if splits:
        splits[0][:] = True
    return octree.build(shape, cells, top, splits)


def view_of(shape: tuple[int, ...], halo: int, seed: int = 0) -> View:
    """Blocks of all classes with networks of random weights."""
    tree = tree_of(shape, seed)
    stream = SciStream(tree, CLASSES, EXPONENTS, 7, STEP, 40, -1000, 1000, halo)
    random = np.random.default_rng(seed)
    kind = (random.integers(0, 3) + np.arange(tree.count)) % 3
    live = kind > 0
    scale = np.where(live, random.integers(4, 13, tree.count), 0)
    finer = 2.0 ** ((scale + stream.sizes[tree.level]) / 2) / STEP
    weights = [
        np.rint(finer[k] * random.uniform(-1.5, 1.5, stream.shapes.totals[kind[k]])).astype(int)
        for k in np.flatnonzero(live)
    ]
    blocks = BlockNetworks(
        kind,
        random.integers(-300, 300, tree.count),
        scale,
        np.where(live[:, None], random.integers(-3, 4, (tree.count, len(shape))), 0),
        np.where(live, random.integers(0, 4, tree.count), 0),
        stream.sizes[tree.level],
        weights,
    )
    return View(stream, blocks)


SHAPES = [(37,), (14, 17), (13, 10, 11), (5, 6, 7, 6), (1, 19, 8)]


def every_point(shape: tuple[int, ...]) -> np.ndarray:
    return np.argwhere(np.ones(shape, dtype=bool)).astype(float)


@pytest.mark.parametrize("halo", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_box_grid_and_points_agree(shape: tuple[int, ...], halo: int) -> None:
    view = view_of(shape, halo)
    whole = view.whole()
    assert whole.shape == shape and whole.dtype == np.float32 and np.ptp(whole) > 40
    assert np.array_equal(view.grid(*(np.arange(n) for n in shape)), whole)
    assert view.points(every_point(shape)).reshape(shape) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize("halo", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_are_the_definition(shape: tuple[int, ...], halo: int) -> None:
    """Every block at every voxel: its mean, plus its spread times its net, blended by its ramps."""
    view = view_of(shape, halo)
    assert view.whole() == pytest.approx(by_definition(view), abs=0.01)


def by_definition(view: View) -> np.ndarray:
    stream, blocks = view.inner.stream, view.blocks
    at = every_point(view.shape)
    total, share = np.zeros(len(at)), np.zeros(len(at))
    numbers = {k: i for i, k in enumerate(np.flatnonzero(blocks.kind).tolist())}
    for leaf in range(len(blocks)):
        origin, extent = stream.tree.origin[leaf], stream.tree.extent[leaf]
        weight = np.prod(
            [ramp_by_hand(at[:, a], origin[a], extent[a], stream.halo) for a in range(len(view.shape))], axis=0
        )
        hidden = 2 * (at + 0.5 - origin) / extent - 1
        value = np.full(len(at), float(blocks.mean[leaf]))
        if blocks.kind[leaf]:
            layers = layers_by_hand(stream, blocks, leaf, blocks.weights[numbers[leaf]])
            for w in layers[:-1]:
                hidden = np.sin(hidden @ w[:-1] + w[-1])
            value += 2.0 ** (blocks.scale[leaf] / 2) * (hidden @ layers[-1][:-1] + layers[-1][-1])[:, 0]
        total += weight * value
        share += weight
    assert np.all(share > 0)
    return (total / share + stream.offset).reshape(view.shape)


def ramp_by_hand(x: np.ndarray, origin: int, extent: int, halo: int) -> np.ndarray:
    """How deep inside the block, counted from `halo` samples outside, in units of both halos; 1 at most."""
    depth = np.minimum(x - (origin - 0.5), (origin + extent - 0.5) - x)
    if halo == 0:
        return (depth > 0).astype(float)
    return np.clip((depth + halo) / (2 * halo), 0, 1)


def layers_by_hand(stream: SciStream, blocks: BlockNetworks, leaf: int, integers: np.ndarray) -> list[np.ndarray]:
    kind, size = int(blocks.kind[leaf]), int(np.log2(stream.tree.extent[leaf].prod()))
    layers, at = [], 0
    for shape, exponent in zip(weight_shapes(stream.ndim, stream.classes[kind]), stream.exponents[kind], strict=True):
        step = stream.step * 2.0 ** (-(exponent + blocks.scale[leaf] + size) / 2)
        layers.append(step * integers[at : at + math.prod(shape)].reshape(shape))
        at += math.prod(shape)
    one = np.array([leaf])
    layers[0] = layers[0] + stream.starts(kind, one, blocks.bandwidth[one], blocks.draw[one])[0]
    return layers


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 3), st.integers(0, 3), st.data())
def test_any_box_is_the_crop_of_the_whole(shape: tuple[int, ...], halo: int, seed: int, data: st.DataObject) -> None:
    view = view_of(shape, halo, seed)
    ends = [sorted((data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n)))) for n in shape]
    ends = [(a, max(b, a + 1)) for a, b in ends]
    crop = view.whole()[tuple(slice(a, b) for a, b in ends)]
    assert view.box(*np.array(ends).T) == pytest.approx(crop, abs=0.01)


@pytest.mark.parametrize("halo", [0, 1, 2, 3])
@pytest.mark.parametrize("strides", [(1, 3, 2), (2, 1, 5), (7, 3, 3)])
def test_strided_grids_are_strides_of_the_whole(halo: int, strides: tuple[int, ...]) -> None:
    view = view_of((13, 10, 11), halo, 1)
    found = view.grid(*(np.arange(0, n, s) for n, s in zip(view.shape, strides, strict=True)))
    assert found == pytest.approx(view.whole()[tuple(slice(None, None, s) for s in strides)], abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 3), st.data())
def test_grids_of_any_positions_are_points(shape: tuple[int, ...], halo: int, data: st.DataObject) -> None:
    view = view_of(shape, halo, 2)
    axes = [np.array(sorted(data.draw(st.lists(st.floats(-0.499, n - 0.501), min_size=1, max_size=5)))) for n in shape]
    # Far from a sharp face, where one rounding more or less decides between two blocks.
    axes = [np.where(np.abs(a - np.floor(a) - 0.5) < 1e-3, np.floor(a), a).clip(0) for a in axes]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    assert view.grid(*axes).ravel() == pytest.approx(view.points(mesh), abs=0.02)


@pytest.mark.parametrize("halo", [0, 1, 2, 3, 8])
def test_the_outermost_points_belong_to_the_signal(halo: int) -> None:
    for shape in ((16, 12), (8, 6), (13, 11)):
        view = view_of(shape, halo)
        corners = [(a, b) for a in (-0.5, shape[0] - 0.5) for b in (-0.5, 3.0, shape[1] - 0.5)]
        found = view.points(corners)
        assert np.all(np.isfinite(found))
        inner = [
            (min(max(a, -0.499999), shape[0] - 0.500001), min(max(b, -0.499999), shape[1] - 0.500001))
            for a, b in corners
        ]
        assert found == pytest.approx(view.points(inner), abs=0.05)


def test_positions_a_rounding_away_from_a_sharp_face_belong_to_a_block() -> None:
    view = constants_of([100, 200], halo=0)
    face = 7.5
    near = [np.nextafter(face, 0), face - 1e-12, face, np.nextafter(face, 9), face + 1e-12]
    assert view.grid(sorted(near)).tolist() == [100, 100, 200, 200, 200]
    assert view.points(np.array(near)[:, None]).tolist() == [100, 100, 200, 200, 200]


def constants_of(means: list[int], halo: int) -> View:
    """A row of blocks of eight samples, each its mean."""
    shape = (8 * len(means),)
    cells = octree.cell_pyramid(shape, (8,))
    top = len(cells) - 1
    tree = octree.build(shape, cells, top, [])
    stream = SciStream(tree, ((),), ((),), 0, 1.0, 0, -1000, 1000, halo)
    none = np.zeros(len(means), dtype=np.int64)
    return View(stream, BlockNetworks(none, np.array(means), none, none[:, None], none, stream.sizes[tree.level]))


def test_halos_turn_faces_into_ramps() -> None:
    assert constants_of([0, 80], halo=0).whole().tolist() == [0] * 8 + [80] * 8
    # From two samples before the face to two beyond it, a quarter a sample.
    assert constants_of([0, 80], halo=2).whole().tolist() == [0] * 6 + [10, 30, 50, 70] + [80] * 6
    assert constants_of([0, 80], halo=1).whole().tolist() == [0] * 7 + [20, 60] + [80] * 7
    wide = constants_of([0, 80, -80], halo=4).whole()
    assert wide[:4].tolist() == [0] * 4 and np.allclose(np.diff(wide[4:12]), 10, atol=1e-4)


def test_constants_stay_constant_under_any_halo() -> None:
    for halo in range(9):
        assert constants_of([55] * 5, halo).whole() == pytest.approx(55, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_ramps_of_neighbours_add_up(halo: int, longer: list[int]) -> None:
    """Of blocks at least as long as both halos."""
    edges = np.cumsum([0, *(max(2 * halo, 1) + n for n in longer)]).tolist()
    x = np.arange(edges[-1]) + 0.3
    x = x[(x >= halo) & (x <= edges[-1] - 1 - halo)]
    total = np.zeros(len(x))
    for a, b in pairwise(edges):
        ramp = blend_ramp(x, a, b - a, halo)
        assert np.allclose(ramp, ramp_by_hand(x, a, b - a, halo), atol=1e-12)
        assert np.all((ramp >= 0) & (ramp <= 1))
        total += ramp
    assert np.allclose(total, 1, atol=1e-12)


def test_blocks_before_the_origin_repeat_the_first_samples() -> None:
    volume = np.arange(24, dtype=np.int16).reshape(4, 6)
    found = gather(volume, np.array([[-2, 3], [1, -1], [-3, -9]]), (3, 4)).reshape(3, 3, 4)
    padded = np.pad(volume, ((9, 9), (9, 9)), mode="edge")
    for block, (a, b) in zip(found, [(-2, 3), (1, -1), (-3, -9)], strict=True):
        assert np.array_equal(block, padded[a + 9 : a + 12, b + 9 : b + 13])


def linear_view(slope: tuple[float, ...], halo: int) -> View:
    """Every block's net is sin(s x) / s, next to x itself, so that together they are a plane."""
    shape = (16, 16)
    cells = octree.cell_pyramid(shape, (8, 8))
    tree = octree.build(shape, cells, 1, [])
    small, step = 0.01, 2.0**-16
    stream = SciStream(tree, ((), (2,)), ((), (0, 0)), 0, step, 100, -1000, 1000, halo)
    count = tree.count
    none, level = np.zeros(count, dtype=np.int64), tree.level
    bandwidth, one = np.zeros((count, 2), dtype=np.int64), np.ones(count, dtype=np.int64)
    start = stream.starts(1, np.arange(count), bandwidth, none).astype(float)
    weights = []
    for k in range(count):
        first = np.array([[slope[0], slope[1]], [slope[1], -slope[0]], [0, 0]]) * small
        last = np.array([slope[0] * 4 / small, slope[1] * 4 / small, 0]) / (slope[0] ** 2 + slope[1] ** 2)
        # The two sines point along the slope and across it; their sum, so weighted, is 4 (1, ...) along axis 0 only.
        steps = stream.steps(1, level[k : k + 1], none[:1])[0]
        weights.append(np.rint(np.concatenate([((first - start[k]) / steps[0]).ravel(), last / steps[1]])).astype(int))
    mean = (4 * (2 * tree.origin[:, 0] / 8 + 1)).astype(np.int64)
    return View(stream, BlockNetworks(one, mean, none, bandwidth, none, stream.sizes[level], weights))


@pytest.mark.parametrize("halo", [0, 1, 3])
def test_a_linear_signal_by_hand(halo: int) -> None:
    """4 u + mean in block coordinates u is z + 0.5 in voxels: continued without a seam, between voxels too."""
    view = linear_view((0.6, 0.8), halo)
    z = np.linspace(-0.45, 15.4, 40)
    found = view.grid(z, np.array([0.2, 5.0, 11.3]))
    assert found == pytest.approx(np.repeat((100.5 + z)[:, None], 3, axis=1), abs=0.01)


def test_evaluations_are_counted_where_blocks_are_wanted() -> None:
    view = view_of((40, 40), 1)
    view.box([3, 3], [5, 6])
    assert 0 < view.inner.evaluated < 100


def hostile(change: Callable[[BlockNetworks], BlockNetworks], **fields: Any) -> View:
    view = view_of((14, 17), 1)
    return View(replace(view.inner.stream, **fields), change(view.blocks))


def test_networks_that_overflow_are_refused() -> None:
    """Steps of 2^94 times weights of 2^30: beyond float32, and the sine of infinity is no number."""
    wild = hostile(
        lambda b: replace(b, scale=np.where(b.kind > 0, -64, 0), weights=[w * 2**23 for w in b.weights]),
        step=2.0**30,
        exponents=((), (-128, -128), (-128, -128, -128)),
    )
    for act in (wild.whole, lambda: wild.points(every_point((14, 17)))):
        with pytest.raises(ContainerError, match="finite values") as error:
            act()
        assert "\n" not in str(error.value)


def test_costs_tell_constants_and_weights() -> None:
    view = view_of((14, 17), 1)
    assert set(view.blocks.kind.tolist()) == {0, 1, 2}
    costs = view.inner.costs(view.blocks, 0, len(view.blocks))
    assert np.array_equal(costs.constant, view.blocks.kind == 0)
    assert costs.weights.tolist() == [1 + (0, 25, 44)[k] for k in view.blocks.kind]
    assert np.all(costs.bits > 0) and costs.bits[~costs.constant].min() > costs.bits[costs.constant].max()
    details = view.inner.details()
    assert details["network_classes"] == ["6", "5-4"] and details["halo"] == 1
    assert sum(details["blocks_by_size"].values()) == len(view.blocks)  # type: ignore[attr-defined]
