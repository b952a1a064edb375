"""What parts of a signal may cost each: shares of one goal at one step."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting.goal import Goal
from inrcodec.fitting.pyramid_start import Differences
from inrcodec.fitting.pyramid_trial import GUESS, GUESS_OF_ERROR
from inrcodec.fitting.shares import Measures, largest_last, shares, unrounded
from inrcodec.models.pyramid import PyramidLayout
from samples import scan

LEAST = 500.0


def known(volume: np.ndarray, weights: np.ndarray | None = None) -> Differences:
    return Differences(volume, float(np.median(volume)), PyramidLayout(volume.shape, ((True,) * volume.ndim,) * 2), weights)


def measures(volume: np.ndarray) -> Measures:
    return Measures.of(known(volume), volume.size, LEAST)


VOLUMES = [scan((12, 16, 16), seed=seed) // divisor for seed, divisor in ((0, 1), (1, 4), (2, 40))]


@pytest.mark.parametrize("octave", [3, 5, 8])
def test_bits_are_shared_as_at_one_step(octave: int) -> None:
    """At a whole octave, where parts are measured, shares are what `Differences` says itself."""
    own = np.array([known(volume).bits(2.0**octave) for volume in VOLUMES])
    goal = Goal(bits=float(GUESS * own.sum() + 3 * LEAST))
    found = [share.bits for share in shares(goal, [measures(volume) for volume in VOLUMES])]
    assert found == pytest.approx(LEAST + GUESS * own, rel=1e-6)
    assert found[0] > found[1] > found[2] and sum(found) == pytest.approx(goal.bits)


@pytest.mark.parametrize("octave", [3, 5, 8])
def test_errors_are_shared_as_at_one_step(octave: int) -> None:
    own = np.array([known(volume).error(2.0**octave) for volume in VOLUMES])
    goal = Goal(error=float(GUESS_OF_ERROR * own.mean()))
    found = [share.error for share in shares(goal, [measures(volume) for volume in VOLUMES])]
    assert found == pytest.approx(GUESS_OF_ERROR * own, rel=1e-6)


def test_shares_add_up_between_octaves_and_beyond_them() -> None:
    parts = [measures(volume) for volume in VOLUMES]
    for bits in (100.0, 2000.0, 34567.0, 1e9):
        found = shares(Goal(bits=bits), parts)
        assert all(share.bits > 0 for share in found)
        assert bits < 3 * LEAST * 4 / 3 or sum(share.bits for share in found) == pytest.approx(bits)
    for error in (0.01, 7.0, 1234.5):
        found = shares(Goal(error=error), parts)
        assert np.mean([share.error for share in found]) == pytest.approx(error, rel=2e-3)


def test_parts_of_one_value_get_what_they_cannot_do_without() -> None:
    flat = measures(np.full((12, 16, 16), 7))
    bits = [share.bits for share in shares(Goal(bits=30_000.0), [measures(VOLUMES[0]), flat])]
    assert bits[1] < 1.1 * LEAST and sum(bits) == pytest.approx(30_000)
    errors = [share.error for share in shares(Goal(error=50.0), [measures(VOLUMES[0]), flat])]
    assert errors[0] == pytest.approx(100, rel=0.01) and 0 < errors[1] < 1
    assert [share.error for share in shares(Goal(error=50.0), [flat, flat])] == [50.0, 50.0]


@pytest.mark.parametrize("weight", [1 / 64, 1 / 8])
def test_parts_outside_take_the_bits_of_a_coarser_step(weight: float) -> None:
    """The same as if all their errors had that weight, to a bit where there are hardly any."""
    volume = VOLUMES[0]
    weighed = known(volume, np.full((1, 1, 1), weight, np.float32))
    found = measures(volume).outside(weight)
    assert found.bits == pytest.approx([weighed.bits(s) for s in np.exp2(np.arange(-2.0, 18.0))], rel=0.03, abs=1)
    assert found.inside == 0 and not found.errors.any()
    inside, outside = shares(Goal(error=20.0), [measures(VOLUMES[1]), found])
    assert inside.error == pytest.approx(20.0, rel=2e-3) and outside.error is None and outside.bits > LEAST


def test_parts_that_do_not_matter_at_all_take_their_least() -> None:
    nothing = measures(VOLUMES[0]).outside(0.0)
    _, share = shares(Goal(error=20.0), [measures(VOLUMES[1]), nothing])
    assert share.bits == pytest.approx(LEAST)


def test_the_largest_share_comes_last_and_parts_without_an_error_first() -> None:
    parts = [measures(volume) for volume in VOLUMES]
    assert largest_last(shares(Goal(bits=1e5), parts), parts) == [2, 1, 0]
    mixed = [parts[0], parts[1].outside(0.5), parts[2]]
    assert largest_last(shares(Goal(error=9.0), mixed), mixed) == [1, 2, 0]


def test_fits_are_asked_for_less_error_than_rounded_samples_have() -> None:
    assert unrounded(Goal(bits=5.0)) == Goal(bits=5.0)
    assert unrounded(Goal(error=10.0)).error == pytest.approx(10 - 1 / 12)
    assert unrounded(Goal(error=0.1)).error == pytest.approx(0.05)
