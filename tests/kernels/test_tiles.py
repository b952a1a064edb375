"""Products in tile registers and the pairs they are made of, against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from inrcodec_kernels.tiles import (
    INPUTS,
    OUTPUTS,
    POSITIONS,
    TILES,
    TOGETHER,
    accumulate,
    added_back,
    configure,
    halve,
    multiply,
    paired,
    release,
    turn,
    weights,
)

pytestmark = pytest.mark.skipif(not TILES, reason="this processor has no tile registers (AMX), or the system does not give them")
WIDTH, PITCH, GUARD, SLOPE = TOGETHER * POSITIONS, TOGETHER * POSITIONS + 32, 7.0, 0.25
FINE, ROUNDED = multiply(3), multiply(1)
PLAIN, HIDDEN, GATED = paired("plain", 3), paired("hidden", 3, SLOPE), paired("gated", 3, SLOPE)
OUTER, UNKEPT = paired("outer", 3, SLOPE, 2), paired("outer", 1, SLOPE, 2, kept=False)
ALONG = added_back(3, 2)
HALVE, TURN, TURN_HALF, ACCUMULATE = halve(), turn(32), turn(16), accumulate()


@njit
def fine(out, tiles, group, count, pairs, low):  # type: ignore[no-untyped-def]
    configure()
    FINE(out, group * OUTPUTS * PITCH, PITCH, tiles, group, count, pairs, 0, PITCH, low)
    release()


@njit
def rounded(out, tiles, group, count, pairs, low):  # type: ignore[no-untyped-def]
    configure()
    ROUNDED(out, group * OUTPUTS * PITCH, PITCH, tiles, group, count, pairs, 0, PITCH, low)
    release()


@njit
def plain(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
    PLAIN(pairs, 0, low, values, one, other, first, second, factors, rows, count)


@njit
def hidden(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
    HIDDEN(pairs, 0, low, values, one, other, first, second, factors, rows, count)


@njit
def gated(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
    GATED(pairs, 0, low, values, one, other, first, second, factors, rows, count)


@njit
def outer(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
    OUTER(pairs, 0, low, values, one, other, first, second, factors, rows, count)


@njit
def unkept(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
    UNKEPT(pairs, 0, low, values, one, other, first, second, factors, rows, count)


@njit
def along(out, values, rows, outs, factors, count):  # type: ignore[no-untyped-def]
    ALONG(out, 5, values, rows, 1, outs, factors, 2, count)


@njit
def dots(sums, left, right, halves, turned, rows):  # type: ignore[no-untyped-def]
    configure()
    for i in range(OUTPUTS):
        HALVE(halves, i * 24, left, i * 48, 48)
    TURN(turned, 0, right, rows, 0, 0)
    TURN_HALF(turned, OUTPUTS * POSITIONS, right, rows, 0, 32)
    ACCUMULATE(sums, 0, halves, 0, 24, turned, 0, 2)
    release()


def halves(pairs: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Both rows that pairs hold, shape (2, count)."""
    return np.stack([pairs << 16, pairs & np.uint32(0xFFFF0000)]).astype(np.uint32).view(np.float32)


