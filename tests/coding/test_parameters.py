"""Parameters of the shared segments: quantised, coded and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.parameters import QuantisedTensor, read_parameters, write_parameters
from inrcodec_formats.errors import ContainerError

shapes = st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> QuantisedTensor:
    shape, scale = draw(shapes), draw(st.sampled_from([0.0, 0.6, 20.0, 1e5]))
    values = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=shape) * scale
    return QuantisedTensor(draw(st.integers(-24, 7)), np.rint(values).astype(np.int64))


@settings(max_examples=60, deadline=None)
@given(st.lists(tensors(), max_size=5))
def test_tensors_come_back(stored: list[QuantisedTensor]) -> None:
    found = read_parameters(write_parameters(stored), [t.values.shape for t in stored])
    assert [t.exponent for t in found] == [t.exponent for t in stored]
    for a, b in zip(found, stored, strict=True):
        assert a.values.shape == b.values.shape and np.array_equal(a.values, b.values)
        assert a.dequantised().dtype == np.float32 and np.array_equal(a.dequantised(), b.dequantised())


@pytest.mark.parametrize("exponent", [-12, -4, 0, 7])
def test_rounding_is_within_half_a_step(exponent: int) -> None:
    tensor = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 30
    quantised = QuantisedTensor.of(tensor, exponent)
    assert np.issubdtype(quantised.values.dtype, np.integer)
    assert float(np.abs(quantised.dequantised() - tensor).max()) <= 2.0**exponent / 2
    again = QuantisedTensor.of(quantised.dequantised(), exponent)
    assert np.array_equal(again.values, quantised.values)


def test_known_values() -> None:
    quantised = QuantisedTensor.of(np.array([0.26, -0.74, 1.0]), -1)
    assert quantised.values.tolist() == [1, -1, 2] and quantised.dequantised().tolist() == [0.5, -0.5, 1.0]


@pytest.mark.parametrize("exponent", [-2, -4, -7, -12, -20])
def test_bits_are_those_taken(exponent: int) -> None:
    """Of large numbers, too: escapes and their digits."""
    stored = QuantisedTensor.of(np.random.default_rng(0).laplace(size=(40, 50)), exponent)
    assert stored.bits == pytest.approx(8 * len(write_parameters([stored])), rel=1e-3, abs=32)


def test_zero_probabilities_are_refused() -> None:
    with pytest.raises(ContainerError, match="probabilities above 0"):
        read_parameters(b"", [(3,)])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.lists(shapes, min_size=1, max_size=3))
def test_garbage_is_refused_or_read_as_something(data: bytes, wanted: list[tuple[int, ...]]) -> None:
    try:
        found = read_parameters(data, wanted)
    except ContainerError:
        return
    assert [t.values.shape for t in found] == wanted
    assert all(-24 <= t.exponent <= 7 and np.isfinite(t.dequantised()).all() for t in found)
