"""Lattices that are split into bands: their definition, its adjoint, boxes, and what rate and distortion make of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import REFERENCE
from inrcodec_kernels.pyramid import Layout
from inrcodec_kernels.pyramid.subbands import HIGH, LOW

from .pyramid_cases import (
    LEAST,
    NO,
    NUMBA,
    YES,
    assert_near,
    clear_case,
    context,
    distortion_defined,
    double,
    fresh,
    latents,
    name,
    rate_defined,
    single,
    synthesis,
    targets,
)

ALL3 = (NO, YES, YES, YES)
# Odd extents, axes that are not halved, absent ones, none of all lattices left whole but the last, lattices without latents, time, wide contexts.
SPLIT = [
    Layout((1, 7, 8, 11), (ALL3, ALL3), split=1),
    Layout((1, 9, 6, 13), (ALL3, ALL3, ALL3), split=3),
    Layout((1, 5, 9, 12), ((NO, NO, YES, YES), ALL3), split=2),
    Layout((1, 1, 1, 50), ((NO, NO, NO, YES),) * 3, split=2),
    Layout((3, 5, 6, 7), ((YES, YES, YES, YES), (NO, YES, NO, YES)), split=1),
    Layout((1, 5, 9, 12), (ALL3,), ((NO, NO, YES, YES),), (1, 1, 2, 2), wide=True, split=1),
    Layout((1, 1, 1, 1), ((YES, YES, YES, YES),), split=1),
]


def defined(latents: Sequence[NDArray[Any]], layout: Layout) -> list[NDArray[Any]]:
    """Lattices place by place, as the formula says."""
    found, at = [], 0
    for number, bands in enumerate(layout.bands):
        shape, coarse = layout.channels.shapes[number], layout.channels.shapes[number + 1]
        whole = np.zeros(shape)
        for odd, values in zip(bands, latents[at : at + len(bands)], strict=True):
            for place in product(*map(range, shape)):
                taps = [weights(p, n, halved, high) for p, n, halved, high in zip(place, coarse, layout.halved[number], odd, strict=True)]
                for chosen in product(*taps):
                    whole[place] += np.prod([w for _, w in chosen]) * values[tuple(i for i, _ in chosen)]
        found.append(whole)
        at += len(bands)
    return [*found, *(np.asarray(y, np.float64) for y in latents[at:])]


def weights(place: int, extent: int, halved: bool, odd: bool) -> list[tuple[int, float]]:
    """Places of a band's axis that make one of the finer axis."""
    if not halved:
        return [(place, 1.0)]
    taps, i = HIGH if odd else LOW, place // 2
    sign = -1 if odd and place % 2 else 1
    seen = [i + 2 - tap for tap in range(4)] if place % 2 else [i - 2 + tap for tap in range(4)]
    return [(min(max(p, 0), extent - 1), sign * taps[tap]) for tap, p in enumerate(seen)]


def test_bands_are_those_of_a_wavelet_transform() -> None:
    layout = SPLIT[1]
    assert layout.levels == 3 * 7 + 1 and layout.lattice == (0,) * 7 + (1,) * 7 + (2,) * 7 + (3,)
    assert layout.shapes == tuple(layout.channels.shapes[n] for n in [1] * 7 + [2] * 7 + [3] * 8)
    assert layout.steps == (*[(NO,) * 4] * 6, ALL3, *[(NO,) * 4] * 6, ALL3, *[(NO,) * 4] * 7)
    assert set(layout.bands[0]) == {(NO, *odd) for odd in product((NO, YES), repeat=3) if any(odd)}
    assert SPLIT[2].levels == 3 + 7 + 1 and layout.channels.split == 0 and layout.channels.channels is layout.channels
    # Both filters are of about unit length, and a constant has none of an odd band.
    assert 2 * np.square(LOW).sum() == pytest.approx(1, abs=0.02) and 2 * np.square(HIGH).sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("layout", SPLIT, ids=name)
def test_joined_is_the_formula(layout: Layout) -> None:
    ys = latents(fresh(), layout)
    expected = defined(double(ys), layout)
    assert_near(pyramid.joined(double(ys), layout, REFERENCE), expected, 1e-12)
    assert_near(pyramid.joined(ys, layout, NUMBA), expected)


@pytest.mark.parametrize("layout", SPLIT, ids=name)
def test_parted_is_the_adjoint(layout: Layout) -> None:
    random = fresh()
    ys, gs = double(latents(random, layout)), [random.standard_normal(shape) for shape in layout.channels.shapes]
    there, back = pyramid.joined(ys, layout, REFERENCE), pyramid.parted(gs, layout, REFERENCE)
    ways = [sum(float((a * b).sum()) for a, b in zip(one, two, strict=True)) for one, two in ((there, gs), (ys, back))]
    assert ways[0] == pytest.approx(ways[1], rel=1e-10, abs=1e-10)
    assert_near(pyramid.parted([single(g) for g in gs], layout, NUMBA), back)


@pytest.mark.parametrize("layout", SPLIT, ids=name)
def test_rate_and_distortion_of_bands_are_the_definition(layout: Layout) -> None:
    random = fresh()
    (ys, p), expected = clear_case(lambda: (latents(random, layout), context(random, layout)), lambda case: rate_defined(*case, layout))
    bits, gradients, of_context = pyramid.rate(ys, p, layout, LEAST, NUMBA)
    assert_near(bits, expected[0])
    assert_near(gradients, expected[1], 1e-4)
    assert_near(of_context, expected[2], 1e-4)
    (ys, q, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout), targets(random, layout)), lambda case: distortion_defined(*case, layout)
    )
    squares, gradients, of_synthesis = pyramid.distortion(ys, q, layout, target, NUMBA)
    assert squares == pytest.approx(expected[0], rel=1e-5)
    assert_near(gradients, expected[1])
    assert_near(of_synthesis, expected[2])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_box_of_bands_is_that_part_of_the_whole(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(SPLIT))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    ys, p = latents(random, layout), synthesis(random, layout)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in layout.shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, layout.shape, strict=True))
    boxes = pyramid.needed(layout, start, stop)
    parts = [y[tuple(map(slice, *box))] for y, box in zip(ys, boxes, strict=True)]
    for backend in (NUMBA, REFERENCE):
        whole = pyramid.synthesise(ys, p, layout, backend)
        found = pyramid.synthesise_box(parts, [a for a, _ in boxes], p, layout, start, stop, backend)
        if backend == NUMBA:
            assert np.array_equal(found, whole[tuple(map(slice, start, stop))])
        else:
            assert_near([found], [whole[tuple(map(slice, start, stop))]])


def test_what_cannot_be_split_is_refused() -> None:
    for layout in (((ALL3,), 2), ((ALL3,), -1), (((NO,) * 4, ALL3), 1)):
        with pytest.raises(ValueError, match="lattices to split"):
            Layout((1, 5, 6, 7), layout[0], split=layout[1])
