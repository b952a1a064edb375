"""Projection on separable bases, against a Kronecker product in float64; backends agree to the bit."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.projection import project

NUMBA = Backend("numba")
EXTENTS = [((1,), (1,)), ((7,), (5,)), ((5, 3), (5, 2)), ((8, 8, 8), (8, 8, 8)), ((2, 8, 7), (2, 6, 7)), ((1, 8, 2), (1, 8, 1))]
EXTENTS += [((3, 2, 4, 5), (3, 2, 4, 5)), ((8, 8, 8, 8), (8, 4, 2, 8)), ((9, 4, 8), (9, 4, 8)), ((16, 5, 12), (10, 5, 12))]


def some(cell: tuple[int, ...], counts: tuple[int, ...], blocks: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    random = np.random.default_rng(len(cell) + blocks)
    samples = random.standard_normal((blocks, math.prod(cell)), dtype=np.float32)
    bases = [random.standard_normal((n, m), dtype=np.float32) for n, m in zip(cell, counts, strict=True)]
    place = random.permutation(math.prod(counts))[: max(1, math.prod(counts) * 2 // 3)]
    return samples, bases, place


@pytest.mark.parametrize("backend", [REFERENCE, NUMBA], ids=lambda b: b.name)
@pytest.mark.parametrize(("cell", "counts"), EXTENTS)
@pytest.mark.parametrize("blocks", [1, 3, 70])
def test_projection_is_a_kronecker_product(
    cell: tuple[int, ...], counts: tuple[int, ...], blocks: int, backend: Backend
) -> None:
    if backend is NUMBA:
        pytest.importorskip("numba")
    samples, bases, place = some(cell, counts, blocks)
    expected = (samples.astype(float) @ reduce(np.kron, [b.astype(float) for b in bases]))[:, place]
    found = project(samples, bases, place, backend=backend)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(("cell", "counts"), EXTENTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_backends_agree_to_the_bit(
    cell: tuple[int, ...], counts: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    from inrcodec_kernels.projection import cpu

    monkeypatch.setattr(cpu, "_PART", 1)
    samples, bases, place = some(cell, counts, 101)
    expected = project(samples, bases, place, backend=REFERENCE)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = project(samples, bases, place, backend=NUMBA)
    finally:
        torch.set_num_threads(before)
    # Long axes go to the same matrix products, whose order of sums may depend on the threads.
    assert np.array_equal(found, expected) or (max(cell) > 8 and threads > 1)


def test_no_blocks_are_no_trouble() -> None:
    samples, bases, place = some((4, 5), (4, 5), 1)
    assert project(samples[:0], bases, place, backend=REFERENCE).shape == (0, len(place))
    pytest.importorskip("numba")
    assert project(samples[:0], bases, place, backend=NUMBA).shape == (0, len(place))


def test_blocks_of_another_size_are_refused() -> None:
    samples, bases, place = some((4, 5), (4, 5), 2)
    with pytest.raises(ValueError, match=r"expected blocks of \[4, 5\] samples, found 19; cut them to that"):
        project(samples[:, :-1], bases, place, backend=REFERENCE)
