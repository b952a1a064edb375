"""NRRD: what pynrrd says of the files, and the header text that must survive."""

from __future__ import annotations

import gzip
from pathlib import Path

import nrrd as pynrrd
import numpy as np
import pytest

from formats.conformance import FormatConformance, make_array, make_signal, one_line
from inrcodec_formats import registry
from inrcodec_formats.errors import FormatError


class TestNrrdConformance(FormatConformance):
    suffix = ".nrrd"
    name = "nrrd"
    shapes = ((6,), (5, 7), (4, 5, 7), (3, 4, 5, 7))
    channels = (("zyxc", "|u1", 3), ("yxc", "<f4", 2), ("czyx", ">i2", 6), ("tyxc", "|u1", 3), ("zcyx", "<u2", 2))

    def uncompressed(self, path: Path) -> bytes:
        text, _, data = path.read_bytes().partition(b"\n\n")
        return text + b"\n\n" + gzip.decompress(data)

    def replace_content(self, path: Path, raw: bytes) -> None:
        text, _, data = raw.partition(b"\n\n")
        path.write_bytes(text + b"\n\n" + gzip.compress(data))


def write_text(path: Path, array: np.ndarray, *lines: str, encoding: str = "raw", ends: str = "\n") -> bytes:
    """Write a file by hand and return its header text."""
    fields = [
        "NRRD0005",
        "# a comment, kept",
        f"type: {array.dtype.name}",
        f"dimension: {array.ndim}",
        "sizes: " + " ".join(map(str, reversed(array.shape))),
        f"endian: {'big' if array.dtype.str[0] == '>' else 'little'}",
        f"encoding: {encoding}",
        *lines,
    ]
    text = (ends.join(fields) + ends * 2).encode()
    path.write_bytes(text + (gzip.compress(array.tobytes()) if encoding == "gzip" else array.tobytes()))
    return text


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["|u1", "<i2", ">i2", "<i4", "<f8"])
def test_pynrrd_agrees(tmp_path: Path, dtype: str, encoding: str) -> None:
    array = make_array(dtype, (4, 5, 7))
    pynrrd.write(str(tmp_path / "a.nrrd"), array, {"encoding": encoding}, index_order="C")
    assert np.array_equal(registry.read(tmp_path / "a.nrrd").values, array)
    registry.write_signal(tmp_path / "b.nrrd", make_signal(array))
    data, fields = pynrrd.read(str(tmp_path / "b.nrrd"), index_order="C")
    assert np.array_equal(data, array) and data.dtype == np.dtype(dtype)
    assert fields["spacings"].tolist() == [0.5, 0.75, 3.0] and fields["units"] == ["mm"] * 3


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_header_text_survives(tmp_path: Path, encoding: str, ends: str) -> None:
    array = make_array(">i2", (4, 5, 7))
    lines = (
        "space: left-posterior-superior",
        "space directions: (0.4,0,0.3) (0,-2,0) (0,0,3)",
        "space origin: (1,2,3)",
        'space units: "mm" "mm" "mm"',
        "kinds: domain domain domain",
        "scanner note:=kept too",
    )
    text = write_text(tmp_path / "a.nrrd", array, *lines, encoding=encoding, ends=ends)
    signal = registry.read(tmp_path / "a.nrrd")
    assert signal.header.source_header == text
    assert signal.header.spacing == pytest.approx((3.0, 2.0, 0.5)) and signal.header.units == ("mm",) * 3
    assert np.array_equal(signal.values, array)
    registry.write_signal(tmp_path / "b.nrrd", signal)
    raw = (tmp_path / "b.nrrd").read_bytes()
    assert raw.startswith(text)
    assert (gzip.decompress(raw[len(text) :]) if encoding == "gzip" else raw[len(text) :]) == array.tobytes()


def test_raw_samples_are_memory_mapped(tmp_path: Path) -> None:
    write_text(tmp_path / "a.nrrd", make_array("<u2", (4, 5, 7)))
    assert isinstance(registry.read(tmp_path / "a.nrrd").samples, np.memmap)


