"""What planes hold at every scale, and how a total is shared among streams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.clips.budget import Ledger, error_ledger, size_ledger
from inrcodec.fitting.spread import Spread

RNG = np.random.default_rng(3)


def noise(sigma, shape=(9, 20, 31)):
    return np.clip(np.rint(128 + RNG.normal(0, sigma, shape)), 0, 255).astype(np.uint8)


def test_a_constant_plane_holds_nothing():
    spread = Spread.of(np.full((9, 20, 31), 77, np.uint8))
    assert spread.bits(1.0) == spread.error(1.0) == 0


def test_a_border_that_stays_costs_nothing():
    inner = noise(20)
    framed = np.pad(inner, ((0, 0), (32, 32), (32, 32)))
    border = np.zeros_like(framed) + 5
    assert Spread.of(border).bits(4.0) == 0
    # Besides the border's own edge, which is as long as the inner picture's rim.
    assert Spread.of(framed).bits(4.0) < 2 * Spread.of(inner).bits(4.0)


def test_bits_fall_and_errors_rise_with_the_step():
    spread, steps = Spread.of(noise(10)), 2.0 ** np.arange(-3, 12)
    assert np.all(np.diff([spread.bits(s) for s in steps]) < 0)
    assert np.all(np.diff([spread.error(s) for s in steps]) >= 0)


def test_the_error_of_a_huge_step_is_the_variance_and_of_a_small_one_the_rounding():
    samples = noise(10, (16, 32, 32))
    spread = Spread.of(samples)
    # Differences of all scales: a pyramid of frames has 4/3 as many as there are samples, and not orthogonal ones.
    assert spread.error(1e6) == pytest.approx(samples.size * samples.var(), rel=0.35)
    assert spread.error(0.5) == pytest.approx(4 / 3 * samples.size * 0.25 / 12, rel=0.05)


def test_what_stays_where_it_is_costs_once():
    frame = noise(20, (1, 40, 50))
    once, often = Spread.of(frame.repeat(2, 0)), Spread.of(frame.repeat(32, 0))
    # Longer by the root of 16, so that its error is that of 16 times as many frames.
    assert often.bits(4.0 * 4) == pytest.approx(once.bits(4.0), rel=0.02)
    assert often.error(4.0) < 2 * once.error(4.0) < Spread.of(noise(20, (32, 40, 50))).error(4.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(1, 1e9))
def test_shares_add_up_to_the_total(expected, total):
    ledger, spent = Ledger(total, expected), 0.0
    for _ in expected:
        share = ledger.share()
        assert share >= -1e-6 * total
        ledger.spend(share)
        spent += share
    assert spent == pytest.approx(total)


def test_what_one_leaves_goes_to_those_to_come():
    ledger = Ledger(100, [1, 1, 2])
    assert ledger.share() == 25
    ledger.spend(13)
    assert ledger.share() == pytest.approx(29)
    ledger.spend(29 + 8)
    assert ledger.share() == pytest.approx(50)


def test_every_stream_gets_what_nothing_takes():
    ledger = size_ledger(10_000, [Spread.of(noise(20)), Spread.of(np.zeros((9, 20, 31), np.uint8))], 250)
    ledger.spend(ledger.share())
    assert ledger.share() == pytest.approx(250)


def test_the_busier_plane_gets_more_bytes_and_errors_are_alike():
    calm, busy = Spread.of(noise(4)), Spread.of(noise(30))
    sizes, errors = size_ledger(3000, [calm, busy], 0), error_ledger(2 * 9 * 20 * 31 * 2.0, [calm, busy])
    assert sizes.share() < 0.4 * 3000
    assert 0.4 * errors.left < errors.share() <= 0.5 * errors.left
