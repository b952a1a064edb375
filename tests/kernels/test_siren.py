"""`sine_chain` and `sine_product` against plain loops in float64, forward and gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels.siren import sine_chain, sine_product

Layers = list[tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(nodes: int, widths: list[int]) -> Layers:
    """Random layers of the given widths, inputs first."""
    pairs = itertools.pairwise(widths)
    return [(normal(nodes, a, b, seed=i + 1), normal(nodes, b, seed=i + 50)) for i, (a, b) in enumerate(pairs)]


def chain_by_loops(
    inputs: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]], node: int, point: int
) -> list[float]:
    """Activations of one point in one network, neuron by neuron."""
    hidden = inputs[node % len(inputs), point].tolist()
    for weight, bias in layers:
        w, b = weight[node % len(weight)], bias[node % len(bias)]
        hidden = [math.sin(math.fsum(h * w[i, j] for i, h in enumerate(hidden)) + b[j]) for j in range(w.shape[1])]
    return hidden


@pytest.mark.parametrize(
    ("m_inputs", "m_layers", "points", "widths"),
    [(1, 1, 1, [1, 1]), (3, 3, 7, [3, 5, 2]), (1, 4, 5, [2, 3]), (3, 1, 6, [4, 1, 7, 3]), (2, 2, 63, [3, 13])],
)
def test_chain_is_its_definition(m_inputs: int, m_layers: int, points: int, widths: list[int]) -> None:
    inputs, layers = normal(m_inputs, points, widths[0]), chain(m_layers, widths)
    found = sine_chain(inputs, layers).numpy()
    nodes = max(m_inputs, m_layers)
    plain = [(w.numpy(), b.numpy()) for w, b in layers]
    expected = [[chain_by_loops(inputs.numpy(), plain, k, n) for n in range(points)] for k in range(nodes)]
    np.testing.assert_allclose(found, np.array(expected), rtol=0, atol=1e-13)


def test_chain_of_no_layers_is_the_identity() -> None:
    inputs = normal(2, 3, 4)
    assert torch.equal(sine_chain(inputs, []), inputs)


def test_layers_of_a_chain_may_be_shared_or_private() -> None:
    inputs = normal(1, 5, 2)
    shared, private = chain(1, [2, 3])[0], chain(4, [3, 2])[0]
    found = sine_chain(inputs, [shared, private])
    assert found.shape == (4, 5, 2)
    for node in range(4):
        one = sine_chain(inputs, [shared, (private[0][node : node + 1], private[1][node : node + 1])])
        torch.testing.assert_close(found[node : node + 1], one, rtol=0, atol=1e-14)


def test_chain_keeps_float32_and_stays_close() -> None:
    inputs, layers = normal(2, 33, 3), chain(2, [3, 17, 5])
    found = sine_chain(inputs.float(), [(w.float(), b.float()) for w, b in layers])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), sine_chain(inputs, layers), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("m_inputs", "m_layers"), [(2, 2), (1, 3), (3, 1)])
def test_chain_gradients(m_inputs: int, m_layers: int) -> None:
    tensors = [normal(m_inputs, 3, 2), *itertools.chain.from_iterable(chain(m_layers, [2, 3, 1]))]
    for tensor in tensors:
        tensor.requires_grad_(True)

    def forward(inputs: Tensor, *flat: Tensor) -> Tensor:
        return sine_chain(inputs, list(zip(flat[::2], flat[1::2], strict=True)))

    assert torch.autograd.gradcheck(forward, tuple(tensors))


def product_case(counts: tuple[int, ...], points: int, width: int) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    random = np.random.default_rng(len(counts))
    index = np.stack([random.integers(n, size=width) for n in counts], axis=1)
    omegas = [3 * normal(n, seed=j) for j, n in enumerate(counts)]
    phases = [normal(n, seed=j + 9) for j, n in enumerate(counts)]
    return normal(points, len(counts), seed=99), omegas, phases, torch.from_numpy(index)


@pytest.mark.parametrize("counts", [(1,), (5,), (3, 4), (2, 7, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize(("points", "width"), [(1, 1), (7, 13), (5, 0)])
def test_product_is_its_definition(counts: tuple[int, ...], points: int, width: int) -> None:
    x, omegas, phases, index = product_case(counts, points, width)
    expected = np.ones((points, width))
    for n, w, j in itertools.product(range(points), range(width), range(len(counts))):
        k = int(index[w, j])
        expected[n, w] *= math.sin(float(omegas[j][k]) * float(x[n, j]) + float(phases[j][k]))
    np.testing.assert_allclose(sine_product(x, omegas, phases, index).numpy(), expected, rtol=0, atol=1e-13)


def test_product_gradients() -> None:
    points, omegas, phases, index = product_case((2, 3, 2), 4, 6)
    tensors = [points, *omegas, *phases]
    for tensor in tensors:
        tensor.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, *f: sine_product(x, f[:3], f[3:], index), tuple(tensors))


def test_product_of_half_integer_waves_is_the_cosine_transform() -> None:
    """``sin(pi k / 2 (x + 1) + pi / 2) = cos(pi k (2 i + 1) / (2 n))`` on cell-centred samples."""
    n = 5
    x = torch.tensor([[(2 * i + 1) / n - 1] for i in range(n)], dtype=torch.float64)
    k = torch.arange(n, dtype=torch.float64)
    found = sine_product(x, [k * math.pi / 2], [(k + 1) * math.pi / 2], torch.arange(n)[:, None]).numpy()
    i, order = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    np.testing.assert_allclose(found, np.cos(np.pi * order * (2 * i + 1) / (2 * n)), atol=1e-13)


def test_product_needs_one_set_of_waves_per_axis() -> None:
    points, omegas, phases, index = product_case((2, 3), 4, 6)
    with pytest.raises(ValueError, match="zip"):
        sine_product(points, omegas, phases[:1], index)
