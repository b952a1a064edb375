"""The section FILT: there and back, and what must be refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.parameters import QuantisedTensor, write_parameters
from inrcodec.models.restoration import LARGEST_PARAMETER, RestorationLayout
from inrcodec.payload.restoration import MAX_STRENGTH, MAX_WIDTH, unpack
from inrcodec.payload.restoration import pack as pack_with_strength
from inrcodec_formats.errors import ContainerError


def quantised(layout: RestorationLayout, exponent: int = -6, scale: float = 0.3) -> dict[str, QuantisedTensor]:
    random = np.random.default_rng(0)
    return {n: QuantisedTensor.of(random.normal(size=s) * scale, exponent) for n, s in layout.shapes.items()}


def pack(layout: RestorationLayout, parameters: dict[str, QuantisedTensor], strength: float = 1.5) -> bytes:
    return pack_with_strength(layout, parameters, strength)


def head(width: int, strength: float = 1.0) -> bytes:
    return struct.pack("<BBf", 0, width, strength)


def refused(data: bytes, ndim: int, text: str) -> None:
    with pytest.raises(ContainerError, match=text) as caught:
        unpack(data, ndim)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [1, 8, MAX_WIDTH])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_networks_come_back(ndim: int, width: int) -> None:
    layout = RestorationLayout(width, ndim)
    stored = quantised(layout)
    found, strength = unpack(pack(layout, stored), ndim)
    assert strength == 1.5
    assert found.layout == layout and list(found.parameters) == list(layout.shapes)
    for name, parameter in found.parameters.items():
        assert parameter.dtype == torch.float32
        assert np.array_equal(parameter.numpy(), stored[name].dequantised())


def test_order_of_the_parameters_does_not_matter() -> None:
    layout = RestorationLayout(4, 3)
    stored = quantised(layout)
    assert pack(layout, dict(reversed(stored.items()))) == pack(layout, stored)


def test_known_bytes() -> None:
    data = pack(RestorationLayout(8, 3), quantised(RestorationLayout(8, 3)))
    assert data[:2] == b"\x00\x08" and 350 < len(data) < 450


@pytest.mark.parametrize("ndim", [1, 3])
def test_every_truncation_is_refused_or_finite(ndim: int) -> None:
    layout = RestorationLayout(3, ndim)
    data = pack(layout, quantised(layout))
    for length in range(len(data)):
        try:
            found, _ = unpack(data[:length], ndim)
        except ContainerError as error:
            assert "\n" not in str(error)
        else:
            assert all(bool(torch.isfinite(p).all()) for p in found.parameters.values())
    for length in range(7):
        refused(data[:length], ndim, "FILT")


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.integers(1, MAX_WIDTH), st.binary(max_size=200))
def test_garbage_is_refused_or_within_limits(ndim: int, width: int, tail: bytes) -> None:
    try:
        found, _ = unpack(head(width) + tail, ndim)
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert all(float(p.abs().max()) <= LARGEST_PARAMETER for p in found.parameters.values())


@pytest.mark.parametrize("width", [0, MAX_WIDTH + 1, 255])
def test_widths_out_of_limits_are_refused(width: int) -> None:
    refused(head(width) + bytes(4000), 3, "channels in FILT")


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf"), 2 * MAX_STRENGTH])
def test_strengths_out_of_limits_are_refused(strength: float) -> None:
    layout = RestorationLayout(4, 3)
    refused(pack(layout, quantised(layout), strength), 3, "strength")


def test_other_versions_are_refused() -> None:
    layout = RestorationLayout(4, 3)
    refused(b"\x01" + pack(layout, quantised(layout))[1:], 3, "newer inrcodec")


def test_parameters_out_of_limits_are_refused() -> None:
    layout = RestorationLayout(4, 3)
    stored = quantised(layout)
    stored["middle"].values[1, 2] = 9
    largest = dict(stored, middle=QuantisedTensor(7, np.full((4, 4), 8)))
    assert float(unpack(pack(layout, largest), 3)[0].parameters["middle"].max()) == LARGEST_PARAMETER
    refused(pack(layout, dict(stored, middle=QuantisedTensor(7, np.full((4, 4), -9)))), 3, "at most 1024 in FILT")
    huge = QuantisedTensor(7, np.full((4, 4), 1 << 30))
    refused(pack(layout, dict(stored, middle=huge)), 3, "FILT")


def test_zero_probabilities_are_refused() -> None:
    refused(head(4) + bytes(40), 3, "FILT")
    assert write_parameters(list(quantised(RestorationLayout(4, 3)).values()))
