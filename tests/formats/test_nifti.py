"""NIfTI: what nibabel says of the files, and the header bytes that must survive."""

from __future__ import annotations

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from formats.conformance import FormatConformance, make_array, make_signal, one_line
from inrcodec_formats import registry
from inrcodec_formats.errors import FormatError
from inrcodec_formats.signal import Signal

AFFINE = np.array([[-0.7, 0.1, 0.0, 90.0], [0.1, 0.68, 0.2, -126.0], [0.0, -0.2, 1.9, -72.0], [0, 0, 0, 1]])
NIFTI_DTYPES = ("|u1", "|i1", "<u2", "<i2", ">i2", "<u4", "<i4", "<i8", ">f4", "<f8")


class TestNiftiConformance(FormatConformance):
    suffix = ".nii"
    name = "nifti"
    shapes = ((6,), (5, 7), (4, 5, 7), (3, 4, 5, 7))
    channels = (("zyxc", "|u1", 3), ("zyxc", "|u1", 4), ("yxc", "|u1", 3), ("czyx", "<f4", 3), ("czyx", ">i2", 6))


class TestGzippedNiftiConformance(FormatConformance):
    suffix = ".nii.gz"
    name = "nifti"
    dtypes = ("|u1", "<i2", ">u2", "<f4", "<f8")
    channels = (("zyxc", "|u1", 3), ("czyx", "<i2", 3))

    def uncompressed(self, path: Path) -> bytes:
        return gzip.decompress(path.read_bytes())

    def replace_content(self, path: Path, raw: bytes) -> None:
        path.write_bytes(gzip.compress(raw))


def save(
    path: Path,
    array_xyz: np.ndarray,
    cls: type[nib.Nifti1Image] = nib.Nifti1Image,
    order: str = "<",
    slope: tuple[float, float] | None = None,
) -> nib.Nifti1Image:
    """Save by nibabel, with an oblique qform and sform of different codes, units, a description and an extension."""
    header = cls.header_class(endianness=order)
    header.set_data_dtype(array_xyz.dtype.newbyteorder(order))
    header.set_xyzt_units("mm", "msec")
    header["descrip"] = b"scanner text"
    header["cal_max"] = 321.5
    image = cls(array_xyz, AFFINE, header)
    image.header.set_xyzt_units("mm", "msec")
    if array_xyz.ndim > 3:
        image.header["pixdim"][4] = 2500.0
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=4)
    if slope:
        image.header.set_slope_inter(*slope)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept to the last byte"))
    nib.save(image, path)
    return image