def test_a_slowest_list_axis_is_time(tmp_path: Path) -> None:
    write_text(tmp_path / "a.nrrd", make_array("<u2", (4, 5, 7)), "kinds: domain domain list")
    assert registry.read(tmp_path / "a.nrrd").header.axes == "tyx"
    directions = "space directions: (1,0,0) (0,2,0) (0,0,4) none"
    write_text(tmp_path / "b.nrrd", make_array("<u2", (3, 4, 5, 7)), "space dimension: 3", directions)
    header = registry.read(tmp_path / "b.nrrd").header
    assert header.axes == "tzyx" and header.spacing == (1.0, 4.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("lines", "axes"),
    [
        (("kinds: RGB-color domain domain",), "yxc"),
        (("kinds: domain domain vector",), "cyx"),
        (("kinds: domain 3D-symmetric-matrix domain",), "ycx"),
        (("kinds: list domain domain",), "yxc"),
        (("kinds: vector domain time",), "txc"),
        (("space dimension: 2", "space directions: none (1,0) (0,1)"), "yxc"),
        (("space dimension: 2", "space directions: (1,0) (0,1) none", "kinds: space space none"), "tyx"),
    ],
)
def test_components_are_channels(tmp_path: Path, lines: tuple[str, ...], axes: str) -> None:
    array = make_array("<u2", (4, 5, 3))
    text = write_text(tmp_path / "a.nrrd", array, *lines)
    signal = registry.read(tmp_path / "a.nrrd")
    assert signal.header.axes == axes and np.array_equal(signal.values, array)
    registry.write_signal(tmp_path / "b.nrrd", signal)
    assert (tmp_path / "b.nrrd").read_bytes() == text + array.tobytes()


def test_channels_before_time_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="axes that NRRD can hold") as error:
        registry.write_signal(tmp_path / "a.nrrd", make_signal(make_array("<u2", (2, 4, 5, 7)), axes="ctyx"))
    one_line(error)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("kinds: vector domain vector",), "one axis of components, found 2"),
        (("kinds: time domain domain",), "axis 0 of kind 'time'"),
        (("kinds: complex domain domain",), "axis 0 of kind 'complex'"),
        (("data file: other.raw",), "detached"),
        (("byte skip: 4",), "byte skip"),
        (("line skip: 1",), "line skip"),
        (("sizes: 1 2 3",), "damaged"),
        (("a line without any colon",), "damaged"),
    ],
)
def test_unsupported_headers_say_so(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    write_text(tmp_path / "a.nrrd", make_array("<u2", (4, 5, 3)), *lines)
    with pytest.raises(FormatError, match=words) as error:
        registry.read(tmp_path / "a.nrrd")
    one_line(error)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"encoding: raw", b"encoding: ascii", "encoding"),
        (b"type: uint16", b"type: block", "scalar type"),
        (b"endian: little", b"#", "endian"),
        (b"sizes: 3 5 4", b"sizes: 99999999999 99999999999 4", "damaged"),
        (b"sizes: 3 5 4", b"sizes: 3 0 4", "damaged"),
        (b"dimension: 3", b"dimension: 2", "damaged"),
        (b"sizes: 3 5 4", b"sizes: three 5 4", "damaged"),
    ],
)
def test_damaged_headers(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    write_text(tmp_path / "a.nrrd", make_array("<u2", (4, 5, 3)))
    raw = (tmp_path / "a.nrrd").read_bytes()
    assert old in raw
    (tmp_path / "a.nrrd").write_bytes(raw.replace(old, new))
    with pytest.raises(FormatError, match=words) as error:
        registry.read(tmp_path / "a.nrrd")
    one_line(error)


def test_five_dimensions(tmp_path: Path) -> None:
    write_text(tmp_path / "a.nrrd", make_array("<u2", (2, 2, 2, 2, 2)))
    with pytest.raises(FormatError, match="at most 4"):
        registry.read(tmp_path / "a.nrrd")


def test_detached_headers_are_refused_both_ways(tmp_path: Path) -> None:
    array = make_array("<u2", (4, 5, 3))
    pynrrd.write(str(tmp_path / "a.nhdr"), array, index_order="C")
    with pytest.raises(FormatError, match="detached"):
        registry.read(tmp_path / "a.nhdr")
    with pytest.raises(FormatError, match=r"\.nhdr"):
        registry.write_signal(tmp_path / "b.nhdr", make_signal(array))
    assert not (tmp_path / "b.nhdr").exists()
