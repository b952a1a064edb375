"""Waves of one axis and products along all axes, against plain loops in float64, forward and gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.separable import along_axes, reference, sine_waves, synthesise

REFERENCE, NUMBA = Backend("reference"), Backend("numba")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("points", "count"), [(1, 1), (7, 5), (33, 32), (4, 0)])
def test_waves_are_their_definition(points: int, count: int) -> None:
    x = normal(points)
    expected = [[math.sin(math.pi * k / 2 * (v + 1) + math.pi / 2) for k in range(count)] for v in x.tolist()]
    found = sine_waves(x, count)
    assert found.shape == (points, count)
    np.testing.assert_allclose(found.numpy(), np.array(expected).reshape(points, count), rtol=0, atol=1e-12)


def test_waves_on_cell_centred_samples_are_orthogonal() -> None:
    n = 9
    x = torch.tensor([(2 * i + 1) / n - 1 for i in range(n)], dtype=torch.float64)
    gram = sine_waves(x, n).T @ sine_waves(x, n)
    np.testing.assert_allclose(gram.numpy(), np.diag([n, *[n / 2] * (n - 1)]), rtol=0, atol=1e-12)


def test_waves_keep_float32_and_stay_close() -> None:
    x = torch.linspace(-1, 1, 65)
    found = sine_waves(x, 32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), sine_waves(x.double(), 32), rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("blocks", "sizes"),
    [
        (1, [(1, 1)]),
        (2, [(3, 5)]),
        (3, [(3, 2), (2, 7)]),
        (2, [(2, 3), (5, 1), (3, 4)]),
        (1, [(2, 2)] * 4),
        (0, [(2, 3)]),
    ],
)
def test_products_along_axes_are_their_definition(blocks: int, sizes: list[tuple[int, int]]) -> None:
    inputs = normal(blocks, *(p for p, _ in sizes))
    matrices = [normal(p, q, seed=j + 1) for j, (p, q) in enumerate(sizes)]
    expected = np.zeros((blocks, *(q for _, q in sizes)))
    places = itertools.product(*(range(p) for p, _ in sizes))
    for p, q, b in itertools.product(places, itertools.product(*(range(n) for _, n in sizes)), range(blocks)):
        weight = math.prod(float(m[i, j]) for m, i, j in zip(matrices, p, q, strict=True))
        expected[(b, *q)] += float(inputs[(b, *p)]) * weight
    found = along_axes(inputs, matrices)
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_gradients() -> None:
    tensors = [normal(2, 3, 2, 2), normal(3, 2, seed=1), normal(2, 3, seed=2), normal(2, 1, seed=3)]
    points = normal(4)
    for tensor in (*tensors, points):
        tensor.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda blocks, *m: along_axes(blocks, m), tuple(tensors))
    assert torch.autograd.gradcheck(lambda x: sine_waves(x, 5), (points,))


CELLS = [(7,), (4, 6), (5, 3, 4), (9, 8, 17), (3, 2, 4, 3)]


def leaves(cell: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Leaves that cover a box of twice the cell and one more sample along each axis, and are cut by its faces."""
    random = np.random.default_rng(seed)
    lattice = np.argwhere(np.ones(cell))
    lattice = lattice[np.argsort((lattice**2).sum(axis=1), kind="stable")][: max(2, 2 * len(lattice) // 3)]
    bases = [torch.from_numpy(random.normal(size=(n, k + 1)).astype(np.float32)) for n, k in zip(cell, lattice.max(0), strict=True)]
    corner = np.argwhere(np.ones((3,) * len(cell))) * cell - np.array(cell) // 2
    values = random.integers(-99, 99, (len(lattice), len(corner))).astype(np.int32)
    values[len(lattice) // 2 :, ::2], values[:, 1], values[1:, 2] = 0, 0, 0
    return torch.from_numpy(corner), torch.from_numpy(values.T), torch.from_numpy(lattice), bases


@pytest.mark.parametrize("cell", CELLS)
def test_leaves_are_the_definition(cell: tuple[int, ...]) -> None:
    corner, values, lattice, bases = leaves(cell, seed=len(cell))
    shape = [2 * n + 1 for n in cell]
    exact = torch.full(shape, math.nan, dtype=torch.float64)
    reference.synthesise(exact, corner, values, lattice, [b.double() for b in bases], 0.7, -30.0, 0, 0)
    assert not exact.isnan().any()
    for backend in (REFERENCE, NUMBA):
        found = torch.full(shape, math.nan)
        synthesise(found, corner, values, lattice, bases, 0.7, -30.0, 0, 0, backend)
        assert float((found - exact).norm() / exact.norm()) < 1e-6
        integers = torch.full(shape, 9999, dtype=torch.int16)
        synthesise(integers, corner, values, lattice, bases, 0.7, -30.0, -200, 150, backend)
        difference = (integers.double() - exact.round().clamp(-200, 150)).abs()
        assert difference.max() <= 1 and difference.mean() < 0.01


def test_leaves_are_one_sum_along_the_formula() -> None:
    corner, values, lattice, bases = leaves((5, 3, 4), seed=0)
    out = torch.full((11, 7, 9), math.nan, dtype=torch.float64)
    reference.synthesise(out, corner, values, lattice, [b.double() for b in bases], 0.5, 3.0, 0, 0)
    leaf, (q, r, s) = 13, (4, 0, 2)
    place = tuple(int(c) + p for c, p in zip(corner[leaf], (q, r, s), strict=True))
    waves = bases[0][q, lattice[:, 0]].double() * bases[1][r, lattice[:, 1]] * bases[2][s, lattice[:, 2]]
    assert float(out[place]) == pytest.approx(3 + 0.5 * float((values[leaf] * waves).sum()), rel=1e-6)


def test_parts_of_leaves_agree_to_the_last_bit() -> None:
    corner, values, lattice, bases = leaves((9, 8, 17), seed=1)
    whole = torch.empty(19, 17, 35)
    synthesise(whole, corner, values, lattice, bases, 0.7, 5.0, 0, 0, NUMBA)
    part = torch.full((7, 5, 30), math.nan)
    synthesise(part, corner - torch.tensor([6, 9, 3]), values, lattice, bases, 0.7, 5.0, 0, 0, NUMBA)
    assert torch.equal(part, whole[6:13, 9:14, 3:33])


def test_samples_that_no_leaf_covers_are_left_alone() -> None:
    _, values, lattice, bases = leaves((4, 6), seed=2)
    for backend in (REFERENCE, NUMBA):
        out = torch.full((12, 9), 7.0)
        synthesise(out, torch.tensor([[2, -20], [6, 5]]), values[:2], lattice, bases, 0.7, 5.0, 0, 0, backend)
        outside = torch.ones(12, 9, dtype=torch.bool)
        outside[6:10, 5:] = False
        assert (out[outside] == 7).all() and (out[~outside] != 7).all()


@pytest.mark.parametrize("change", ["corner", "lattice", "frequency", "bases"])
def test_leaves_that_do_not_fit_are_refused(change: str) -> None:
    corner, values, lattice, bases = leaves((4, 6), seed=3)
    wrong = {"corner": corner[1:], "lattice": lattice[1:], "frequency": lattice + 1, "bases": bases[1:]}[change]
    corner = wrong if change == "corner" else corner
    lattice = wrong if change in ("lattice", "frequency") else lattice
    bases = wrong if change == "bases" else bases
    with pytest.raises(ValueError, match="expected"):
        synthesise(torch.empty(9, 13), corner, values, lattice, bases, 1.0, 0.0, 0, 0, NUMBA)