def content(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
def test_nibabel_agrees_and_bytes_survive(tmp_path: Path, cls: type, order: str, suffix: str) -> None:
    array = make_array("i2", (7, 5, 4, 3))
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save(source, array, cls, order, slope=(2.5, -1024.0))
    raw = content(source)
    signal = registry.read(source)
    assert signal.header.file_dtype == f"{order}i2" and signal.header.shape == (3, 4, 5, 7)
    assert np.array_equal(signal.samples, nib.load(source).dataobj.get_unscaled().T)
    assert signal.header.spacing == pytest.approx([2500.0, *nib.affines.voxel_sizes(AFFINE)[::-1]])
    assert signal.header.units == ("ms", "mm", "mm", "mm")
    assert b"kept to the last byte" in signal.header.source_header
    registry.write_signal(target, signal)
    assert content(target) == raw
    image = nib.load(target)
    assert (image.dataobj.slope, image.dataobj.inter) == (2.5, -1024.0)
    assert np.allclose(image.get_sform(), AFFINE) and np.allclose(image.get_qform(), nib.load(source).get_qform())
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 1)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_orientations_survive(tmp_path: Path, flips: tuple[int, ...], turn: tuple[int, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(flips) * [0.5, 2.0, 3.0])[list(turn)]
    nib.save(nib.Nifti1Image(make_array("i2", (4, 5, 6)), affine), tmp_path / "a.nii")
    registry.write_signal(tmp_path / "b.nii", registry.read(tmp_path / "a.nii"))
    assert np.array_equal(nib.load(tmp_path / "b.nii").affine, affine)
    assert nib.aff2axcodes(nib.load(tmp_path / "b.nii").affine) == nib.aff2axcodes(affine)


@pytest.mark.parametrize("dtype", NIFTI_DTYPES)
def test_foreign_files_of_every_dtype_are_byte_identical(tmp_path: Path, dtype: str) -> None:
    array = make_array(dtype, (7, 5, 4))
    save(tmp_path / "a.nii", array, order=np.dtype(dtype).str[0].replace("|", "<"))
    registry.write_signal(tmp_path / "b.nii", registry.read(tmp_path / "a.nii"))
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()


def test_packaged_scan_of_nibabel(tmp_path: Path) -> None:
    source = Path(nib.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    if not source.exists():
        pytest.skip("this nibabel ships no example data")
    signal = registry.read(source)
    assert signal.header.shape == (2, 24, 96, 128) and signal.header.axes == "tzyx"
    assert np.array_equal(signal.samples, nib.load(source).dataobj.get_unscaled().T)
    registry.write_signal(tmp_path / "b.nii.gz", signal)
    assert content(tmp_path / "b.nii.gz") == content(source)


def test_uncompressed_samples_are_memory_mapped(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", make_array("<u2", (7, 5, 4)))
    assert isinstance(registry.read(tmp_path / "a.nii").samples, np.memmap)


def test_gzip_output_is_deterministic(tmp_path: Path) -> None:
    signal = make_signal(make_array("<i2", (4, 5, 7)))
    registry.write_signal(tmp_path / "a.nii.gz", signal)
    registry.write_signal(tmp_path / "renamed.nii.gz", signal)
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw == (tmp_path / "renamed.nii.gz").read_bytes()
    assert raw[3] == 0 and raw[4:8] == bytes(4), "no name and no time in the gzip header"


def test_a_cut_region_keeps_slope_orientation_and_extension(tmp_path: Path) -> None:
    array = make_array("i2", (7, 5, 4))
    save(tmp_path / "a.nii", array, order=">", slope=(2.0, -3.0))
    whole = registry.read(tmp_path / "a.nii")
    region = Signal((whole.samples[1:3],), replace(whole.header, shape=(2, 5, 7)))
    registry.write_signal(tmp_path / "b.nii", region)
    image = nib.load(tmp_path / "b.nii")
    assert np.array_equal(np.asanyarray(image.dataobj), array[:, :, 1:3] * 2.0 - 3.0)
    assert np.allclose(image.affine, AFFINE)
    assert image.header.extensions[0].get_content() == b"kept to the last byte"


def test_a_coarser_grid_scales_qform_and_sform(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", make_array("i2", (8, 6, 4)))
    whole = registry.read(tmp_path / "a.nii")
    spacing = tuple(2 * step for step in whole.header.spacing)
    coarse = Signal((whole.samples[::2, ::2, ::2],), replace(whole.header, shape=(2, 3, 4), spacing=spacing))
    registry.write_signal(tmp_path / "b.nii", coarse)
    image = nib.load(tmp_path / "b.nii")
    expected = AFFINE @ np.diag([2, 2, 2, 1])
    assert np.allclose(image.get_sform(), expected)
    assert np.allclose(image.get_qform(), nib.load(tmp_path / "a.nii").get_qform() @ np.diag([2, 2, 2, 1]), atol=1e-5)


def test_another_byte_order_keeps_slope_and_orientation(tmp_path: Path) -> None:
    array = make_array("i2", (7, 5, 4))
    save(tmp_path / "a.nii", array, order=">", slope=(2.0, -3.0))
    registry.write_signal(tmp_path / "b.nii", registry.read(tmp_path / "a.nii").with_header(file_dtype="<i2"))
    image = nib.load(tmp_path / "b.nii")
    assert np.array_equal(np.asanyarray(image.dataobj), array * 2.0 - 3.0)
    assert np.allclose(image.affine, AFFINE) and not image.header.extensions


def test_a_fresh_header_has_spacing_units_and_no_scaling(tmp_path: Path) -> None:
    array = make_array("<i2", (3, 4, 5, 7))
    registry.write_signal(tmp_path / "a.nii", make_signal(array))
    image = nib.load(tmp_path / "a.nii")
    assert image.shape == (7, 5, 4, 3) and np.array_equal(np.asanyarray(image.dataobj).T, array)
    assert np.allclose(image.affine, np.diag([0.5, 0.75, 3.0, 1.0]))
    assert image.header.get_xyzt_units() == ("mm", "sec") and image.header.get_zooms()[3] == 2.5
    assert np.frombuffer((tmp_path / "a.nii").read_bytes()[112:120], "<f4").tolist() == [1.0, 0.0], "scl_slope, scl_inter"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    nib.Nifti1Image.from_bytes((tmp_path / "a.nii").read_bytes())


def test_lengths_without_a_nifti_code_become_millimetres(tmp_path: Path) -> None:
    signal = make_signal(make_array("<i2", (4, 5, 7)))
    signal = signal.with_header(spacing=(30.0, 20.0, 10.0), units=("nm",) * 3)
    registry.write_signal(tmp_path / "a.nii", signal)
    found = registry.read(tmp_path / "a.nii").header
    assert found.units == ("mm",) * 3 and found.spacing == pytest.approx((3e-5, 2e-5, 1e-5))


def test_a_time_series_of_planes_gets_one_slice(tmp_path: Path) -> None:
    array = make_array("<i2", (4, 5, 7))
    registry.write_signal(tmp_path / "a.nii", Signal.from_array(array, axes="tyx"))
    assert nib.load(tmp_path / "a.nii").shape == (7, 5, 1, 4)
    assert np.array_equal(registry.read(tmp_path / "a.nii").values[:, 0], array)


def test_long_axes_need_nifti2(tmp_path: Path) -> None:
    array = make_array("|u1", (2, 40000))
    registry.write_signal(tmp_path / "a.nii", make_signal(array))
    assert isinstance(nib.load(tmp_path / "a.nii"), nib.Nifti2Image)
    assert np.array_equal(registry.read(tmp_path / "a.nii").values, array)


def test_trailing_singletons(tmp_path: Path) -> None:
    for shape, expected in (((7, 5, 1), (1, 5, 7)), ((7, 5, 4, 1), (1, 4, 5, 7)), ((7, 5, 4, 3, 1, 1), (3, 4, 5, 7))):
        save(tmp_path / "a.nii", make_array("i2", shape))
        signal = registry.read(tmp_path / "a.nii")
        assert signal.header.shape == expected
        registry.write_signal(tmp_path / "b.nii", signal)
        assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()


def refused(path: Path, words: str) -> None:
    with pytest.raises(FormatError, match=words) as error:
        registry.read(path)
    assert path.name in one_line(error)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def test_colours_are_channels_behind_x(tmp_path: Path) -> None:
    colours = make_array("|u1", (7, 5, 4, 3))
    nib.save(nib.Nifti1Image(colours.view(RGB)[..., 0], AFFINE), tmp_path / "a.nii")
    signal = registry.read(tmp_path / "a.nii")
    assert signal.header.axes == "zyxc" and np.array_equal(signal.samples, colours.transpose(2, 1, 0, 3))
    registry.write_signal(tmp_path / "b.nii", signal)
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()
    fresh = signal.with_header(source_format="array", source_header=b"")
    registry.write_signal(tmp_path / "c.nii", fresh)
    assert np.array_equal(np.asanyarray(nib.load(tmp_path / "c.nii").dataobj), colours.view(RGB)[..., 0])


def test_components_of_vectors_are_channels_before_z(tmp_path: Path) -> None:
    vectors = make_array("i2", (7, 5, 4, 1, 3))
    save(tmp_path / "a.nii", vectors)
    signal = registry.read(tmp_path / "a.nii")
    assert signal.header.axes == "czyx" and np.array_equal(signal.samples, vectors[:, :, :, 0].T)
    registry.write_signal(tmp_path / "b.nii", signal)
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()
    registry.write_signal(tmp_path / "c.nii", signal.with_header(source_format="array", source_header=b""))
    image = nib.load(tmp_path / "c.nii")
    assert np.array_equal(np.asanyarray(image.dataobj), vectors) and image.header.get_intent()[0] == "vector"


def test_channels_without_a_place_are_refused(tmp_path: Path) -> None:
    for axes, dtype, count in (("zyxc", "<u2", 3), ("zyxc", "|u1", 5), ("tyxc", "|u1", 3), ("zcyx", "|u1", 3), ("ctyx", "|u1", 3)):
        array = make_array(dtype, tuple(count if axis == "c" else 4 for axis in axes))
        with pytest.raises(FormatError, match="axes that NIfTI can hold") as error:
            registry.write_signal(tmp_path / "a.nii", make_signal(array, axes=axes))
        one_line(error)


def test_unsupported_files_say_so(tmp_path: Path) -> None:
    save(tmp_path / "five.nii", make_array("i2", (3, 4, 2, 2, 3)))
    refused(tmp_path / "five.nii", "at most 4 dimensions, found 5")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    refused(tmp_path / "complex.nii", "complex64")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 2), RGB), np.eye(4)), tmp_path / "rgb.nii")
    refused(tmp_path / "rgb.nii", "at most 4 dimensions, found 4: .* of colours")
    nib.save(nib.Nifti1Pair(make_array("i2", (3, 4, 5)), np.eye(4)), tmp_path / "pair.hdr")
    refused(tmp_path / "pair.hdr", r"\.hdr/\.img pair")
    save(tmp_path / "packed.nii.gz", make_array("i2", (3, 4, 5)))
    refused((tmp_path / "packed.nii.gz").rename(tmp_path / "packed.nii"), r"rename it to \.nii\.gz")
    save(tmp_path / "plain.nii", make_array("i2", (3, 4, 5)))
    refused((tmp_path / "plain.nii").rename(tmp_path / "plain.nii.gz"), r"rename it to \.nii")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(40, [9, 4, 4, 4]), (40, [0, 4, 4, 4]), (40, [3, 0, 4, 4]), (40, [3, -4, 4, 4]), (108, [0, 0]), (108, [0, 0x7FC0])],
)
def test_absurd_headers(tmp_path: Path, offset: int, value: list[int]) -> None:
    registry.write_signal(tmp_path / "a.nii", make_signal(make_array("<i2", (4, 4, 4))))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[offset : offset + 2 * len(value)] = np.array(value, "<i4").astype("<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    refused(tmp_path / "a.nii", "damaged or truncated")


def bomb(claim: int, content_bytes: int) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((claim,) * 3)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return gzip.compress(header.binaryblock + bytes(4 + content_bytes), 6)


@pytest.mark.parametrize(("claim", "content_bytes"), [(30000, 1000), (30000, 30 << 20), (250, 20 << 20), (2, 40 << 20)])
def test_gzip_bombs_do_not_allocate(tmp_path: Path, claim: int, content_bytes: int) -> None:
    (tmp_path / "a.nii.gz").write_bytes(bomb(claim, content_bytes))
    tracemalloc.start()
    try:
        if claim > 2:
            refused(tmp_path / "a.nii.gz", "damaged or truncated")
        else:
            assert registry.read(tmp_path / "a.nii.gz").header.shape == (2, 2, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 250^3 claims 31 MB, which so long a file could hold: it is read as far as it goes, in pieces.
    assert peak < (48 << 20 if claim == 250 else 16 << 20)


def test_flipped_bit_in_gzip_data_is_found(tmp_path: Path) -> None:
    registry.write_signal(tmp_path / "a.nii.gz", make_signal(make_array("<i2", (8, 8, 8))))
    raw = bytearray((tmp_path / "a.nii.gz").read_bytes())
    raw[-6] ^= 1  # in the checksum at the end: the data themselves still unpack
    (tmp_path / "a.nii.gz").write_bytes(raw)
    refused(tmp_path / "a.nii.gz", "CRC")


def test_a_hostile_source_header_yields_a_fresh_one(tmp_path: Path) -> None:
    signal = make_signal(make_array("<i2", (4, 5, 7)))
    good = registry.read(_written(tmp_path, signal)).header.source_header
    for blob in (b"", b"junk" * 200, good[:100], good[:350], good + bytes(4)):
        header = replace(signal.header, source_format="nifti", source_header=blob)
        registry.write(tmp_path / "b.nii", header, [signal.samples])
        image = nib.load(tmp_path / "b.nii")
        assert np.array_equal(np.asanyarray(image.dataobj).T, signal.samples)
        assert np.allclose(image.header.get_zooms(), (0.5, 0.75, 3.0))


def _written(folder: Path, signal: Signal) -> Path:
    registry.write_signal(folder / "a.nii", signal)
    return folder / "a.nii"
