"""Gradients that are added where inputs are, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from inrcodec_kernels.pyramid.blocks import add_group

SPAN, FIRST, M = 48, 2, 1


@njit
def add(out, values, rows, shifts, count, outs, factors):  # type: ignore[no-untyped-def]
    add_group(out, 0, values, rows, M, shifts, SPAN, count, outs, factors, FIRST)


@pytest.mark.parametrize("outputs", [0, 1, 2])
@pytest.mark.parametrize("singles", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 14, 40, 48])
def test_gradients_are_added_where_inputs_are_and_nowhere_else(count: int, singles: int, outputs: int) -> None:
    random = np.random.default_rng(count)
    values, out, factors = (random.normal(size=size).astype(np.float32) for size in (700, 300, (FIRST + 2, 5)))
    rows, outs = np.array([9, 16, 116, 216]), np.array([316, 416])[:outputs]
    for row in (*rows, *outs):
        # No gradients before a span, beyond those that count, nor beyond the span of outputs.
        values[row - 2 : row] = values[row + count : row + SPAN] = 0
    for row in outs:
        values[row + SPAN : row + SPAN + 16] = 0
    shifts = np.array([30, 31, 32, 0] if singles == 0 else [30, 110, 190, singles])
    expected, before = out.astype(np.float64), values.astype(np.float64)
    for j in range(singles or 3):
        for n in range(count):
            total = before[rows[M + j] + n]
            total += sum(float(factors[FIRST + o, M + j]) * before[place + n] for o, place in enumerate(outs))
            expected[shifts[j] + n] += total
    add(out, values, rows, shifts, count, outs, factors)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
