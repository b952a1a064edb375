"""Waves of one axis and products along all axes, against plain loops in float64, forward and gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from inrcodec_kernels.separable import along_axes, sine_waves


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
