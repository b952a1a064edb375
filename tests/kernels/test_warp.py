"""The warp: its definition against plain loops, the compiled one against the definition, boxes against the whole, the adjoint."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.warp import NODE_LIMIT, Field, adjoint, check, nodes_of, positions, reference, seen, warp
from inrcodec_kernels.warp.layout import WEIGHTS

BACKENDS = [Backend("reference"), Backend("numba")]
CASES = [((3, 13, 21), (19, 26), 3, 90), ((2, 64, 33), (64, 33), 4, 40), ((1, 1, 1), (5, 4), 6, 30), ((2, 70, 9), (3, 90), 5, 3000)]
"""Frames, extents of still frames, shift, largest displacement in eighths."""


def drawn(frames: tuple[int, int, int], still: tuple[int, int], shift: int, most: int) -> Field:
    count, h, w = frames
    shape = (count, 2, nodes_of(h, shift), nodes_of(w, shift))
    return Field(np.random.default_rng(3).integers(-most, most + 1, shape, dtype=np.int32), shift, (h, w), still)


def whole(field: Field) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return (0, 0, 0), (len(field.nodes), *field.frame)


def stills(field: Field) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((len(field.nodes), *field.still)).astype(np.float32)


def loops(still: np.ndarray, field: Field) -> np.ndarray:
    """The README's formula, sample by sample."""
    size, weights, out = 1 << field.shift, WEIGHTS.astype(np.float64), np.zeros((len(still), *field.frame))
    for t, y, x in itertools.product(*map(range, out.shape)):
        v, f, u, g, places = y // size, y % size, x // size, x % size, []
        for n, at in zip(field.nodes[t].tolist(), (y, x), strict=True):
            m = (size - f) * ((size - g) * n[v][u] + g * n[v][u + 1]) + f * ((size - g) * n[v + 1][u] + g * n[v + 1][u + 1])
            places.append(16 * at + math.floor((m + size**2 / 4) / (size**2 / 2)))
        for i, j in itertools.product(range(6), repeat=2):
            row, column = (min(max(p // 16 - 2 + k, 0), n - 1) for p, k, n in zip(places, (i, j), field.still, strict=True))
            out[t, y, x] += weights[places[0] % 16, i] * weights[places[1] % 16, j] * still[t, row, column]
    return out


@pytest.mark.parametrize("case", CASES)
def test_definition_is_the_formula(case: tuple) -> None:  # type: ignore[type-arg]
    field = drawn(*case)
    still = stills(field)
    found = reference.warped(torch.from_numpy(still).double(), (0, 0), field, *whole(field)).numpy()
    np.testing.assert_allclose(found, loops(still, field), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_what_is_seen_is_what_positions_say(case: tuple) -> None:  # type: ignore[type-arg]
    """Of boxes that begin and end anywhere between nodes, though corners alone are looked at."""
    field, random = drawn(*case), np.random.default_rng(0)
    shape = np.array([len(field.nodes), *field.frame])
    for _ in range(20):
        start = random.integers(0, shape)
        stop = start + 1 + random.integers(0, shape - start)
        box = tuple(start.tolist()), tuple(stop.tolist())
        (_, *low), (_, *high) = seen(field, *box)
        places = positions(field, *box) >> 4
        expected = np.clip(places.min(axis=(0, 2, 3)) - 2, 0, np.array(field.still) - 1), np.clip(places.max(axis=(0, 2, 3)) + 4, 1, field.still)
        np.testing.assert_array_equal((low, high), expected)


@pytest.mark.parametrize("case", CASES)
def test_compiled_is_the_definition(case: tuple) -> None:  # type: ignore[type-arg]
    field = drawn(*case)
    still = stills(field)
    results = [warp(still, (0, 0), field, *whole(field), backend) for backend in BACKENDS]
    np.testing.assert_allclose(results[1], results[0], atol=2e-6)
    gradients = np.random.default_rng(5).standard_normal(results[0].shape).astype(np.float32)
    backwards = [adjoint(gradients, field, backend) for backend in BACKENDS]
    np.testing.assert_allclose(backwards[1], backwards[0], atol=2e-5 * np.abs(backwards[0]).max())


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_adjoint_is_the_transpose(backend: Backend) -> None:
    field = drawn(*CASES[0])
    still = stills(field)
    frames = warp(still, (0, 0), field, *whole(field), backend).astype(np.float64)
    gradients = np.random.default_rng(5).standard_normal(frames.shape).astype(np.float32)
    assert (frames * gradients).sum() == pytest.approx((adjoint(gradients, field, backend) * still.astype(np.float64)).sum(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_boxes_are_parts_of_the_whole(case: tuple, backend: Backend) -> None:  # type: ignore[type-arg]
    field = drawn(*case)
    still, (_, stop) = stills(field), whole(field)
    expected = warp(still, (0, 0), field, *whole(field), backend)
    low = tuple(n // 3 for n in stop)
    high = tuple(max(n - n // 4, a + 1) for n, a in zip(stop, low, strict=True))
    first, last = seen(field, low, high)
    part = still[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    assert part.size < still.size or still[0].size < 36
    found = warp(part, first[1:], field, low, high, backend)
    np.testing.assert_array_equal(found, expected[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])


def test_a_whole_shift_moves_samples_as_they_are() -> None:
    field = Field(np.full((1, 2, 3, 3), 16, np.int32), 3, (9, 11), (12, 14))
    still = stills(field)
    np.testing.assert_array_equal(warp(still, (0, 0), field, *whole(field), BACKENDS[1])[0], still[0, 2:11, 2:13])


def test_fractions_move_waves_by_their_phase() -> None:
    field = Field(np.stack([np.zeros((2, 3)), np.full((2, 3), 3)])[None].astype(np.int32), 5, (1, 33), (1, 40))
    still = np.sin(0.5 * np.arange(40, dtype=np.float32))[None, None]
    found = warp(still, (0, 0), field, *whole(field), BACKENDS[1])[0, 0]
    np.testing.assert_allclose(found[3:30], np.sin(0.5 * (np.arange(3, 30) + 0.375)), atol=0.01)


def test_largest_displacements_fit_32_bits() -> None:
    field = drawn((1, 65, 65), (8, 8), 6, 1)
    extreme = field._replace(nodes=np.full_like(field.nodes, NODE_LIMIT - 1))
    check(extreme)
    assert positions(extreme, *whole(extreme))[0, 0, 0, 0] == 2 * (NODE_LIMIT - 1)
    still = stills(extreme)
    assert np.isclose(warp(still, (0, 0), extreme, *whole(extreme), BACKENDS[1]), still[0, -1, -1]).all()


def test_weights_keep_constants_and_mirror() -> None:
    np.testing.assert_array_equal(WEIGHTS.sum(1), 1)
    np.testing.assert_array_equal(WEIGHTS[1:], WEIGHTS[:0:-1, ::-1])


def test_misfits_are_refused() -> None:
    field = drawn(*CASES[0])
    with pytest.raises(ValueError, match="use the frames' field"):
        check(field._replace(frame=(40, 40)))
    with pytest.raises(ValueError, match="use the frames' field"):
        check(field._replace(nodes=np.full_like(field.nodes, NODE_LIMIT)))
    with pytest.raises(ValueError, match="use the frames' field"):
        check(field._replace(shift=7, nodes=field.nodes[:, :, :2, :2]))
    with pytest.raises(ValueError, match="read more"):
        warp(stills(field)[:, 1:], (1, 0), field, *whole(field))
    with pytest.raises(ValueError, match="of all frames"):
        adjoint(np.zeros((1, 2, 3), np.float32), field)
