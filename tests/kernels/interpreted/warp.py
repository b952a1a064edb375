"""Triton's warp against its definition in float64. Run by `test_warp_triton.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrcodec_kernels.warp import Field, nodes_of, reference, seen
from inrcodec_kernels.warp import triton as kernels

from .device import on_device

warp = on_device(kernels.warp)
CASES = [((2, 13, 21), (19, 26), 3, 90), ((1, 1, 1), (5, 4), 6, 30), ((2, 34, 9), (3, 90), 5, 3000)]


def drawn(frames: tuple[int, int, int], still: tuple[int, int], shift: int, most: int) -> Field:
    count, h, w = frames
    shape = (count, 2, nodes_of(h, shift), nodes_of(w, shift))
    return Field(np.random.default_rng(3).integers(-most, most + 1, shape, dtype=np.int32), shift, (h, w), still)


@pytest.mark.parametrize("case", CASES)
def test_warp_is_the_definition(case: tuple) -> None:  # type: ignore[type-arg]
    field = drawn(*case)
    still, box = torch.randn(len(field.nodes), *field.still), ((0, 0, 0), (len(field.nodes), *field.frame))
    expected = reference.warped(still.double(), (0, 0), field, *box)
    torch.testing.assert_close(warp(still, (0, 0), field, *box).double(), expected, atol=2e-6, rtol=0)


def test_boxes_are_parts_of_the_whole() -> None:
    field = drawn(*CASES[0])
    still = torch.randn(2, *field.still)
    expected = warp(still, (0, 0), field, (0, 0, 0), (2, *field.frame))
    low, high = (1, 4, 7), (2, 11, 17)
    first, last = seen(field, low, high)
    part = still[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    assert torch.equal(warp(part, first[1:], field, low, high), expected[1:2, 4:11, 7:17])


def test_compile_cases_name_every_argument() -> None:
    for _, kernel, signature, constants, _ in kernels.compile_cases():
        assert set(kernel.arg_names) == {*signature, *constants} and not set(signature) & set(constants)
