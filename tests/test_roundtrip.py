"""The codec end to end: sizes and qualities as promised, files back as they were, regions, scales and points."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from inrcodec.image import Image
from inrcodec.options import TincOptions
from inrcodec_formats import registry
from inrcodec_formats.signal import CODED_DTYPES, Signal
from samples import psnr_db, scan

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPES = [(9000,), (70, 61), (23, 29, 21), (3, 10, 9, 11), (3, 50, 40), (30, 7, 22), (1, 61, 64)]
VARIANTS = {
    "default": TincOptions(),
    "one leaf level": TincOptions(leaf_levels=1),
    "small leaves": TincOptions(leaf_edge=4),
    "dense, global": TincOptions(root="dense", coordinates="global", network_share=0.2, starts=1),
    "dense, segments, global": TincOptions(
        root="dense", coordinates="global", layers=(2, 1), level_ratios=(1.0, 0.8), leaf_levels=1, network_share=0.3, starts=1
    ),
}  # fmt: skip


VOLUME = scan((10, 14, 12))


@cache
def variant_stream(variant: str) -> bytes:
    return inrcodec.encode(VOLUME, ratio=4, effort=1, tinc=VARIANTS[variant], method="tinc")


@pytest.fixture(scope="module", params=list(VARIANTS))
def coded(request: pytest.FixtureRequest) -> Iterator[tuple[Image, np.ndarray]]:
    """A lazy view of a stream of each kind, and its full decode."""
    blob = variant_stream(request.param)
    with inrcodec.open(blob) as image:
        yield image, inrcodec.decode(blob).samples


# Sizes and qualities


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_met_for_every_shape(shape: tuple[int, ...]) -> None:
    volume = scan(shape)
    blob = inrcodec.encode(volume, ratio=6, effort=1, method="tinc")
    assert 0.98 * volume.nbytes / 6 <= len(blob) <= volume.nbytes / 6
    assert inrcodec.decode(blob).samples.shape == shape


@pytest.mark.parametrize("dtype", CODED_DTYPES)
def test_bits_per_voxel_are_met_for_every_dtype(dtype: str, tmp_path: Path) -> None:
    volume = scan((16, 24, 20), dtype)
    report = inrcodec.encode(volume, tmp_path / "a.inrc", bits_per_voxel=1.0, effort=1, method="tinc")
    assert 0.98 * volume.size / 8 <= report.bytes <= volume.size / 8
    assert report.bytes == (tmp_path / "a.inrc").stat().st_size
    decoded = inrcodec.decode(tmp_path / "a.inrc").samples
    assert decoded.dtype == dtype
    assert report.psnr_db == pytest.approx(psnr_db(volume, decoded), abs=1e-9)
    assert report.max_abs_error == np.abs(volume.astype(int) - decoded).max()
    assert report.psnr_db > 25


@pytest.mark.parametrize(("shape", "goal"), [((9000,), 30), ((70, 61), 35), ((20, 19, 21), 33), ((20, 19, 21), 50), ((3, 10, 9, 11), 35)])
def test_psnr_is_reached_and_hardly_exceeded(shape: tuple[int, ...], goal: float) -> None:
    volume = scan(shape)
    reached = psnr_db(volume, inrcodec.decode(inrcodec.encode(volume, psnr_db=goal, effort=1, method="tinc")).samples)
    assert goal <= reached <= goal + 0.1


def test_smaller_files_are_worse_and_more_effort_is_not() -> None:
    volume = scan((20, 20, 20))
    quality = [psnr_db(volume, inrcodec.decode(inrcodec.encode(volume, ratio=r, effort=1, method="tinc")).samples) for r in (25, 12, 5)]
    assert quality == sorted(quality)
    thorough = psnr_db(volume, inrcodec.decode(inrcodec.encode(volume, ratio=12, effort=3, method="tinc")).samples)
    assert thorough > quality[1] - 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_seed_same_bytes_and_every_variant_keeps_its_word(variant: str, tmp_path: Path) -> None:
    report = inrcodec.encode(VOLUME, tmp_path / "a.inrc", ratio=4, effort=1, tinc=VARIANTS[variant], method="tinc")
    blob = variant_stream(variant)
    assert (tmp_path / "a.inrc").read_bytes() == blob
    assert report.bytes <= VOLUME.nbytes / 4
    assert report.psnr_db == pytest.approx(psnr_db(VOLUME, inrcodec.decode(blob).samples))
    assert report.choices["root"] == VARIANTS[variant].root
    assert inrcodec.info(blob).details["coordinates"] == VARIANTS[variant].root_coordinates
    assert inrcodec.verify(blob, deep=True).ok


@pytest.mark.parametrize("allocation", ["equal", "interest", "variance"])
def test_allocations_spend_their_budget(allocation: str, tmp_path: Path) -> None:
    volume = scan((16, 16, 20))
    options = TincOptions(allocation=allocation)
    report = inrcodec.encode(volume, tmp_path / "a.inrc", ratio=8, effort=1, tinc=options, method="tinc")
    assert 0.98 <= report.choices["spent_weights"] / report.choices["budget_weights"] <= 1.0
    assert report.bytes <= volume.nbytes / 8
    assert report.psnr_db == pytest.approx(psnr_db(volume, inrcodec.decode(tmp_path / "a.inrc").samples))


def test_fractions_with_a_step() -> None:
    volume = scan((16, 17, 18)).astype("float32") * np.float32(0.25)
    signal = inrcodec.decode(inrcodec.encode(volume, psnr_db=40, quantise_step=0.25, effort=1, method="tinc"))
    assert signal.values.dtype == np.float32
    assert 40 <= psnr_db(volume, signal.values) <= 40.1


# Sources and files


def test_decode_takes_paths_bytes_and_file_objects(tmp_path: Path) -> None:
    blob = inrcodec.encode(scan((20, 21)), psnr_db=30, effort=1, method="tinc")
    (tmp_path / "a.inrc").write_bytes(blob)
    expected = inrcodec.decode(blob).samples
    with open(tmp_path / "a.inrc", "rb") as file:
        for source in (tmp_path / "a.inrc", str(tmp_path / "a.inrc"), io.BytesIO(blob), bytearray(blob), file):
            assert (inrcodec.decode(source).samples == expected).all()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".tif", ".npy"])
def test_every_format_gets_its_header_back(suffix: str, tmp_path: Path) -> None:
    volume = scan((14, 15, 16))
    source, stream, back = tmp_path / f"a{suffix}", tmp_path / "a.inrc", tmp_path / f"b{suffix}"
    signal = Signal.from_array(volume).with_header(spacing=(2.0, 0.5, 0.75), units=("mm",) * 3)
    registry.write_signal(source, signal)
    inrcodec.encode(source, stream, ratio=5, effort=1, method="tinc")
    report = inrcodec.decode(stream, back)
    assert report.voxels == volume.size
    expected = inrcodec.decode(stream)
    restored = registry.read(back)
    assert (restored.samples == expected.samples).all()
    assert restored.header == registry.read(source).header
    other = tmp_path / ("c.npy" if suffix != ".npy" else "c.nii.gz")
    inrcodec.decode(stream, other)
    assert (registry.read(other).samples == expected.samples).all()


def test_a_nifti_header_comes_back_to_the_byte(tmp_path: Path) -> None:
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0.3, -3, 5], [0, 0, 0, 1]])
    image = nib.Nifti1Image(scan((12, 13, 14)), affine)
    image.header.set_slope_inter(0.5, -1024)
    image.header["descrip"] = b"kept as it is"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"and this"))
    nib.save(image, tmp_path / "a.nii")
    inrcodec.encode(tmp_path / "a.nii", tmp_path / "a.inrc", bits_per_voxel=4, effort=1, method="tinc")
    inrcodec.decode(tmp_path / "a.inrc", tmp_path / "b.nii")
    before, after = (tmp_path / "a.nii").read_bytes(), (tmp_path / "b.nii").read_bytes()
    start = int(nib.load(tmp_path / "a.nii").dataobj.offset)
    assert len(before) == len(after)
    assert before[:start] == after[:start]
    stored = np.asarray(nib.load(tmp_path / "b.nii").dataobj.get_unscaled())
    assert (inrcodec.decode(tmp_path / "a.inrc").samples == stored.T).all()


# Regions


def positions(extent: int) -> st.SearchStrategy[int | slice]:
    bound = st.none() | st.integers(-extent - 3, extent + 3)
    step = st.none() | st.integers(-4, 4).filter(bool)
    return st.integers(-extent, extent - 1) | st.builds(slice, bound, bound, step)


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[object, ...]:
    parts: list[object] = [draw(positions(extent)) for extent in shape]
    cut = draw(st.integers(0, len(parts)))
    shown = parts[:cut]
    return (*shown, Ellipsis, *parts[cut + draw(st.integers(0, len(parts) - cut)) :]) if draw(st.booleans()) else tuple(shown)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_regions_are_parts_of_the_whole(coded: tuple[Image, np.ndarray], data: st.DataObject) -> None:
    image, full = coded
    key = data.draw(keys(full.shape))
    part = image[key]
    assert part.shape == full[key].shape
    assert np.abs(part.astype(int) - full[key]).max(initial=0) <= 1
    assert np.count_nonzero(part != full[key]) <= 1 + full[key].size // 1000


@pytest.mark.parametrize("key", [10, -11, (0, 0, 0, 0), (..., ...), 1.5, "a", None, True, ([1, 2],)])
def test_keys_that_are_none(coded: tuple[Image, np.ndarray], key: object) -> None:
    with pytest.raises(IndexError, match="expected"):
        coded[0][key]


def test_an_array_of_a_view(coded: tuple[Image, np.ndarray]) -> None:
    image, full = coded
    assert image.shape == full.shape
    assert image.dtype == full.dtype
    assert image.ndim == 3
    assert (image[...] == full).all()
    assert image[3:3].shape == (0, 14, 12)
    assert image[1, 2, 3] == full[1, 2, 3]


# Points and scales


def test_samples_at_the_voxels_are_the_decode_unrounded(coded: tuple[Image, np.ndarray]) -> None:
    image, full = coded
    points = np.argwhere(np.ones(full.shape))[::37]
    values = image.sample(points)
    assert values.dtype == np.float64
    assert np.abs(values - full[tuple(points.T)]).max() <= 0.5 + 0.02


def test_samples_between_the_voxels_of_a_block_are_continuous(coded: tuple[Image, np.ndarray]) -> None:
    image, _ = coded
    at = np.array([[1.0, 2.0, 1.0]])
    near = [float(image.sample(at + shift)[0]) for shift in (0.0, 1e-3, 0.1)]
    assert abs(near[1] - near[0]) < 0.05 * (1 + image.blocks.high - image.blocks.low)
    assert len(set(near)) > 1 or near[0] in (image.blocks.low, image.blocks.high)


@pytest.mark.parametrize("points", [[[0, 0]], [0, 0, 0], [[10, 0, 0]], [[-0.6, 0, 0]], [[np.nan, 0, 0]]])
def test_points_outside_are_refused(coded: tuple[Image, np.ndarray], points: list[object]) -> None:
    with pytest.raises(inrcodec.OptionError, match="expected points"):
        coded[0].sample(np.array(points, dtype=float))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scales_sample_the_networks(coded: tuple[Image, np.ndarray], scale: float) -> None:
    image, full = coded
    scaled = image.read(scale=scale)
    assert scaled.shape == tuple(max(1, round(n * scale)) for n in full.shape)
    grids = [(np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(full.shape, scaled.shape, strict=True)]
    index = np.argwhere(np.ones(scaled.shape))[:: max(1, scaled.size // 200)]
    points = np.stack([grid[i] for grid, i in zip(grids, index.T, strict=True)], axis=1)
    values = image.sample(points)
    assert np.abs(scaled[tuple(index.T)] - values).max() <= 0.5 + 0.02


def test_scale_one_is_the_decode(coded: tuple[Image, np.ndarray]) -> None:
    image, full = coded
    assert (image.read() == full).all()
    for scale in (0.0, -1.0, float("nan"), 65.0):
        with pytest.raises(inrcodec.OptionError):
            image.read(scale=scale)


# Bytes read and voxels evaluated: counted, not timed


def assert_cheap_region(blob: bytes | Path, size: int) -> None:
    """A box of 1/64 of the volume takes less than 1/16 of the bytes and of the voxels."""
    with inrcodec.open(blob) as image:
        edges = [n // 4 for n in image.shape[-3:]]
        box = tuple(slice(e) for e in edges)
        key = (0,) * (image.ndim - 3) + box
        image[key]
        assert image.bytes_read < size / 16
        assert image.voxels_evaluated < np.prod(image.shape) / 16


def test_a_region_of_one_64th_is_cheap() -> None:
    blob = inrcodec.encode(scan((64, 64, 64)), ratio=4, effort=1, method="tinc")
    assert_cheap_region(blob, len(blob))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"expected {DATA.name} beside the checkout, found no {DATA}")
def test_a_region_of_a_real_scan_is_cheap(tmp_path: Path) -> None:
    inrcodec.encode(DATA / "ct_chest_hu.nii.gz", tmp_path / "a.inrc", ratio=64, method="tinc")
    assert_cheap_region(tmp_path / "a.inrc", (tmp_path / "a.inrc").stat().st_size)
