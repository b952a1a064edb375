"""`sine_chain` against plain loops in float64, forward and gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec_kernels.siren import sine_chain

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
