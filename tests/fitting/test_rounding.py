"""Trimming a pyramid: what is foreseen of a change of latents against what it does."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.coding.latents import LatentCoder
from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.fitting.pyramid import PyramidFit
from inrcodec.fitting.pyramid_course import Schedule
from inrcodec.fitting.pyramid_start import choose_halvings
from inrcodec.fitting.rounding import curvatures, disturbances, trimmed
from inrcodec.models.pyramid import (
    FINE,
    STORED_PLACES,
    PyramidLayout,
    initial_networks,
    integer_contexts,
    joined,
    parted,
)
from inrcodec.partition.tiles import TilePyramid
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import Layout, synthesise
from samples import tissue


class Fitted:
    """A fit that has come to its end, with rounded networks, and what trimming takes: before the end, fewer latents may mean less error."""

    def __init__(self) -> None:
        volume, backend = tissue((24, 32, 32)), choose("cpu")
        layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
        self.fit = PyramidFit(volume, 0.0, 150.0, layout, initial_networks(layout, 0), 0, backend)
        self.fit.run(300, None, Schedule(), lambda fraction, note: None)
        exact = joined(self.fit.context, self.fit.synthesis)
        held = {n: QuantisedTensor.of(v, -STORED_PLACES[n]).dequantised() for n, v in exact.items()}
        self.fit.set_networks(*parted(held))
        of_context = {n.removeprefix("context."): v for n, v in held.items() if n.startswith("context.")}
        self.coder = LatentCoder(layout.kernel, integer_contexts(of_context, FINE[-1]), backend)
        self.tiles = TilePyramid(layout.shape, layout.lattices, layout.strides, 8)
        self.curvature = curvatures(layout.kernel, self.fit.synthesis, backend)
        self.disturbed = disturbances(self.fit.rounded, self.tiles, self.coder, self.fit.slopes, self.fit.bits, 0)

    def trimmed(self, bits: float) -> list[np.ndarray]:
        return trimmed(self.fit.rounded, bits, self.tiles, self.coder, self.fit.slopes, self.curvature, self.disturbed)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return Fitted()


def test_trimming_saves_bits_and_costs_error(fitted: Fitted) -> None:
    fit, before = fitted.fit, fitted.fit.rounded
    whole, small, large = fit.bits(before), fitted.trimmed(0.01 * fit.bits(before)), fitted.trimmed(0.05 * fit.bits(before))
    assert whole > fit.bits(small) > fit.bits(large) > 0.85 * whole
    assert 0.6 < (whole - fit.bits(large)) / (0.05 * whole) < 1.4, "about what was asked for"
    assert fit.squares(large) > fit.squares(small)
    for a, b in zip(before, large, strict=True):
        assert np.all((np.abs(a) - np.abs(b) == (a != b)) & (a * b >= 0)), "one nearer to zero, or as before"


def test_what_costs_least_goes_first(fitted: Fitted) -> None:
    """The same number of latents taken at random saves no more and costs more."""
    fit, before = fitted.fit, fitted.fit.rounded
    chosen = fitted.trimmed(0.03 * fit.bits(before))
    draw = np.random.default_rng(0)
    random = [y.copy() for y in before]
    for a, b, c in zip(before, chosen, random, strict=True):
        places = draw.permutation(np.flatnonzero(a))[: int((a != b).sum())]
        c.reshape(-1)[places] -= np.sign(c.reshape(-1)[places])

    def price(latents: list[np.ndarray]) -> float:
        return (fit.squares(latents) - fit.squares(before)) / (fit.bits(before) - fit.bits(latents))

    assert fit.bits(chosen) < fit.bits(before)
    assert fit.bits(random) >= fit.bits(before) or price(chosen) < price(random)


def test_latents_given_are_not_changed(fitted: Fitted) -> None:
    latents = fitted.fit.rounded
    kept = [y.copy() for y in latents]
    trimmed(latents, 300.0, fitted.tiles, fitted.coder, fitted.fit.slopes, fitted.curvature, fitted.disturbed)
    assert all(np.array_equal(a, b) for a, b in zip(kept, latents, strict=True))


def test_curvature_of_a_linear_synthesis_is_the_energy_of_its_response(fitted: Fitted) -> None:
    layout = Layout((1, 24, 24, 24), ((False, True, True, True),) * 2)
    plain = fitted.fit.synthesis._replace(last=np.zeros(8, np.float32), skips=np.ones(4, np.float32))
    small = PyramidLayout((24, 24, 24), ((True,) * 3,) * 2, 8, (8, 8))
    _, synthesis = initial_networks(small, 0)
    synthesis = synthesis._replace(last=np.zeros_like(plain.last))
    one = [np.zeros(s, np.float32) for s in layout.shapes]
    one[1][0, 6, 6, 6] = 1
    response = synthesise(one, synthesis, layout, choose("cpu"))
    assert curvatures(layout, synthesis, choose("cpu"))[1] == pytest.approx(2 * float((response**2).sum()), rel=1e-4)


def test_disturbances_are_counted_for_the_fine_levels(fitted: Fitted) -> None:
    assert len(fitted.disturbed) == len(fitted.curvature) == 3
    assert min(fitted.disturbed) >= 0
