"""The pyramid's definition against plain loops, and what does not fit it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inrcodec_kernels import pyramid
from inrcodec_kernels.pyramid import Layout

from .pyramid_cases import (
    LAYOUTS,
    LEAST,
    NO,
    SMALL,
    YES,
    clear_case,
    context,
    double,
    fresh,
    latents,
    name,
    rate_defined,
    single,
    synthesis,
    weights,
)


def loop_upsampled(values: Any, taps: Any, halved: Any, shape: Any) -> Any:
    for axis in (a for a in range(4) if halved[a]):
        source, last = np.moveaxis(values, axis, 0), values.shape[axis] - 1
        out = np.zeros((shape[axis], *source.shape[1:]))
        for place, tap in itertools.product(range(shape[axis]), range(4)):
            i, odd = divmod(place, 2)
            out[place] += taps[3 - tap if odd else tap] * source[min(max(i - 2 + odd + tap, 0), last)]
        values = np.moveaxis(out, 0, axis)
    return values


def loop_seen(values: Any, place: Any, tap: Any, edge: bool) -> float:
    at = [p + t for p, t in zip(place, tap, strict=True)]
    inside = tuple(min(max(p, 0), n - 1) for p, n in zip(at, values.shape, strict=True))
    return float(values[inside]) if edge or list(inside) == at else 0.0


def loop_leaky(values: Any) -> Any:
    return np.where(values > 0, values, values / 8)


@pytest.mark.parametrize("layout", SMALL, ids=name)
def test_bits_are_those_of_plain_loops(layout: Layout) -> None:
    random = fresh()
    ys, p = double(latents(random, layout)), double(context(random, layout))
    coarser = [
        loop_upsampled(ys[k + 1], pyramid.LINEAR, layout.halved[k], layout.shapes[k]) for k in range(layout.levels - 1)
    ]
    bits, _, _ = pyramid.rate(ys, p, layout, LEAST)
    for k, own in enumerate(ys):
        one = coarser[k] if k < layout.levels - 1 else np.zeros(own.shape)
        two = np.zeros(own.shape)
        if k < layout.levels - 2:
            two = loop_upsampled(coarser[k + 1], pyramid.LINEAR, layout.halved[k], layout.shapes[k])
        total = 0.0
        for place in np.ndindex(own.shape):
            x = [loop_seen(own, place, tap, False) for tap in layout.causal]
            x = np.array([*x, *(loop_seen(one, place, tap, True) for tap in layout.cross), two[place]])
            n = min(k, len(p.first) - 1)
            h = loop_leaky(loop_leaky(x @ p.first[n] + p.level_bias[k]) @ p.second[n] + p.second_bias[n])
            location, scale = h @ p.last[n] + p.last_bias[n] + x @ p.skip[n]
            b = 2.0 ** min(max(scale, LEAST), 5.5)
            below, above = ((own[place] + half - location) / b for half in (-0.5, 0.5))
            tails = [0.5 * math.exp(-abs(v)) for v in (below, above)]
            # The distance of the tails where both are on one side, else what they leave.
            probability = abs(tails[0] - tails[1]) if below * above > 0 else 1 - sum(tails)
            total -= math.log2(probability + 1e-6)
        assert bits[k] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("layout", SMALL, ids=name)
def test_samples_are_those_of_plain_loops(layout: Layout) -> None:
    random = fresh()
    ys, p = double(latents(random, layout)), double(synthesis(random, layout))
    channels, absent, every = [], len(layout.above), layout.whole
    for k, own in enumerate(ys):
        values = p.gains[k] * own
        for step in reversed(range(k + absent)):
            values = loop_upsampled(values, p.filters[step], every.halved[step], every.shapes[step])
        channels.append(values)
    found = pyramid.synthesise(ys, p, layout)
    for place in np.ndindex(layout.shape):
        x = np.array([loop_seen(channels[k], place, tap, k + absent > 0) for k, tap in layout.seen])
        h = loop_leaky(loop_leaky(x @ p.first + p.first_bias) @ p.second + p.second_bias)
        expected = h @ p.last + p.last_bias + sum(s * c[place] for s, c in zip(p.skips, channels, strict=True))
        assert found[place] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_taps_are_those_of_the_method() -> None:
    volume, film = Layout((1, 2, 2, 2), ()), Layout((2, 1, 2, 2), ())
    assert len(volume.causal) == 13 and len(volume.cross) == 7 and len(volume.seen) == 27
    assert all(tap < (0, 0, 0, 0) for tap in (*volume.causal, *film.causal)) and list(volume.causal) == sorted(
        volume.causal
    )
    assert film.causal[:5] == ((-1, 0, 0, 0), (-1, 0, -1, 0), (-1, 0, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1))
    assert film.causal[5:] == ((0, 0, -1, -1), (0, 0, -1, 0), (0, 0, -1, 1), (0, 0, 0, -1))
    assert film.cross == (
        (0, 0, 0, 0),
        (-1, 0, 0, 0),
        (1, 0, 0, 0),
        *((0, 0, *t) for t in ((-1, 0), (1, 0), (0, -1), (0, 1))),
    )
    assert film.seen[-2:] == ((0, (-1, 0, 0, 0)), (0, (1, 0, 0, 0))) and len(film.seen) == 11
    deep = Layout((1, 9, 9, 9), ((NO, YES, YES, YES),) * 3, wide=True)
    assert deep.seen[:27] == replace(deep, wide=False).seen[:27] and deep.seen[43:] == replace(deep, wide=False).seen[27:]
    assert deep.seen[27:43] == tuple((0, (0, 0, y, x)) for y in range(-2, 3) for x in range(-2, 3) if max(abs(y), abs(x)) == 2)
    assert deep.seen[-2:] == ((2, (0, 0, 0, 0)), (3, (0, 0, 0, 0))) and deep.synthesis_reach == (0, 1, 2, 2)
    assert replace(deep, apart=(1, 1, 2, 4)).synthesis_reach == (0, 1, 4, 8) and deep.context_reach == (0, 2, 2, 2)
    assert Layout((1, 5, 1, 8), ((NO, YES, NO, YES),)).shapes == ((1, 5, 1, 8), (1, 3, 1, 4))
    assert Layout((1, 5, 1, 8), (), ((NO, YES, NO, YES),)).shapes == ((1, 3, 1, 4),)


def test_a_weighted_distortion_is_a_sum_of_weighted_squares() -> None:
    random, layout = fresh(), LAYOUTS[1]
    ys, p, target = double(latents(random, layout)), double(synthesis(random, layout)), random.normal(size=layout.shape)
    counted = weights(random, layout.shape, (1,)).astype(np.float64)
    errors = pyramid.synthesise(ys, p, layout) - target
    assert pyramid.distortion(ys, p, layout, target, weights=counted)[0] == pytest.approx(float((counted * errors**2).sum()))


@pytest.mark.parametrize("shape", [(9, 10, 13), (1, 9, 10, 12), (2, 9, 10, 13)])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    random, layout = fresh(), LAYOUTS[0]
    ys, p, target = latents(random, layout), synthesis(random, layout), single(random.normal(size=layout.shape))
    with pytest.raises(ValueError, match=r"expected weights of shape \(1, 9, 10, 13\)"):
        pyramid.distortion(ys, p, layout, target, weights=np.ones(shape, np.float32))


def test_what_does_not_fit_is_refused() -> None:
    random, layout = fresh(), LAYOUTS[0]
    ys, p, q = latents(random, layout), context(random, layout), synthesis(random, layout)
    with pytest.raises(ValueError, match="lattices"):
        pyramid.rate(ys[:-1], p, layout, LEAST)
    with pytest.raises(ValueError, match="parameters"):
        pyramid.rate(ys, p._replace(skip=p.skip[:, :-1]), layout, LEAST)
    with pytest.raises(ValueError, match="parameters"):
        pyramid.distortion(ys, q._replace(gains=q.gains[:-1]), layout, ys[0])
    with pytest.raises(ValueError, match="latents"):
        pyramid.synthesise_box([y[:, 1:] for y in ys], [(0, 1, 0, 0)] * 3, q, layout, (0, 0, 0, 0), (1, 2, 2, 2))
    with pytest.raises(ValueError, match="box"):
        pyramid.needed(layout, (0, 0, 0, 0), (1, 2, 2, 20))
    with pytest.raises(ValueError, match="extents"):
        Layout((1, 0, 2, 2), ())
    with pytest.raises(ValueError, match="levels"):
        Layout((1, 2, 2, 2), ((NO, YES, YES, YES),) * 8)


@pytest.mark.parametrize("limit", [LEAST, 5.5])
def test_cases_whose_scales_lie_at_a_limit_are_drawn_again(limit: float) -> None:
    """What is compared has one slope: beyond a limit gradients are none, before it some."""
    random, layout = fresh(), SMALL[0]
    p = context(random, layout)
    # So near that rounding decides, and so far that half a last place does not.
    flat = p._replace(last=0 * p.last, skip=0 * p.skip, last_bias=np.full_like(p.last_bias, limit - math.copysign(1e-6, limit)))
    inside = flat._replace(last_bias=np.full_like(p.last_bias, limit - math.copysign(1, limit)))
    draws = itertools.chain([flat], itertools.repeat(inside))
    case, _ = clear_case(lambda: (latents(random, layout), next(draws)), lambda case: rate_defined(*case, layout))
    assert case[1] is inside
