"""Signals with channels: coded together, read in the source's own order of axes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from inrcodec import cli
from inrcodec.fitting.pyramid_start import choose_halvings
from inrcodec.fitting.sci import choose_partition
from inrcodec.image import Image
from inrcodec.options import PyramidOptions, SciOptions
from inrcodec_formats.axes import AxisOrder
from inrcodec_formats.errors import OptionError, SignalError
from inrcodec_formats.signal import Signal
from samples import colours, psnr_db

SMALL = PyramidOptions(levels=3, context=8, synthesis=(4, 4), tile_edge=8, warm_start=False)
EXTENTS = {"z": 6, "y": 9, "x": 10, "t": 5}
AXES = ("zyxc", "yxc", "zcyx", "czyx", "tyxc")
CASES = [*(("tinc", axes) for axes in AXES), ("sci", "zyxc"), ("sci", "yxc"), ("pyramid", "zyxc"), ("pyramid", "yxc")]


def of_axes(axes: str, channels: int = 3) -> np.ndarray:
    """The same colours, their channels where the axes want them."""
    last = colours(tuple(EXTENTS[axis] for axis in axes if axis != "c"), channels)
    return np.ascontiguousarray(np.moveaxis(last, -1, axes.index("c")))


@cache
def stream(method: str, axes: str) -> bytes:
    return inrcodec.encode(of_axes(axes), axes=axes, bits_per_voxel=16, method=method, effort=1, pyramid=SMALL)


@pytest.mark.parametrize(("method", "axes"), CASES)
def test_every_view_speaks_the_axes_of_the_source(method: str, axes: str) -> None:
    source = of_axes(axes)
    decoded = inrcodec.decode(stream(method, axes))
    assert decoded.header.axes == axes and decoded.samples.shape == source.shape
    assert psnr_db(source, decoded.samples) > 15  # axes in another order than the source's stay below 10
    with inrcodec.open(stream(method, axes)) as image:
        whole = image[...]
        assert image.shape == source.shape and np.array_equal(whole, decoded.samples)
        assert np.array_equal(image[1:4, 2, ..., ::2], whole[1:4, 2, ..., ::2])
        assert np.array_equal(np.concatenate(list(image.slabs())), whole)
        assert np.array_equal(image.read_tensor().numpy(), whole)


@pytest.mark.parametrize(("method", "axes"), CASES)
def test_scales_and_points_leave_channels_alone(method: str, axes: str) -> None:
    with inrcodec.open(stream(method, axes)) as image:
        whole, extents = image[...], [EXTENTS[axis] for axis in axes if axis != "c"]
        assert image.read(scale=2.0).shape == tuple(3 if axis == "c" else 2 * EXTENTS[axis] for axis in axes)
        points = np.stack(np.meshgrid(*map(np.arange, extents), indexing="ij"), axis=-1).reshape(-1, len(extents))
        values = image.sample(points)
        assert np.abs(np.rint(values) - np.moveaxis(whole, axes.index("c"), -1).reshape(-1, 3)).max() <= 1
        assert image.sample(np.zeros((0, len(extents)))).shape == (0, 3)
        with pytest.raises(OptionError, match=rf"points of shape \(n, {len(extents)}\)"):
            image.sample(np.zeros((1, len(axes))))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_region_of_any_shape(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from(["yxc", "cyx", "zyxc", "zcyx", "xc"]))
    shape = tuple(data.draw(st.integers(1, 5 if axis == "c" else 12)) for axis in axes)
    source = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    blob = inrcodec.encode(source, axes=axes, psnr_db=20, effort=1, method="tinc")
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(start, shape, strict=True))
    with inrcodec.open(blob) as image:
        assert np.array_equal(image[box], inrcodec.decode(blob).samples[box])


@given(st.permutations("tzyxc").flatmap(lambda letters: st.integers(1, 4).map(lambda n: "".join(letters[:n]))))
def test_orders_put_channels_first_and_back(axes: str) -> None:
    order = AxisOrder.of(axes)
    coded = "".join(order.to_coded(axes))
    assert coded.replace("c", "") == axes.replace("c", "") and "c" not in coded[1:]
    assert "".join(order.to_signal(coded)) == axes and order.moves == (coded != axes)
    samples = np.arange(np.prod(range(2, 2 + len(axes)))).reshape(range(2, 2 + len(axes)))
    assert order.coded_view(samples).shape == order.to_coded(samples.shape)
    assert np.array_equal(order.signal_view(order.coded_view(samples)), samples)


# Channels are worth coding together


def test_shared_structures_are_paid_for_once() -> None:
    source = colours((8, 24, 24))
    together = inrcodec.encode(source, axes="zyxc", psnr_db=32, effort=1, method="tinc")
    data_range = float(np.ptp(source))
    alone = [
        inrcodec.encode(channel, psnr_db=32 + 20 * np.log10(np.ptp(channel) / data_range), effort=1, method="tinc")
        for channel in np.moveaxis(source, -1, 0)
    ]
    assert len(together) < 0.8 * sum(map(len, alone))


def test_channels_are_neither_halved_nor_cut() -> None:
    coded = np.ascontiguousarray(np.moveaxis(colours((24, 40, 36), 5), -1, 0))
    assert all(not flags[0] for flags in choose_halvings(coded, 6, channels=True))
    assert any(flags[0] for flags in choose_halvings(coded, 6))
    assert (choose_partition(coded, SciOptions(blocks=60), 10**6, channels=True).extent[:, 0] == 5).all()


# What the command line, reports and pictures make of them


def test_reports_and_pictures(tmp_path: Path) -> None:
    for axes in ("zyxc", "yxc"):
        source, blob = of_axes(axes), stream("tinc", axes)
        (tmp_path / "a.inrc").write_bytes(blob)
        report = inrcodec.compare(source, tmp_path / "a.inrc", picture=tmp_path / "compare.png")
        assert report.psnr_db == pytest.approx(psnr_db(source, inrcodec.decode(blob).samples))
        assert report.ssim is not None and 0.3 < report.ssim <= 1
        details = inrcodec.info(blob, picture=tmp_path / "blocks.png")
        assert (details.axes, details.shape) == (axes, source.shape)
        assert inrcodec.verify(blob, deep=True).ok
        assert all((tmp_path / name).stat().st_size > 1000 for name in ("compare.png", "blocks.png"))


def test_ssim_is_the_mean_of_the_channels() -> None:
    source = colours((30, 32))
    changed = source.copy()
    changed[..., 0] = source[::-1, :, 0]
    both = [Signal.from_array(array, axes="yxc") for array in (source, changed)]
    one, other = (inrcodec.compare(*(signal.samples[..., c] for signal in both)).ssim for c in (0, 1))
    found = inrcodec.compare(*both).ssim
    assert other == 1 and one is not None and one < 0.9
    assert found == pytest.approx((one + 2) / 3, abs=0.05)  # ranges differ: all channels' here, each one's there


def test_colour_pictures_go_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, coded = tmp_path / "slide.tif", tmp_path / "slide.inrc"
    tifffile.imwrite(source, of_axes("yxc"), photometric="rgb")
    assert cli.main(["encode", str(source), str(coded), "--bits-per-voxel", "16", "--effort", "1", "-q"]) == 0
    for options, shape in (([], (9, 10, 3)), (["--region", "2:5"], (3, 10, 3)), (["--scale", "2"], (18, 20, 3))):
        back = tmp_path / "back.tif"
        assert cli.main(["decode", str(coded), str(back), *options, "-f", "-q"]) == 0
        with tifffile.TiffFile(back) as tif:
            assert tif.series[0].shape == shape and tif.pages.first.photometric.name == "RGB"
    capsys.readouterr()
    assert cli.main(["info", str(coded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["axes"] == "yxc"


def test_axes_name_those_of_an_array_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", of_axes("yxc"))
    command = ["encode", str(tmp_path / "a.npy"), str(tmp_path / "a.inrc"), "--bits-per-voxel", "16", "--effort", "1", "-q"]
    assert cli.main([*command, "--axes", "yxc"]) == 0
    assert inrcodec.decode(tmp_path / "a.inrc").header.axes == "yxc"


# Bad input


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((2, 3, 4, 5, 3), "tzyxc", "1 to 4 axes, channels among them, found 5; code each time point"),
        ((4, 5, 0), "yxc", "at least one sample"),
        ((4, 5, 3), "yx", "3 distinct axes"),
        ((4, 5, 3), "ycc", "3 distinct axes"),
        ((4, 5, 3), "yxs", "3 distinct axes"),
        ((3,), "c", "beside the channels"),
    ],
)
def test_axes_that_a_signal_cannot_have(shape: tuple[int, ...], axes: str, words: str) -> None:
    with pytest.raises(SignalError, match=words) as error:
        inrcodec.encode(np.zeros(shape, np.uint8), ratio=4, axes=axes, method="tinc")
    assert "\n" not in str(error.value)


def test_a_file_that_names_its_axes_keeps_them(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", of_axes("yxc"), photometric="rgb")
    with pytest.raises(OptionError, match=r"an array or a \.npy file only, found 'zyx' for one of tiff"):
        inrcodec.encode(tmp_path / "a.tif", ratio=4, axes="zyx", method="tinc")


def test_many_channels(tmp_path: Path) -> None:
    source = np.random.default_rng(0).integers(0, 99, (4, 6, 65)).astype(np.uint16)
    with Image(inrcodec.encode(source, axes="yxc", psnr_db=30, effort=1, method="tinc")) as image:
        assert image.sample(np.zeros((2, 2))).shape == (2, 65) and psnr_db(source, image[...]) >= 30


def test_a_region_of_space_serves_all_channels() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
    inside = (slice(6, 18), slice(8, 24))
    errors = []
    for region in (None, inside):
        blob = inrcodec.encode(picture, axes="yxc", bits_per_voxel=2.0, effort=1, region=region, emphasis=region and 32.0, method="tinc")
        error = inrcodec.decode(blob).samples.astype(float) - picture
        errors.append(float(np.square(error[inside]).mean()))
    assert errors[1] < 0.8 * errors[0]
