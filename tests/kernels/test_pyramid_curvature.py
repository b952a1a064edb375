"""How both networks' costs bend with their parameters, against gradients by torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from inrcodec_kernels.pyramid import (
    CONTEXT_ORDER,
    SITES,
    SYNTHESIS_ORDER,
    Layout,
    Sampling,
    context_curvature,
    curvature,
    network_of,
    reference,
    synthesis_curvature,
)
from kernels.pyramid_cases import LAYOUTS, LEAST, SMALL, context, fresh, latents, name, synthesis

NOWHERE = (0, 0, 0, 0)


def by(outputs: torch.Tensor, leaves: list[torch.Tensor], of: list[Any]) -> np.ndarray:
    """Gradients of each output by parts of some leaves, one after the other."""
    rows = []
    for output in outputs.flatten():
        gradients = torch.autograd.grad(output, leaves, retain_graph=True, materialize_grads=True)
        rows.append(np.concatenate([g.numpy()[place].ravel() for g, place in zip(gradients, of, strict=True)]))
    return np.array(rows)


def in_double(parameters: Any) -> Any:
    return type(parameters)(*(torch.from_numpy(np.asarray(p, np.float64)).requires_grad_(True) for p in parameters))


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("layout", [each for each in SMALL if math.prod(each.shape) < 600], ids=name)
def test_squared_errors_bend_as_gradients_say(layout: Layout, weighed: bool) -> None:
    random = fresh()
    ys, network = latents(random, layout), synthesis(random, layout)
    weights = np.float32(random.random((*layout.shape[:3], 1))) if weighed else None
    leaves = in_double(network)
    values = reference.samples(
        [torch.from_numpy(y).double() for y in ys], [NOWHERE] * layout.levels, leaves, layout, (NOWHERE, layout.shape)
    )
    gradients = by(values, [getattr(leaves, part) for part in SYNTHESIS_ORDER], [...] * len(SYNTHESIS_ORDER))
    if weights is not None:
        gradients *= np.sqrt(np.broadcast_to(weights, layout.shape)).reshape(-1, 1)
    assert_near(synthesis_curvature(ys, network, layout, weights, Sampling(random)), gradients.T @ gradients)


@pytest.mark.parametrize("layout", [each for each in SMALL if math.prod(each.shape) < 600], ids=name)
def test_bits_bend_as_gradients_say(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """With second derivatives by mean and scale from differences that see the edge at the mean, and without those that bend down."""
    random = fresh()
    ys, network = latents(random, layout), context(random, layout)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    bits = reference.laplace_bits

    def watched(symbols: torch.Tensor, location: torch.Tensor, log_scale: torch.Tensor, least: float) -> torch.Tensor:
        seen.append((symbols, torch.stack([location, log_scale], -1)))
        return bits(symbols, location, log_scale, least)

    leaves = in_double(network)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "laplace_bits", watched)
        reference.bits([torch.from_numpy(y).double() for y in ys], leaves, layout, LEAST)
    for own in range(network.networks):
        served = [level for level in range(layout.levels) if network_of(level, network.networks) == own]
        expected: Any = 0.0
        for level in served:
            symbols, outputs = seen[level]
            parts = [served if part == "level_bias" else own for part in CONTEXT_ORDER]
            gradients = by(outputs, [getattr(leaves, part) for part in CONTEXT_ORDER], parts).reshape(
                symbols.numel(), 2, -1
            )
            for y, (mean, scale), rows in zip(
                symbols.flatten(), outputs.detach().reshape(-1, 2), gradients, strict=True
            ):
                expected = expected + rows.T @ half_bent(y, mean, scale) @ rows
        assert_near(context_curvature(ys, network, layout, LEAST, own, Sampling(random)), expected)


def half_bent(y: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> np.ndarray:
    reach = curvature._REACH
    at = np.array(
        [
            [float(reference.laplace_bits(y, mean + a * reach, scale + b * reach, LEAST)) for b in (-1, 0, 1)]
            for a in (-1, 0, 1)
        ]
    )
    both = (at[2, 2] + at[0, 0] - at[2, 0] - at[0, 2]) / 4
    second = (
        np.array([[at[2, 1] + at[0, 1] - 2 * at[1, 1], both], [both, at[1, 2] + at[1, 0] - 2 * at[1, 1]]]) / reach**2
    )
    values, vectors = np.linalg.eigh(second)
    return vectors @ np.diag(np.maximum(values, 0) / 2) @ vectors.T


@pytest.mark.parametrize("layout", [LAYOUTS[7], LAYOUTS[15]], ids=name)
def test_some_sites_stand_for_all(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    ys, of_context, of_synthesis = (
        latents(random, layout),
        context(random, layout, networks=1),
        synthesis(random, layout),
    )

    def matrices(sites: int) -> tuple[np.ndarray, np.ndarray]:
        of_bits = context_curvature(ys, of_context, layout, LEAST, 0, Sampling(random, sites))
        return of_bits, synthesis_curvature(ys, of_synthesis, layout, None, Sampling(random, sites))

    some = matrices(SITES)
    monkeypatch.setattr(curvature, "_BOXES", 1 << 40)
    for found, every in zip(some, matrices(1 << 40), strict=True):
        changes = random.standard_normal((50, len(every)))
        ratios = np.einsum("ij,jk,ik->i", changes, found, changes) / np.einsum("ij,jk,ik->i", changes, every, changes)
        assert np.mean(ratios) == pytest.approx(1, abs=0.1) and np.all(np.abs(ratios - 1) < 0.3)


@pytest.mark.parametrize(("edge", "sites", "bands", "boxes"), [(64, SITES, 1, 64), (64, SITES // 4, 1, 16), (64, SITES, 7, 9), (64, SITES // 4, 7, 8), (16, SITES, 1, 8), (8, 100, 7, 1)])
def test_boxes_are_as_many_as_sites_need(edge: int, sites: int, bands: int, boxes: int) -> None:
    found = list(curvature._boxes((1, edge, edge, edge), Sampling(np.random.default_rng(0), sites), bands))
    assert len(set(found)) == len(found) == boxes
    assert all(math.prod(b - a for a, b in zip(*box, strict=True)) == 512 for box in found)


def test_bands_share_out_the_sites_of_their_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven bands each has a seventh of the sites; a lattice that is not split has all."""
    random, layout = fresh(), Layout((1, 12, 12, 14), ((False, True, True, True),) * 2, split=1)
    taken: list[int] = []

    def noted(known: curvature._Sites, every: int, sampling: Sampling) -> curvature._Sites:
        taken.append(sampling.sites)
        return chosen(known, every, sampling)

    chosen = curvature._chosen
    monkeypatch.setattr(curvature, "_chosen", noted)
    found = context_curvature(latents(random, layout), context(random, layout, 4, networks=1), layout, LEAST, 0, Sampling(random, 70, "cpu"))
    assert taken == [10] * 7 + [70] * 2 and np.isfinite(found).all() and (np.diag(found) >= 0).all()
