"""Funnels and their first layers: as large as the budget allows, and alike on every machine."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.models import sci
from inrcodec.models.sci import first_layers, forward, funnel, half_octaves, weight_count, weight_shapes

TAPERS = st.sampled_from([0.0, 0.5, 0.7, 1.0, 4.0]) | st.floats(0, 4)


def count_by_hand(ndim: int, widths: tuple[int, ...]) -> int:
    total, inputs = 0, ndim
    for width in (*widths, 1):
        total += inputs * width + width
        inputs = width
    return total


def tapered(first: int, depth: int, taper: float) -> tuple[int, ...]:
    return tuple(max(2, round(first / 2 ** (taper * layer))) for layer in range(depth))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(0, 20_000), st.integers(1, 8), TAPERS)
def test_funnels_are_as_wide_as_the_weights_allow(ndim: int, weights: int, layers: int, taper: float) -> None:
    widths = funnel(ndim, weights, layers, taper)
    if not widths:
        assert weights < count_by_hand(ndim, (2,))
        return
    assert len(widths) <= layers and count_by_hand(ndim, widths) <= weights
    assert all(a >= b for a, b in itertools.pairwise(widths))
    assert min(widths) >= 2 and max(widths) <= sci.MAX_WIDTH
    assert widths == tapered(widths[0], len(widths), taper)
    wider = tapered(widths[0] + 1, len(widths), taper)
    assert widths[0] == sci.MAX_WIDTH or count_by_hand(ndim, wider) > weights


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(60, 5000), st.integers(1, 8))
def test_without_taper_all_layers_are_alike(ndim: int, weights: int, layers: int) -> None:
    widths = funnel(ndim, weights, layers, 0.0)
    assert len(set(widths)) == 1 and len(widths) <= layers


def test_known_funnels() -> None:
    assert funnel(3, 1000, 4, 0.7) == (30, 18, 11, 7)
    assert funnel(3, 1000, 1, 0.7) == (199,)
    assert funnel(3, 10**7, 1, 0.7) == (512,)
    # The narrowest of one layer: 2 (d + 1) + 3 weights.
    assert funnel(3, 10, 4, 0.7) == ()
    assert funnel(3, 11, 4, 0.7) == (2,)
    assert funnel(1, 0, 4, 0.7) == ()


def test_steep_funnels_lose_layers_rather_than_width() -> None:
    """No layer is held at the least width by force: that of the last one follows from the first."""
    for taper in (0.5, 1.0, 2.0, 4.0):
        for weights in (30, 100, 1000):
            widths = funnel(3, weights, 6, taper)
            assert len(widths) == 1 or widths[0] / 2 ** (taper * (len(widths) - 1)) >= 2


@pytest.mark.parametrize("widths", [(2,), (9, 5), (12, 8, 5, 3)])
@pytest.mark.parametrize("ndim", [1, 3, 4])
def test_weights_are_counted_as_shaped(ndim: int, widths: tuple[int, ...]) -> None:
    shapes = weight_shapes(ndim, widths)
    assert shapes[0] == (ndim + 1, widths[0]) and shapes[-1] == (widths[-1] + 1, 1) and len(shapes) == len(widths) + 1
    assert weight_count(ndim, widths) == count_by_hand(ndim, widths) == sum(a * b for a, b in shapes)


MASK = 2**64 - 1


def splitmix(key: int, number: int) -> float:
    """The published generator, in Python's own integers: state after `number` increments from a multiple of the key."""
    x = (key * 0x2545F4914F6CDD1D + number) & MASK
    x = (x * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    x ^= x >> 31
    return (x >> 40) / 2**23 - 1


KEYS = [0, 1, (7 << 32) | 6, 2**64 - 1]


def test_first_layers_are_the_generator_s_numbers() -> None:
    bandwidth = np.array([[0, 1], [2, -3], [5, 4], [-6, 0]])
    found = first_layers(bandwidth, 3, np.array(KEYS, dtype=np.uint64))
    assert found.shape == (4, 3, 3) and found.dtype == np.float32
    for block, key in enumerate(KEYS):
        for row in range(3):
            reach = math.pi if row == 2 else math.sqrt(3) * 2 ** (bandwidth[block, row] / 2)
            expected = [reach * splitmix(key, 1 + 3 * row + column) for column in range(3)]
            assert found[block, row] == pytest.approx(expected, rel=1e-6, abs=1e-12)


GOLDEN = [
    -0.9054219722747803,
    -0.08870067447423935,
    -0.26261165738105774,
    -1.033286452293396,
    0.8026614189147949,
    -0.9045640230178833,
    -0.43024590611457825,
    1.3635958433151245,
    0.3361797034740448,
    -0.5215995907783508,
    0.47812187671661377,
    -1.4079179763793945,
]


def test_first_layers_never_change() -> None:
    """Every stream written depends on these."""
    found = first_layers(np.array([[0, 1], [4, -3]]), 2, np.array([5, (7 << 32) | 6], dtype=np.uint64))
    assert found.ravel().tolist() == GOLDEN


def test_first_layers_repeat_and_differ_with_the_key() -> None:
    bandwidth = np.zeros((200, 3), dtype=np.int64)
    key = (np.uint64(9) << np.uint64(32)) + np.arange(200, dtype=np.uint64)
    found = first_layers(bandwidth, 5, key)
    assert np.array_equal(found, first_layers(bandwidth, 5, key))
    assert np.array_equal(found[17:18], first_layers(bandwidth[:1], 5, key[17:18])), "whatever blocks stand beside it"
    # 200 blocks of 20 numbers of 24 bits: a handful of the 4000 may coincide by chance, no more.
    assert len(np.unique(found)) > 3990
    other = first_layers(bandwidth, 5, key + (np.uint64(1) << np.uint64(32)))
    assert np.mean(other == found) < 0.01


def test_first_layers_fill_their_bounds() -> None:
    bandwidth = np.tile([[3, -2]], (400, 1))
    found = first_layers(bandwidth, 20, np.arange(400, dtype=np.uint64))
    for row, bound in enumerate((math.sqrt(3) * 2**1.5, math.sqrt(3) / 2, math.pi)):
        numbers = found[:, row].astype(float) / bound
        assert np.abs(numbers).max() <= 1 + 1e-6
        assert np.abs(numbers).max() > 0.99 and abs(numbers.mean()) < 0.03
        assert numbers.std() == pytest.approx(1 / math.sqrt(3), rel=0.03), "RMS frequency as asked for"


def test_half_octaves_are_exact() -> None:
    exponents = np.arange(-130, 131)
    found = half_octaves(exponents)
    for exponent, value in zip(exponents.tolist(), found.tolist(), strict=True):
        assert value == 2.0 ** (exponent // 2) * (1.4142135623730951 if exponent % 2 else 1.0)
    assert np.all(half_octaves(exponents) * half_octaves(-exponents) == pytest.approx(1, rel=1e-15))


@pytest.mark.parametrize("shared", [False, True])
def test_forward_is_the_formula(shared: bool) -> None:
    random = np.random.default_rng(0)
    widths, n, count, ndim = (5, 4, 3), 3, 7, 2
    weights = [random.normal(size=(n, *shape)) for shape in weight_shapes(ndim, widths)]
    points = random.uniform(-1, 1, (1 if shared else n, count, ndim))
    found = forward([torch.from_numpy(w) for w in weights], torch.from_numpy(points)).numpy()
    assert found.shape == (n, count)
    for k in range(n):
        for i in range(count):
            hidden = [float(v) for v in points[0 if shared else k, i]]
            for w in weights[:-1]:
                hidden = [
                    math.sin(w[k, -1, j] + sum(hidden[r] * w[k, r, j] for r in range(len(hidden))))
                    for j in range(w.shape[2])
                ]
            output = weights[-1][k, -1, 0] + sum(h * weights[-1][k, r, 0] for r, h in enumerate(hidden))
            assert found[k, i] == pytest.approx(output, rel=1e-12, abs=1e-12)
