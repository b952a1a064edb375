"""Blended boxes and fits by the Triton backend against the reference; on a GPU pytest runs this file there.

Not collected by name: without a GPU the kernels need Triton's interpreter, see `interpreter.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels import recorded, siren
from inrcodec_kernels.backend import REFERENCE, Backend, interpreted
from inrcodec_kernels.siren import Blocks, Format, Networks, Quantiser, Samples, soap, triton, triton_fit
from inrcodec_kernels.siren.triton_box import Box

from .device import DEVICE

HERE = Backend("triton", DEVICE)
FLOATS = Format(-7.0, np.dtype(np.float32), 0, 0)


def relative(found: Any, expected: Any) -> float:
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def tiles(cuts: list[list[int]], seed: int = 0) -> Blocks:
    """Blocks that tile a box; cuts may lie outside of it."""
    random = np.random.default_rng(seed)
    boxes = list(itertools.product(*(list(itertools.pairwise(cut)) for cut in cuts)))
    origin, extent = np.array([[a for a, _ in box] for box in boxes]), np.array([[b - a for a, b in box] for box in boxes])
    return Blocks(origin, extent, random.uniform(10, 40, len(boxes)), random.uniform(0, 100, len(boxes)))


def numbers(n: int, ndim: int, widths: tuple[int, ...], seed: int = 0) -> Networks:
    random, shapes = np.random.default_rng(seed), siren.layer_shapes(ndim, widths) if widths else []
    layers = [1.5 * random.standard_normal((n, math.prod(s))) / math.sqrt(s[0]) for s in shapes]
    quantised = np.concatenate([np.rint(w / 0.01) for w in layers] or [np.zeros((n, 0))], axis=1).astype(np.int32)
    start = 0.3 * random.standard_normal((n, math.prod(shapes[0]) if widths else 0))
    return Networks(widths, quantised, np.full((n, len(shapes)), 0.01), start)


SHAPE, CUTS = (9, 7, 11), [[-2, 3, 9], [0, 7], [-1, 4, 12]]
CLASSES: list[tuple[int, ...]] = [(13, 6), (), (17,)]


def blended(backend: Backend, form: Format, halo: int, parts: tuple[int, ...] = (0, 1, 2, 4)) -> np.ndarray:
    """A box whose blocks are of three classes, one of them of constants."""
    blocks = tiles(CUTS)
    box = siren.BlendedBox(SHAPE, halo, backend, form)
    for (begin, end), widths in zip(itertools.pairwise(parts), CLASSES, strict=True):
        box.add(blocks.part(begin, end), numbers(end - begin, 3, widths, seed=begin))
    found = box.finish()
    assert found.shape == SHAPE and found.dtype == form.dtype
    return found


@pytest.mark.parametrize("halo", [0, 1, 2])
def test_boxes_are_the_reference_s(halo: int) -> None:
    exact = blended(REFERENCE, FLOATS, halo)
    assert relative(blended(HERE, FLOATS, halo), exact) <= 1e-5
    for dtype in (np.uint8, np.int16):
        form = Format(-7.0, np.dtype(dtype), 45, 85)
        found = blended(HERE, form, halo)
        assert found.min() == 45 and found.max() == 85
        assert np.abs(found - np.clip(exact, 45, 85)).max() <= 0.5 + 1e-3


def test_samples_stay_on_the_device_and_empty_places_have_the_offset() -> None:
    for halo in (0, 1):
        box = siren.BlendedBox((4, 5), halo, HERE, Format(41.6, np.dtype(np.uint16), 0, 99))
        box.add(tiles([[0, 0], [0, 0]]).part(0, 0), numbers(0, 2, (4,)))
        samples = box.finish_there()
        assert samples.device.type == DEVICE and samples.dtype == torch.uint16
        assert (samples.cpu().numpy() == 42).all()


def test_constants_are_exact_where_they_overlap() -> None:
    blocks = tiles([[0, 4, 9], [0, 5, 9]])._replace(mean=np.full(4, -1234.0))
    box = siren.BlendedBox((9, 9), 2, HERE, Format(1300.0, np.dtype(np.int16), -9999, 9999))
    box.add(blocks, numbers(4, 2, ()))
    assert (box.finish() == 66).all()


@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("wild", [math.nan, math.inf, 1e30])
def test_hostile_networks_are_refused(wild: float, halo: int) -> None:
    blocks, nets = tiles([[0, 5, 9], [0, 9]]), numbers(2, 2, (4, 3))
    nets.steps[1, -1] = wild
    box = siren.BlendedBox((9, 9), halo, HERE, Format(0.0, np.dtype(np.uint8), 0, 255))
    box.add(blocks, nets)
    box.add(blocks, numbers(2, 2, ()))
    with pytest.raises(ValueError, match="expected networks of finite values, found others"):
        box.finish()


def test_sums_on_the_device_refuse_hostile_networks_too() -> None:
    blocks, nets = tiles([[0, 5, 9], [0, 9]]), numbers(2, 2, (4, 3))
    box = Box((9, 9), 1, FLOATS, DEVICE)
    siren.accumulate(box._total, box._share, *box._uploaded(blocks, nets), 1, HERE)
    assert relative(box.finish().cpu(), sums_of(blocks, nets)) <= 1e-5
    nets.steps[0, 0] = math.nan
    with pytest.raises(ValueError, match="expected networks of finite values"):
        siren.accumulate(box._total, box._share, *box._uploaded(blocks, nets), 1, HERE)


def sums_of(blocks: Blocks, nets: Networks) -> np.ndarray:
    box = siren.BlendedBox((9, 9), 1, REFERENCE, FLOATS)
    box.add(blocks, nets)
    return box.finish()


def short_of_memory(function: Callable[..., Any], most: int, calls: list[int]) -> Callable[..., Any]:
    """A launch that runs out of memory for more than so many blocks."""

    def launch(*arguments: Any, **options: Any) -> Any:
        count = next(len(a[0]) for a in arguments if isinstance(a, tuple | list) and hasattr(a[0], "shape"))
        calls.append(count)
        if count > most:
            raise torch.OutOfMemoryError("too many")
        return function(*arguments, **options)

    return launch


@pytest.mark.parametrize("halo", [0, 1])
def test_boxes_take_fewer_blocks_where_memory_is_short(halo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name, parts, calls = ("accumulate" if halo else "place"), (0, 3, 3, 4), []
    whole = blended(HERE, FLOATS, halo, parts)
    whole_launch = getattr(triton, name)
    monkeypatch.setattr(triton, name, short_of_memory(whole_launch, 1, calls))
    assert np.array_equal(blended(HERE, FLOATS, halo, parts), whole)
    assert calls == [3, 1, 2, 1, 1, 1]
    monkeypatch.setattr(triton, name, short_of_memory(whole_launch, 0, calls))
    with pytest.raises(torch.OutOfMemoryError):
        blended(HERE, FLOATS, halo, parts)


def test_classes_without_kernels_go_to_the_cpu() -> None:
    assert siren.suited(HERE, 3, [(), (64, 2)]) == HERE
    for ndim, classes in ((1, [(8,)]), (5, [()]), (3, [(8,), (65,)]), (3, [(8,) * 7])):
        found = siren.suited(HERE, ndim, classes)
        assert found.device == "cpu" and found.name != "triton" and "Triton: expected" in found.reason
    assert siren.suited(REFERENCE, 1, [(8,)]) == REFERENCE


# The draw and the noise


def samples_of(n: int, box: tuple[int, ...]) -> Samples:
    """Smooth samples of n boxes, after some that belong to none."""
    random, d = np.random.default_rng(7), len(box)
    axes = np.meshgrid(*(np.linspace(-1, 1, e) for e in box), indexing="ij")
    waves = [np.sin(sum(random.uniform(-4, 4) * a for a in axes) + random.uniform(0, 6)) for _ in range(n)]
    values = np.concatenate([np.full(5, np.nan), np.stack(waves).ravel()]).astype(np.float32)
    unit = np.tile(np.float32(2) / np.array(box, dtype=np.float32), (n, 1))
    begin, key = 5 + math.prod(box) * np.arange(n), random.integers(0, 2**32, n, dtype=np.uint32)
    return Samples(values, begin, np.tile(np.array(box), (n, 1)), np.full((n, d), 0.5, np.float32), unit, key)


def layers_of(n: int, ndim: int, widths: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    return [1.5 * torch.randn(n, *s, generator=random) / math.sqrt(s[0]) for s in siren.layer_shapes(ndim, widths)]


def quantiser_of(n: int, ndim: int, widths: tuple[int, ...]) -> Quantiser:
    """Without a price, and without noise, in one layer."""
    random, layers = np.random.default_rng(4), len(widths) + 1
    price, noise = np.full((n, layers), 0.02, np.float32), np.full((n, layers), 0.05, np.float32)
    price[:, 1] = noise[:, 1] = 0
    return Quantiser(noise, price, random.standard_normal((n, (ndim + 1) * widths[0])).astype(np.float32))


def there(samples: Samples) -> tuple[triton.Voxels, Tensor]:
    kinds = (np.float32, np.int64, np.int32, np.float32, np.float32)
    parts = [torch.from_numpy(np.asarray(a, k)).to(DEVICE) for a, k in zip(samples, kinds, strict=False)]
    return triton.Voxels(*parts), torch.from_numpy(samples.key.view(np.int32)).to(DEVICE)


@pytest.mark.parametrize("box", [(300, 7), (9, 1, 14), (5, 6, 7, 3)])
def test_draws_are_the_reference_s(box: tuple[int, ...]) -> None:
    samples = samples_of(2, box)
    points, targets = triton.draw(*there(samples), torch.tensor([41], dtype=torch.int32, device=DEVICE), 300)
    expected_points, expected = siren.draw(samples, 41, 300)
    assert torch.equal(targets.cpu(), expected)
    assert (points.cpu() - expected_points).abs().max() <= 2e-7


# Fits


def rates_of(steps: int) -> np.ndarray:
    return (1e-2 * np.linspace(1, 0, steps, endpoint=False)).astype(np.float32)


def silent(fraction: float, loss: float) -> None:
    assert 0 < fraction <= 1 and math.isfinite(loss)


def no_turn(side: Tensor) -> Tensor:
    """A basis that does not depend on rounding, as the eigenvectors of the first, singular curvature do."""
    return torch.eye(side.shape[-1]).to(side).expand_as(side).clone()


@pytest.mark.parametrize("priced", [False, True])
def test_fits_are_the_reference_s(priced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soap, "eigenvectors", no_turn)
    samples, widths, n = samples_of(2, (9, 8, 7)), (5, 4), 2
    quantiser = quantiser_of(n, 3, widths) if priced else None
    before, results = layers_of(n, 3, widths), []
    for backend in (HERE, REFERENCE):
        weights = [w.clone() for w in before]
        loss = siren.fit(weights, samples, 60, rates_of(11), silent, backend, quantiser)
        results.append((loss, torch.cat([(w - b).flatten() for w, b in zip(weights, before, strict=True)])))
    (loss, moved), (expected_loss, expected_moved) = results
    assert relative(loss, expected_loss) <= 1e-4
    assert relative(moved, expected_moved) <= 5e-3
    assert float(expected_moved.abs().max()) > 1e-2


def test_fits_take_fewer_blocks_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soap, "eigenvectors", no_turn)
    samples, calls, fractions = samples_of(3, (6, 5)), [], []

    def fitted() -> tuple[np.ndarray, list[Tensor]]:
        weights = layers_of(3, 2, (4, 3))
        fractions.clear()
        return siren.fit(weights, samples, 20, rates_of(4), lambda part, loss: fractions.append(part), HERE), weights

    loss, weights = fitted()
    monkeypatch.setattr(triton, "loss_and_gradients", short_of_memory(triton.loss_and_gradients, 1, calls))
    again, others = fitted()
    # Products of fewer matrices are summed in another order on a device, which SOAP's quotients enlarge (1.4e-5 was seen on an
    # H200): there, the bound is the one of fits against the reference.
    of_loss, of_weights = (1e-6, 1e-5) if interpreted() else (1e-4, 1e-3)
    assert relative(again, loss) <= of_loss
    # A recorded step is not called again.
    assert calls == [3, *[1] * 4, 2, *[1] * 8] if interpreted() else calls[:2] == [3, 1] and set(calls[2:]) == {1, 2}
    assert all(relative(a, b) <= of_weights for a, b in zip(others, weights, strict=True))
    assert fractions == sorted(fractions) and len(fractions) == 3


def test_a_step_that_cannot_be_recorded_is_launched_in_parts() -> None:
    def waits() -> None:
        torch.zeros(1, device=DEVICE).item()

    with pytest.warns(RuntimeWarning, match="expected a CUDA graph of a step, found"):
        assert recorded.replayable(waits, torch.device("cuda")) is waits
    assert recorded.replayable(waits, torch.device("cpu")) is waits


@pytest.mark.parametrize("size", [1, 5, 33, 65])
def test_bases_of_anything_are_orthonormal(size: int) -> None:
    """Also of columns that depend on each other, or vanish."""
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(size))
    matrices = torch.stack([matrix, 1e-18 * matrix, matrix[:, :1] @ matrix[:1], torch.zeros_like(matrix)])
    q = triton.orthonormal(matrices.to(DEVICE)).cpu().double()
    assert (q.mT @ q - torch.eye(size)).abs().max() <= 1e-5
    triangles = q.mT @ matrices.double()
    largest = matrices.double().abs().amax((1, 2), keepdim=True)
    assert (triangles.tril(-1).abs() <= 1e-5 * size * largest).all()


def test_soap_keeps_its_state_where_it_lies() -> None:
    """What a recorded step reads must not move."""
    weights = [w.to(DEVICE) for w in layers_of(2, 2, (5, 3))]
    for number, weight in enumerate(weights):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)).to(DEVICE)
    optimiser = soap.Soap(weights, orthonormal=triton.orthonormal)
    optimiser.look()

    def state() -> list[Tensor]:
        return [*optimiser._mean, *optimiser._square, *itertools.chain(*optimiser._sides, *optimiser._bases), *weights]

    places, before = [t.data_ptr() for t in state()], [t.clone() for t in state()]
    for _ in range(2):
        optimiser.move(torch.tensor(0.1), torch.tensor(0.5), torch.tensor(0.5))
        optimiser.turn()
    assert [t.data_ptr() for t in state()] == places
    assert sum(not torch.equal(a, b) for a, b in zip(state(), before, strict=True)) > len(places) // 2


def test_wide_networks_are_fitted_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(triton_fit, "fit", refused)
    monkeypatch.setattr(siren, "best_on_cpu", lambda reason: REFERENCE)  # which need not be compiled
    weights, before = layers_of(1, 2, (66,)), layers_of(1, 2, (66,))
    siren.fit(weights, samples_of(1, (6, 5)), 20, rates_of(3), silent, HERE)
    assert not torch.equal(weights[0], before[0])


@pytest.mark.slow
def test_fits_are_as_good_as_the_reference_s() -> None:
    losses = []
    for backend in (HERE, REFERENCE):
        weights = layers_of(2, 2, (10, 7))
        losses.append(siren.fit(weights, samples_of(2, (12, 12)), 64, 3 * rates_of(120), silent, backend))
    assert losses[0].max() < 0.05 and abs(math.log(losses[0].mean() / losses[1].mean())) < math.log(4)
