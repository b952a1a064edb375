"""Whitened readouts: an orthonormal basis, and the least squares it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models.readout import DenseReadout, SeparableReadout, cell_axis, sample_points, whitened, whitening


def random_features(nodes: int, points: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.sin(3 * torch.randn(nodes, points, width, generator=generator, dtype=torch.float64))


sizes = st.tuples(st.integers(1, 4), st.integers(20, 60), st.integers(1, 12), st.integers(0, 2**32))


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_basis_is_orthonormal_and_spans_the_features(size: tuple[int, int, int, int]) -> None:
    features = random_features(*size)
    factor = whitening(features)
    basis = whitened(features, factor)
    eye = torch.eye(size[2], dtype=torch.float64).expand(size[0], -1, -1)
    torch.testing.assert_close(basis.mT @ basis, eye, rtol=0, atol=2e-5)
    torch.testing.assert_close(basis @ factor.mT, features, rtol=0, atol=1e-12)
    assert torch.equal(factor, factor.tril()) and torch.all(factor.diagonal(dim1=-2, dim2=-1) > 0)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_projection_is_least_squares(size: tuple[int, int, int, int]) -> None:
    nodes, points, _, seed = size
    features = random_features(*size)
    samples = np.random.default_rng(seed).normal(size=(nodes, points))
    factor = whitening(features)
    coefficients = (whitened(features, factor).mT @ torch.from_numpy(samples)[..., None])[..., 0]
    weights = torch.linalg.solve_triangular(factor.mT, coefficients[..., None], upper=True)
    for node in range(nodes):
        expected, *_ = np.linalg.lstsq(features[node].numpy(), samples[node], rcond=None)
        np.testing.assert_allclose(weights[node, :, 0].numpy(), expected, rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(sizes, st.floats(0.01, 10))
def test_error_of_a_block_is_the_error_of_its_coefficients(size: tuple[int, int, int, int], step: float) -> None:
    nodes, points, width, seed = size
    basis = whitened(features := random_features(*size), whitening(features)).numpy()
    samples = np.random.default_rng(seed).normal(size=(nodes, points))
    exact = np.einsum("bnw,bn->bw", basis, samples)
    coarse = step * np.rint(exact / step)
    error = ((samples - np.einsum("bnw,bw->bn", basis, coarse)) ** 2).sum()
    predicted = (samples**2).sum() - (exact**2).sum() + ((exact - coarse) ** 2).sum()
    assert error == pytest.approx(predicted, rel=1e-4, abs=1e-4 * nodes * width)


@pytest.mark.parametrize("copies", [2, 5])
def test_dependent_features_do_no_harm(copies: int) -> None:
    features = random_features(1, 50, 4, 0).repeat(1, 1, copies)
    factor = whitening(features)
    basis = whitened(features, factor)
    assert torch.isfinite(basis).all() and float(basis.abs().max()) < 2
    torch.testing.assert_close(basis @ factor.mT, features, rtol=0, atol=1e-9)


def test_float32_features_are_whitened_in_float64() -> None:
    features = random_features(2, 64, 9, 3).float()
    factor = whitening(features)
    basis = whitened(features, factor)
    assert (factor.dtype, basis.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(basis.double() @ factor.mT, features.double(), rtol=0, atol=2e-6)


def test_known_factor() -> None:
    features = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [1.0, 2.0], [1.0, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        whitening(features), torch.tensor([[[2.0, 0.0], [2.0, 6**0.5]]], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_sample_points_are_cell_centred() -> None:
    assert cell_axis(4).tolist() == [-0.75, -0.25, 0.25, 0.75] and cell_axis(1).tolist() == [0.0]
    expected = [[x, y] for x in (-0.5, 0.5) for y in (-0.75, -0.25, 0.25, 0.75)]
    assert sample_points((2, 4)).tolist() == expected


def lattice_of(cell: tuple[int, ...], width: int) -> np.ndarray:
    """The lowest frequencies of a cell."""
    index = np.argwhere(np.ones(cell, dtype=bool))
    return index[np.argsort((index**2).sum(axis=1), kind="stable")[:width]]


def cosines(cell: tuple[int, ...], lattice: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Orthonormal cosine transform's waves at block coordinates (P, d), shape (P, W)."""
    phase = np.pi / 2 * lattice[None] * (points[:, None] + 1)
    scale = np.sqrt(np.where(lattice == 0, 1, 2) / np.asarray(cell))
    return (np.cos(phase) * scale).prod(axis=2)


CELLS = [((7,), 5), ((4, 6), 24), ((4, 6), 9), ((5, 3, 4), 20), ((8, 8, 8), 512), ((3, 2, 4, 3), 30), ((1, 4), 3)]


