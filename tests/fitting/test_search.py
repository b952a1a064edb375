"""The search for the step that lands on an amount."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.fitting.search import Trial, search_step

BOUNDS = (0.03, 3e7)


def run(amount: Callable[[float], float], low: float, high: float, **choices: float) -> list[Trial]:
    arguments = {"start": 10.0, "slope": -1.0} | choices
    return search_step(
        lambda step: Trial(step, amount(step)), low=low, high=high, bounds=BOUNDS, **arguments
    )


@settings(max_examples=150, deadline=None)
@given(
    fall=st.floats(0.3, 4.0),
    bend=st.floats(0.0, 0.6),
    answer=st.floats(-4.0, 20.0),
    start=st.floats(-4.0, 20.0),
    width=st.floats(0.02, 0.2),
)
def test_amounts_that_fall_are_hit(fall: float, bend: float, answer: float, start: float, width: float) -> None:
    """Any smooth falling amount, the slope guessed wrong by up to four times, from anywhere."""

    def amount(step: float) -> float:
        x = math.log2(step)
        return -fall * (x + bend * math.sin(x))

    goal = amount(2.0**answer)
    trials = run(amount, goal - width / 2, goal + width / 2, start=2.0**start)
    assert goal - width / 2 <= trials[-1].amount <= goal + width / 2
    assert all(not goal - width / 2 <= t.amount <= goal + width / 2 for t in trials[:-1])


def test_a_straight_line_of_known_slope_takes_two_trials() -> None:
    trials = run(lambda step: 30 - 1.5 * math.log2(step), 19.99, 20.01, slope=-1.5)
    assert len(trials) == 2 and trials[-1].step == pytest.approx(2 ** (10 / 1.5), rel=0.01)


@pytest.mark.parametrize("aim", [0.25, 0.5, 0.75])
def test_what_is_aimed_at_is_a_part_of_the_window(aim: float) -> None:
    trials = run(lambda step: 30 - 1.5 * math.log2(step), 19, 21, slope=-1.5, aim=aim)
    assert trials[-1].amount == pytest.approx(19 + 2 * aim)


def test_steps_of_a_size_that_jumps_are_hit() -> None:
    """Whole bytes, not a smooth amount."""
    trials = run(lambda step: math.log2(math.ceil(50_000 / step)), math.log2(985), math.log2(1000))
    assert 985 <= math.ceil(50_000 / trials[-1].step) <= 1000


@pytest.mark.parametrize("seed", range(20))
def test_noise_delays_but_does_not_mislead(seed: int) -> None:
    """An amount that rises here and there by more than the window is wide."""
    random = np.random.default_rng(seed)
    amounts: dict[float, float] = {}

    def amount(step: float) -> float:
        return amounts.setdefault(step, 20 - math.log2(step) + random.uniform(-0.03, 0.03))

    trials = run(amount, 9.98, 10.02, start=3.0)
    assert len(trials) <= 10
    assert min(abs(t.amount - 10) for t in trials) < 0.06
    assert all(BOUNDS[0] <= t.step <= BOUNDS[1] for t in trials)


@pytest.mark.parametrize(("low", "high", "bound"), [(1000.0, 1001.0, BOUNDS[0]), (-1001.0, -1000.0, BOUNDS[1])])
def test_what_cannot_be_reached_ends_at_the_bound(low: float, high: float, bound: float) -> None:
    trials = run(lambda step: -math.log2(step), low, high)
    assert trials[-1].step == bound and len(trials) <= 10
    assert len({t.step for t in trials}) == len(trials), "no step is tried twice"


@pytest.mark.parametrize(("start", "first"), [(1e-9, BOUNDS[0]), (1e12, BOUNDS[1])])
def test_a_start_outside_is_brought_inside(start: float, first: float) -> None:
    assert run(lambda step: -math.log2(step), -5.1, -4.9, start=start)[0].step == first


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_trials_than_allowed(most: int) -> None:
    assert len(run(lambda step: -math.log2(step), -5.000001, -5.0, trials=most, slope=-0.3)) == most


def test_constant_amounts_do_not_loop() -> None:
    trials = run(lambda step: 7.0, 1.0, 2.0)
    assert 1 < len(trials) <= 10 and all(math.isfinite(t.step) for t in trials)
    assert run(lambda step: 7.0, 6.0, 8.0) == [Trial(10.0, 7.0)]
