"""The pyramid's float kernels: the definition against loops, the compiled ones against the definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Layout, Synthesis, reference
from inrcodec_kernels.pyramid.frames import Frame, slabs

Case = TypeVar("Case")

NUMBA = Backend("numba")
LEAST = -2.0
CLEAR = 2e-6
"""Hidden numbers of cases are farther from zero than this: rounding to float32 does not decide on which side of a kink they lie."""
INSENSITIVE = 5e-6
"""Rounding what goes into a case changes what comes out by less than this."""
YES, NO = True, False

# Odd extents, absent axes, axes of extent 1 on coarse levels, axes that are not halved, no latents on the finest lattices, more slabs than one.
LAYOUTS = [
    Layout((1, 9, 10, 13), ((NO, YES, YES, YES),) * 2),
    Layout((3, 5, 6, 7), ((YES, YES, YES, YES), (NO, YES, NO, YES))),
    Layout((1, 1, 1, 50), ((NO, NO, NO, YES),) * 3),
    Layout((1, 1, 7, 30), ((NO, NO, YES, YES), (NO, NO, YES, NO))),
    Layout((2, 6, 1, 5), ((YES, YES, NO, YES),)),
    Layout((1, 5, 6, 7), ()),
    Layout((1, 1, 1, 1), ((YES, YES, YES, YES),)),
    Layout((1, 1, 1, 70001), ((NO, NO, NO, YES),)),
    Layout((2, 21, 41, 43), ((NO, YES, YES, YES),) * 3),
    Layout((1, 5, 9, 12), ((NO, NO, YES, YES),), ((NO, YES, YES, YES),)),
    Layout((2, 3, 7, 8), (), ((NO, NO, YES, YES), (YES, YES, YES, NO))),
    Layout((1, 1, 13, 11), ((NO, NO, YES, YES),) * 2, ((NO, NO, YES, YES),)),
]
SMALL = [layout for layout in LAYOUTS if math.prod(layout.shape) < 2000]


def slow_where_large(layouts: Iterable[Layout], samples: int = 800) -> list[Any]:
    """Layouts as parameters; the interpreter takes seconds for one of so many samples."""
    return [pytest.param(each, marks=[pytest.mark.slow] * (math.prod(each.shape) > samples)) for each in layouts]


def name(layout: Layout) -> str:
    return "x".join(map(str, layout.shape)) + f"_above{len(layout.above)}" * bool(layout.above)


def fresh() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # seen where a test fails
    return np.random.default_rng(seed)


def clear_case(draw: Callable[[], Case], define: Callable[[Case], Any]) -> tuple[Case, Any]:
    """A case, drawn until none of its hidden numbers is nearly zero and no sum nearly cancels, and what the definition says of it.

    Where one is nearly zero, its slope is that of one side or the other; where a sum cancels, roundings are all that single precision
    has to show: there is nothing to compare with.
    """
    hidden: list[float] = []

    def watched(values: torch.Tensor) -> torch.Tensor:
        hidden.append(float(values.detach().abs().min()))
        return plain(values)

    plain = reference.leaky
    for _ in range(100):
        case = draw()
        hidden.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "leaky", watched)
            expected = define(case)
        if min(hidden, default=math.inf) > CLEAR and sensitivity(expected, define(nudged(case))) < INSENSITIVE:
            return case, expected
    raise AssertionError("no case without hidden numbers near zero, or sums that cancel, in 100 draws")


def nudged(case: Any) -> Any:
    """All numbers of a case off by half a last place of single precision, this way and that."""
    if isinstance(case, np.ndarray):
        ways = np.where(np.arange(case.size).reshape(case.shape) * 7 % 5 < 2, 1, -1)
        return case.astype(np.float64) * (1 + 2.0**-24 * ways)
    if isinstance(case, (list, tuple)):
        parts = map(nudged, case)
        return type(case)(*parts) if hasattr(case, "_fields") else type(case)(parts)
    return case


def sensitivity(expected: Any, other: Any) -> float:
    """The largest difference of two results, over the largest element of each array."""
    if isinstance(expected, (list, tuple)):
        return max((sensitivity(a, b) for a, b in zip(expected, other, strict=True)), default=0.0)
    size = np.abs(expected).max(initial=1e-3)
    return float(np.abs(np.asarray(other) - expected).max(initial=0) / size)


def single(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def double(values: Any) -> Any:
    """The same numbers in float64: those of a list or of parameters."""
    arrays = [np.asarray(a, np.float64) for a in values]
    return type(values)(*arrays) if hasattr(values, "_fields") else arrays


def normal(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return single(random.normal(size=shape) / math.sqrt(shape[0] if shape else 1))


def latents(random: np.random.Generator, layout: Layout) -> list[NDArray[np.float32]]:
    return [single(2 * random.normal(size=shape)) for shape in layout.shapes]


def context(random: np.random.Generator, layout: Layout, width: int = 8, networks: int | None = None) -> Context:
    """Of one to as many networks as there are levels, if nothing else is said."""
    n, networks = layout.context_inputs, networks or int(random.integers(1, layout.levels + 1))
    shapes = [(n, width), (width, width), (width,), (width, 2), (2,), (n, 2)]
    first, *others = (np.stack([normal(random, *shape) for _ in range(networks)]) for shape in shapes)
    return Context(first, normal(random, layout.levels, width), *others)


def synthesis(random: np.random.Generator, layout: Layout, thin: int = 8, thick: int = 4) -> Synthesis:
    n, levels = layout.synthesis_inputs, layout.levels
    filters = single(np.array(pyramid.CUBIC) + 0.1 * random.normal(size=(len(layout.above) + levels - 1, 4)))
    shapes = [(n, thin), (thin,), (thin, thick), (thick,), (thick,), ()]
    gains, skips = (single(1 + 0.2 * random.normal(size=levels)) for _ in range(2))
    return Synthesis(gains, filters, *(normal(random, *shape) for shape in shapes), skips)


def assert_near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Every array, by its largest element."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype in (np.float32, np.float64)
        assert np.isfinite(a).all()
        if np.size(a):
            assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3)


def targets(random: np.random.Generator, layout: Layout) -> NDArray[np.float32]:
    """Samples to reach, all far on one side: the gradient of the last bias, a sum of errors, does not cancel."""
    return single(6 + random.normal(size=layout.shape))


def rate_defined(ys: Any, p: Context, layout: Layout) -> Any:
    """What the definition says in float64."""
    return reference.rate(double(ys), double(p), layout, LEAST)


def distortion_defined(ys: Any, p: Synthesis, target: Any, layout: Layout, counted: Any = None) -> Any:
    """What the definition says in float64."""
    exact = None if counted is None else counted.astype(np.float64)
    return reference.distortion(double(ys), double(p), layout, target.astype(np.float64), exact)


def weights(random: np.random.Generator, shape: tuple[int, ...], same: tuple[int, ...]) -> NDArray[np.float32]:
    """What samples count, zeros among them, the same along some axes."""
    extents = [1 if axis in same else n for axis, n in enumerate(shape)]
    return single(random.random(extents) * (random.random(extents) < 0.8))


SAME = pytest.mark.parametrize("same", [(), (0, 1), (1, 2), (0, 1, 2, 3)], ids=lambda axes: f"same{''.join(map(str, axes))}")


def poisoned(operation: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What an operation gives where memory holds NaN until it is written; compiled before that."""
    operation()

    def empty(shape: Any, dtype: Any = float, order: Any = "C") -> NDArray[Any]:
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -7, dtype, order)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", empty)
        return operation()


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
        x = [loop_seen(c, place, tap, k + absent > 0) for k, c in enumerate(channels[:2]) for tap in layout.near]
        x = np.array(x + [c[place] for c in channels[2:]])
        h = loop_leaky(loop_leaky(x @ p.first + p.first_bias) @ p.second + p.second_bias)
        expected = h @ p.last + p.last_bias + sum(s * c[place] for s, c in zip(p.skips, channels, strict=True))
        assert found[place] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_taps_are_those_of_the_method() -> None:
    volume, film = Layout((1, 2, 2, 2), ()), Layout((2, 1, 2, 2), ())
    assert len(volume.causal) == 13 and len(volume.cross) == 7 and len(volume.near) == 27
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
    assert film.near[-2:] == ((-1, 0, 0, 0), (1, 0, 0, 0)) and len(film.near) == 11
    assert Layout((1, 5, 1, 8), ((NO, YES, NO, YES),)).shapes == ((1, 5, 1, 8), (1, 3, 1, 4))
    assert Layout((1, 5, 1, 8), (), ((NO, YES, NO, YES),)).shapes == ((1, 3, 1, 4),)


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
    (ys, p, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout), targets(random, layout)), lambda case: distortion_defined(*case, layout)
    )
    squares, gradients, of_synthesis = poisoned(lambda: pyramid.distortion(ys, p, layout, target, NUMBA), monkeypatch)
    assert squares == pytest.approx(expected[0], rel=1e-5)
    assert_near(gradients, expected[1])
    assert_near(of_synthesis, expected[2])
    samples = poisoned(lambda: pyramid.synthesise(ys, p, layout, NUMBA), monkeypatch)
    assert_near([samples], [pyramid.synthesise(double(ys), double(p), layout)])


