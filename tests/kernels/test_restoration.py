"""The correction of samples: its definition against plain loops, the fast one against the definition, and what holds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.restoration import Parameters, correction, loss_and_gradients, reference, restore, tiled

REFERENCE, NUMBA = Backend("reference"), Backend("numba")
KERNELS = [(3, 3, 3), (1, 3, 3), (1, 1, 3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters(width: int, kernel: tuple[int, ...] = (3, 3, 3), dtype: torch.dtype = torch.float64) -> Parameters:
    first, biases = normal(width, *kernel, seed=1), normal(2, width, seed=2)
    middle, last = normal(width, width, seed=3), normal(width, *kernel, seed=4)
    return Parameters(*(p.to(dtype) for p in (first, biases, middle, last)))


def loops(samples: np.ndarray, p: Parameters) -> np.ndarray:
    first, biases, middle, last = (t.numpy() for t in p)
    taps = list(itertools.product(*(range(k) for k in first.shape[1:])))

    def leaky(values: np.ndarray) -> np.ndarray:
        return np.where(values > 0, values, 0.1 * values)

    def hidden(b: int, place: tuple[int, ...]) -> np.ndarray:
        seen = np.array([samples[(b, *(q + t for q, t in zip(place, tap, strict=True)))] for tap in taps])
        one = [sum((w[tap] - w.mean()) * v for tap, v in zip(taps, seen, strict=True)) for w in first]
        return leaky(middle @ leaky(np.array(one) + biases[0]) + biases[1])

    grid = [n - 2 * (k - 1) for n, k in zip(samples.shape[1:], first.shape[1:], strict=True)]
    out = np.zeros((len(samples), *grid))
    for b, place in itertools.product(range(len(samples)), itertools.product(*(range(n) for n in grid))):
        for tap in taps:
            values = hidden(b, tuple(q + t for q, t in zip(place, tap, strict=True)))
            out[(b, *place)] += sum(kernel[tap] * v for kernel, v in zip(last, values, strict=True))
    return out


@pytest.mark.parametrize(
    ("width", "kernel", "shape"),
    [
        (1, (3, 3, 3), (1, 5, 5, 5)),
        (3, (3, 3, 3), (2, 5, 6, 7)),
        (2, (1, 3, 3), (2, 2, 6, 5)),
        (4, (1, 1, 3), (3, 1, 2, 9)),
    ],
)
def test_both_are_the_formula(width: int, kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    samples, p = normal(*shape), parameters(width, kernel)
    expected = loops(samples.numpy(), p)
    for form in (reference.correction, correction):
        np.testing.assert_allclose(form(samples, p).numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(1, 41, 39, 67), (3, 5, 6, 7), (1, 5, 5, 300), (2, 5, 200, 211)])
def test_tiles_are_the_definition(kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    samples, p = normal(*shape).float(), parameters(5, kernel, torch.float32)
    expected = reference.correction(samples, p)
    found = correction(samples, p)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert float((found - expected).abs().max() / expected.abs().max()) < 3e-6


def test_tiles_are_many_and_small() -> None:
    for shape, kernel in (((2, 40, 70, 90), (3, 3, 3)), ((50, 1, 1, 9000), (1, 1, 3)), ((3, 1, 500, 600), (3, 3, 3))):
        seen = np.zeros(shape, dtype=int)
        for window in tiled._tiles(torch.Size(shape), torch.Size(kernel)):
            assert seen[window].size <= 1.01 * tiled.TILE
            seen[window] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients(kernel: tuple[int, ...]) -> None:
    tensors = [normal(2, 5, 5, 6), *parameters(2, kernel)]
    for tensor in tensors:
        tensor.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, *p: correction(x, Parameters(*p)), tuple(tensors))


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_the_definition(kernel: tuple[int, ...]) -> None:
    samples, p = normal(3, 9, 11, 8), parameters(4, kernel)
    found = []
    for form in (reference.correction, correction):
        leaves = [t.clone().requires_grad_(True) for t in (samples, *p)]
        form(leaves[0], Parameters(*leaves[1:])).square().sum().backward()
        found.append([t.grad for t in leaves])
    for expected, gradient in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


def test_absolute_level_is_not_seen() -> None:
    samples, p = normal(1, 7, 8, 9), parameters(4)
    torch.testing.assert_close(correction(samples + 1234.5, p), correction(samples, p), rtol=0, atol=1e-9)


def test_constant_box_gets_one_correction_that_the_biases_give() -> None:
    p = parameters(4)
    found = correction(torch.full((1, 7, 7, 7), 77.0, dtype=torch.float64), p)
    torch.testing.assert_close(found, found[0, 0, 0, 0].expand_as(found), rtol=0, atol=1e-11)
    without = correction(
        torch.full((1, 7, 7, 7), 77.0, dtype=torch.float64), p._replace(biases=torch.zeros_like(p.biases))
    )
    assert abs(float(found.mean())) > 0.1 and float(without.abs().max()) < 1e-11


@pytest.mark.parametrize("shape", [(1, 4, 9, 9), (1, 9, 9, 4)])
def test_boxes_without_room_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="read a larger box"):
        correction(normal(*shape), parameters(2))


def test_empty_batch() -> None:
    assert correction(normal(0, 6, 7, 8), parameters(2)).shape == (0, 2, 3, 4)


def test_scale_of_the_cost() -> None:
    """Multiply-adds a sample, as the README has them."""
    width, taps = 16, math.prod((3, 3, 3))
    assert sum(p.numel() for p in parameters(width)) - 2 * width == width**2 + 2 * width * taps


BOXES = [
    ((1, 41, 39, 67), (37, 35, 63), (2, 2, 2)),
    ((1, 9, 40, 130), (9, 40, 130), (0, 0, 0)),
    ((3, 5, 6, 7), (5, 4, 1), (0, 2, 6)),
    ((2, 70, 3, 9), (66, 2, 9), (3, 0, 0)),
    ((2, 2, 2, 3), (1, 2, 2), (1, 0, 1)),
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("shape", "inner", "before"), BOXES)
def test_restored_boxes_are_the_definition(
    kernel: tuple[int, ...], shape: tuple[int, ...], inner: tuple[int, ...], before: tuple[int, ...]
) -> None:
    exact, p = 9 * normal(*shape, seed=7), parameters(6, kernel)
    single = Parameters(*(t.float() for t in p))
    expected = torch.full((shape[0], *inner), math.nan, dtype=torch.float64)
    reference.restore(exact, p, 1.7, 0, 0, expected, before)
    for backend in (REFERENCE, NUMBA):
        found = torch.full(expected.shape, math.nan)
        restore(exact.float(), single, 1.7, 0, 0, found, before, backend)
        assert float((found - expected).norm() / expected.norm()) < 1e-5
        integers = torch.full(expected.shape, 9999, dtype=torch.int16)
        restore(exact.float(), single, 1.7, -300, 200, integers, before, backend)
        difference = (integers.double() - expected.round().clamp(-300, 200)).abs()
        assert difference.max() <= 1 and difference.mean() < 0.01


def test_ring_beyond_the_box_repeats_its_edge() -> None:
    samples, p = normal(1, 6, 7, 8), parameters(3)
    out = torch.full_like(samples, math.nan)
    reference.restore(samples, p, 2.0, 0, 0, out, (0, 0, 0))
    padded = torch.nn.functional.pad(samples[None], (2,) * 6, mode="replicate")[0]
    torch.testing.assert_close(out, samples + 2 * reference.correction(padded / 2, p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_compiled_corrections_are_the_definition(kernel: tuple[int, ...]) -> None:
    for shape, width in (((2, 9, 37, 70), 16), ((1, 5, 5, 300), 5)):
        samples, p = normal(*shape), parameters(width, kernel)
        expected = reference.correction(samples, p)
        found = correction(samples.float(), Parameters(*(t.float() for t in p)), NUMBA)
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_boxes_agree_to_the_last_bit() -> None:
    samples, p = normal(1, 30, 50, 140).float(), parameters(16, dtype=torch.float32)
    whole, part = torch.empty(samples.shape), torch.full((1, 9, 20, 11), math.nan)
    restore(samples, p, 1.3, 0, 0, whole, (0, 0, 0), NUMBA)
    restore(samples[:, 3:, 5:, 60:90].contiguous(), p, 1.3, 0, 0, part, (4, 7, 9), NUMBA)
    assert torch.equal(part, whole[:, 7:16, 12:32, 69:80])


def test_boxes_that_lack_samples_are_refused() -> None:
    for before in ((0, 0, 2), (-1, 0, 0)):
        with pytest.raises(ValueError, match="read a larger box"):
            restore(normal(1, 5, 5, 5).float(), parameters(2, dtype=torch.float32), 1.0, 0, 0, torch.empty(1, 4, 4, 4), before, NUMBA)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("shape", "width"), [((2, 19, 28, 31), 16), ((3, 5, 7, 6), 5)])
def test_compiled_gradients_are_those_of_the_definition(kernel: tuple[int, ...], shape: tuple[int, ...], width: int) -> None:
    samples, p = normal(*shape), parameters(width, kernel)
    wanted = normal(*reference.correction(samples, p).shape, seed=9)
    loss, gradients = reference.loss_and_gradients(samples, wanted, p)
    single = Parameters(*(t.float() for t in p))
    for backend in (REFERENCE, NUMBA):
        found, parts = loss_and_gradients(samples.float(), wanted.float(), single, backend)
        assert found == pytest.approx(loss, rel=1e-5)
        for part, gradient, parameter in zip(parts, gradients, p, strict=True):
            assert part.shape == parameter.shape and part.dtype == torch.float32
            assert float((part - gradient).norm() / gradient.norm()) < 1e-5


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    samples, p = normal(3, 9, 9, 9).float(), parameters(4, dtype=torch.float32)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(loss_and_gradients(samples, samples[:, 2:-2, 2:-2, 2:-2].contiguous(), p, NUMBA))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
