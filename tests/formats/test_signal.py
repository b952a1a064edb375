"""`Signal`: integers as they are, real values by a step, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec_formats import signal as module
from inrcodec_formats.errors import SignalError
from inrcodec_formats.signal import CODED_DTYPES, Signal, to_coded_integers


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-(2**15), 2**16 - 1), min_size=1, max_size=30),
    st.sampled_from(["<i4", ">i4", "<i8", "<f4", ">f8"]),
)
def test_integers_are_narrowed_without_a_change(values: list[int], dtype: str) -> None:
    array = np.array(values, dtype)
    if min(values) < 0 and max(values) >= 2**15:
        with pytest.raises(SignalError, match="16 bits"):
            to_coded_integers(array)
        return
    signal = Signal.from_array(array)
    assert signal.header.dtype in CODED_DTYPES and signal.header.dtype == signal.samples.dtype.name
    assert signal.values.dtype == np.dtype(dtype) and np.array_equal(signal.values, array)


@pytest.mark.parametrize("shape", [(5000,), (1, 50, 100), (7, 13, 55), (3, 1, 2, 900)])
def test_faults_are_found_wherever_they_are(shape: tuple[int, ...]) -> None:
    for at in (0, 1, 2**20):
        array = np.zeros(shape, np.float32)
        place = min(at, array.size - 1)
        array.flat[place] = 0.5
        with pytest.raises(SignalError, match="fractions"):
            to_coded_integers(array)
        coded, step = to_coded_integers(array, 0.5)
        assert step == 0.5 and coded.sum() == 1 and coded.flat[place] == 1
        array.flat[place] = np.inf
        with pytest.raises(SignalError, match="1 NaN"):
            to_coded_integers(array)


def test_row_slices_cover_axis_0_once_in_pieces() -> None:
    for shape in ((3 * 2**20 + 5,), (1, 2**21), (300, 100, 100)):
        array = np.broadcast_to(np.int8(0), shape)
        slices = module._row_slices(array)
        assert [i for s in slices for i in range(*s.indices(shape[0]))] == list(range(shape[0]))
        assert all(array[s].size <= max(2**20, array[0].size) for s in slices)


@pytest.mark.parametrize(
    ("array", "step", "words"),
    [
        (np.zeros((0, 3)), None, "at least one sample"),
        (np.zeros(3, complex), None, "real numbers"),
        (np.array([0, 70000]), None, "16 bits"),
        (np.array([0.0, 1e9]), 1.0, "at least 1.53e"),
        (np.array([0.0, 1.0]), -1.0, "positive"),
        (np.array([0, 1]), 0.5, "leave it out"),
    ],
)
def test_refusals(array: np.ndarray, step: float | None, words: str) -> None:
    with pytest.raises(SignalError, match=words) as error:
        to_coded_integers(array, step)
    assert "\n" not in str(error.value)
