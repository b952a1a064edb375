"""Which format reads or writes a path."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from formats.conformance import make_array, make_signal, one_line
from inrcodec_formats import registry, streams
from inrcodec_formats.errors import FormatError, OutputError
from inrcodec_formats.signal import Signal


def test_every_suffix_belongs_to_one_format() -> None:
    suffixes = [suffix for each in registry.formats() for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert {each.name for each in registry.formats()} == {"nifti", "nrrd", "tiff", "npy"}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "a.nrrd", "a.ome.tif", "a.TIFF", "a.npy"])
def test_conversion_between_all_formats_keeps_the_integers(tmp_path: Path, name: str) -> None:
    array = make_array("<i2", (4, 5, 7))
    registry.write_signal(tmp_path / name, make_signal(array))
    for other in ("b.nii", "b.nrrd", "b.tif", "b.npy"):
        registry.write_signal(tmp_path / other, registry.read(tmp_path / name))
        found = registry.read(tmp_path / other)
        assert np.array_equal(found.values, array) and found.header.file_dtype == "<i2"


def test_unknown_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"nothing known")
    with pytest.raises(FormatError, match="unrecognised") as error:
        registry.read(tmp_path / "a.xyz")
    one_line(error)
    (tmp_path / "a.nii").touch()
    with pytest.raises(FormatError, match="empty file"):
        registry.read(tmp_path / "a.nii")
    with pytest.raises(FormatError, match="folder"):
        registry.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        registry.read(tmp_path / "missing.nii")
    header = make_signal(make_array("<i2", (2, 3, 4))).header
    for name in ("a.xyz", "a"):
        with pytest.raises(FormatError, match=r"\.nii, .*\.npy") as error:
            registry.writer_for(tmp_path / name, header)
        one_line(error)


def test_the_example_in_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    decoded = make_array("<i2", (20, 5, 7))
    monkeypatch.chdir(tmp_path)
    registry.write_signal("ct.nii.gz", make_signal(decoded))
    exec(text.split("```python\n")[1].split("```")[0], {"decoded": decoded})
    assert np.array_equal(registry.read("ct.nrrd").values, decoded)
    assert Path("copy.nii.gz").read_bytes() == Path("ct.nii.gz").read_bytes()


def test_reading_and_writing_the_same_path(tmp_path: Path) -> None:
    array = make_array("<i2", (4, 5, 7))
    np.save(tmp_path / "a.npy", array)
    registry.write_signal(tmp_path / "a.npy", registry.read(tmp_path / "a.npy"))
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_a_path_like_object_is_a_path(tmp_path: Path) -> None:
    class Like(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path / "a.npy")

    registry.write_signal(Like(), Signal.from_array(np.arange(5, dtype="u1")))
    assert registry.read(Like()).samples.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".tif"])
def test_large_samples_unpack_into_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    array = make_array("<i2", (4, 50, 70))
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")
    else:
        registry.write_signal(path, make_signal(array))
    monkeypatch.setattr(streams, "_MEMORY_BYTES", 1000)
    found = registry.read(path).samples
    assert not found.flags.writeable, "a mapped file is read-only; memory would be writable"
    assert np.array_equal(found, array)


def test_no_room_to_unpack_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> object:
        raise OSError(28, "No space left on device")

    registry.write_signal(tmp_path / "a.nii.gz", make_signal(make_array("<i2", (4, 50, 70))))
    monkeypatch.setattr(streams, "_MEMORY_BYTES", 1000)
    monkeypatch.setattr(streams.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="TMPDIR") as error:
        registry.read(tmp_path / "a.nii.gz")
    one_line(error)
