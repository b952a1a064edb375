"""Triton's rate, distortion and steps of a fit against float64. Run by `test_pyramid_triton.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend, interpreted
from inrcodec_kernels.pyramid import Context, Layout, Synthesis, reference, triton_gradients

from ..pyramid_cases import (
    LEAST,
    SAME,
    SMALL,
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
    slow_where_large,
    synthesis,
    targets,
    weights,
)
from .device import DEVICE

TRITON = Backend("triton", DEVICE)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `torch.empty` returns is filled with NaN; few programs, for the interpreter is slow."""
    if interpreted():  # a device has not the memory for such tiles
        monkeypatch.setattr(triton_gradients, "TILE", 1024)
        monkeypatch.setattr(triton_gradients, "FEW", 512)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def up(values: Any) -> Any:
    return [torch.from_numpy(np.ascontiguousarray(v)).to(DEVICE) for v in values]


def down(values: Any) -> Any:
    assert all(isinstance(v, torch.Tensor) for v in values)
    return [v.cpu().numpy() for v in values]


@pytest.mark.parametrize("layout", slow_where_large(layout for layout in SMALL if not layout.above), ids=name)
def test_rate_is_the_definition(layout: Layout) -> None:
    random = fresh()
    (ys, p), expected = clear_case(lambda: (latents(random, layout), context(random, layout, 4)), lambda case: rate_defined(*case, layout))
    bits, gradients, of_context = pyramid.rate(ys, p, layout, LEAST, TRITON)
    assert bits.dtype == np.float64 and isinstance(of_context, Context)
    assert_near([bits], [expected[0]])
    assert_near(gradients, expected[1])
    assert_near(of_context, expected[2])


@pytest.mark.parametrize("layout", slow_where_large(SMALL), ids=name)
def test_distortion_is_the_definition(layout: Layout) -> None:
    random = fresh()
    (ys, p, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout, 4, 4), targets(random, layout)), lambda case: distortion_defined(*case, layout)
    )
    squares, gradients, of_synthesis = pyramid.distortion(ys, p, layout, target, TRITON)
    assert isinstance(squares, float) and isinstance(of_synthesis, Synthesis)
    assert squares == pytest.approx(expected[0], rel=1e-5)
    assert_near(gradients, expected[1])
    assert_near(of_synthesis, expected[2])


def test_rate_and_distortion_of_bands_are_the_definition() -> None:
    """Of arrays and of tensors: what is split is joined and parted by torch on the device."""
    random, layout = fresh(), Layout((1, 2, 5, 6), ((False, False, True, True), (False, True, True, True)), split=1)
    (ys, p), expected = clear_case(lambda: (latents(random, layout), context(random, layout, 4)), lambda case: rate_defined(*case, layout))
    bits, gradients, of_context = pyramid.rate(up(ys), p, layout, LEAST, TRITON)
    assert_near(down([bits, *gradients, *of_context]), [expected[0], *expected[1], *expected[2]])
    (ys, q, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout, 4, 4), targets(random, layout)), lambda case: distortion_defined(*case, layout)
    )
    squares, gradients, of_synthesis = pyramid.distortion(up(ys), q, layout, up([target])[0], TRITON)
    assert_near(down([squares, *gradients, *of_synthesis]), [expected[0], *expected[1], *expected[2]])
    again = pyramid.distortion(ys, q, layout, target, TRITON)
    assert_near(again[1], expected[1])


