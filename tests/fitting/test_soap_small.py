"""SOAP of one matrix in numpy, step by step beside the definition in torch, with the choices of a pyramid's fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrcodec.fitting.soap import Soap
from inrcodec.fitting.soap_small import SmallSoap, orthonormal

MOMENTUM, EVERY = 0.9, 3
LAYERS = [(26, 24), (25, 24), (25, 2), (58, 16), (17, 16), (17, 1), (1, 5), (2, 9)]


def pair(shape: tuple[int, int]) -> tuple[SmallSoap, Soap]:
    """Ours and the definition, to move the same matrix."""
    start = np.random.default_rng(0).standard_normal(shape)
    weights = torch.from_numpy(start.copy())[None].requires_grad_()
    return SmallSoap(start, MOMENTUM, EVERY), Soap([weights], momentum=MOMENTUM, every=EVERY)


def agree_on_bases(ours: SmallSoap, theirs: Soap) -> None:
    """In every direction that a gradient had so far; the others are any, and from here on those of the definition."""
    for side in (0, 1):
        found, expected = ours._bases[side], theirs._bases[0][side][0].numpy()
        size, seen = len(found), ours.values.shape[1 - side] * ours.steps
        products = found.T @ expected
        assert np.abs(np.abs(products).diagonal()[:seen] - 1).max() <= 1e-6
        assert np.abs(products @ products.T - np.eye(size)).max() <= 1e-9
        ours._bases[side] = expected.copy()


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_every_step_is_that_of_the_definition(shape: tuple[int, int]) -> None:
    ours, theirs = pair(shape)
    (weights,) = theirs.parameters
    random, scales = np.random.default_rng(1), np.logspace(0, -2, shape[0])[:, None]
    for step in range(40):
        gradient = scales * random.standard_normal(shape)
        weights.grad = torch.from_numpy(gradient.copy())[None]
        theirs.step(0.1)
        ours.move(gradient, 0.1)
        assert np.abs(ours.values - weights.detach()[0].numpy()).max() <= 1e-7, step
        agree_on_bases(ours, theirs)
    assert np.abs(ours.values - np.random.default_rng(0).standard_normal(shape)).max() > 0.1


def test_the_scale_of_gradients_does_not_matter() -> None:
    a, b = pair((6, 4))[0], pair((6, 4))[0]
    random = np.random.default_rng(2)
    for _ in range(12):
        gradient = random.standard_normal((6, 4))
        a.move(gradient, 0.1)
        b.move(2.0**-20 * gradient, 0.1)
    assert a.values == pytest.approx(b.values, abs=1e-9)


def test_no_gradient_no_move() -> None:
    ours, start = pair((5, 3))[0], pair((5, 3))[0].values
    for _ in range(7):
        ours.move(np.zeros((5, 3)), 0.1)
    assert np.array_equal(ours.values, start)


@pytest.mark.parametrize("rank", [0, 1, 4, 7])
def test_columns_are_orthonormal_whatever_the_rank(rank: int) -> None:
    random = np.random.default_rng(rank)
    matrix = random.standard_normal((7, rank)) @ random.standard_normal((rank, 7))
    kept = matrix.copy()
    found = orthonormal(matrix)
    assert found.T @ found == pytest.approx(np.eye(7), abs=1e-12)
    assert np.abs(np.tril(found.T @ matrix, -1)).max() < 1e-12, "column k of the matrix is made of the first k"
    assert np.array_equal(matrix, kept)
