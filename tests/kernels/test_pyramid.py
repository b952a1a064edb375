"""The pyramid's compiled float kernels against the definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Floats, Layout, Place, Synthesis, frames, networks
from inrcodec_kernels.pyramid.frames import Frame, slabs
from inrcodec_kernels.tiles import TILES

from .pyramid_cases import (
    LAYOUTS,
    LEAST,
    NUMBA,
    SAME,
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
    weights,
)


def poisoned(operation: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What an operation gives where memory holds NaN until it is written; compiled before that."""
    operation()

    def empty(shape: Any, dtype: Any = float, order: Any = "C") -> NDArray[Any]:
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -7, dtype, order)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", empty)
        return operation()


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_compiled_rate_and_gradients_are_the_definition(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    random = fresh()
    (ys, p), expected = clear_case(lambda: (latents(random, layout), context(random, layout)), lambda case: rate_defined(*case, layout))
    bits, gradients, of_context = poisoned(lambda: pyramid.rate(ys, p, layout, LEAST, NUMBA), monkeypatch)
    assert_near(bits, expected[0])
    # One symbol in the tail of a narrow distribution is known to 1e-5 of its probability only.
    assert_near(gradients, expected[1], 1e-4)
    assert all(found.dtype == np.float32 for found in gradients)
    assert_near(of_context, expected[2], 1e-4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_compiled_distortion_and_gradients_are_the_definition(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    random = fresh()

    def defined(case: tuple[list[Floats], Synthesis, Floats]) -> Any:
        # Samples too, so that a single one that cancels is drawn again.
        return *distortion_defined(*case, layout), pyramid.synthesise(double(case[0]), double(case[1]), layout)

    (ys, p, target), expected = clear_case(lambda: (latents(random, layout), synthesis(random, layout), targets(random, layout)), defined)
    squares, gradients, of_synthesis = poisoned(lambda: pyramid.distortion(ys, p, layout, target, NUMBA), monkeypatch)
    assert squares == pytest.approx(expected[0], rel=1e-5)
    assert_near(gradients, expected[1])
    assert_near(of_synthesis, expected[2])
    samples = poisoned(lambda: pyramid.synthesise(ys, p, layout, NUMBA), monkeypatch)
    assert_near([samples], [expected[3]])


@pytest.mark.parametrize("layout", [LAYOUTS[8], Layout((1, 18, 6, 8), ((False, True, True, True),), split=1)], ids=name)
def test_turns_share_out_the_gradients_of_parameters_of_large_levels(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands, of which each has too few parts for turns, take turns together."""
    random, count = fresh(), 2
    ys, p, q, target = latents(random, layout), context(random, layout), synthesis(random, layout), targets(random, layout)
    monkeypatch.setattr(frames, "SLAB", 1)
    operations = partial(pyramid.rate, ys, p, layout, LEAST, NUMBA), partial(pyramid.distortion, ys, q, layout, target, NUMBA)
    for operation in operations:
        total, by_latents, whole = operation()
        turns = [operation(turn=pyramid.Turn(number, count)) for number in range(count)]
        for found, gradients, _ in [*turns, operation(turn=pyramid.NONE)]:
            assert np.array_equal(found, total)
            assert all(np.array_equal(a, b) for a, b in zip(gradients, by_latents, strict=True))
        parts = [of_parameters for _, _, of_parameters in turns]
        assert not np.allclose(parts[0].first, parts[1].first)
        means = [np.mean(each, axis=0, dtype=np.float64) for each in zip(*parts, strict=True)]
        assert_near(means, list(double(whole)), 1e-5)
        assert not any(getattr(operation(turn=pyramid.NONE)[2], name).any() for name in ("first", "second_bias", "last"))


THINNED = [
    (Layout((1, 9, 8, 7), ((False, True, True, True),) * 2), (1,)),
    (Layout((2, 10, 7, 8), ((False, True, True, True),), above=((False, True, True, True),), wide=True), (1, 2)),
    (Layout((1, 18, 6, 8), ((False, True, True, True),), split=1), (1, 2)),
    (Layout((1, 5, 11, 8), ((False, False, True, True), (False, True, True, True))), (2,)),
    (Layout((1, 1, 48, 30), ((False, False, True, True),), split=1), (2,)),
]


@pytest.mark.parametrize("same", [None, (), (0, 1)])
@pytest.mark.parametrize(("layout", "axes"), THINNED, ids=[name(layout) for layout, _ in THINNED])
def test_lines_take_turns(layout: Layout, axes: tuple[int, ...], same: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn counts the errors of its lines as if all were like them; together they have those of all."""
    random, count = fresh(), 3
    ys, p, target = latents(random, layout), synthesis(random, layout), targets(random, layout)
    counts = None if same is None else weights(random, layout.shape, same)
    monkeypatch.setattr(frames, "SLAB", 1)

    def taken(turn: pyramid.Turn) -> tuple[float, list[Floats], Synthesis]:
        return pyramid.distortion(ys, p, layout, target, NUMBA, counts, turn=turn)

    _, by_latents, of_parameters = taken(pyramid.ALL)
    turns = [taken(pyramid.Turn(number, 1, count)) for number in range(count)]
    errors = np.square(pyramid.synthesise(ys, p, layout, NUMBA) - target) * (1 if counts is None else counts)
    places = sum(np.indices(layout.shape)[list(axes)])
    for number, (squares, _, _) in enumerate(turns):
        assert squares == pytest.approx(count * errors[places % count == number].sum(), rel=1e-5)
    for whole, parts in ((by_latents, [turn[1] for turn in turns]), (of_parameters, [turn[2] for turn in turns])):
        means = [np.mean(each, axis=0, dtype=np.float64) for each in zip(*parts, strict=True)]
        assert_near(means, list(double(whole)), 1e-5)


def test_parts_and_lines_take_turns_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part has its turn with all lines, as their numbers have no factor in common."""
    random, layout = fresh(), LAYOUTS[8]
    ys, p, target = latents(random, layout), synthesis(random, layout), targets(random, layout)
    monkeypatch.setattr(frames, "SLAB", 1)
    turns = [pyramid.distortion(ys, p, layout, target, NUMBA, turn=pyramid.Turn(number, 2, 3)) for number in range(6)]
    same, other = turns[0], turns[3]
    assert same[0] == other[0] and all(np.array_equal(a, b) for a, b in zip(same[1], other[1], strict=True))
    assert not np.allclose(same[2].first, other[2].first)
    whole = pyramid.distortion(ys, p, layout, target, NUMBA)[2]
    means = [np.mean(each, axis=0, dtype=np.float64) for each in zip(*(turn[2] for turn in turns), strict=True)]
    assert_near(means, list(double(whole)), 1e-5)


@pytest.mark.parametrize("layout", [Layout((1, 1, 1, 40), ((False, False, False, True),)), Layout((1, 6, 6, 6), ())], ids=name)
def test_lines_with_latents_of_their_own_count_at_every_turn(layout: Layout) -> None:
    random = fresh()
    ys, p, target = latents(random, layout), synthesis(random, layout), targets(random, layout)
    whole, turned = (pyramid.distortion(ys, p, layout, target, NUMBA, turn=turn) for turn in (pyramid.ALL, pyramid.Turn(1, 1, 2)))
    assert whole[0] == turned[0]
    assert all(np.array_equal(a, b) for a, b in zip((*whole[1], *whole[2]), (*turned[1], *turned[2]), strict=True))


@pytest.mark.parametrize(("parts", "of", "counted"), [(16, 4, 4), (15, 4, 15), (17, 4, 5), (1, 1, 1), (1, 0, 0), (40, 0, 0)])
def test_few_parts_count_at_every_turn(parts: int, of: int, counted: int) -> None:
    turn = pyramid.Turn(4, of)
    assert sum(turn.share(part, parts) > 0 for part in range(parts)) == counted
    assert all(turn.share(part, parts) in (0, 1, of) for part in range(parts))


@pytest.mark.parametrize(("shape", "least", "most"), [((1, 8, 8, 8), 1, 1), ((1, 32, 32, 32), 6, 8), ((1, 1, 1, 1 << 15), 6, 8), ((1, 128, 64, 64), 15, 17)])
def test_lattices_are_cut_so_that_all_threads_have_work(shape: Place, least: int, most: int) -> None:
    assert least <= len(slabs(Frame.of(shape, (0, 2, 2, 2)), ((0, 0, 0, 0), shape))) <= most


def test_small_lattices_are_not_many_samples_for_having_small_slabs() -> None:
    """Gradients of parameters are those of all of them."""
    random, layout = fresh(), Layout((1, 32, 32, 32), ((False, True, True, True),) * 2)
    ys, p = latents(random, layout), context(random, layout)
    for whole, turned in zip(*(pyramid.rate(ys, p, layout, LEAST, NUMBA, turn=turn)[2] for turn in (pyramid.ALL, pyramid.Turn(1, 2))), strict=True):
        assert np.array_equal(whole, turned)


def test_a_workspace_lends_a_thing_to_one_at_a_time() -> None:
    workspace, made = pyramid.Workspace(), iter(range(9))
    with workspace.lent("a", lambda: next(made)) as one, workspace.lent("a", lambda: next(made)) as other, workspace.lent("b", lambda: next(made)) as third:
        assert (one, other, third) == (0, 1, 2)
    with workspace.lent("a", lambda: next(made)) as again:
        assert again in (one, other)


def test_wide_layers_and_all_widths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "TILES", False)
    random, layout = fresh(), LAYOUTS[0]
    ys, target = latents(random, layout), targets(random, layout)
    for thin, thick in ((24, 16), (4, 32), (32, 4)):
        p, expected = clear_case(lambda thin=thin: context(random, layout, thin), lambda p: rate_defined(ys, p, layout))  # type: ignore[misc]
        assert_near(pyramid.rate(ys, p, layout, LEAST, NUMBA)[2], expected[2], 1e-4)
        q, expected = clear_case(
            lambda widths=(thin, thick): synthesis(random, layout, *widths),  # type: ignore[misc]
            lambda q: distortion_defined(ys, q, target, layout),
        )
        assert_near(pyramid.distortion(ys, q, layout, target, NUMBA)[2], expected[2])


@pytest.mark.skipif(not TILES, reason="this processor has no products of bfloat16 (AMX that the system gives, or AVX512-BF16)")
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[8]], ids=name)
@pytest.mark.parametrize(("thin", "thick"), [(32, 32), (36, 16), (48, 4)])
def test_tiles_do_what_vectors_do_to_their_precision(layout: Layout, thin: int, thick: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # In narrow distributions, whose scales are small, gradients are as large as they are sensitive. Bounds are three and six times the worst of 360 draws.
    random = fresh()
    ys, p, q, target = latents(random, layout), context(random, layout, thin), synthesis(random, layout, thin, thick), targets(random, layout)
    operations = partial(pyramid.rate, ys, p, layout, 0.0, NUMBA), partial(pyramid.distortion, ys, q, layout, target, NUMBA)
    for operation, of_total, of_gradients in zip(operations, (1e-3, 2e-5), (2**-2, 2**-6), strict=True):
        total, by_latents, of_parameters = poisoned(operation, monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(networks, "TILES", False)
            exact, *expected = operation()
        assert not np.array_equal(by_latents[0], expected[0][0])  # another way it is
        np.testing.assert_allclose(total, exact, rtol=of_total)
        for found, wanted in zip((by_latents, of_parameters), expected, strict=True):
            one, other = (np.concatenate([np.ravel(a) for a in arrays]) for arrays in (found, wanted))
            assert np.linalg.norm(one - other) <= of_gradients * np.linalg.norm(other)


def test_clamped_scales_have_no_gradient_and_far_symbols_no_infinity() -> None:
    random, layout = fresh(), LAYOUTS[0]
    p = context(random, layout)
    ys = [single(random.choice([-1e6, -300, 0, 40, 1e6], size=shape)) for shape in layout.shapes]
    bits, gradients, of_context = pyramid.rate(ys, p, layout, -5.0, NUMBA)
    assert all(np.isfinite(a).all() for a in (bits, *gradients, *of_context))
    assert bits.sum() <= sum(y.size for y in ys) * 20
    p = p._replace(last=p.last * 0, skip=p.skip * 0, last_bias=0 * p.last_bias + single([0, 9]))
    _, _, of_context = pyramid.rate(latents(random, layout), p, layout, LEAST, NUMBA)
    assert of_context.last_bias[:, 0].all() and not of_context.last_bias[:, 1].any()


@SAME
@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_compiled_weighted_distortion_is_the_definition(
    layout: Layout, same: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = fresh()
    counted = weights(random, layout.shape, same)
    (ys, p, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout), targets(random, layout)),
        lambda case: distortion_defined(*case, layout, counted),
    )
    squares, gradients, of_synthesis = poisoned(
        lambda: pyramid.distortion(ys, p, layout, target, NUMBA, counted), monkeypatch
    )
    assert squares == pytest.approx(expected[0], rel=1e-5)
    assert_near(gradients, expected[1])
    assert_near(of_synthesis, expected[2])


@pytest.mark.parametrize("backend", [Backend("reference"), NUMBA], ids=lambda b: b.name)
def test_weights_of_one_change_nothing(backend: Backend) -> None:
    random, layout = fresh(), LAYOUTS[8]
    ys, p, target = latents(random, layout), synthesis(random, layout), single(random.normal(size=layout.shape))
    plain = pyramid.distortion(ys, p, layout, target, backend)
    for shape in (layout.shape, (1, 1, *layout.shape[2:])):
        found = pyramid.distortion(ys, p, layout, target, backend, np.ones(shape, np.float32))
        for a, b in zip([found[0], *found[1], *found[2]], [plain[0], *plain[1], *plain[2]], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_calls_that_share_a_workspace_are_as_those_that_do_not(layout: Layout) -> None:
    """Of another layout before, then twice of this one: what a call leaves behind changes nothing, to the last bit."""
    random, workspace = fresh(), pyramid.Workspace()
    for each in (Layout((1, 6, 5, 9), ((False, True, True, True),)), layout, layout):
        ys, target = latents(random, each), targets(random, each)
        of_context, of_synthesis = context(random, each), synthesis(random, each)
        for operation, given in (
            (pyramid.rate, (ys, of_context, each, -5.0, NUMBA)),
            (pyramid.distortion, (ys, of_synthesis, each, target, NUMBA, None)),
        ):
            alone, found = operation(*given), operation(*given, workspace)
            for a, b in zip(alone, found, strict=True):
                pairs = zip(a, b, strict=True) if isinstance(a, (list, tuple)) else [(a, b)]
                assert all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("layout", [LAYOUTS[7], LAYOUTS[8], LAYOUTS[-1]], ids=name)
def test_threads_do_not_alter_results(layout: Layout) -> None:
    random, threads = fresh(), torch.get_num_threads()
    ys, p, q = latents(random, layout), context(random, layout), synthesis(random, layout)
    target, found = single(random.normal(size=layout.shape)), []
    assert all(len(slabs(Frame.of(layout.shape, ring), ((0, 0, 0, 0), layout.shape))) > 2 for ring in (layout.context_reach, layout.synthesis_reach))
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            bits, by_latents, of_context = pyramid.rate(ys, p, layout, LEAST, NUMBA)
            squares, by_symbols, of_synthesis = pyramid.distortion(ys, q, layout, target, NUMBA)
            softened = pyramid.soften(ys[0], 0.3, 0.2, 7, NUMBA)
        finally:
            torch.set_num_threads(threads)
        found.append([bits, *by_latents, *of_context, np.array(squares), *by_symbols, *of_synthesis, *softened])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("layout", [LAYOUTS[i] for i in (0, 1, 3, 4, 5, 8)], ids=name)
@pytest.mark.parametrize("backend", [Backend("reference"), NUMBA], ids=lambda b: b.name)
def test_boxes_are_parts_of_the_whole_and_see_nothing_else(layout: Layout, backend: Backend) -> None:
    random = fresh()
    ys, p = latents(random, layout), synthesis(random, layout)
    whole = pyramid.synthesise(ys, p, layout, backend)
    for _ in range(6):
        start = tuple(int(random.integers(0, n)) for n in layout.shape)
        stop = tuple(int(random.integers(a + 1, n + 1)) for a, n in zip(start, layout.shape, strict=True))
        parts, origins = [], []
        for own, (low, high) in zip(ys, pyramid.needed(layout, start, stop), strict=True):
            # One latent more where there is one, and that is NaN.
            held = [max(0, a - 1) for a in low]
            cut = own[tuple(slice(a, b + 1) for a, b in zip(held, high, strict=True))]
            part, inside = (
                np.full_like(cut, np.nan),
                tuple(slice(a - o, b - o) for a, b, o in zip(low, high, held, strict=True)),
            )
            part[inside] = cut[inside]
            parts.append(part)
            origins.append(tuple(held))
        found = pyramid.synthesise_box(parts, origins, p, layout, start, stop, backend)
        expected = whole[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        if backend is NUMBA:
            assert np.array_equal(found, expected)
        else:
            assert_near([found], [expected])


@pytest.mark.parametrize(
    ("tiles", "lanes", "of_32", "without_finest", "of_24", "of_16"),
    [(False, 8, 1.2, 2.3, 1.4, 2.0), (False, 16, 1.2, 2.3, 1.75, 2.5), (True, 16, 1.8, 3.45, 1.75, 2.5)],
)
def test_steps_are_as_many_more_as_they_are_faster(
    tiles: bool, lanes: int, of_32: float, without_finest: float, of_24: float, of_16: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "REGISTERS", tiles)
    monkeypatch.setattr(networks, "LANES", lanes)
    assert [pyramid.pace(width, 0, backend=NUMBA) for width in (32, 24, 16, 8)] == pytest.approx([of_32, of_24, of_16, 1.0])
    for above in (1, 2):
        assert [pyramid.pace(width, above, backend=NUMBA) for width in (32, 24, 16, 8)] == pytest.approx([without_finest, 2 * of_24, of_16, 1.0])
    assert pyramid.pace(32, 1, wide=True, backend=NUMBA) == pytest.approx(0.95 * without_finest)
    assert pyramid.pace(16, 1, backend=Backend("triton", "cuda")) == 1.0
