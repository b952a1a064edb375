"""Triton's synthesis of leaves against the sum of its definition in float64. Run by `test_separable_triton.py`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from inrcodec_kernels.backend import interpreted
from inrcodec_kernels.separable import triton as kernels

from .device import on_device

synthesise = on_device(kernels.synthesise)

INTEGERS = {torch.uint8: (3, 250), torch.int8: (-120, 127), torch.uint16: (0, 60000), torch.int16: (-999, 1000)}
RANDOM = np.random.default_rng()


class Leaves:
    """Random leaves of one level, side by side along the first axis, that reach beyond a box on all sides."""

    def __init__(self, cell: tuple[int, ...], counts: tuple[int, ...], weights: int, leaves: int, used: int) -> None:
        index = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, len(counts))
        self.lattice = index[np.argsort((index**2).sum(1), kind="stable")][:weights]
        self.bases = [torch.from_numpy(RANDOM.normal(size=shape).astype(np.float32)) for shape in zip(cell, counts, strict=True)]
        values = RANDOM.integers(-50, 50, (leaves, len(self.lattice))).astype(np.int32)
        values[:, used:] = 0
        values[leaves // 2, 1:] = 0
        self.values = torch.from_numpy(values)
        self.corner = torch.tensor([[b * cell[0] - 1, *(b % 4 - 2 for _ in cell[1:])] for b in range(leaves)])
        self.shape, self.cell = (leaves * cell[0] - 2, *cell[1:]), cell

    def write(self, out: torch.Tensor, step: float, offset: float, low: int, high: int, precision: str = "ieee") -> None:
        synthesise(
            out, self.corner, self.values, self.lattice, self.bases, step, offset, low, high, precision=precision
        )

    def expected(self, step: float, offset: float) -> np.ndarray:
        """The box in float64, NaN where no leaf lies."""
        waves = np.ones((1, len(self.lattice)))
        for axis, basis in enumerate(self.bases):
            own = basis.double().numpy()[:, self.lattice[:, axis]]
            waves = (waves[:, None] * own).reshape(-1, len(self.lattice))
        samples = offset + step * (self.values.double().numpy() @ waves.T)
        box = np.full(self.shape, np.nan)
        for corner, leaf in zip(self.corner.tolist(), samples.reshape(-1, *self.cell), strict=True):
            kept = [(max(c, 0), min(c + e, s)) for c, e, s in zip(corner, self.cell, self.shape, strict=True)]
            own = tuple(slice(a - c, b - c) for (a, b), c in zip(kept, corner, strict=True))
            box[tuple(slice(a, b) for a, b in kept)] = leaf[own]
        return box


CASES = [
    ((9,), (7,), 7, 5, 7),
    ((64,), (32,), 32, 3, 20),
    ((7, 9), (7, 5), 20, 6, 20),
    ((2, 8, 8), (2, 8, 8), 128, 11, 128),
    ((8, 8, 8), (8, 8, 8), 300, 3, 200),
    ((5, 3, 19), (4, 3, 17), 77, 4, 40),
    ((3, 33, 18), (2, 17, 18), 500, 2, 450),
    ((3, 2, 5, 4), (3, 2, 4, 4), 60, 3, 60),
    ((1, 1, 1), (1, 1, 1), 1, 40, 1),
]


@pytest.mark.parametrize("case", CASES)
def test_floats_are_the_definition(case: tuple) -> None:
    leaves = Leaves(*case)
    out = torch.full(leaves.shape, math.nan)
    leaves.write(out, 0.37, 5.0, 0, 0)
    expected, found = leaves.expected(0.37, 5.0), out.double().numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    error = np.nan_to_num(found - expected)
    assert np.linalg.norm(error) <= 1e-6 * np.linalg.norm(np.nan_to_num(expected))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_rounded_within_limits(dtype: torch.dtype) -> None:
    leaves, (low, high) = Leaves((5, 6, 7), (4, 4, 5), 60, 4, 50), INTEGERS[dtype]
    step, offset = (high - low) / 200, (low + high) / 2
    poison = 77
    out = torch.full(leaves.shape, poison, dtype=dtype)
    leaves.write(out, step, offset, low, high)
    exact = leaves.expected(step, offset)
    found, held = out.numpy().astype(np.float64), ~np.isnan(exact)
    assert (found[~held] == poison).all() and (~held).any()
    rounded = np.clip(np.rint(exact[held]), low, high)
    assert (rounded == low).any() and (rounded == high).any()
    # Rounding leaves half a unit; float32 may take a sample that lies near the middle of two integers to either.
    limited = np.clip(exact[held], low, high)
    assert np.abs(found[held] - limited).max() <= 0.5 + 2e-6 * np.abs(exact[held]).max()
    assert found[held].min() == low and found[held].max() == high


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_halves_go_to_even(dtype: torch.dtype) -> None:
    values = torch.arange(-9, 10, dtype=torch.int32)[:, None]
    out = torch.full((19,), 77, dtype=dtype)
    synthesise(out, torch.arange(19)[:, None], values, [[0]], [torch.ones(1, 1)], 0.5, 0.0, -100, 100)
    assert out.tolist() == [round(0.5 * v) for v in range(-9, 10)]


def test_limits_of_32_bits_are_exact() -> None:
    most = 2**31 - 1
    values = torch.tensor([[v] for v in (-3, -2, -1, 0, 1, 2, 3)], dtype=torch.int32)
    out = torch.full((7,), 77, dtype=torch.int32)
    synthesise(out, torch.arange(7)[:, None], values, [[0]], [torch.ones(1, 1)], 2.0**30, 0.0, -most - 1, most)
    assert out.tolist() == [-most - 1, -most - 1, -(2**30), 0, 2**30, most, most]
    synthesise(out, torch.arange(7)[:, None], values, [[0]], [torch.ones(1, 1)], 2.0**30, 0.0, 1 - most, most - 1)
    assert out.tolist() == [1 - most, 1 - most, -(2**30), 0, 2**30, most - 1, most - 1]


def test_box_may_be_a_view() -> None:
    leaves = Leaves((4, 5, 6), (4, 4, 4), 40, 3, 40)
    whole = torch.full([2 * s + 1 for s in reversed(leaves.shape)], math.nan)
    out = whole.permute(2, 1, 0)[1::2, 1::2, 1::2]
    # The interpreter's products of "tf32" are whole; a device's have 10 bits, which is not what this is about.
    leaves.write(out, 0.5, 1.0, 0, 0, precision="tf32" if interpreted() else "ieee")
    expected = leaves.expected(0.5, 1.0)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-5 * np.nanmax(np.abs(expected)))
    whole.permute(2, 1, 0)[1::2, 1::2, 1::2] = math.nan
    assert whole.isnan().all()


def test_tiles_cover_cells_and_stay_within_limits() -> None:
    for cell in itertools.product((1, 2, 3, 8, 16, 20, 64), repeat=4):
        together, *edges = kernels.tile_of(cell)
        assert together * math.prod(edges[:2]) <= kernels.ROWS and together * math.prod(edges) <= kernels.SAMPLES
        assert all(n & (n - 1) == 0 for n in (together, *edges))


def test_misfits_are_refused() -> None:
    leaves = Leaves((4, 5), (2, 2), 4, 2, 4)
    out = torch.zeros(leaves.shape)
    with pytest.raises(ValueError, match="pass matching arguments"):
        leaves.write(out[0], 1.0, 0.0, 0, 0)
    with pytest.raises(ValueError, match="convert them"):
        leaves.write(out.double(), 1.0, 0.0, 0, 0)
    with pytest.raises(ValueError, match="choose one of them"):
        leaves.write(out, 1.0, 0.0, 0, 0, precision="fp8")


def test_no_leaves() -> None:
    out = torch.full((3, 4), 7.0)
    bases = [torch.ones(2, 2), torch.ones(2, 2)]
    synthesise(out, torch.zeros(0, 2), torch.zeros(0, 1, dtype=torch.int32), [[0, 0]], bases, 1.0, 0.0, 0, 0)
    assert (out == 7).all()


def test_compile_cases_name_every_argument() -> None:
    for _, kernel, signature, constants, *_ in kernels.compile_cases():
        assert set(kernel.arg_names) == {*signature, *constants} and not set(signature) & set(constants)
