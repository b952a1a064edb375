"""Cases that every backend of the operations on chains must pass, against the definitions in float64."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from inrcodec_kernels import chains
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.chains import reference

DTYPES = [torch.float32, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32]

# Axes, widths, which layers read the point, points, targets of a chain, chains.
CLASSES = [
    (1, (9,), (True,), 5, 1, 3),
    (2, (2, 1, 7), (True, False, True), 129, 3, 1),
    (3, (13, 24, 7), (True, False, True), 300, 1, 5),
    (4, (5, 7, 6), (True, True, True), 128, 2, 2),
    (3, (20, 63), (True, False), 257, 1, 2),
]


def layers_of(count: int, axes: int, widths: tuple[int, ...], reads: tuple[bool, ...], seed: int = 0) -> list[Tensor]:
    """Layers as large as those of initialised networks."""
    random, inputs = torch.Generator().manual_seed(seed), [0, *widths]
    shapes = [(n + axes * r, w) for (n, w), r in zip(itertools.pairwise(inputs), reads, strict=True)]
    return [torch.randn(count, a + 1, b, generator=random) * math.sqrt(2 / a) for a, b in shapes]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block_points(count: int, axes: int) -> Tensor:
    return torch.rand(count, axes, generator=torch.Generator().manual_seed(9)) * 2 - 1


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.detach().cpu().double() - expected.detach().double()).norm() / expected.detach().norm())


def check_moments(
    backend: Backend, axes: int, widths: tuple[int, ...], reads: tuple[bool, ...], points: int, targets: int, count: int
) -> None:
    """Moments, and the gradients of a random function of them."""
    layers = [layer.requires_grad_() for layer in layers_of(count, axes, widths, reads)]
    exact = [layer.detach().double().requires_grad_() for layer in layers]
    x, y = block_points(points, axes), normal(count, targets, points, seed=1)
    there = [layer.to(backend.device) for layer in layers]
    found = chains.moments(there, x.to(backend.device), y.to(backend.device), backend)
    expected = reference.moments(exact, x.double(), y.double())
    assert all(tensor.dtype == torch.float64 for tensor in found)
    assert relative(found[0], expected[0]) <= 1e-6 and relative(found[1], expected[1]) <= 2e-6
    assert bool((found[0][:, 0, 0] == points).all())
    for sums in (found, expected):
        slopes = [normal(*e.shape, seed=2 + i).double().to(e.device) for i, e in enumerate(sums)]
        torch.autograd.backward(sums, slopes)
    for layer, wanted in zip(layers, exact, strict=True):
        assert layer.grad is not None and wanted.grad is not None
        assert relative(layer.grad, wanted.grad) <= 2e-6


def check_no_targets(backend: Backend) -> None:
    """A Gram matrix alone."""
    layers, x = layers_of(2, 3, (6,), (True,)), block_points(40, 3)
    there = [layer.to(backend.device) for layer in layers]
    none = torch.zeros(2, 0, 40, device=backend.device)
    gram, products = chains.moments(there, x.to(backend.device), none, backend)
    assert products.shape == (2, 0, 7)
    assert relative(gram, reference.moments([w.double() for w in layers], x, torch.zeros(2, 1, 40))[0]) <= 1e-6


def check_exact_sums(backend: Backend) -> None:
    """Twins among the features, apart in their last bits only, give a Gram matrix as nearly singular as it is."""
    layers = layers_of(1, 3, (12,), (True,))
    layers[0][..., 6:] = layers[0][..., :6] * (1 + 1e-4)
    x, none = block_points(900, 3), torch.zeros(1, 0, 900)
    there = [layer.to(backend.device) for layer in layers]
    gram, _ = chains.moments(there, x.to(backend.device), none.to(backend.device), backend)
    expected = reference.moments([w.double() for w in layers], x.double(), none)[0]
    smallest = torch.linalg.eigvalsh(expected)[0, :6]
    assert float(smallest[0]) < 1e-4
    assert torch.allclose(torch.linalg.eigvalsh(gram.cpu())[0, :6], smallest, rtol=1e-2)


def scene(axes: int, seed: int = 0) -> tuple[tuple[int, ...], Tensor, tuple[int, ...]]:
    """A cell, corners of leaves that tile a box and reach beyond its faces, and the box."""
    cell, box = ((7,), (5, 4), (3, 5, 4), (2, 3, 1, 5))[axes - 1], ((16,), (9, 11), (7, 9, 6), (3, 5, 4, 9))[axes - 1]
    starts = [range(-(e // 2), n, e) for e, n in zip(cell, box, strict=True)]
    return cell, torch.tensor(list(itertools.product(*starts)), dtype=torch.int64), box


def close(found: Tensor, expected: Tensor, low: int, high: int) -> bool:
    if found.dtype == torch.float32:
        return relative(found, expected) <= 2e-6
    expected = expected.clamp(low, high)
    assert expected.min() == low and expected.max() == high
    return float((found.double() - expected).abs().max()) <= 0.5 + 1e-3


def check_leaves(backend: Backend, axes: int, dtype: torch.dtype) -> None:
    """Leaves with chains of their own, in a box that was poisoned."""
    cell, corner, box = scene(axes)
    count, points = len(corner), block_points(math.prod(cell), axes)
    layers, readouts = layers_of(count, axes, (6, 9), (True, True)), normal(count, 10, seed=3) * 30
    expected, out = poisoned(box, dtype, backend)
    exact = [w.double() for w in layers]
    reference.write(expected, corner, cell, exact, points.double(), readouts.double(), 40.0, 30, 55)
    there = [layer.to(backend.device) for layer in layers]
    others = (tensor.to(backend.device) for tensor in (points, readouts))
    chains.write(out, corner.to(backend.device), cell, there, *others, 40.0, 30, 55, backend)
    assert not expected.isnan().any() and close(out.cpu(), expected, 30, 55)


def check_shared(backend: Backend, axes: int, dtype: torch.dtype, width: int) -> None:
    """Leaves that share a basis, in a box that was poisoned."""
    cell, corner, box = scene(axes)
    basis, coefficients = normal(math.prod(cell), width, seed=4), normal(len(corner), width, seed=5) * 20
    expected, out = poisoned(box, dtype, backend)
    reference.mix(expected, corner, cell, basis.double(), coefficients.double(), 30.0, 20, 45)
    place, *numbers = (tensor.to(backend.device) for tensor in (corner, basis, coefficients))
    chains.mix(out, place, cell, *numbers, 30.0, 20, 45, backend)
    assert not expected.isnan().any() and close(out.cpu(), expected, 20, 45)


def poisoned(box: tuple[int, ...], dtype: torch.dtype, backend: Backend) -> tuple[Tensor, Tensor]:
    out = torch.full(box, math.nan if dtype == torch.float32 else 99, dtype=dtype, device=backend.device)
    return torch.full(box, math.nan, dtype=torch.float64), out


def check_parts(backend: Backend) -> None:
    """A box has the same bits where it is written in parts."""
    cell, corner, box = scene(3)
    layers, points = layers_of(len(corner), 3, (6, 9), (True, False)), block_points(math.prod(cell), 3)
    there = [layer.to(backend.device) for layer in layers]
    numbers = [tensor.to(backend.device) for tensor in (points, normal(len(corner), 10, seed=3))]
    whole, part = torch.empty(box, device=backend.device), torch.empty(3, 4, 5, device=backend.device)
    for out, place in ((whole, corner), (part, corner - torch.tensor([2, 3, 1]))):
        chains.write(out, place.to(backend.device), cell, there, *numbers, 0.0, 0, 0, backend)
    assert torch.equal(part, whole[2:5, 3:7, 1:6])
