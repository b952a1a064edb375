"""Triton's correction of samples against its definition in float64. Run by `test_restoration_triton.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels.restoration import reference
from inrcodec_kernels.restoration import triton as kernels
from inrcodec_kernels.restoration.reference import Parameters

from .device import on_device

correction = on_device(kernels.correction)
restore = on_device(kernels.restore)

FULL, PLANAR, LINE = (3, 3, 3), (1, 3, 3), (1, 1, 3)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles in small boxes: the interpreter is slow."""
    monkeypatch.setattr(kernels, "TILE", {3: (8, 8), 1: (1, 16)})
    monkeypatch.setattr(kernels, "PLANES", 3)


def network(width: int, kernel: tuple[int, ...]) -> Parameters:
    shapes = ((width, *kernel), (2, width), (width, width), (width, *kernel))
    return Parameters(*(torch.randn(shape) / math.sqrt(math.prod(shape[1:])) for shape in shapes))


def expected_correction(samples: Tensor, parameters: Parameters) -> Tensor:
    return reference.correction(samples.double(), Parameters(*(p.double() for p in parameters)))


def expected_restored(samples: Tensor, parameters: Parameters, scale: float, size: list[int], before: list[int]) -> Tensor:
    """The definition on a box padded by its edge, in float64."""
    reach = [k - 1 for k in parameters.first.shape[1:]]
    after = [n - b - s for n, b, s in zip(samples.shape[1:], before, size, strict=True)]
    padding = [(max(0, r - b), max(0, r - a)) for r, b, a in zip(reach, before, after, strict=True)]
    padded = np.pad(samples.double().numpy(), [(0, 0), *padding], mode="edge")
    begin = [b - r + low for b, r, (low, _) in zip(before, reach, padding, strict=True)]
    around = tuple(slice(f, f + s + 2 * r) for f, s, r in zip(begin, size, reach, strict=True))
    box = torch.from_numpy(padded[(slice(None), *around)])
    own = tuple(slice(r, r + s) for r, s in zip(reach, size, strict=True))
    return box[(slice(None), *own)] + scale * expected_correction(box / scale, parameters)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("width", "kernel", "shape"),
    [
        (16, FULL, (1, 8, 11, 10)),
        (5, FULL, (2, 6, 6, 12)),
        (1, FULL, (1, 7, 8, 8)),
        (4, PLANAR, (2, 2, 13, 9)),
        (12, PLANAR, (1, 1, 5, 17)),
        (8, LINE, (2, 1, 2, 31)),
    ],
)
def test_correction_is_the_definition(width: int, kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    samples, parameters = torch.randn(shape) + 30, network(width, kernel)
    expected = expected_correction(samples, parameters)
    found = correction(samples, parameters)
    assert found.shape == expected.shape and relative(found, expected) < 5e-6


def test_tiles_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    samples, parameters = torch.randn(1, 5, 20, 37), network(2, FULL)
    assert relative(correction(samples, parameters), expected_correction(samples, parameters)) < 5e-6


@pytest.mark.parametrize(
    ("kernel", "before", "after"),
    [
        (FULL, (2, 2, 2), (2, 2, 2)),
        (FULL, (0, 0, 0), (0, 0, 0)),
        (FULL, (1, 0, 2), (0, 3, 1)),
        (PLANAR, (0, 0, 1), (0, 2, 0)),
        (LINE, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_restored_floats(kernel: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> None:
    size, parameters, scale = [4, 4, 9], network(3, kernel), 0.37
    samples = 10 * torch.randn(1, *(b + s + a for b, s, a in zip(before, size, after, strict=True))) + 20
    out = torch.full((1, *size), math.nan)
    restore(samples, parameters, scale, 0, 0, out, None if before == after else before)
    expected = expected_restored(samples, parameters, scale, size, list(before))
    assert relative(out - 20, expected - 20) < 5e-6


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(torch.uint8, 10, 240), (torch.int8, -90, 100), (torch.uint16, 0, 60000), (torch.int16, -9, 9), (torch.int32, -(10**6), 10**6)],
)
def test_restored_integers(dtype: torch.dtype, low: int, high: int) -> None:
    parameters, scale, size = network(4, FULL), (high - low) / 30, [3, 6, 6]
    parameters.last[...] /= 10  # far less than the samples' range, so that some of them always end beyond it
    samples = (low + high) / 2 + (high - low) / 2 * torch.randn(1, *size)
    poison = 77
    whole = torch.full((1, 4, 7, 8), poison, dtype=dtype)
    out = whole[:, :3, 1:, 1:7]
    restore(samples, parameters, scale, low, high, out)
    exact = expected_restored(samples, parameters, scale, size, [0, 0, 0]).numpy()
    # Rounding leaves half a unit; float32 may take a sample that lies near the middle of two integers to either.
    found = out.numpy().astype(np.float64)
    assert np.abs(found - np.clip(exact, low, high)).max() <= 0.5 + 2e-6 * np.abs(exact).max()
    assert found.min() == low and found.max() == high
    out.fill_(poison)
    assert (whole == poison).all()


def test_halves_go_to_even() -> None:
    samples = torch.arange(-9.0, 10.0).reshape(1, 1, 1, 19) / 2
    parameters = Parameters(torch.randn(2, *LINE), torch.zeros(2, 2), torch.randn(2, 2), torch.zeros(2, *LINE))
    out = torch.full((1, 1, 1, 19), 77, dtype=torch.int16)
    restore(samples, parameters, 1.0, -100, 100, out)
    assert out.flatten().tolist() == [round(v / 2) for v in range(-9, 10)]


def test_absolute_level_is_not_seen() -> None:
    samples, parameters = torch.randint(0, 99, (1, 5, 6, 7)).float(), network(4, FULL)
    assert torch.equal(correction(samples + 2.0**20, parameters), correction(samples, parameters))


def test_gradients_come_from_the_definition() -> None:
    samples, parameters = torch.randn(1, 5, 5, 6), network(2, FULL)
    parameters.middle.requires_grad_(True)
    # On a device, cuDNN's convolutions have 10 bits unless they are told.
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = correction(samples, parameters)
        (gradient,) = torch.autograd.grad(found.square().sum(), parameters.middle)
    expected = reference.correction(samples, parameters)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), parameters.middle)[0])


def test_empty_batch() -> None:
    assert correction(torch.zeros(0, 6, 7, 8), network(2, FULL)).shape == (0, 2, 3, 4)


def test_misfits_are_refused() -> None:
    parameters, samples = network(2, FULL), torch.zeros(1, 6, 6, 6)
    with pytest.raises(ValueError, match="read a larger box"):
        correction(samples[:, :4], parameters)
    with pytest.raises(ValueError, match="convert them"):
        correction(samples.double(), parameters)
    with pytest.raises(ValueError, match="pass before"):
        restore(samples, parameters, 1.0, 0, 1, torch.zeros(1, 6, 6, 5))
    with pytest.raises(ValueError, match="read a larger box"):
        restore(samples, parameters, 1.0, 0, 1, torch.zeros(1, 6, 6, 5), (0, 0, 2))
    with pytest.raises(ValueError, match="pass the network's unit"):
        restore(samples, parameters, 0.0, 0, 1, torch.zeros(1, 6, 6, 6))


def test_compile_cases_name_every_argument() -> None:
    for _, kernel, signature, constants, _ in kernels.compile_cases():
        assert set(kernel.arg_names) == {*signature, *constants} and not set(signature) & set(constants)
