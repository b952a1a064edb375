"""Initial weights of sine layers: their ranges, and that they fill them."""

from __future__ import annotations

import math

import pytest
import torch

from inrcodec.models.siren import coordinate_layer, hidden_layer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def is_uniform(values: torch.Tensor, bound: float) -> bool:
    """Within the bound, reaching it, and with the mean and RMS of a uniform distribution."""
    flat = values.flatten().double()
    inside = float(flat.abs().max()) <= bound
    rms = float(flat.pow(2).mean().sqrt())
    near = abs(rms - bound / math.sqrt(3)) < 0.05 * bound and abs(float(flat.mean())) < 0.05 * bound
    return inside and near and float(flat.abs().max()) > 0.98 * bound


@pytest.mark.parametrize("bandwidth", [0.5, 6.0])
def test_coordinate_layer_has_the_rms_frequency_asked_for(bandwidth: float) -> None:
    weight, bias = coordinate_layer(10, 3, 100, bandwidth=bandwidth, generator=generator())
    assert weight.shape == (10, 3, 100) and is_uniform(weight, math.sqrt(3) * bandwidth)
    assert bias.shape == (10, 100) and is_uniform(bias, math.pi)


@pytest.mark.parametrize("n_in", [6, 24])
def test_hidden_layer_keeps_the_spread_of_sines(n_in: int) -> None:
    weight, bias = hidden_layer(20, n_in, 30, generator=generator())
    assert weight.shape == (20, n_in, 30) and is_uniform(weight, math.sqrt(6 / n_in))
    assert torch.equal(bias, torch.zeros(20, 30))


def test_draws_repeat_with_the_seed() -> None:
    first, again, other = (coordinate_layer(2, 3, 4, bandwidth=1.0, generator=generator(s)) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
