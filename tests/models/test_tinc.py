"""The tree-structured network: layout, sharing of segments, coordinates, whitened basis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from inrcodec.models.readout import ChainReadout, sample_points
from inrcodec.models.tinc import TincLayout, TincModel, parameter_count, parameter_shapes
from inrcodec.partition.blocks import scatter
from inrcodec.partition.octree import cell_pyramid
from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.chains import features

NUMBA = Backend("numba")
DENSE: dict[str, Any] = {"root": "dense", "hidden": (7, 5)}
KINDS: dict[str, dict[str, Any]] = {
    "separable": {},
    "dense, local": DENSE,
    "dense, global": DENSE | {"coordinates": "global"},
    "dense, local, segments": DENSE | {"segments": ((2, 6), (1, 8))},
    "dense, global, segments": DENSE | {"segments": ((2, 6), (1, 8)), "coordinates": "global"},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
DENSE_KINDS = pytest.mark.parametrize("kind", [k for k in KINDS.values() if k], ids=[n for n, k in KINDS.items() if k])
WITH_SEGMENTS = pytest.mark.parametrize("kind", [k for k in KINDS.values() if "segments" in k])


def layout(kind: dict[str, Any], shape: tuple[int, ...] = (20, 13, 9), **others: Any) -> TincLayout:
    """Three tree levels below the root cell; leaves on the last two."""
    cells = cell_pyramid(shape, (4,) * len(shape))
    choices = {"top": len(cells) - 2, "features": 40, "axis_weights": (16,) * len(shape)}
    return TincLayout(shape, cells, **(choices | kind | others))


def cell_indices(made: TincLayout, level: int) -> np.ndarray:
    return np.argwhere(np.ones(made.grid(level), dtype=bool))


@EVERY_KIND
@pytest.mark.parametrize("shape", [(70,), (20, 13), (20, 13, 9), (9, 8, 5, 7)])
def test_initial_parameters_have_the_declared_shapes_in_order(kind: dict[str, Any], shape: tuple[int, ...]) -> None:
    made = layout(kind, shape)
    parameters = TincModel.initial(made).parameters
    assert list(parameter_shapes(made).items()) == [(name, tuple(p.shape)) for name, p in parameters.items()]
    assert parameter_count(made) == sum(p.numel() for p in parameters.values())


def test_parameter_count_by_hand() -> None:
    """Two root layers, then per node a segment that reads its parent and its own three coordinates."""
    made = layout(KINDS["dense, global, segments"])
    assert made.networks == [1, 2, 12]
    root = 3 * 7 + 7 + 7 * 5 + 5
    first = 2 * ((5 + 3) * 6 + 6 + 6 * 6 + 6)
    assert parameter_count(made) == root + first + 12 * ((6 + 3) * 8 + 8)


@EVERY_KIND
def test_seeds_repeat(kind: dict[str, Any]) -> None:
    made = layout(kind)
    first, again, other = (TincModel.initial(made, seed=s).parameters for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if name.endswith("weight")]
    assert all(not torch.equal(first[name], other[name]) for name in drawn)


def test_only_the_root_reads_coordinates_as_such() -> None:
    made = layout(KINDS["dense, global, segments"])
    parameters = TincModel.initial(made, bandwidth=50.0).parameters
    assert float(parameters["root.0.weight"].abs().max()) > 60
    for name, shape in parameter_shapes(made).items():
        if name.endswith("weight") and name != "root.0.weight":
            assert float(parameters[name].abs().max()) <= math.sqrt(6 / shape[1])


def by_hand(model: TincModel, level: int, points: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Features of one leaf of a dense network from voxel positions, in numpy."""
    made, parameters = model.layout, {name: p.double().numpy() for name, p in model.parameters.items()}
    cell = np.asarray(made.cells[level])
    voxel = index * cell + (points + 1) / 2 * cell

    def inside(ancestor: int) -> tuple[np.ndarray, np.ndarray]:
        outer = np.asarray(made.cells[ancestor])
        place = index * cell // outer
        return place, 2 * (voxel - place * outer) / outer - 1

    is_global = made.coordinates == "global"
    hidden = inside(0)[1] if is_global else points
    for i in range(len(made.hidden)):
        hidden = np.sin(hidden @ parameters[f"root.{i}.weight"][0] + parameters[f"root.{i}.bias"][0])
    for number, (layers, _) in enumerate(made.segments, start=1):
        place, own = inside(number)
        node = int(np.ravel_multi_index(tuple(place), made.grid(number)))
        hidden = np.concatenate([hidden, own], axis=1) if is_global else hidden
        for i in range(layers):
            name = f"segment.{number}.{i}"
            hidden = np.sin(hidden @ parameters[f"{name}.weight"][node] + parameters[f"{name}.bias"][node])
    return np.concatenate([np.ones((len(points), 1)), hidden], axis=1)


