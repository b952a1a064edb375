"""Compiled sine networks against the float64 reference: samples, every gradient, the draw, SOAP's steps and whole fits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels import siren
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.siren import Blocks, Networks, Quantiser, Samples, reference
from inrcodec_kernels.siren.plan import Plan
from inrcodec_kernels.siren.soap import Soap

pytest.importorskip("numba")
cpu = pytest.importorskip("inrcodec_kernels.siren.cpu")
cpu_fit = pytest.importorskip("inrcodec_kernels.siren.cpu_fit")

NUMBA, PLAIN = Backend("numba"), Backend("reference")
FORM = siren.Format(5.0, np.dtype(np.float32), 0, 0)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def relative(found: np.ndarray | Tensor, expected: np.ndarray | Tensor) -> float:
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def networks(n: int, ndim: int, widths: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = siren.layer_shapes(ndim, widths)
    return [1.5 * torch.randn(n, *s, generator=random) / math.sqrt(s[0]) for s in shapes]


# Sines


def test_sines_are_sines_to_rounding() -> None:
    x = np.linspace(-100, 100, 128 * 2001).astype(np.float32)
    sine, both, cosine = x.copy(), x.copy(), np.full_like(x, np.nan)
    cpu.sines(sine)
    cpu.sines_and_cosines(both, cosine)
    exact = x.astype(np.float64)
    assert np.abs(sine - np.sin(exact)).max() <= 2.5e-7
    assert np.abs(cosine - np.cos(exact)).max() <= 2.5e-7
    assert np.array_equal(sine, both)


def test_sines_of_anything_finite_are_bounded_and_others_stay_visible() -> None:
    x = np.concatenate([10.0 ** np.linspace(2, 38, 127), [3.4e38]]).astype(np.float32)
    for values in (x.copy(), -x):
        cosines = np.empty_like(values)
        cpu.sines_and_cosines(values, cosines)
        assert np.abs(values).max() < 1.001 and np.abs(cosines).max() < 1.001
    wild = np.array([np.nan, np.inf, -np.inf] + [0.0] * 125, dtype=np.float32)
    cpu.sines(wild)
    assert np.isnan(wild[:3]).all() and not wild[3:].any()


# Loss and gradients

SHAPES = [
    (3, 3, (24, 15, 9, 6), 300), (2, 1, (5,), 7), (2, 2, (13, 2), 129), (1, 4, (64, 63, 33), 128),
    (2, 2, (7, 6, 5, 4, 3, 2), 500), (9, 3, (2,), 1), (1, 3, (64, 64), 257),
]  # fmt: skip


@pytest.mark.parametrize(("n", "ndim", "widths", "points"), SHAPES, ids=str)
def test_losses_and_all_gradients(n: int, ndim: int, widths: tuple[int, ...], points: int) -> None:
    random = torch.Generator().manual_seed(points)
    weights = networks(n, ndim, widths, points)
    x, t = torch.rand(n, points, ndim, generator=random) * 2 - 1, torch.randn(n, points, generator=random)
    errors, gradients = siren.loss_and_gradients(weights, x, t, NUMBA)
    exact = siren.loss_and_gradients([w.double() for w in weights], x.double(), t.double(), PLAIN)
    assert errors.shape == (n,) and relative(errors, exact[0]) <= 1e-5
    for found, expected, weight in zip(gradients, exact[1], weights, strict=True):
        assert found.shape == weight.shape and relative(found, expected) <= 1e-5


def test_networks_that_diverged_do_not_touch_others() -> None:
    weights, x, t = networks(3, 2, (7, 5)), torch.rand(3, 130, 2), torch.randn(3, 130)
    alone = siren.loss_and_gradients(weights, x, t, NUMBA)
    weights[1][0] = math.nan
    together = siren.loss_and_gradients(weights, x, t, NUMBA)
    assert torch.isnan(together[0][0])
    assert torch.equal(alone[0][1:], together[0][1:])
    assert all(torch.equal(a[1:], b[1:]) for a, b in zip(alone[1], together[1], strict=True))


# Blended blocks

BOXES = [
    ((37, 30, 41), (8, 9, 7), (24, 15, 9, 6)), ((40,), (7,), (5,)), ((20, 31), (8, 8), (13, 2)),
    ((6, 7, 8, 9), (4, 4, 4, 4), (7, 3)), ((16, 16), (4, 5), ()), ((1, 19, 8), (1, 6, 8), (64, 3)),
]  # fmt: skip


def blocks_of(
    shape: tuple[int, ...], cell: tuple[int, ...], widths: tuple[int, ...], shift: int
) -> tuple[Blocks, Networks]:
    """A grid of blocks of random networks, moved by `shift` samples against the box."""
    random = np.random.default_rng(shift)
    axes = [np.arange(0, n, c) for n, c in zip(shape, cell, strict=True)]
    origin = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)) - shift
    n, shapes = len(origin), siren.layer_shapes(len(shape), widths) if widths else []
    fan = np.concatenate([np.full(math.prod(s), s[0] ** -0.5) for s in shapes] or [np.zeros(0)])
    layers = len(shapes)
    quantised = np.rint(200 * fan * random.standard_normal((n, len(fan)))).astype(np.int32)
    steps = random.uniform(0.005, 0.01, (n, layers)).astype(np.float32)
    start = random.standard_normal((n, (len(shape) + 1) * widths[0] if widths else 0)).astype(np.float32)
    extent = np.tile(np.array(cell), (n, 1))
    scale, mean = random.uniform(1, 50, n).astype(np.float32), random.uniform(-300, 300, n).astype(np.float32)
    return Blocks(origin, extent, scale, mean), Networks(widths, quantised, steps, start)


@pytest.mark.parametrize("halo", [0, 1, 3])
@pytest.mark.parametrize(("shape", "cell", "widths"), BOXES, ids=str)
def test_boxes_are_the_reference_s(
    shape: tuple[int, ...], cell: tuple[int, ...], widths: tuple[int, ...], halo: int
) -> None:
    blocks, nets = blocks_of(shape, cell, widths, shift=halo)
    before = np.random.default_rng(1).standard_normal(shape)
    found, share = before.astype(np.float32), np.ones(shape, np.float32)
    siren.accumulate(found, share, blocks, nets, halo, NUMBA)
    expected, exact_share = before.astype(np.float32).astype(np.float64), np.ones(shape)
    siren.accumulate(expected, exact_share, blocks, nets, halo, PLAIN)
    assert relative(found, expected) <= 1e-5 and relative(share, exact_share) <= 1e-6


def test_samples_do_not_depend_on_threads_or_on_the_box(threads: int) -> None:
    shape = (19, 22, 13)
    blocks, nets = blocks_of(shape, (8, 7, 6), (9, 5), shift=0)
    whole = siren.BlendedBox(shape, 2, NUMBA, FORM)
    whole.add(blocks, nets)
    samples = whole.finish()
    torch.set_num_threads(1)
    single = siren.BlendedBox(shape, 2, NUMBA, FORM)
    single.add(blocks, nets)
    assert np.array_equal(samples, single.finish()) and np.ptp(samples) > 50
    low = np.array([3, 4, 5])
    part = siren.BlendedBox((9, 10, 7), 2, NUMBA, FORM)
    part.add(blocks._replace(origin=blocks.origin - low), nets)
    assert np.array_equal(part.finish(), samples[3:12, 4:14, 5:12])


@pytest.mark.parametrize("backend", [NUMBA, PLAIN], ids=["numba", "reference"])
@pytest.mark.parametrize("wild", [math.nan, math.inf, 1e30])
def test_hostile_networks_are_refused(backend: Backend, wild: float) -> None:
    blocks, nets = blocks_of((9, 9), (9, 9), (4, 3), shift=0)
    nets.steps[0, -1] = wild
    total = np.zeros((9, 9), np.float32)
    with pytest.raises(ValueError, match="finite values"):
        siren.accumulate(total, total.copy(), blocks, nets, 1, backend)


# The draw


def test_the_generator_is_murmur_s_finaliser() -> None:
    found = reference.mix(np.array([0, 1, 2**32 - 1], dtype=np.uint32))
    assert found.tolist() == [0, 0x514E28B7, 0x81F16F39]


def samples_of(n: int, box: tuple[int, ...], seed: int = 0) -> Samples:
    """Smooth samples of n boxes, after some that belong to none."""
    random, d = np.random.default_rng(seed), len(box)
    axes = np.meshgrid(*(np.linspace(-1, 1, e) for e in box), indexing="ij")
    waves = [np.sin(sum(random.uniform(-4, 4) * a for a in axes) + random.uniform(0, 6)) for _ in range(n)]
    values = np.concatenate([np.full(5, np.nan), np.stack(waves).ravel()]).astype(np.float32)
    unit = np.tile(np.float32(2) / np.array(box, dtype=np.float32), (n, 1))
    key = random.integers(0, 2**32, n, dtype=np.uint32)
    begin = 5 + math.prod(box) * np.arange(n)
    return Samples(values, begin, np.tile(np.array(box), (n, 1)), np.full((n, d), 0.5, np.float32), unit, key)


@pytest.mark.parametrize("box", [(1,), (1000,), (17, 33), (9, 1, 14), (5, 6, 7, 3)])
def test_draws_are_the_reference_s(box: tuple[int, ...]) -> None:
    samples = samples_of(2, box)
    points, targets = siren.draw(samples, 41, 100)
    for k in range(2):
        hidden, found = np.full(4 * cpu.TILE, np.nan, np.float32), np.full(cpu.TILE, np.nan, np.float32)
        stream = cpu_fit._stream(samples.key[k], 41)
        values = samples.values[samples.begin[k] :]
        cpu_fit._draw(hidden, found, values, samples.box[k], samples.shift[k], samples.unit[k], stream, 60, 40)
        place = hidden.reshape(4, -1)[: len(box), :40].T
        assert np.array_equal(found[:40], targets[k, 60:].numpy())
        assert np.abs(place - points[k, 60:].numpy()).max() <= 2e-7


# SOAP


@pytest.mark.parametrize("size", [1, 6, 21, 40])
def test_soap_takes_the_reference_s_steps(size: int) -> None:
    """Square matrices: the first gradient of others leaves directions open, which solvers pick as they like."""
    random = torch.Generator().manual_seed(size)
    scale = torch.logspace(0, -1, size, dtype=torch.float64)
    gradients = torch.randn(31, size, size, generator=random, dtype=torch.float64) * scale[:, None] + torch.eye(size)
    exact = torch.zeros(1, size, size, dtype=torch.float64)
    optimiser = Soap([exact])
    found, state = np.zeros(size * size, np.float32), cpu_fit.new_state([size - 1, size])[0]
    for number, gradient in enumerate(gradients, 1):
        exact.grad = gradient[None]
        optimiser.step(0.01)
        cpu_fit.soap_step(found, gradient.numpy().astype(np.float32).ravel(), state, size, size, number, 0.01)
    assert np.abs(found).max() > 0.02 and relative(found, exact.flatten()) <= 2e-3


def test_soap_does_not_move_without_a_gradient() -> None:
    weight, state = np.ones(12, np.float32), cpu_fit.new_state([3, 3])[0]
    for number in range(1, 22):
        cpu_fit.soap_step(weight, np.zeros(12, np.float32), state, 4, 3, number, 0.1)
    assert np.array_equal(weight, np.ones(12))


@pytest.mark.parametrize("size", [1, 5, 33])
def test_bases_of_anything_are_orthonormal(size: int) -> None:
    """Also of columns that depend on each other, or vanish."""
    matrix = np.random.default_rng(size).standard_normal((size, size)).astype(np.float32)
    for columns in (matrix, matrix[:, :1] @ matrix[:1], np.zeros_like(matrix)):
        panels, rows = -(-size // cpu_fit.PANEL), -(-size // 4) * 4
        x, work = (np.zeros((panels, rows * cpu_fit.PANEL), np.float32) for _ in range(2))
        inside = x.reshape(panels, rows, cpu_fit.PANEL)
        for c in range(size):
            inside[c // cpu_fit.PANEL, :size, c % cpu_fit.PANEL] = columns[:, c]
        cpu_fit._orthonormal(x, work, size)
        q = np.concatenate(list(inside), axis=1)[:size, :size].astype(np.float64)
        assert np.abs(q.T @ q - np.eye(size)).max() <= 1e-5
        triangle = q.T @ columns
        assert np.abs(np.tril(triangle, -1)).max() <= 1e-5 * size * max(1.0, float(np.abs(columns).max()))


# Fits


def silent(fraction: float, loss: float) -> None:
    assert 0 < fraction <= 1 and math.isfinite(loss)


def start_of(n: int, ndim: int, widths: tuple[int, ...]) -> list[Tensor]:
    weights = networks(n, ndim, widths)
    for weight in weights[1:]:
        weight[:, -1] = 0
    weights[-1].zero_()
    return weights


def rates_of(steps: int) -> np.ndarray:
    return (3e-2 * np.linspace(1, 0, steps, endpoint=False)).astype(np.float32)


def noise_of(n: int, ndim: int, widths: tuple[int, ...], price: float) -> Quantiser:
    layers = len(widths) + 1
    start = np.random.default_rng(3).standard_normal((n, (ndim + 1) * widths[0])).astype(np.float32)
    return Quantiser(np.full((n, layers), 0.05, np.float32), np.full((n, layers), price, np.float32), start)


@pytest.mark.parametrize("noisy", [False, True])
def test_first_steps_are_the_reference_s(noisy: bool) -> None:
    """The first only looks, and the second moves the linear output alone: their losses are alike to rounding."""
    samples, weights = samples_of(3, (9, 8, 7)), networks(3, 3, (6, 5))
    quantiser = noise_of(3, 3, (6, 5), 0.0) if noisy else None
    for steps in (1, 2):
        losses = [
            siren.fit([w.clone() for w in weights], samples, 200, rates_of(steps), silent, backend, quantiser)
            for backend in (NUMBA, PLAIN)
        ]
        assert relative(losses[0], losses[1]) <= 1e-5
    if noisy:
        quiet = siren.fit([w.clone() for w in weights], samples, 200, rates_of(1), silent, NUMBA)
        assert relative(quiet, siren.fit(weights, samples, 200, rates_of(1), silent, NUMBA, quantiser)) > 1e-3


def test_fits_are_as_good_as_the_reference_s() -> None:
    samples = samples_of(6, (12, 12))
    losses = [siren.fit(start_of(6, 2, (10, 7)), samples, 128, rates_of(200), silent, b) for b in (NUMBA, PLAIN)]
    assert losses[0].max() < 0.01 and losses[1].max() < 0.01
    assert abs(math.log(losses[0].mean() / losses[1].mean())) < math.log(4)


def test_fits_repeat_whatever_the_threads(threads: int) -> None:
    samples = samples_of(20, (9, 8))
    here, single = start_of(20, 2, (6, 3)), start_of(20, 2, (6, 3))
    loss = siren.fit(here, samples, 130, rates_of(25), silent, NUMBA)
    torch.set_num_threads(1)
    assert np.array_equal(loss, siren.fit(single, samples, 130, rates_of(25), silent, NUMBA))
    assert all(torch.equal(a, b) for a, b in zip(here, single, strict=True)) and here[1].any()


def test_wide_networks_are_fitted_too() -> None:
    samples, weights = samples_of(1, (12, 12)), start_of(1, 2, (70,))
    assert siren.fit(weights, samples, 200, rates_of(60), silent, NUMBA)[0] < 0.05


def test_the_price_of_weights_has_its_gradient() -> None:
    widths = (6, 5)
    weights, quantiser = networks(2, 3, widths), noise_of(2, 3, widths, 0.3)
    quantiser.price[:, 1] = 0
    leaves = [w.clone().requires_grad_(True) for w in weights]
    exact = torch.autograd.grad(reference._rate(leaves, quantiser).sum(), leaves)
    plan = Plan.of([3, *widths, 1], cpu.TILE)
    joined, found = cpu.joined_weights(weights), np.zeros_like(cpu.joined_weights(weights))
    for k in range(2):
        cpu_fit._add_rate(found[k], joined[k], quantiser.noise[k], quantiser.price[k], quantiser.start[k], plan.table)
    assert relative(found, torch.cat([e.flatten(1) for e in exact], dim=1)) <= 1e-5


def test_dear_weights_are_small() -> None:
    sizes = []
    for price in (0.0, 0.02):
        weights, quantiser = start_of(2, 2, (10, 7)), noise_of(2, 2, (10, 7), price)
        siren.fit(weights, samples_of(2, (12, 12)), 128, rates_of(120), silent, NUMBA, quantiser)
        sizes.append(float(weights[1].abs().mean()))
    assert sizes[1] < 0.7 * sizes[0]


def test_a_price_needs_a_step() -> None:
    quantiser = noise_of(1, 2, (4,), 1.0)
    quantiser.noise[0, 0] = 0
    with pytest.raises(ValueError, match="expected noise in every layer that has a price"):
        siren.fit(start_of(1, 2, (4,)), samples_of(1, (5, 5)), 9, rates_of(2), silent, NUMBA, quantiser)
