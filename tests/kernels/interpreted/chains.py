"""Triton's operations on chains of sine layers against float64. Run by `test_chains_triton.py`."""

from __future__ import annotations

import pytest
import torch

from inrcodec_kernels import chains
from inrcodec_kernels.backend import Backend, best_on_cpu

from .. import chain_cases as cases
from .device import DEVICE

TRITON = Backend("triton", DEVICE)


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case[3] > 200)) for case in cases.CLASSES], ids=str)
def test_moments_and_all_gradients(case: tuple[int, tuple[int, ...], tuple[bool, ...], int, int, int]) -> None:
    cases.check_moments(TRITON, *case)


def test_moments_without_targets() -> None:
    cases.check_no_targets(TRITON)


def test_gram_matrices_are_exact_sums_of_rounded_features() -> None:
    cases.check_exact_sums(TRITON)


@pytest.mark.parametrize(
    ("axes", "dtype"),
    [*((axes, torch.float32) for axes in (1, 2, 3, 4)), (3, torch.uint16), pytest.param(4, torch.uint16, marks=pytest.mark.slow)],
    ids=str,
)
def test_leaves_of_their_own_chains(axes: int, dtype: torch.dtype) -> None:
    cases.check_leaves(TRITON, axes, dtype)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_leaves_of_every_dtype_share_a_basis(dtype: torch.dtype) -> None:
    cases.check_shared(TRITON, 3, dtype, 21)


@pytest.mark.parametrize(("axes", "width"), [(1, 1), (2, 40), (4, 16)])
def test_leaves_that_share_a_basis(axes: int, width: int) -> None:
    cases.check_shared(TRITON, axes, torch.float32, width)


def test_a_box_has_the_same_bits_in_parts() -> None:
    cases.check_parts(TRITON)


@pytest.mark.parametrize(("axes", "widths"), [(3, (8, 65)), (3, (8,) * 7), (5, (8,))])
def test_what_has_no_kernels_goes_to_the_cpu_with_the_reason(axes: int, widths: tuple[int, ...]) -> None:
    chosen = chains.suited(TRITON, axes, widths)
    assert chosen.device == "cpu" and "Triton: expected" in chosen.reason
    if axes <= 4:
        assert chosen == best_on_cpu(chosen.reason)