@DENSE_KINDS
def test_features_by_hand(kind: dict[str, Any]) -> None:
    model = TincModel.initial(layout(kind), seed=1)
    points = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (11, 3)))
    for level in model.layout.leaf_levels:
        index = cell_indices(model.layout, level)
        found = model.features(level, points, index).double().numpy()
        for k, own in enumerate(index):
            expected = by_hand(model, level, points.numpy(), own)
            np.testing.assert_allclose(found[k if len(found) > 1 else 0], expected, rtol=0, atol=2e-5)


@DENSE_KINDS
def test_a_batch_is_its_leaves_one_by_one(kind: dict[str, Any]) -> None:
    model = TincModel.initial(layout(kind), seed=1)
    for level in model.layout.leaf_levels:
        index = cell_indices(model.layout, level)
        points = sample_points(model.layout.cells[level])[:17]
        together = model.features(level, points, index)
        assert together.shape == (1 if model.layout.shared else len(index), 17, len(model.layout.lattice(level)))
        for k in range(len(index)):
            alone = model.features(level, points, index[k : k + 1])
            torch.testing.assert_close(together[k % len(together)], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if "segments" in k and "coordinates" not in k])
def test_leaves_below_the_same_cell_share_their_segments(kind: dict[str, Any]) -> None:
    """With local coordinates they share their features, and leaves of different cells do not."""
    model = TincModel.initial(layout(kind), seed=1)
    level = len(model.layout.cells) - 1
    index = cell_indices(model.layout, level)
    features = model.features(level, sample_points(model.layout.cells[level])[::7], index)
    place = index * model.layout.cells[level] // np.asarray(model.layout.cells[2])
    for a in range(0, len(index), 5):
        for b in range(len(index)):
            same = torch.equal(features[a], features[b])
            assert same == np.array_equal(place[a], place[b])


@WITH_SEGMENTS
def test_a_leaf_depends_on_the_segments_of_its_ancestors_alone(kind: dict[str, Any]) -> None:
    model = TincModel.initial(layout(kind), seed=1)
    made, level = model.layout, len(model.layout.cells) - 1
    leaf = np.array([[2, 1, 1]])
    for parameter in model.parameters.values():
        parameter.requires_grad_(True)
    model.features(level, sample_points(made.cells[level]), leaf).square().sum().backward()
    for number, (layers, _) in enumerate(made.segments, start=1):
        place = leaf[0] * made.cells[level] // np.asarray(made.cells[number])
        node = int(np.ravel_multi_index(tuple(place), made.grid(number)))
        for i in range(layers):
            gradient = model.parameters[f"segment.{number}.{i}.weight"].grad
            assert gradient is not None
            assert np.flatnonzero(gradient.abs().sum(dim=(1, 2)).numpy()).tolist() == [node]


def test_global_roots_are_continuous_across_faces() -> None:
    model = TincModel.initial(layout(KINDS["dense, global"]), seed=1)
    level = len(model.layout.cells) - 1
    edge = torch.tensor([[1.0, 0.3, -0.2], [-1.0, 0.3, -0.2]])
    left = model.features(level, edge[:1], np.array([[1, 0, 1]]))
    right = model.features(level, edge[1:], np.array([[2, 0, 1]]))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    inside = model.features(level, edge[:1], np.array([[2, 0, 1]]))
    assert float((inside - right).abs().max()) > 0.01