def test_wide_layers_and_all_widths_agree() -> None:
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


def test_a_weighted_distortion_is_a_sum_of_weighted_squares() -> None:
    random, layout = fresh(), LAYOUTS[1]
    ys, p, target = double(latents(random, layout)), double(synthesis(random, layout)), random.normal(size=layout.shape)
    counted = weights(random, layout.shape, (1,)).astype(np.float64)
    errors = pyramid.synthesise(ys, p, layout) - target
    assert pyramid.distortion(ys, p, layout, target, weights=counted)[0] == pytest.approx(float((counted * errors**2).sum()))


@pytest.mark.parametrize("backend", [Backend("reference"), NUMBA], ids=lambda b: b.name)
def test_weights_of_one_change_nothing(backend: Backend) -> None:
    random, layout = fresh(), LAYOUTS[8]
    ys, p, target = latents(random, layout), synthesis(random, layout), single(random.normal(size=layout.shape))
    plain = pyramid.distortion(ys, p, layout, target, backend)
    for shape in (layout.shape, (1, 1, *layout.shape[2:])):
        found = pyramid.distortion(ys, p, layout, target, backend, np.ones(shape, np.float32))
        for a, b in zip([found[0], *found[1], *found[2]], [plain[0], *plain[1], *plain[2]], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(9, 10, 13), (1, 9, 10, 12), (2, 9, 10, 13)])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    random, layout = fresh(), LAYOUTS[0]
    ys, p, target = latents(random, layout), synthesis(random, layout), single(random.normal(size=layout.shape))
    with pytest.raises(ValueError, match=r"expected weights of shape \(1, 9, 10, 13\)"):
        pyramid.distortion(ys, p, layout, target, weights=np.ones(shape, np.float32))


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


