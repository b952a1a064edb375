"""Products of bfloat16 in tile registers or in vectors, and the pairs they are made of, against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from inrcodec_kernels.pairs import halve, paired, turn
from inrcodec_kernels.tiles import (
    INPUTS,
    OUTPUTS,
    POSITIONS,
    REGISTERS,
    TILES,
    TOGETHER,
    accumulate,
    configure,
    multiply,
    release,
    weights,
)
from inrcodec_kernels.vectors import ROWS, padded

pytestmark = pytest.mark.skipif(not TILES, reason="this processor has no products of bfloat16 (AMX that the system gives, or AVX512-BF16)")
WIDTH, PITCH, GUARD, SLOPE = TOGETHER * POSITIONS, TOGETHER * POSITIONS + 32, 7.0, 0.25
HALVE, TURN, TURN_HALF, ACCUMULATE = halve(), turn(32, 48), turn(16, 48), accumulate(24)


def product(products: int) -> Any:
    block = multiply(products, PITCH)

    @njit
    def run(out, outputs, tiles, group, inputs, pairs, low):  # type: ignore[no-untyped-def]
        configure()
        block(out, group * OUTPUTS * PITCH, outputs, tiles, group, inputs, pairs, 0, low)
        release()

    return run


def pairing(*options: Any) -> Any:
    block = paired(*options)

    @njit
    def run(pairs, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
        block(pairs, 0, low, values, one, other, first, second, factors, rows, count)

    return run


@njit
def dots(sums, left, right, halves, turned):  # type: ignore[no-untyped-def]
    configure()
    for i in range(OUTPUTS):
        HALVE(halves, i * 24, left, i * 48, 48)
    TURN(turned, 0, right, 0)
    TURN_HALF(turned, OUTPUTS * POSITIONS, right, 32)
    ACCUMULATE(sums, 0, halves, 0, turned, 0, 2)
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


@pytest.mark.parametrize(("products", "precision"), [(3, 2**-14), (1, 2**-7)])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (4, 7), (24, 60), (60, 33)])
def test_products_are_those_of_float32_to_their_precision_and_nothing_else_is_written(
    products: int, precision: float, outputs: int, inputs: int
) -> None:
    random, groups, count = np.random.default_rng(inputs), -(-outputs // OUTPUTS), -(-inputs // INPUTS)
    matrix, rows = random.normal(size=(outputs, inputs)).astype(np.float32), random.normal(size=(inputs, WIDTH)).astype(np.float32)
    pairs = in_pairs(rows, count * INPUTS // 2, products)
    out = np.full((groups * OUTPUTS, PITCH), GUARD, np.float32)
    for group in range(groups):
        product(products)(out.reshape(-1), outputs, weights(matrix, products), group, inputs, pairs.reshape(-1), pairs[0].size)
    exact, terms = matrix.astype(np.float64) @ rows, np.abs(matrix).astype(np.float64) @ np.abs(rows)
    error = np.abs(out[:outputs, :WIDTH] - exact)
    assert (error < precision * terms).all() and error.max() > 0
    # Vectors write some rows at a time, tile registers all of a tile.
    written = padded(outputs, OUTPUTS if REGISTERS else ROWS)
    assert (out[outputs:written, :WIDTH] == 0).all() and (out[written:] == GUARD).all() and (out[:, WIDTH:] == GUARD).all()


@pytest.mark.parametrize("products", [0, 1, 3])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ["plain", "hidden", "gated", "outer"])
def test_pairs_are_of_rows_that_were_changed_on_the_way(kind: str, kept: bool, products: int) -> None:
    random, count = np.random.default_rng(3), 2 * WIDTH
    values, factors = random.normal(size=(6, count)).astype(np.float32), random.normal(size=8).astype(np.float32)
    pairs, before = np.zeros(2 * count, np.uint32), values.astype(np.float64)
    places, numbers = [1, 3], [2, 0]
    first, second = (n * count for n in (4, 5)) if kind == "gated" else numbers
    pairing(kind, products, SLOPE, 2, kept)(
        pairs, count, values.reshape(-1), count, 3 * count, first, second, factors, np.array([0, 2]) * count, count
    )  # fmt: skip
    expected = before.copy()
    for place, number, row in zip(places, numbers, (4, 5), strict=True):
        slope = np.where(before[place] > 0, 1, SLOPE)
        if kind == "hidden":
            total = before[place] + factors[number]
            expected[place] = np.where(total > 0, total, SLOPE * total)
        elif kind == "gated":
            expected[place] = slope * before[row]
        elif kind == "outer":
            expected[place] = slope * (factors[2 * number] * before[0] + factors[2 * number + 1] * before[2])
    np.testing.assert_allclose(values, expected if kept else before, rtol=1e-5, atol=1e-6)
    upper, left = halves(pairs[:count]), halves(pairs[count:])
    precision = {0: 0.0, 1: 2**-8, 3: 2**-15}[products]
    np.testing.assert_allclose(upper + left, expected[places] if products else 0, rtol=precision, atol=1e-6)
    assert left.any() == (products == 3)


def test_dot_products_are_added_to_sums_in_the_precision_of_their_terms() -> None:
    random, size = np.random.default_rng(5), OUTPUTS * POSITIONS
    left, right = random.normal(size=(2, OUTPUTS, 48)).astype(np.float32)
    sums, halves = random.normal(size=2 * size).astype(np.float32), np.zeros(OUTPUTS * 24 + 16, np.uint32)
    exact, terms = left.astype(np.float64) @ right.T, np.abs(left).astype(np.float64) @ np.abs(right.T)
    expected = sums.reshape(2, OUTPUTS, POSITIONS).sum(0) + exact
    dots(sums, left.reshape(-1), right.reshape(-1), halves, np.full(2 * size, 0x7F000000, np.uint32))
    assert (np.abs(sums.reshape(2, OUTPUTS, POSITIONS).sum(0) - expected) < 2**-7 * terms).all()