def test_global_roots_do_not_see_the_size_of_the_leaf() -> None:
    """The same voxel position in a leaf and in the leaf's parent cell gives the same features."""
    model = TincModel.initial(layout(KINDS["dense, global"]), seed=1)
    level = len(model.layout.cells) - 1
    fine = model.features(level, torch.tensor([[0.5, -0.5, 0.25]]), np.array([[3, 0, 1]]))
    coarse = model.features(level - 1, torch.tensor([[0.75, -0.75, 0.625]]), np.array([[1, 0, 0]]))
    torch.testing.assert_close(fine, coarse, rtol=0, atol=1e-5)


def random_coefficients(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(width))


@EVERY_KIND
def test_readouts_reconstruct_what_they_evaluate(kind: dict[str, Any]) -> None:
    """The continuous network at the sample points is the reconstruction, for a batch and leaf by leaf."""
    model = TincModel.initial(layout(kind), seed=1)
    for level in model.layout.leaf_levels:
        cell, index = model.layout.cells[level], cell_indices(model.layout, level)[:3]
        coefficients = random_coefficients(len(index), len(model.layout.lattice(level)))
        readout = model.readout(level, index)
        samples = readout.reconstruct(coefficients).double()
        torch.testing.assert_close(readout.evaluate(sample_points(cell), coefficients), samples, rtol=0, atol=2e-4)
        for k in range(len(index)):
            alone = model.readout(level, index[k : k + 1]).reconstruct(coefficients[k : k + 1])
            torch.testing.assert_close(alone[0].double(), samples[k], rtol=0, atol=1e-4)


@EVERY_KIND
def test_readouts_project_what_they_reconstruct(kind: dict[str, Any]) -> None:
    model = TincModel.initial(layout(kind, hidden=(7, 5)) if kind else layout(kind), seed=1)
    for level in model.layout.leaf_levels:
        index = cell_indices(model.layout, level)[:3]
        readout = model.readout(level, index)
        coefficients = random_coefficients(len(index), len(model.layout.lattice(level)))
        found = readout.project(readout.reconstruct(coefficients))
        torch.testing.assert_close(found, coefficients, rtol=0, atol=0.02)


def test_shared_readouts_are_made_once_and_private_ones_anew() -> None:
    index = np.array([[0, 0, 0]])
    for name in ("separable", "dense, local"):
        shared = TincModel.initial(layout(KINDS[name]))
        assert shared.readout(2, index) is shared.readout(2, index + 1)
        assert shared.readout(2, index) is not shared.readout(1, index)
    private = TincModel.initial(layout(KINDS["dense, global"]))
    ones = torch.ones(1, 8)
    assert not torch.equal(
        private.readout(2, index).reconstruct(ones[:, :6]), private.readout(2, index + 1).reconstruct(ones[:, :6])
    )


def test_other_parameters_make_other_readouts() -> None:
    model, index = TincModel.initial(layout(KINDS["dense, local"])), np.array([[0, 0, 0]])
    ones = torch.ones(1, 6)
    before = model.readout(2, index).reconstruct(ones)
    other = model.with_parameters({name: 1.5 * p for name, p in model.parameters.items()})
    assert not torch.allclose(other.readout(2, index).reconstruct(ones), before, atol=1e-3)


@pytest.mark.parametrize("weights", [(16, 16, 16), (1, 255, 40)])
@pytest.mark.parametrize("features", [2, 40, 500])
def test_separable_lattice_is_ordered_by_frequency(weights: tuple[int, ...], features: int) -> None:
    made = layout({}, axis_weights=weights, features=features)
    for level in made.leaf_levels:
        lattice, cell = made.lattice(level), made.cells[level]
        assert len(lattice) == min(features, math.prod(cell)) == len(np.unique(lattice, axis=0))
        assert np.all(lattice >= 0) and np.all(lattice < cell) and not lattice[0].any()
        radius = (lattice**2 * weights).sum(axis=1)
        assert np.all(np.diff(radius) >= 0)
        everything = np.argwhere(np.ones(cell, dtype=bool))
        left_out = len(everything) - len(lattice)
        assert left_out == 0 or np.sort((everything**2 * weights).sum(1))[len(lattice) - 1] == radius[-1]


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 30])
def test_dense_lattice_ranks_features_in_bands_that_grow(width: int) -> None:
    """Band 0 is the constant, band b holds b features, and no band before the last is empty."""
    made = layout({"root": "dense", "hidden": (width,)})
    lattice = made.lattice(len(made.cells) - 1)
    assert lattice.shape == (width + 1, 3) and not lattice[:, 1:].any()
    expected = [0, *[b for b in range(1, width + 1) for _ in range(b)][:width]]
    assert lattice[:, 0].tolist() == expected


