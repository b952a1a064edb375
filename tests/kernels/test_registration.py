"""What registration needs: its definition against plain sums, the compiled one against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec_kernels.backend import REFERENCE, choose
from inrcodec_kernels.registration import Hats, difference, sampled, sums, with_slopes
from inrcodec_kernels.warp import nodes_of

COMPILED = choose("cpu")
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, int]


def pair(shape: tuple[int, int], other: tuple[int, int], shift: int, most: float, seed: int = 0) -> Pair:
    """Two smooth frames, and displacements."""
    random = np.random.default_rng(seed)
    frames = [np.cumsum(np.cumsum(random.normal(0, 3, n), 0), 1).astype(np.float32) for n in (shape, other)]
    nodes = random.uniform(-most, most, (2, *(nodes_of(n, shift) for n in shape))).astype(np.float32)
    return frames[0], frames[1], nodes, shift


def test_the_definition_is_the_formula() -> None:
    """Sample by sample, in double precision."""
    frame, other, nodes, shift = pair((13, 18), (15, 17), 3, 4.0)
    known, expected, size = with_slopes(other).astype(np.float64), np.zeros((5, *nodes.shape[1:])), 1 << shift
    rests = []
    for y, x in np.ndindex(frame.shape):
        v, f, u, g = y // size, y % size / size, x // size, x % size / size
        weights = {(v, u): (1 - f) * (1 - g), (v, u + 1): (1 - f) * g, (v + 1, u): f * (1 - g), (v + 1, u + 1): f * g}
        place = [c + sum(w * nodes[axis][n] for n, w in weights.items()) for axis, c in enumerate((y, x))]
        inside = [min(max(p, 0), n - 1) for p, n in zip(place, other.shape, strict=True)]
        row, column = (min(int(p), n - 2) for p, n in zip(inside, other.shape, strict=True))
        a, b = inside[0] - row, inside[1] - column
        here = (1 - a) * ((1 - b) * known[row, column] + b * known[row, column + 1])
        value, gy, gx = here + a * ((1 - b) * known[row + 1, column] + b * known[row + 1, column + 1])
        rest = frame[y, x] - value
        rests.append(rest)
        trust = 1 / (1 + (rest / 8) ** 2) if inside == place else 0
        for n, w in weights.items():
            expected[(slice(None), *n)] += w * trust * np.array([gy * gy, gx * gx, gy * gx, gy * rest, gx * rest])
    np.testing.assert_allclose(sums(frame, with_slopes(other), nodes, shift, 8.0), expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
    assert difference(frame, other, nodes, shift) == pytest.approx(np.square(rests).mean(), rel=1e-4)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)), other=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    shift=st.integers(1, 6), most=st.sampled_from([0.0, 0.7, 5.0, 500.0]), seed=st.integers(0, 9),
)  # fmt: skip
def test_the_compiled_one_gives_the_same(shape: tuple[int, int], other: tuple[int, int], shift: int, most: float, seed: int) -> None:
    frame, before, nodes, _ = pair(shape, other, shift, most, seed)
    # Quarters: places are exact, so that both find the same samples on the other frame.
    nodes = np.rint(4 * nodes) / np.float32(4)
    expected, found = (sums(frame, with_slopes(before), nodes, shift, 8.0, backend) for backend in (REFERENCE, COMPILED))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max() + 1e-5)
    differences = [difference(frame, before, nodes, shift, backend) for backend in (REFERENCE, COMPILED)]
    assert differences[1] == pytest.approx(differences[0], rel=1e-3, abs=1e-5)


def test_a_step_leads_to_a_small_displacement() -> None:
    """Of one displacement for all samples, by the sums of all nodes."""
    y, x = np.indices((64, 80), dtype=np.float32)

    def picture(dy: float, dx: float) -> np.ndarray:
        return (50 * np.sin((y + dy) / 5) * np.cos((x + dx) / 7)).astype(np.float32)

    nodes = np.zeros((2, nodes_of(64, 5), nodes_of(80, 5)), dtype=np.float32)
    for backend in (REFERENCE, COMPILED):
        yy, xx, yx, by_y, by_x = sums(picture(0.3, -0.2), with_slopes(picture(0, 0)), nodes, 5, 8.0, backend).sum((1, 2))
        np.testing.assert_allclose(np.linalg.solve([[yy, yx], [yx, xx]], [by_y, by_x]), [0.3, -0.2], atol=0.03)


def test_hats_are_transposes() -> None:
    random, hats = np.random.default_rng(0), Hats((20, 33), (4, 6), 3)
    nodes, samples = random.random((4, 6)), random.random((20, 33))
    assert np.vdot(hats.dense(nodes), samples) == pytest.approx(np.vdot(nodes, hats.summed(samples)))
    np.testing.assert_allclose(hats.dense(np.ones((4, 6))), 1, rtol=1e-6)


def test_places_between_samples_and_beyond_the_edge() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    at = np.array([[[0.5, -3.0, 9.0]], [[1.0, 2.25, 9.0]]], dtype=np.float32)
    np.testing.assert_allclose(sampled(values, at), [[3.0, 2.25, 11.0]])