@pytest.mark.parametrize("layout", [LAYOUTS[7], LAYOUTS[8]], ids=name)
def test_threads_do_not_alter_results(layout: Layout) -> None:
    random, threads = fresh(), torch.get_num_threads()
    ys, p, q = latents(random, layout), context(random, layout), synthesis(random, layout)
    target, found = single(random.normal(size=layout.shape)), []
    assert len(slabs(Frame.of(layout, layout.shape), ((0, 0, 0, 0), layout.shape))) > 2
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


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 30.0])
def test_soft_rounding_is_the_formula(temperature: float) -> None:
    random = fresh()
    latents, key = single(3 * random.normal(size=(3, 5, 40000))), int(random.integers(2**40))
    values, slopes = pyramid.soften(latents.astype(np.float64), temperature, 0.2, key)
    found = pyramid.soften(latents, temperature, 0.2, key, NUMBA)
    # Where the first rounding's slope is steep, float32 latents know no better.
    assert np.abs(found[0] - values).max() < 2e-5
    assert np.abs(found[1] - slopes).max() < 1e-4 * slopes.max()
    step, (up, _), (down, _) = (
        1e-6,
        *(pyramid.soften(latents + np.float64(s), temperature, 0.2, key) for s in (1e-6, -1e-6)),
    )
    smooth = np.abs(values - np.rint(values)) < 0.499
    assert np.abs((up - down) / (2 * step) - slopes)[smooth].max() < 1e-3 * slopes.max()


def test_soft_rounding_without_noise_keeps_whole_and_half_numbers() -> None:
    values, _ = pyramid.soften(single([-1.0, 0.0, 0.5, 2.0]), 0.2, 0.0, 1, NUMBA)
    np.testing.assert_allclose(values, [-1.0, 0.0, 0.5, 2.0], atol=1e-6)
    with pytest.raises(ValueError, match="positive temperature"):
        pyramid.soften(single([0.0]), 0.0, 0.1, 1)


def test_noise_is_nearly_gaussian_and_independent() -> None:
    noise = reference.noise(3, 200000) / reference.NOISE_DEVIATION
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.25
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01
    assert not np.array_equal(noise, reference.noise(4, 200000) / reference.NOISE_DEVIATION)


def test_adam_is_the_definition() -> None:
    random = fresh()
    ys = single(random.normal(size=(3, 70, 501)))
    lattices, moments = (
        [ys.astype(np.float64), ys.copy()],
        [tuple(np.zeros(ys.shape, t) for _ in range(2)) for t in (float, np.float32)],
    )
    for step in (1, 2, 3):
        gradients = single(random.normal(size=ys.shape))
        pyramid.adam(lattices[0], gradients.astype(np.float64), moments[0], step, 0.1)  # type: ignore[arg-type]
        pyramid.adam(lattices[1], gradients, moments[1], step, 0.1, backend=NUMBA)  # type: ignore[arg-type]
    assert_near([lattices[1]], [lattices[0]], 1e-6)
    assert_near(moments[1], moments[0], 3e-6)
    with pytest.raises(ValueError, match="contiguous"):
        pyramid.adam(ys[:, :, ::2], ys[:, :, ::2], (ys[:, :, ::2], ys[:, :, ::2]), 1, 0.1)


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