def in_pairs(rows: NDArray[np.float32], size: int, products: int) -> NDArray[np.uint32]:
    """Rows as `multiply` takes them: upper halves, rounded for one product, and what they leave; the last one twice where they are odd."""
    found = np.zeros((2, size, PITCH), np.uint32)
    for p in range(-(-len(rows) // 2)):
        bits = np.stack([rows[2 * p], rows[min(2 * p + 1, len(rows) - 1)]]).view(np.uint32)
        upper = bits + np.uint32(0x8000 if products == 1 else 0) & np.uint32(0xFFFF0000)
        left = (bits.view(np.float32) - upper.view(np.float32)).view(np.uint32) & np.uint32(0xFFFF0000)
        for part, (one, other) in zip(found, (upper, left), strict=True):
            part[p, :WIDTH] = one >> 16 | other
    return found


@pytest.mark.parametrize(("form", "products", "precision"), [(fine, 3, 2**-14), (rounded, 1, 2**-7)])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (4, 7), (24, 60), (60, 33)])
def test_products_are_those_of_float32_to_their_precision_and_nothing_else_is_written(
    form: Any, products: int, precision: float, outputs: int, inputs: int
) -> None:
    random, groups, count = np.random.default_rng(inputs), -(-outputs // OUTPUTS), -(-inputs // INPUTS)
    matrix, rows = random.normal(size=(outputs, inputs)).astype(np.float32), random.normal(size=(inputs, WIDTH)).astype(np.float32)
    pairs = in_pairs(rows, count * INPUTS // 2, products)
    out = np.full((groups * OUTPUTS, PITCH), GUARD, np.float32)
    for group in range(groups):
        form(out.reshape(-1), weights(matrix, products), group, count, pairs.reshape(-1), pairs[0].size)
    exact, terms = matrix.astype(np.float64) @ rows, np.abs(matrix).astype(np.float64) @ np.abs(rows)
    error = np.abs(out[:outputs, :WIDTH] - exact)
    assert (error < precision * terms).all() and error.max() > 0
    assert (out[outputs:, :WIDTH] == 0).all() and (out[:, WIDTH:] == GUARD).all()


@pytest.mark.parametrize("form", [plain, hidden, gated, outer, unkept])
def test_pairs_are_of_rows_that_were_changed_on_the_way(form: Any) -> None:
    random, count = np.random.default_rng(3), 2 * WIDTH
    values, factors = random.normal(size=(6, count)).astype(np.float32), random.normal(size=8).astype(np.float32)
    pairs, low = np.zeros(2 * count, np.uint32), count
    before, places, numbers = values.astype(np.float64), [1, 3], [2, 0]
    first, second = (n * count for n in (4, 5)) if form is gated else numbers
    form(pairs, low, values.reshape(-1), count, 3 * count, first, second, factors, np.array([0, 2]) * count, count)
    expected = before.copy()
    for place, number, row in zip(places, numbers, (4, 5), strict=True):
        slope = np.where(before[place] > 0, 1, SLOPE)
        if form is hidden:
            total = before[place] + factors[number]
            expected[place] = np.where(total > 0, total, SLOPE * total)
        elif form is gated:
            expected[place] = slope * before[row]
        elif form is not plain:
            expected[place] = slope * (factors[2 * number] * before[0] + factors[2 * number + 1] * before[2])
    upper, left = halves(pairs[:count]), halves(pairs[count:])
    if form is unkept:
        np.testing.assert_array_equal(values, before)
        assert not left.any()
        np.testing.assert_allclose(upper, expected[places], rtol=2**-8, atol=1e-6)
        return
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(upper + left, values[places], rtol=2**-15, atol=0)


def test_gradients_are_added_to_neighbours_along_a_line() -> None:
    random, count = np.random.default_rng(4), 32
    values, out = random.normal(size=400).astype(np.float32), random.normal(size=60).astype(np.float32)
    rows, outs, factors = np.array([0, 60, 130, 200]), np.array([270, 330]), random.normal(size=(4, 5)).astype(np.float32)
    expected = out.astype(np.float64)
    for n in range(count):
        for j in range(3):
            expected[5 + n] += values[rows[1 + j] + n - j] + sum(float(factors[2 + o, 1 + j]) * values[outs[o] + n - j] for o in range(2))
    along(out, values, rows, outs, factors, count)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


def test_dot_products_are_added_to_sums_in_the_precision_of_their_terms() -> None:
    random, size = np.random.default_rng(5), OUTPUTS * POSITIONS
    left, right = random.normal(size=(2, OUTPUTS, 48)).astype(np.float32)
    sums, halves = random.normal(size=2 * size).astype(np.float32), np.zeros(OUTPUTS * 24 + 16, np.uint32)
    exact, terms = left.astype(np.float64) @ right.T, np.abs(left).astype(np.float64) @ np.abs(right.T)
    expected = sums.reshape(2, OUTPUTS, POSITIONS).sum(0) + exact
    dots(sums, left.reshape(-1), right.reshape(-1), halves, np.full(2 * size, 0x7F000000, np.uint32), np.arange(OUTPUTS) * 48)
    assert (np.abs(sums.reshape(2, OUTPUTS, POSITIONS).sum(0) - expected) < 2**-7 * terms).all()
