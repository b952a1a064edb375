"""``.npy`` arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from formats.conformance import FormatConformance, make_array, one_line
from inrcodec_formats import registry
from inrcodec_formats.errors import FormatError, SignalError


class TestNpyConformance(FormatConformance):
    suffix = ".npy"
    name = "npy"
    shapes = ((6,), (5, 7), (4, 5, 7), (3, 4, 5, 7))
    channels = (("yxc", "|u1", 3), ("czyx", "<f4", 2))
    keeps_geometry = False


def test_numpy_reads_what_is_written_and_the_bytes_are_its_own(tmp_path: Path) -> None:
    array = make_array(">i2", (4, 5, 7))
    np.save(tmp_path / "a.npy", array)
    registry.write_signal(tmp_path / "b.npy", registry.read(tmp_path / "a.npy"))
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_samples_are_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", make_array("<u2", (4, 5, 7)))
    assert isinstance(registry.read(tmp_path / "a.npy").samples, np.memmap)


def test_fortran_order(tmp_path: Path) -> None:
    array = make_array("<i2", (4, 5, 7))
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    found = registry.read(tmp_path / "a.npy")
    assert np.array_equal(found.values, array)
    registry.write_signal(tmp_path / "b.npy", found)
    assert np.array_equal(np.load(tmp_path / "b.npy"), array)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, []], object))
    with pytest.raises(FormatError, match="Python objects") as error:
        registry.read(tmp_path / "a.npy")
    one_line(error)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.zeros((1,) * 5), np.zeros(3, "c8"), np.zeros(3, "?")])
def test_arrays_that_cannot_be_coded(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises((SignalError, FormatError)) as error:
        registry.read(tmp_path / "a.npy")
    one_line(error)