def test_small_cells_have_no_more_readouts_than_samples() -> None:
    cells = cell_pyramid((6, 6), (2, 2))
    for kind in ({"root": "dense", "hidden": (20,)}, {}):
        made = TincLayout((6, 6), cells, len(cells) - 1, 40, axis_weights=(16, 16), **kind)
        assert len(made.lattice(len(cells) - 1)) == 4
        readout = TincModel.initial(made).readout(len(cells) - 1, np.array([[0, 0]]))
        samples = torch.tensor([[1.0, -2.0, 5.0, 3.0]])
        torch.testing.assert_close(readout.reconstruct(readout.project(samples)), samples, rtol=0, atol=1e-3)


@DENSE_KINDS
def test_chains_are_the_same_function_over_the_leaf_s_own_coordinates(kind: dict[str, Any]) -> None:
    made = layout(kind)
    model = TincModel.initial(made, seed=2)
    exact = model.with_parameters({name: p.double() for name, p in model.parameters.items()})
    for level in made.leaf_levels:
        index = cell_indices(made, level)[::3]
        points = sample_points(made.cells[level]).double()
        expected = exact.features(level, points, index)
        width = expected.shape[-1]
        assert torch.allclose(features(exact.chains(level, index), points)[..., :width], expected, atol=1e-12)
        rounded = features(model.chains(level, index), points.float())[..., :width]
        assert torch.allclose(rounded.double(), expected, atol=1e-5)


@pytest.mark.parametrize("backend", [REFERENCE, NUMBA], ids=["reference", "numba"])
@DENSE_KINDS
def test_leaves_of_every_backend_are_those_of_torch(kind: dict[str, Any], backend: Backend) -> None:
    """Readouts of samples, and samples of readouts in a box that cuts leaves."""
    made = layout(kind)
    model, level = TincModel.initial(made, seed=3), made.top
    index, cell = cell_indices(made, level), made.cells[level]
    blocks = torch.from_numpy(np.random.default_rng(0).normal(0, 50, (len(index), math.prod(cell))).astype(np.float32))
    plain, leaves = model.readout(level, index), model.leaves(level, index, backend)
    assert isinstance(leaves, ChainReadout) == (backend == NUMBA and not made.shared)
    coefficients = plain.project(blocks)
    assert torch.allclose(leaves.project(blocks), coefficients, atol=1e-2)
    values, box = coefficients.round().int(), torch.full(tuple(n - 3 for n in made.shape), torch.nan)
    expected, corner = np.full(box.shape, np.nan, dtype=np.float32), index * np.asarray(cell) - 2
    scatter(expected, np.zeros(3, dtype=int), corner, cell, plain.reconstruct(values * 0.5).numpy() + 7)
    leaves.synthesise(box, torch.from_numpy(corner), values, 0.5, 7.0, 0, 1, backend)
    assert not box.isnan().any() and np.allclose(box.numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("backend", [REFERENCE, NUMBA], ids=["reference", "numba"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@DENSE_KINDS
def test_networks_that_are_not_finite_are_refused(kind: dict[str, Any], backend: Backend, value: float) -> None:
    model = TincModel.initial(layout(kind), seed=3)
    model.parameters["root.1.bias"][0, 2] = value
    level, index = model.layout.top, np.array([[0, 0, 0]])
    out, corner = torch.zeros(4, 4, 4), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="finite"):
        leaves = model.leaves(level, index, backend)
        leaves.synthesise(out, corner, torch.ones(1, len(model.layout.lattice(level)), dtype=torch.int32), 1.0, 0.0, 0, 1, backend)


def test_readouts_beyond_reason_are_refused() -> None:
    model = TincModel.initial(layout(KINDS["dense, global"]), seed=3)
    leaves = model.leaves(model.layout.top, np.array([[0, 0, 0]]), NUMBA)
    out, corner = torch.zeros(4, 4, 4), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="finite"):
        leaves.synthesise(out, corner, torch.ones(1, 6, dtype=torch.int32), 1e38, 0.0, 0, 1, NUMBA)
