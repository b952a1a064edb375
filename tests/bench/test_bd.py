"""Bjøntegaard deltas of curves whose answer is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.bd import Curve, better, delta, mean_rate

pytest.importorskip("bjontegaard", reason="needs bjontegaard: pip install bjontegaard")

RATES = tuple(2.0**k for k in range(-6, 1))


def curve(factor: float = 1.0, gain: float = 0.0, rates: tuple[float, ...] = RATES) -> Curve:
    """5 dB an octave; `factor` times the bytes, `gain` dB better."""
    return Curve(tuple(r * factor for r in rates), tuple(50 + 5 * math.log2(r) + gain for r in rates))


@given(st.floats(0.3, 3.0))
def test_a_shift_in_rate_is_the_bd_rate(factor: float) -> None:
    found = delta(curve(), curve(factor))
    assert found is not None
    assert found.rate == pytest.approx(factor - 1, abs=1e-6)
    assert found.psnr_db == pytest.approx(-5 * math.log2(factor), abs=1e-6)


def test_only_the_overlap_counts_and_is_told() -> None:
    low, high = curve(rates=RATES[:5]), curve(2.0, rates=RATES[2:])
    found = delta(low, high)
    assert found is not None
    assert found.overlap_db == (high.psnrs[0], low.psnrs[-1])
    assert found.overlap_rate == (high.rates[0], low.rates[-1])
    assert found.rate == pytest.approx(1.0, abs=1e-6)


def test_curves_that_do_not_meet_have_no_delta() -> None:
    assert delta(curve(), curve(gain=60)) is None
    assert delta(curve(), curve(rates=RATES[:2])) is None
    assert delta(curve(rates=RATES[:3]), curve(rates=RATES[4:])) is None


def test_points_that_a_smaller_stream_matches_are_dropped() -> None:
    found = Curve.from_points([(0.5, 30), (0.25, 31), (1.0, 35), (2.0, math.inf), (1.0, 36), (0.1, 20)])
    assert found.rates == (0.1, 0.25, 1.0)
    assert found.psnrs == (20, 31, 36)


def test_interpolation_is_over_the_logarithm_of_the_rate() -> None:
    assert curve().psnr_at(math.sqrt(RATES[2] * RATES[3])) == pytest.approx(50 + 5 * (-3.5))
    assert curve().psnr_at(RATES[0] / 2) is None


def test_the_better_order_is_kept() -> None:
    good, bad = curve(0.8), curve(1.2)
    assert better(good, bad) is good and better(bad, good) is good


def test_averages_are_in_the_log_domain() -> None:
    assert mean_rate([1.0, -0.5]) == pytest.approx(0.0)
    assert mean_rate([0.2]) == pytest.approx(0.2)
