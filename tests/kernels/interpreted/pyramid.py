"""Triton's pyramid against its definition in float64. Run by `test_pyramid_triton.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Layout, needed, reference, triton, triton_upsampling
from inrcodec_kernels.pyramid.reference import Window, upsample

from ..pyramid_cases import (
    SMALL,
    assert_near,
    clear_case,
    double,
    fresh,
    latents,
    name,
    single,
    slow_where_large,
    synthesis,
)
from .device import DEVICE

TRITON = Backend("triton", DEVICE)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """What `torch.empty` returns is filled with NaN, or the largest numbers."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def up(values: Any) -> Any:
    return [torch.from_numpy(np.ascontiguousarray(v)).to(DEVICE) for v in values]


@pytest.mark.parametrize("layout", slow_where_large(SMALL), ids=name)
def test_synthesis_is_the_definition(layout: Layout) -> None:
    random = fresh()
    ys, p = latents(random, layout), synthesis(random, layout)
    found = pyramid.synthesise(ys, p, layout, TRITON)
    assert_near([found], [reference.synthesise_box(double(ys), *whole(layout, double(p)))])
    again = pyramid.synthesise(up(ys), p, layout, TRITON)
    assert isinstance(again, torch.Tensor) and np.array_equal(again.cpu().numpy(), found)


def whole(layout: Layout, parameters: Any) -> Any:
    start = (0, 0, 0, 0)
    return [start] * layout.levels, parameters, layout, (start, layout.shape)


@pytest.mark.parametrize("layout", slow_where_large(SMALL[:4]), ids=name)
def test_a_box_is_that_part_of_the_whole(layout: Layout) -> None:
    random = fresh()
    ys, p = latents(random, layout), synthesis(random, layout, 12, 20)
    every = pyramid.synthesise(ys, p, layout, TRITON)
    for _ in range(2):
        start = tuple(int(random.integers(0, n)) for n in layout.shape)
        stop = tuple(int(random.integers(a + 1, n + 1)) for a, n in zip(start, layout.shape, strict=True))
        boxes = needed(layout, start, stop)
        parts = [y[tuple(slice(a, b) for a, b in zip(*box, strict=True))] for y, box in zip(ys, boxes, strict=True)]
        found = pyramid.synthesise_box(parts, [a for a, _ in boxes], p, layout, start, stop, TRITON)
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        assert np.array_equal(found, every[inside])


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.uint8, 3, 200), (torch.int16, -9, 9), (torch.uint16, 0, 65000)]
)
def test_samples_as_they_are_stored(dtype: torch.dtype, low: int, high: int) -> None:
    random, layout = fresh(), SMALL[1]
    ys, p = [np.round(y).astype(np.int32) for y in latents(random, layout)], synthesis(random, layout)
    step, offset = (high - low) / 12, (high + low) / 2
    there = triton.DeviceSynthesis.of(p, layout, DEVICE)
    origins, _, _, box = whole(layout, p)
    found = triton.synthesise_box(up(ys), origins, there, layout, box, dtype, step, offset, (low, high))
    exact = offset + step * reference.synthesise_box(double(ys), *whole(layout, double(p)))
    assert found.dtype == dtype
    error = np.abs(found.cpu().numpy().astype(np.float64) - np.clip(exact, low, high))
    assert error.max() <= 0.5 + 1e-5 * np.abs(exact).max()
    with pytest.raises(ValueError, match="convert them later"):
        triton.synthesise_box(up(ys), origins, there, layout, box, torch.float64)


@pytest.mark.parametrize(("shape", "block"), [((1, 9, 6, 7), 1024), ((3, 1, 2, 31), 128), ((4, 5, 1, 1), 128), ((4, 5, 1, 1), 1024)])
def test_upsampling_and_its_adjoint(
    shape: tuple[int, int, int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_upsampling, "BLOCK", block)
    monkeypatch.setattr(triton_upsampling, "PROGRAMS", 3)
    random, layout = fresh(), Layout(shape, ((True, True, True, True),))
    start, full = (0, 0, 0, 0), ((0, 0, 0, 0), shape)

    def drawn() -> list[Any]:
        coarse, fine = (single(random.normal(size=(2, *s))) for s in layout.shapes[::-1])
        return [coarse, single(random.normal(size=4)), fine]

    def defined(case: list[Any]) -> list[Any]:
        *leaves, fine = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in case)
        windows = [Window(c, start, layout.shapes[1]) for c in leaves[0]]
        finer = torch.stack([upsample(window, leaves[1], layout.halved[0], full) for window in windows])
        gradients = torch.autograd.grad((finer * fine).sum(), leaves)
        return [each.detach().numpy() for each in (finer, *gradients)]

    case, expected = clear_case(drawn, defined)
    source, weights, given = up(case)
    found = triton_upsampling.upsampled(source, 0, weights, layout, start, full)
    by_source, by_taps = triton_upsampling.downsampled(given, 0, weights, layout, source)
    assert by_taps is not None
    assert_near([each.cpu().numpy() for each in (found, by_source, by_taps)], expected)


def test_compile_cases_name_every_argument() -> None:
    names = set()
    for title, kernel, signature, constants, *_ in triton.compile_cases():
        assert set(kernel.arg_names) == {*signature, *constants} and not set(signature) & set(constants)
        names.add(title)
    assert len(names) == len(triton.compile_cases())