@SAME
@pytest.mark.parametrize("layout", slow_where_large([*SMALL[:2], SMALL[4]], 400), ids=name)
def test_weighted_distortion_is_the_definition(layout: Layout, same: tuple[int, ...]) -> None:
    random = fresh()
    counted = weights(random, layout.shape, same)
    (ys, p, target), expected = clear_case(
        lambda: (latents(random, layout), synthesis(random, layout, 4, 4), targets(random, layout)),
        lambda case: distortion_defined(*case, layout, counted),
    )
    squares, gradients, of_synthesis = pyramid.distortion(up(ys), p, layout, up([target])[0], TRITON, up([counted])[0])
    assert_near(down([squares, *gradients, *of_synthesis]), [expected[0], *expected[1], *expected[2]])


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps reach from one span to others; programs take several tiles."""
    for constant, value in {"SPAN": 128, "TILE": 32, "FEW": 16, "PROGRAMS": 2, "PART": 64}.items():
        monkeypatch.setattr(triton_gradients, constant, value)


@pytest.mark.usefixtures("short_spans")
def test_spans_and_tensors() -> None:
    """Layers of several widths, in spans; of tensors."""
    random, layout = fresh(), Layout((2, 1, 4, 5), ((True, False, True, True), (False, False, True, True)))
    ys, target = latents(random, layout), targets(random, layout)
    p, expected = clear_case(lambda: context(random, layout, 12), lambda p: rate_defined(ys, p, layout))
    bits, gradients, of_context = pyramid.rate(up(ys), p, layout, LEAST, TRITON)
    assert_near(down([bits, *gradients, *of_context]), [expected[0], *expected[1], *expected[2]])
    q, expected = clear_case(lambda: synthesis(random, layout, 4, 20), lambda q: distortion_defined(ys, q, target, layout))
    squares, gradients, of_synthesis = pyramid.distortion(up(ys), q, layout, up([target])[0], TRITON)
    assert_near(down([squares, *gradients, *of_synthesis]), [expected[0], *expected[1], *expected[2]])


@pytest.mark.usefixtures("short_spans")
def test_results_are_the_same_again() -> None:
    random, layout = fresh(), Layout((1, 1, 6, 7), ((False, False, True, True),))
    ys, p = latents(random, layout), context(random, layout, 4)
    once, again = (pyramid.rate(ys, p, layout, LEAST, TRITON) for _ in range(2))
    for a, b in zip([once[0], *once[1], *once[2]], [again[0], *again[1], *again[2]], strict=True):
        assert np.array_equal(a, b)


def test_calls_that_share_a_workspace_are_as_those_that_do_not() -> None:
    """On a device they are recorded and launched as a whole from the second call on; all results, to the last bit."""
    random, layout = fresh(), Layout((1, 1, 6, 7), ((False, False, True, True),))
    workspace = pyramid.Workspace()
    for _ in range(3 if torch.cuda.is_available() else 2):
        ys, target = up(latents(random, layout)), up([targets(random, layout)])[0]
        p, q = context(random, layout, 4, 2), synthesis(random, layout, 4, 4)
        of_samples = [(pyramid.distortion, (ys, q, layout, target, TRITON, w)) for w in (None, up([weights(random, layout.shape, ())])[0])]
        for operation, given in [(pyramid.rate, (ys, p, layout, LEAST, TRITON)), *of_samples]:
            alone, shared = operation(*given), operation(*given, workspace=workspace)
            for a, b in zip([alone[0], *alone[1], *alone[2]], [shared[0], *shared[1], *shared[2]], strict=True):
                assert torch.equal(a, b)


def beyond_limits(layout: Layout, biases: tuple[float, ...]) -> list[tuple[list[Any], Context, Any]]:
    """Latents, contexts and what the definition says of them; drawn until no gradient is a sum in which most cancels, and that only as well known as what is summed."""
    while True:
        random = fresh()
        ys, p = latents(random, layout), context(random, layout, 4)
        cases = []
        for bias in biases:
            beyond = p._replace(last_bias=0 * p.last_bias + single([0, bias]), last=0 * p.last, skip=0 * p.skip)
            cases.append((ys, beyond, reference.rate(double(ys), double(beyond), layout, LEAST)))
        if all(min(np.abs(e.last).max(), np.abs(e.skip).max()) > 0.25 * summed(gradients) for _, _, (_, gradients, e) in cases):
            return cases


def summed(gradients: list[Any]) -> float:
    return sum(float(np.abs(g).sum()) for g in gradients)


def test_scales_beyond_the_limits_have_no_gradient() -> None:
    layout = Layout((1, 1, 3, 4), ())
    for ys, beyond, expected in beyond_limits(layout, (-9.0, 9.0)):
        bits, gradients, of_context = pyramid.rate(ys, beyond, layout, LEAST, TRITON)
        assert not of_context.last_bias[..., 1].any() and not of_context.skip[..., 1].any()
        assert_near([bits, *gradients], [expected[0], *expected[1]])
        # The bias moves all latents' means alike: what cancels in the sum is known as well as what is summed.
        assert np.abs(of_context.last_bias - expected[2].last_bias).max() <= 1e-5 * max(summed(expected[1]), 1e-3)
        others = [(a, b) for a, b, name in zip(of_context, expected[2], of_context._fields, strict=True) if name != "last_bias"]
        assert_near([a for a, _ in others], [b for _, b in others])


@pytest.mark.parametrize("temperature", [0.1, 0.6, 5.0])
def test_soften_is_the_definition(temperature: float) -> None:
    random = fresh()
    ys, key = single(4 * random.normal(size=(3, 700))), int(random.integers(2**40))
    # Where a latent lies near a half, rounding of float32 may take it to the other side.
    found = pyramid.soften(ys, temperature, 0.2, key, TRITON)
    expected = reference.soften(ys.astype(np.float64), temperature, 0.2, key)
    assert np.mean(np.abs(found[0] - expected[0]) > 1e-4) < 0.01
    clear = np.abs(found[0] - expected[0]) <= 1e-4
    assert np.abs(found[1] - expected[1])[clear].max() <= 1e-3 * np.abs(expected[1]).max()
    tensors = pyramid.soften(up([ys])[0], temperature, 0.2, key, TRITON)
    assert all(np.array_equal(a, b) for a, b in zip(down(tensors), found, strict=True))


def test_noise_is_that_of_the_definition() -> None:
    """At a high temperature there is nothing but the noise."""
    found, _ = pyramid.soften(np.zeros(1500, np.float32), 1e3, 1.0, 77, TRITON)
    assert np.abs(found - reference.noise(77, 1500) / reference.NOISE_DEVIATION).max() < 1e-3


def test_adam_is_the_definition() -> None:
    random = fresh()
    arrays = [single(random.normal(size=(3, 500))) for _ in range(4)]
    arrays[3] = arrays[3] ** 2
    exact, there = [a.astype(np.float64) for a in arrays], up([a.copy() for a in arrays])
    for step in (1, 2, 9):
        pyramid.adam(arrays[0], arrays[1], (arrays[2], arrays[3]), step, 0.01, backend=TRITON)
        pyramid.adam(there[0], there[1], (there[2], there[3]), step, 0.01, backend=TRITON)
        pyramid.adam(exact[0], exact[1], (exact[2], exact[3]), step, 0.01)
    assert_near(arrays, exact)
    assert all(np.array_equal(a, b) for a, b in zip(down(there), arrays, strict=True))
    with pytest.raises(ValueError, match="copy it"):
        pyramid.adam(there[0].T, there[1].T, (there[2].T, there[3].T), 1, 0.01, backend=TRITON)


def test_misfits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout((1, 1, 3, 4), ())
    ys, p = latents(fresh(), layout), context(fresh(), layout, 4)
    monkeypatch.setattr(triton_gradients, "SPAN", 1 << 31)
    with pytest.raises(ValueError, match="fit on the CPU"):
        pyramid.rate(ys, p, layout, LEAST, TRITON)
