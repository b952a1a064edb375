"""Displacements that are worth their bits: never dearer than exact ones, and where samples say nothing, smooth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from inrcodec.coding.displacements import coarsest, passes
from inrcodec.fitting import displacements as module
from inrcodec.fitting.displacements import Found, economical, price_at, worthwhile
from inrcodec.fitting.goal import Goal
from inrcodec.fitting.motion import find_motion, stilled
from inrcodec.payload.motion import pack
from inrcodec_kernels.backend import choose
from inrcodec_kernels.registration import Hats
from inrcodec_kernels.warp import Field, nodes_of, positions
from samples import panned, tissue


def trembling(shape: tuple[int, int, int], seed: int = 0, most: int = 12) -> Field:
    """Displacements of noise, in which no node says anything of another."""
    grid = (shape[0], 2, nodes_of(shape[1], 5), nodes_of(shape[2], 5))
    nodes = np.random.default_rng(seed).integers(0, most + 1, grid).astype(np.int32)
    return Field(nodes, 5, shape[1:], (shape[1] + 2, shape[2] + 2))


def error_of(field: Field, exact: Field, frames: np.ndarray) -> float:
    """Squared differences of places times squared slopes: what `economical` counts, sample by sample, and no more."""
    whole = (0, 0, 0), frames.shape
    off = (positions(field, *whole) - positions(exact, *whole)) / 16
    slopes = np.stack(np.gradient(np.stack([module._smooth(f) for f in frames.astype(np.float32)]), axis=(1, 2)), axis=1)
    # Both fields may begin elsewhere in their still frames.
    off -= np.rint(off.mean(axis=(0, 2, 3), keepdims=True))
    return float(np.square((off * slopes).sum(1)).sum())


def test_exact_ones_stay_where_bits_are_worth_nothing() -> None:
    frames = tissue((4, 96, 128))
    exact = trembling(frames.shape)
    found = economical(exact, frames, 0.0)
    assert found is not None
    np.testing.assert_array_equal(np.diff(found.nodes, axis=0), np.diff(exact.nodes, axis=0))


def test_dearer_bits_are_fewer_and_errors_more() -> None:
    frames = tissue((6, 160, 192))
    exact = trembling(frames.shape)
    sizes, errors = [], []
    for price in (0.0, 1e4, 1e5, 1e6):
        field = economical(exact, frames, price)
        assert field is not None
        sizes.append(len(pack(field)))
        errors.append(error_of(field, exact, frames))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.7 * sizes[0]
    assert errors == sorted(errors)


@pytest.mark.parametrize("price", [1e4, 1e5])
def test_errors_and_bits_together_are_fewer_than_with_any_rounding(price: float) -> None:
    frames = tissue((6, 160, 192))
    frames[:, :64] //= 8
    exact = trembling(frames.shape, most=4)

    def cost(field: Field | None) -> float:
        assert field is not None
        return error_of(field, exact, frames) + price * 8 * len(pack(field))

    coarser = [exact._replace(nodes=(exact.nodes + (1 << unit) // 2 >> unit << unit).astype(np.int32)) for unit in range(4)]
    assert cost(economical(exact, frames, price)) < 0.95 * min(map(cost, coarser))


def test_nothing_is_said_of_what_has_no_slopes() -> None:
    """The right half is flat: its displacements are those that neighbours foretell."""
    frames = tissue((5, 128, 256))
    frames[:, :, 100:] = 60
    exact = trembling(frames.shape)
    whole, left = (economical(each, frames, 1e4) for each in (exact, exact._replace(nodes=exact.nodes * (np.arange(9) < 5).astype(np.int32))))
    assert whole is not None and left is not None
    assert len(pack(whole)) < 1.1 * len(pack(left))


def test_weights_say_where_errors_count() -> None:
    frames = tissue((5, 128, 256))
    exact, weights = trembling(frames.shape), np.ones((1, 128, 256), np.float32)
    weights[..., 128:] = 1e-6
    plain, weighed = economical(exact, frames, 1e4), economical(exact, frames, 1e4, weights)
    assert plain is not None and weighed is not None and len(pack(weighed)) < 0.8 * len(pack(plain))


@pytest.mark.parametrize("grid", [(3, 4), (5, 9), (8, 6)])
def test_reach_is_that_of_coarser_hats(grid: tuple[int, int]) -> None:
    """An error of known nodes is one of all that follows from them in straight lines."""
    pulls = np.random.default_rng(0).random((1, 3, *grid)).astype(np.float32)
    steps = passes(grid)
    reach = module._Reach.of(pulls, steps)
    assert reach.corner.item(0) == pytest.approx(float(pulls[0, 0].sum()), rel=1e-5)
    known = np.zeros(grid)
    for numbers, node in itertools.chain(
        [(reach.coarsest[0, 0], place) for place in [coarsest]],
        [(new[0, 0], step.new) for step, new in zip(steps, reach.new, strict=True)],
    ):
        for at in np.ndindex(numbers.shape):
            known[...] = 0
            node(known)[at] = 1
            later = steps if node is coarsest else steps[[s.new for s in steps].index(node) + 1 :]
            for step in later:
                before, after = step.neighbours(known)
                step.new(known)[...] = (before + after) / 2
            assert numbers[at] == pytest.approx(float((known * pulls[0, 0]).sum()), rel=1e-5)


def test_each_node_is_the_best_of_those_near() -> None:
    random = np.random.default_rng(3)
    wanted, pull = random.normal(0, 3, (2, 3, 4)), random.random((3, 3, 4)).astype(np.float32)
    pull[2] = 0
    dear = (np.log2(1 + np.arange(256))[None] * [[0.5], [2.0]]).astype(np.float32)
    group = random.integers(0, 2, (2, 3, 4))
    found = module._nearest(wanted, pull, dear, group)
    for at in np.ndindex(wanted.shape):
        costs = {n: pull[at] * (n - wanted[at]) ** 2 + dear[group[at], abs(n)] for n in range(-12, 13)}
        near = [n for n in costs if n == 0 or (n * wanted[at] > 0 and abs(n) <= abs(round(wanted[at])) and abs(n - round(wanted[at])) < 4)]
        assert costs[found[at]] == pytest.approx(min(costs[n] for n in near))


def test_a_step_is_longer_where_less_is_asked_for() -> None:
    frames = panned((8, 64, 96), 3.4)
    found = Found.of(frames, True)
    assert found is not None and Found.of(frames, False) is None
    steps = [found.step_for(Goal(bits=b * frames.size)) for b in (2.0, 0.5, 0.1, 0.02)]
    assert steps == sorted(steps) and steps[0] > 0
    steps = [found.step_for(Goal(error=e)) for e in (0.5, 4.0, 40.0)]
    assert steps == sorted(steps) and price_at(steps[2]) > price_at(steps[0]) > 0


def test_still_frames_are_worth_what_they_save() -> None:
    frames = panned((8, 64, 96), 3.4)
    exact = find_motion(frames)
    assert exact is not None
    still = stilled(frames, exact, choose("cpu")).samples
    assert worthwhile(frames, still, 8.0 * len(pack(exact)), 4.0)
    assert not worthwhile(frames, still, 8.0 * frames.size, 4.0), "displacements cost too much"
    assert not worthwhile(frames, frames, 0.0, 4.0), "nothing is saved"


def test_hats_and_nodes_agree() -> None:
    """What an eighth off costs, from the samples of a frame whose slope is one everywhere."""
    frames = np.broadcast_to(np.arange(96, dtype=np.float32), (2, 64, 96))
    field = find_motion(panned((4, 64, 96), 1.0))
    assert field is not None
    pulls = module._pulls(field._replace(nodes=field.nodes[:2]), frames, None)
    inner = Hats((64, 96), field.nodes.shape[2:], 5).summed(np.ones((64, 96), np.float32)) / 64
    np.testing.assert_allclose(pulls[0, 1][:, 1:-2], inner[:, 1:-2], rtol=1e-3)
    assert np.abs(pulls[:, 0]).max() < 1e-6
