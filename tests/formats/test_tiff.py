"""TIFF: what tifffile says of the files, and the tags that must survive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from formats.conformance import FormatConformance, make_array, make_signal, one_line
from inrcodec_formats import registry, tiff
from inrcodec_formats.errors import FormatError
from inrcodec_formats.signal import Signal


class TestTiffConformance(FormatConformance):
    suffix = ".tif"
    name = "tiff"
    channels = (
        *((axes, "|u1", 3) for axes in ("yxc", "zyxc", "tyxc", "cyx", "czyx", "zcyx", "tcyx", "ctyx")),
        *(("zyxc", dtype, count) for dtype in ("<u2", ">i2", "<f4") for count in (2, 4, 5)),
    )
    unused_tail = 16  # tifffile writes the last page's resolution, then refers to the first page's


class TestOmeTiffConformance(FormatConformance):
    suffix = ".ome.tif"
    name = "tiff"
    unused_tail = 16
    dtypes = ("|u1", ">i2", "<f4")
    channels = (("yxc", "|u1", 3), ("zcyx", "<u2", 2))


def rewritten(folder: Path, source: Path) -> Path:
    target = folder / "rewritten.tif"
    registry.write_signal(target, registry.read(source))
    return target


def description(path: Path) -> str:
    with tifffile.TiffFile(path) as tif:
        return str(tif.pages.first.description)


def refused(path: Path, words: str) -> None:
    with pytest.raises(FormatError, match=words) as error:
        registry.read(path)
    one_line(error)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}, {"bigtiff": True}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tifffile_agrees(tmp_path: Path, order: Any, options: dict[str, Any]) -> None:
    array = make_array(f"{order}u2", (4, 20, 24))
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=order, photometric="minisblack", **options)
    signal = registry.read(tmp_path / "a.tif")
    assert signal.header.file_dtype == f"{order}u2" and np.array_equal(signal.values, array)
    target = rewritten(tmp_path, tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(target), array)
    with tifffile.TiffFile(target) as tif:
        assert tif.byteorder == order and tif.is_bigtiff == ("bigtiff" in options)
        assert (int(tif.pages.first.compression) != 1) == ("compression" in options)


def test_uncompressed_pages_are_memory_mapped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make_array("<u2", (4, 20, 24)), photometric="minisblack")
    assert isinstance(registry.read(tmp_path / "a.tif").samples, np.memmap)


def test_separate_pages_written_one_by_one(tmp_path: Path) -> None:
    array = make_array("<u2", (4, 20, 24))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in array:
            writer.write(page, photometric="minisblack", metadata=None)
    signal = registry.read(tmp_path / "a.tif")
    assert np.array_equal(signal.values, array) and signal.header.axes == "zyx"


def test_ome_xml_is_kept_to_the_letter(tmp_path: Path) -> None:
    array = make_array("<u2", (3, 4, 20, 24))
    metadata = {
        "axes": "TZYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm", "TimeIncrement": 1.5,
        "TimeIncrementUnit": "s", "Description": "kept",
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", array, ome=True, photometric="minisblack", metadata=metadata)
    header = registry.read(tmp_path / "a.ome.tif").header
    assert header.axes == "tzyx" and header.spacing == (1.5, 2.0, 0.5, 0.25)
    assert header.units == ("s", "um", "um", "um")
    target = rewritten(tmp_path, tmp_path / "a.ome.tif")
    assert description(target) == description(tmp_path / "a.ome.tif")
    with tifffile.TiffFile(target) as tif:
        assert tif.is_ome and tif.series[0].axes == "TZYX" and np.array_equal(tif.series[0].asarray(), array)


def test_imagej_hyperstack_is_kept(tmp_path: Path) -> None:
    array = make_array("<u2", (3, 4, 20, 24))
    tifffile.imwrite(
        tmp_path / "a.tif", array, imagej=True, resolution=(4.0, 2.0),
        metadata={"axes": "TZYX", "spacing": 3.0, "unit": "um", "finterval": 0.5, "Labels": [f"p{i}" for i in range(12)]},
    )  # fmt: skip
    header = registry.read(tmp_path / "a.tif").header
    assert header.axes == "tzyx" and header.spacing == pytest.approx((0.5, 3.0, 0.5, 0.25))
    assert header.units == ("s", "um", "um", "um")
    target = rewritten(tmp_path, tmp_path / "a.tif")
    with tifffile.TiffFile(target) as new, tifffile.TiffFile(tmp_path / "a.tif") as old:
        assert new.is_imagej and new.imagej_metadata == old.imagej_metadata
        assert new.series[0].axes == "TZYX" and np.array_equal(new.series[0].asarray(), array)
        assert new.pages.first.tags.valueof(282) == old.pages.first.tags.valueof(282)


def test_resolution_and_texts_are_kept(tmp_path: Path) -> None:
    array = make_array("<u2", (20, 24))
    tifffile.imwrite(
        tmp_path / "a.tif", array, resolution=(254, 127), resolutionunit="INCH", description="a note\nof two lines",
        software="microscope", datetime="2024:01:02 03:04:05", metadata=None,
        extratags=[(315, 2, 0, "the artist", True)],
    )  # fmt: skip
    header = registry.read(tmp_path / "a.tif").header
    assert header.spacing == pytest.approx((0.2, 0.1)) and header.units == ("mm", "mm")
    target = rewritten(tmp_path, tmp_path / "a.tif")
    with tifffile.TiffFile(target) as new, tifffile.TiffFile(tmp_path / "a.tif") as old:
        for code in (270, 282, 283, 296, 305, 306, 315):
            assert new.pages.first.tags.valueof(code) == old.pages.first.tags.valueof(code) is not None, code


def test_palette_and_inverted_grey_are_kept(tmp_path: Path) -> None:
    array = make_array("|u1", (3, 20, 24))
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="palette", colormap=colours)
    with tifffile.TiffFile(rewritten(tmp_path, tmp_path / "a.tif")) as tif:
        assert np.array_equal(tif.pages.first.colormap, colours)
        assert np.array_equal(tif.series[0].asarray(), array)
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="miniswhite")
    with tifffile.TiffFile(rewritten(tmp_path, tmp_path / "b.tif")) as tif:
        assert tif.pages.first.photometric.name == "MINISWHITE"


def test_a_fresh_file_is_ome_and_equal_signals_give_equal_bytes(tmp_path: Path) -> None:
    array = make_array("<i2", (3, 4, 5, 7))
    signal = make_signal(array).with_header(units=("s", "um", "um", "um"))
    registry.write_signal(tmp_path / "a.tif", signal)
    registry.write_signal(tmp_path / "b.tif", signal)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_ome and tif.series[0].axes == "TZYX"
        assert 'PhysicalSizeZ="3.0"' in (tif.ome_metadata or "") and "µm" in (tif.ome_metadata or "")
    assert registry.read(tmp_path / "a.tif").header.units == ("s", "um", "um", "um")


@pytest.mark.parametrize("axes", ["tyx", "zyx", "ztyx", "tzyx"])
@pytest.mark.parametrize("dtype", ["<i2", "<i8"])
def test_axes_survive(tmp_path: Path, axes: str, dtype: str) -> None:
    array = make_array(dtype, (3, 4, 5, 7)[-len(axes) :])
    registry.write_signal(tmp_path / "a.tif", Signal.from_array(array, axes=axes))
    found = registry.read(tmp_path / "a.tif")
    assert found.header.axes == axes and np.array_equal(found.values, array)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "jpeg"}, {"planarconfig": "separate"}])
def test_rgb_is_channels_and_stays_rgb(tmp_path: Path, options: dict[str, Any]) -> None:
    planar = "planarconfig" in options
    array = make_array("|u1", (3, 20, 24) if planar else (20, 24, 3))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **options)
    signal = registry.read(tmp_path / "a.tif")
    assert signal.header.axes == ("cyx" if planar else "yxc")
    assert np.array_equal(signal.samples, tifffile.imread(tmp_path / "a.tif"))
    target = rewritten(tmp_path, tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(target), signal.samples)
    with tifffile.TiffFile(target) as tif:
        page = tif.pages.first
        assert page.photometric.name == "RGB" and page.planarconfig.name == ("SEPARATE" if planar else "CONTIG")


def test_alpha_stays_alpha(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make_array("|u1", (20, 24, 4)), photometric="rgb", extrasamples=["unassalpha"])
    with tifffile.TiffFile(rewritten(tmp_path, tmp_path / "a.tif")) as tif:
        assert [int(code) for code in tif.pages.first.extrasamples] == [2]


@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "TCYX"])
def test_imagej_channels_stay_where_they_are(tmp_path: Path, axes: str) -> None:
    array = make_array("<u2", (2, 3, 20, 24)[-len(axes) :])
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": axes})
    signal = registry.read(tmp_path / "a.tif")
    assert signal.header.axes == axes.lower() and np.array_equal(signal.samples, array)
    with tifffile.TiffFile(rewritten(tmp_path, tmp_path / "a.tif")) as tif:
        assert tif.is_imagej and tif.series[0].axes == axes


def test_one_channel_behind_x_is_none_in_the_file(tmp_path: Path) -> None:
    registry.write_signal(tmp_path / "a.tif", make_signal(make_array("<u2", (4, 5, 7, 1)), axes="zyxc"))
    assert registry.read(tmp_path / "a.tif").header.axes == "zyx"


def test_big_files_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = make_signal(make_array("<i2", (4, 5, 7)))
    monkeypatch.setattr(tiff, "_CLASSIC_LIMIT", 1000)
    registry.write_signal(tmp_path / "a.tif", signal)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    assert np.array_equal(registry.read(tmp_path / "a.tif").values, signal.values)


def test_unsupported_files_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(make_array("<u2", (4, 20, 24)), photometric="minisblack")
        writer.write(make_array("<u2", (8, 9)), photometric="minisblack")
    refused(path, r"one series, found 2 .*\(4, 20, 24\).*\(8, 9\)")
    tifffile.imwrite(path, make_array("<u2", (2, 2, 3, 20, 24)), imagej=True, metadata={"axes": "TZCYX"})
    refused(path, "at most four axes .* found TZCYX")
    tifffile.imwrite(path, make_array("|u1", (2, 20, 24, 3)), photometric="rgb", metadata={"axes": "CYXS"})
    refused(path, "at most four axes .* found CYXS")
    tifffile.imwrite(path, make_array("|u1", (20, 24, 4)), photometric="separated")
    refused(path, "grey or RGB samples, found SEPARATED")
    tifffile.imwrite(path, np.zeros((4, 5), np.complex64))
    refused(path, "integers or real numbers")
    tifffile.imwrite(path, make_array("|u1", (4, 20, 24)) > 0, photometric="minisblack")
    refused(path, "integers or real numbers")
    tifffile.imwrite(path, make_array("<u2", (2, 3, 4, 20, 24)), photometric="minisblack")
    refused(path, "axes")


def ome_claiming(path: Path, old: str, new: str) -> None:
    xml = tifffile.OmeXml(UUID="00000000-0000-0000-0000-000000000000")
    xml.addimage("uint16", (4, 20, 24), (4, 1, 1, 20, 24, 1), axes="ZYX")
    text = xml.tostring(declaration=True)
    assert old in text
    array = make_array("<u2", (4, 20, 24))
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None, description=text.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('SizeZ="4"', 'SizeZ="5"', "found 4 of 5"),
        ('SizeZ="4"', 'SizeZ="4000000000"', "found 4 of 4000000000"),
        ('PlaneCount="4"', 'PlaneCount="900000000"', "found 4 of 900000000"),
        ('IFD="0" PlaneCount="4"', 'IFD="0" PlaneCount="3"', "missing"),
        ('<TiffData IFD="0" PlaneCount="4"/>', '<TiffData IFD="1"/><TiffData FirstZ="1" IFD="0"/>' +
         '<TiffData FirstZ="2" IFD="2"/><TiffData FirstZ="3" IFD="3"/>', "in order"),
    ],
)  # fmt: skip
def test_ome_xml_that_does_not_match_the_pages(tmp_path: Path, old: str, new: str, words: str) -> None:
    ome_claiming(tmp_path / "a.ome.tif", old, new)
    refused(tmp_path / "a.ome.tif", words)


def test_other_files_named_in_ome_xml_are_not_opened(tmp_path: Path) -> None:
    tag = '<TiffData IFD="0" PlaneCount="4"/>'
    stranger = '<UUID FileName="secret.ome.tif">urn:uuid:11111111-0000-0000-0000-000000000000</UUID>'
    ome_claiming(tmp_path / "a.ome.tif", tag, f"{tag[:-2]}>{stranger}</TiffData>")
    tifffile.imwrite(tmp_path / "secret.ome.tif", np.full((4, 20, 24), 999, "u2"), photometric="minisblack")
    refused(tmp_path / "a.ome.tif", "other files")


def test_broken_page_chain_is_found(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in make_array("<u2", (4, 20, 24)):
            writer.write(page, photometric="minisblack", metadata=None)
    raw = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        cut = tif.pages[2].offset
    (tmp_path / "a.tif").write_bytes(raw[:cut])
    refused(tmp_path / "a.tif", "damaged or truncated")


def test_damaged_strip_is_found(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make_array("<u2", (4, 20, 24)), compression="zlib", photometric="minisblack")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        raw[tif.pages[2].dataoffsets[0]] ^= 0xFF
    (tmp_path / "a.tif").write_bytes(raw)
    refused(tmp_path / "a.tif", "damaged or truncated")


def test_stale_or_hostile_tags_are_not_written(tmp_path: Path) -> None:
    registry.write_signal(tmp_path / "a.ome.tif", make_signal(make_array("<u2", (4, 20, 24))))
    whole = registry.read(tmp_path / "a.ome.tif")
    for blob in (b"", b"not json", b"[]", b'{"shape":[2,20,24]}', whole.header.source_header):
        header = replace(whole.header, shape=(2, 20, 24), source_header=blob)
        registry.write(tmp_path / "b.tif", header, [whole.samples[:2]])
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            assert 'SizeZ="2"' in (tif.ome_metadata or "") and tif.series[0].shape == (2, 20, 24)
