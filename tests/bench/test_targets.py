"""The search for a rate: lands where a codec can land, in few trials, on any scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.peers.base import QualityScale
from bench.targets import CLOSE, TRIALS, search_quality

SCALES = {
    "qp": QualityScale("qp", 51, 0, first=30, integer=True, octaves=10.0),
    "bound": QualityScale("bound", 20000.0, 0.5, first=50.0, logarithmic=True, octaves=14.0),
    "psnr": QualityScale("psnr", 12.0, 90.0, first=40.0, octaves=12.0),
}


class Codec:
    """A codec whose log2(rate) rises along the scale, bent by `bend`."""

    def __init__(self, scale: QualityScale, low: float, high: float, bend: float) -> None:
        self.scale, self.low, self.high, self.bend = scale, low, high, bend
        self.calls = 0

    def __call__(self, quality: float) -> float:
        self.calls += 1
        return 2.0 ** (self.low + (self.high - self.low) * self.scale.to_position(quality) ** self.bend)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(SCALES)),
    st.floats(-9, -5),
    st.floats(1, 4),
    st.floats(0.4, 2.5),
    st.floats(-7, 2),
)
def test_lands_on_the_target_or_on_the_nearest_step(name: str, low: float, high: float, bend: float, wanted: float) -> None:
    scale = SCALES[name]
    codec = Codec(scale, low, high, bend)
    target = 2.0**wanted
    quality = search_quality(codec, target, scale, {})
    assert codec.calls <= TRIALS
    nearest = min(max(wanted, low), high)
    miss = abs(math.log2(codec(quality)) - nearest)
    if scale.integer:
        assert miss <= min(abs(math.log2(codec(q)) - nearest) for q in range(52)) + 0.25
    else:
        assert miss <= 4 * CLOSE


@pytest.mark.parametrize("name", sorted(SCALES))
def test_most_targets_need_few_trials_when_neighbours_are_known(name: str) -> None:
    scale, known = SCALES[name], {}
    codec = Codec(scale, -7, 3, 1.2)
    targets = [2.0**k for k in range(-6, 2)]
    for target in targets:
        search_quality(codec, target, scale, known)
    assert codec.calls <= 3 * len(targets)


def test_out_of_reach_ends_at_the_end_of_the_scale() -> None:
    scale = SCALES["psnr"]
    assert search_quality(Codec(scale, -3, 2, 1.0), 2.0**-9, scale, {}) == scale.lowest
    assert search_quality(Codec(scale, -3, 2, 1.0), 2.0**6, scale, {}) == scale.highest


def test_an_exact_scale_is_not_searched() -> None:
    codec, scale = Codec(SCALES["psnr"], -3, 2, 1.0), QualityScale("bpp", 0.001, 16, exact=True)
    known: dict[float, float] = {}
    assert search_quality(lambda q: codec(q) * 0 + q, 0.3, scale, known) == 0.3
    assert known == {0.3: 0.3} and codec.calls == 1


@given(st.sampled_from(sorted(SCALES)), st.floats(0, 1))
def test_positions_and_qualities_are_inverse(name: str, position: float) -> None:
    scale = SCALES[name]
    quality = scale.from_position(position)
    assert abs(scale.to_position(quality) - position) <= (0.6 / 51 if scale.integer else 1e-4)
    assert scale.from_position(-1) == scale.lowest and scale.from_position(2) == scale.highest
