"""Chains of sine layers in compiled loops and, where it has to be told, in torch, against float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from inrcodec_kernels import chains
from inrcodec_kernels.backend import REFERENCE, Backend, missing

from . import chain_cases as cases

NUMBA = Backend("numba")
BACKENDS = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(NUMBA, marks=pytest.mark.skipif(bool(missing("numba")), reason="no Numba"), id="numba"),
        pytest.param(REFERENCE, id="reference"),
    ],
)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_features_by_hand() -> None:
    """Two layers of which the second reads the point again, in numpy."""
    first, second = cases.layers_of(1, 2, (3, 4), (True, True))
    points = cases.block_points(6, 2)
    ones = np.ones((6, 1))
    hidden = np.sin(np.hstack([points, ones]) @ first[0].numpy())
    hidden = np.sin(np.hstack([hidden, points, ones]) @ second[0].numpy())
    found = chains.features([first, second], points)
    assert np.allclose(found[0], np.hstack([ones, hidden]), atol=1e-6)


@BACKENDS
@pytest.mark.parametrize("case", cases.CLASSES, ids=str)
def test_moments_and_all_gradients(
    backend: Backend, case: tuple[int, tuple[int, ...], tuple[bool, ...], int, int, int], threads: int
) -> None:
    cases.check_moments(backend, *case)


@BACKENDS
def test_moments_without_targets(backend: Backend) -> None:
    cases.check_no_targets(backend)


@BACKENDS
def test_gram_matrices_are_exact_sums_of_rounded_features(backend: Backend) -> None:
    cases.check_exact_sums(backend)


@BACKENDS
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_leaves_of_their_own_chains(backend: Backend, axes: int, dtype: torch.dtype) -> None:
    cases.check_leaves(backend, axes, dtype)


@BACKENDS
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16], ids=str)
@pytest.mark.parametrize("width", [1, 11])
def test_leaves_that_share_a_basis(backend: Backend, axes: int, dtype: torch.dtype, width: int) -> None:
    cases.check_shared(backend, axes, dtype, width)


@BACKENDS
def test_a_box_has_the_same_bits_in_parts(backend: Backend, threads: int) -> None:
    cases.check_parts(backend)


def test_refusals() -> None:
    layers, x = cases.layers_of(2, 3, (6, 5), (True, False)), cases.block_points(40, 3)
    with pytest.raises(ValueError, match="layers of a chain over 3 axes"):
        chains.moments([layers[0], layers[1][:, 1:]], x, torch.zeros(2, 1, 40), NUMBA)
    with pytest.raises(ValueError, match="targets of shape"):
        chains.moments(layers, x, torch.zeros(2, 1, 39), NUMBA)


def test_what_suits() -> None:
    assert chains.suited(REFERENCE, 3, (9000,)) == REFERENCE
    assert chains.suited(NUMBA, 3, (64, 512)) == NUMBA
    wide = chains.suited(NUMBA, 3, (64, 513))
    assert wide.name == "reference" and "up to 512 neurons" in wide.reason