@pytest.mark.parametrize(("cell", "width"), CELLS)
def test_separable_readouts_are_the_cosine_transform(cell: tuple[int, ...], width: int) -> None:
    lattice = lattice_of(cell, width)
    readout = SeparableReadout(cell, lattice)
    random = np.random.default_rng(0)
    samples = random.normal(size=(3, int(np.prod(cell))))
    points = sample_points(cell).double().numpy()
    waves = cosines(cell, lattice, points)
    found = readout.project(torch.from_numpy(samples).float()).numpy()
    np.testing.assert_allclose(found, samples @ waves, rtol=0, atol=2e-5)
    coefficients = random.normal(size=(3, width))
    again = readout.reconstruct(torch.from_numpy(coefficients).float()).numpy()
    np.testing.assert_allclose(again, coefficients @ waves.T, rtol=0, atol=2e-5)
    elsewhere = random.uniform(-1, 1, size=(6, len(cell)))
    values = readout.evaluate(torch.from_numpy(elsewhere), torch.from_numpy(coefficients))
    np.testing.assert_allclose(values.numpy(), coefficients @ cosines(cell, lattice, elsewhere).T, rtol=0, atol=1e-5)


def dense(nodes: int, cell: tuple[int, ...], width: int) -> DenseReadout:
    generator = torch.Generator().manual_seed(width)
    weight = 3 * torch.randn(nodes, len(cell), width, generator=generator)

    def features(points: Tensor) -> Tensor:
        return torch.sin(points.to(weight.dtype) @ weight + 0.3)

    return DenseReadout(features, cell)


@pytest.mark.parametrize("nodes", [1, 3])
def test_dense_readouts_are_least_squares(nodes: int) -> None:
    cell, width = (5, 6), 7
    readout = dense(nodes, cell, width)
    samples = np.random.default_rng(0).normal(size=(3, 30))
    fitted = readout.reconstruct(readout.project(torch.from_numpy(samples).float())).numpy()
    weight = 3 * torch.randn(nodes, 2, width, generator=torch.Generator().manual_seed(width)).numpy()
    for k in range(3):
        design = np.sin(sample_points(cell).numpy() @ weight[k % nodes] + np.float32(0.3))
        best = design @ np.linalg.lstsq(design, samples[k], rcond=None)[0]
        np.testing.assert_allclose(fitted[k], best, rtol=0, atol=1e-3)


@pytest.mark.parametrize("nodes", [1, 3])
def test_projection_leaves_the_residual_orthogonal(nodes: int) -> None:
    readout = dense(nodes, (5, 6), 7)
    samples = torch.randn(3, 30, generator=torch.Generator().manual_seed(5))
    residual = samples - readout.reconstruct(readout.project(samples))
    assert float(readout.project(residual).abs().max()) < 1e-4
    assert 0.5 < float(residual.norm() / samples.norm()) < 0.99


@pytest.mark.parametrize(
    "readout",
    [SeparableReadout((5, 6), lattice_of((5, 6), 9)), dense(1, (5, 6), 9), dense(3, (5, 6), 9)],
    ids=["separable", "dense, shared", "dense, private"],
)
def test_grids_are_points(readout: SeparableReadout | DenseReadout) -> None:
    axes = [torch.tensor([-0.9, 0.1, 0.4]).double(), torch.tensor([0.7, -0.2]).double()]
    coefficients = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    points = torch.cartesian_prod(*axes)
    grid = readout.evaluate_grid(axes, coefficients)
    assert grid.shape == (3, 3, 2) and grid.dtype == torch.float64
    torch.testing.assert_close(grid.reshape(3, 6), readout.evaluate(points, coefficients), rtol=0, atol=1e-9)


def test_no_coefficients_make_zeros() -> None:
    readout = SeparableReadout((4, 3), lattice_of((4, 3), 12))
    assert not readout.reconstruct(torch.zeros(2, 12)).any()
    assert readout.reconstruct(torch.zeros(2, 12)).shape == (2, 12)


@pytest.mark.parametrize(("cell", "width"), CELLS)
def test_single_coefficients_are_single_waves(cell: tuple[int, ...], width: int) -> None:
    """A batch that uses one frequency alone, such as the constant, is no special case."""
    lattice = lattice_of(cell, width)
    readout, waves = SeparableReadout(cell, lattice), cosines(cell, lattice, sample_points(cell).double().numpy())
    for number in (0, width // 2, width - 1):
        coefficients = torch.zeros(2, width)
        coefficients[1, number] = 3.0
        samples = readout.reconstruct(coefficients).numpy()
        assert not samples[0].any()
        np.testing.assert_allclose(samples[1], 3 * waves[:, number], rtol=0, atol=2e-5)
