"""Products with rows in registers, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from inrcodec_kernels.vectors import LANES, float32_limits, product

PLAIN, HIDDEN, ADDED = product(4, 2, "plain"), product(3, 1, "hidden", 0.1), product(1, 3, "added")


@njit
def plain(out, outs, to, matrix, bias, first, inputs, ins, at):  # type: ignore[no-untyped-def]
    PLAIN(out, outs, to, matrix, bias, first, inputs, ins, at)


@njit
def hidden(out, outs, to, matrix, bias, first, inputs, ins, at):  # type: ignore[no-untyped-def]
    HIDDEN(out, outs, to, matrix, bias, first, inputs, ins, at)


@njit
def added(out, outs, to, matrix, bias, first, inputs, ins, at):  # type: ignore[no-untyped-def]
    ADDED(out, outs, to, matrix, bias, first, inputs, ins, at)


@pytest.mark.parametrize(("form", "rows", "vectors"), [(plain, 4, 2), (hidden, 3, 1), (added, 1, 3)])
@pytest.mark.parametrize("depth", [1, 7])
def test_products_are_the_formula_and_write_nothing_else(form, rows: int, vectors: int, depth: int) -> None:  # type: ignore[no-untyped-def]
    random, size, first, at, to = np.random.default_rng(depth), vectors * LANES, 2, 5, 9
    inputs, ins = random.normal(size=400).astype(np.float32), random.integers(0, 300, depth)
    matrix, bias = random.normal(size=(depth, 7)).astype(np.float32), random.normal(size=7).astype(np.float32)
    out, outs = random.normal(size=400).astype(np.float32), np.arange(7) * 50
    expected = out.astype(np.float64)
    for m in range(first, first + rows):
        total = sum(float(matrix[k, m]) * inputs[ins[k] + at : ins[k] + at + size].astype(np.float64) for k in range(depth))
        place = slice(outs[m] + to, outs[m] + to + size)
        if form is hidden:
            total = np.maximum(total + bias[m], 0.1 * (total + bias[m]))
        expected[place] = total + expected[place] if form is added else total
    form(out, outs, to, matrix, bias, first, inputs, ins, at)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


def test_limits_are_float32_numbers_within_those_of_the_integers() -> None:
    assert float32_limits(-128, 255) == (-128, 255)
    assert float32_limits(-(2**24) - 1, 2**24 + 1) == (-(2**24), 2**24)
    assert float32_limits(-(2**31), 2**31 - 1) == (-(2**31), 2**31 - 128)
