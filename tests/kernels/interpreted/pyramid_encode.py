"""Pyramids fitted by the GPU backend against those of the CPU, and a whole encoding. Run by `test_pyramid_triton.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import inrcodec
from inrcodec import encoder
from inrcodec.fitting import pyramid, pyramid_trial
from inrcodec.fitting.goal import Goal
from inrcodec.fitting.pyramid import PyramidFit
from inrcodec.fitting.pyramid_course import Schedule
from inrcodec.models.pyramid import PyramidLayout, initial_networks
from inrcodec.options import EncodeOptions, PyramidOptions
from inrcodec.region import Region
from inrcodec_kernels.backend import VARIABLE, Backend, best_on_cpu
from inrcodec_kernels.pyramid import Context, Synthesis, triton_gradients, triton_upsampling
from samples import psnr_db, scan

from .device import DEVICE

TRITON = Backend("triton", DEVICE)
BITS = 200.0
"""Goal of a fit: fewer than it has at first, so that its step changes."""


@pytest.fixture(autouse=True)
def small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small as what is fitted here, for the interpreter is slow."""
    for constant in ("TILE", "FEW", "PART"):
        monkeypatch.setattr(triton_gradients, constant, 64)
    monkeypatch.setattr(triton_upsampling, "BLOCK", 64)


class Straight:
    """Networks that go straight down: of gradients that are zero but for rounding SOAP makes whole steps."""

    def __init__(self, context: Context, synthesis: Synthesis) -> None:
        self.context, self.synthesis = context, synthesis

    def move(self, of_context: Context, of_synthesis: Synthesis, rate: float, backend: Backend) -> None:
        """A step that changes what is seen of the networks; on the host, whatever the fit's device."""
        assert backend.name != "triton"
        assert all(isinstance(g, np.ndarray | np.floating) for g in (*of_context, *of_synthesis))
        self.context = Context(*map(partial(lower, rate), self.context, of_context))
        self.synthesis = Synthesis(*map(partial(lower, rate), self.synthesis, of_synthesis))


def lower(rate: float, values: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Moved down the gradient, by `rate` where it is largest."""
    return np.asarray(values - rate * gradient / max(float(np.abs(gradient).max()), 1e-3), np.float32)


def quiet(fraction: float, note: str) -> None:
    """Progress that nobody reads."""


def fitted(backend: Backend, weights: np.ndarray | None) -> tuple[PyramidFit, list[np.ndarray]]:
    """A fit with all that a fit does, and its last part again."""
    volume = scan((3, 6))
    layout = PyramidLayout(volume.shape, ((False, True),) * 2, 4, (4, 4))
    fit = PyramidFit(volume, float(volume.mean()), 8.0, layout, initial_networks(layout, 0), 0, backend, weights)
    fit.start_at_half(1, Schedule(), quiet)

    def settle(last: bool) -> Goal:
        fit.set_networks(fit.context, fit.synthesis)
        return Goal(bits=BITS)

    fit.run(7, Goal(bits=BITS), Schedule(hard=0.3), quiet, settle)
    return fit, fit.again(2.0, quiet)


def near(found: Any, expected: Any) -> bool:
    """Within what few steps make of rounding in float32."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3))


WEIGHTS = Region(np.array([0, 1, 1, 1, 0, 0])).weights((3, 6))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "region"])
def test_a_fit_is_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch, weights: np.ndarray | None) -> None:
    monkeypatch.setattr(pyramid, "Networks", Straight)
    (there, dear), (here, expected) = fitted(TRITON, weights), fitted(best_on_cpu(), weights)
    assert near(there.cost(), here.cost())
    assert here.step != 8.0 and near(there.step, here.step) and near(there.pressure, here.pressure)
    initial = initial_networks(here.layout, 0)
    for part, first in zip(("context", "synthesis"), initial, strict=True):
        assert all(near(a, b) for a, b in zip(getattr(there, part), getattr(here, part), strict=True))
        assert not near(getattr(here, part).first, first.first), "networks have moved"
    for a, b in zip(there._latents, here._latents, strict=True):
        lattices = [a.values, *a.moments]
        assert all(isinstance(each, torch.Tensor) and each.device.type == DEVICE for each in lattices)
        assert all(near(each.cpu(), wanted) for each, wanted in zip(lattices, (b.values, *b.moments), strict=True))
    assert there._target.device.type == DEVICE and near(there._target.cpu(), here._target)
    assert all(np.array_equal(a, b) for a, b in zip(there.rounded + dear, here.rounded + expected, strict=True))
    for slopes, wanted in zip(there.slopes(there.rounded), here.slopes(here.rounded), strict=True):
        assert all(isinstance(a, np.ndarray) and near(a, b) for a, b in zip(slopes, wanted, strict=True))


def test_without_networks_a_step_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with them, only their gradients."""
    fetched: list[int] = []
    down = pyramid.down

    def counted(values: Any) -> Any:
        fetched.append(int(np.prod(values.shape)))
        return down(values)

    monkeypatch.setattr(pyramid, "down", counted)
    volume = scan((4, 5))
    layout = PyramidLayout(volume.shape, (), 4, (4, 4))
    fit = PyramidFit(volume, 0.0, 8.0, layout, initial_networks(layout, 0), 0, TRITON)
    fit.begin(4, Schedule(hard=0.5))
    for number in (0, 3):
        fit.advance(number, networks=False)
    assert not fetched
    fit.advance(0)
    assert fetched == [p.size for p in (*fit.context, *fit.synthesis)]


def test_streams_of_the_encoder_are_read_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    monkeypatch.setattr(EncodeOptions, "pyramid_steps", property(lambda options: 7))
    monkeypatch.setattr(pyramid_trial, "_LEAST_SAMPLES", 8)
    monkeypatch.setattr(encoder, "PSNR_WINDOW_DB", 2000.0)
    softened: list[Any] = []
    soften = pyramid.soften

    def seen(latents: Any, *others: Any) -> Any:
        softened.append(latents)
        return soften(latents, *others)

    monkeypatch.setattr(pyramid, "soften", seen)
    volume, one = scan((16,)), PyramidOptions(levels=1, context=4, synthesis=(4, 4), tile_edge=8, warm_start=False)
    blob = inrcodec.encode(volume, psnr_db=20, method="pyramid", pyramid=one)
    monkeypatch.delenv(VARIABLE)
    assert softened and all(isinstance(y, torch.Tensor) and y.device.type == DEVICE for y in softened)
    assert psnr_db(volume, inrcodec.decode(blob, device="cpu").samples) >= 20
