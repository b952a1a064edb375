"""What every block costs, and the picture of it: sums are exact, noise costs more, only slices are decoded."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import inrcodec
from inrcodec import cli, partition_picture
from inrcodec.block_bits import block_bits, blocks_of
from inrcodec.partition_picture import Blocks, middle_planes, save_partition
from inrcodec_formats.errors import OutputError, SignalError
from samples import scan


def half_noisy() -> np.ndarray:
    """Smooth for x < 32, noise on top beyond."""
    volume = scan((24, 40, 64), seed=1)
    volume[:, :, 32:] += np.random.default_rng(0).integers(-150, 150, (24, 40, 32)).astype(np.int16)
    return volume


@cache
def stream() -> bytes:
    return inrcodec.encode(half_noisy(), bits_per_voxel=1.5, effort=1, method="tinc")


def one_block(shape: tuple[int, ...], constant: bool = False) -> Blocks:
    extent = np.array([shape])
    return Blocks(np.zeros_like(extent), extent, np.array([100.0]), np.array([constant]))


def size_of(path: Path) -> tuple[int, int]:
    with Picture.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


# Bits


def test_block_bits_add_up_to_the_chunks_exactly() -> None:
    with inrcodec.open(stream()) as image:
        chunks, bits = image.container.chunks, block_bits(image)
        assert bits.shape == (image.blocks.tree.count,)
        assert len(chunks) > 2
        assert (bits >= 0).all()
        for first, count, length in zip(chunks.first, chunks.count, chunks.length, strict=True):
            assert bits[first : first + count].sum() == 8 * length
        assert bits.sum() == 8 * image.container.parts()["chunks"]


def test_blocks_tile_the_signal_and_constants_are_those_of_info() -> None:
    volume = scan((15, 17, 40))
    volume[:, :, 16:] = 0
    blob = inrcodec.encode(volume, psnr_db=35, effort=1, method="tinc")
    with inrcodec.open(blob) as image:
        blocks = blocks_of(image)
        assert blocks.extent.prod(axis=1).sum() == np.prod(image.shape)
        assert (blocks.origin + blocks.extent <= image.shape).all()
    assert blocks.constant.sum() == inrcodec.info(blob).constant_blocks > 0
    assert (blocks.rate[blocks.constant].max() < blocks.rate[~blocks.constant].min()) and not blocks.constant.all()


def test_noise_costs_more() -> None:
    with inrcodec.open(stream()) as image:
        blocks = blocks_of(image)
    noisy = blocks.origin[:, 2] >= 32
    smooth = blocks.origin[:, 2] + blocks.extent[:, 2] <= 32
    voxels = blocks.extent.prod(axis=1)
    assert noisy.any() and smooth.any()
    rates = [blocks.bits[part].sum() / voxels[part].sum() for part in (smooth, noisy)]
    assert rates[1] > 1.5 * rates[0]
    assert np.median(blocks.rate[noisy]) > np.median(blocks.rate[smooth])


def test_a_signal_of_one_value() -> None:
    blob = inrcodec.encode(np.full((5, 6, 7), 3, np.uint8), psnr_db=40, effort=1, method="tinc")
    with inrcodec.open(blob) as image:
        blocks = blocks_of(image)
        assert blocks.constant.all()
        assert blocks.bits.sum() == 8 * image.container.chunks.length.sum()


# The picture


@pytest.mark.parametrize(
    "shape", [(1,), (3000,), (40, 30), (1, 1, 1), (1, 40, 30), (2, 40, 90), (12, 20, 30), (3, 5, 9, 8), (2, 1, 300)]
)
def test_every_dimension_gives_a_picture(shape: tuple[int, ...], tmp_path: Path) -> None:
    blob = inrcodec.encode(scan(shape), psnr_db=30, effort=1, method="tinc")
    report = inrcodec.info(blob, picture=tmp_path / "out.png")
    assert report.picture == str(tmp_path / "out.png")
    width, height = size_of(tmp_path / "out.png")
    assert 600 < width < 1500 and 200 < height < 1800
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("shape", [(30,), (20, 30), (5, 6, 7), (2, 5, 6, 7)])
def test_pictures_need_no_stream(shape: tuple[int, ...], constant: bool, tmp_path: Path) -> None:
    """Any method's blocks can be drawn; bits of 0 and a single value are no trouble."""
    samples = np.full(shape, 4, np.uint8)
    for bits in (0.0, 80.0):
        one = one_block(shape, constant)
        blocks = Blocks(one.origin, one.extent, np.array([bits]), one.constant)

        def read(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
            return samples[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]

        save_partition(tmp_path / "out.png", blocks, read, shape=shape, axes="tzyx"[-len(shape) :])
        size_of(tmp_path / "out.png")


def test_only_the_slices_are_decoded(tmp_path: Path) -> None:
    with inrcodec.open(stream()) as image:
        shape = image.shape
        needed = sum(np.prod(shape) // n for n in shape)
        partition_picture.save_partition(
            tmp_path / "out.png", blocks_of(image), image.read_box, shape=shape, axes="zyx"
        )
        assert image.voxels_evaluated == needed < np.prod(shape) / 4


def test_planes_and_the_blocks_they_cut() -> None:
    planes = middle_planes((6, 8, 10), "zyx")
    assert [plane.name for plane in planes] == ["z = 3", "y = 4", "x = 5"]
    assert [plane.shape for plane in planes] == [(8, 10), (6, 10), (6, 8)]
    assert planes[1].start.tolist() == [0, 4, 0] and planes[1].stop.tolist() == [6, 5, 10]
    origin = np.array([[0, 0, 0], [3, 0, 0]])
    blocks = Blocks(origin, np.array([[3, 8, 10], [3, 8, 10]]), np.ones(2), np.zeros(2, bool))
    assert [plane.crossed(blocks).tolist() for plane in planes] == [[1], [0, 1], [0, 1]]


def test_series_show_their_middle_time_point_and_single_axes_go() -> None:
    series = middle_planes((5, 4, 6, 7), "tzyx")
    assert [plane.start.tolist() for plane in series] == [[2, 2, 0, 0], [2, 0, 3, 0], [2, 0, 0, 3]]
    (image,) = middle_planes((1, 20, 30), "zyx")
    assert (image.name, image.shape) == ("y, x", (20, 30))


def test_title_says_what_is_known() -> None:
    report = inrcodec.info(stream())
    title = partition_picture.partition_title(report)
    for part in ("TINC", f"{report.blocks} blocks", f"{report.ratio:.1f}:1", "bits/voxel"):
        assert part in title


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="1 to 4 axes"):
        save_partition(tmp_path / "a.png", one_block((1,) * 5), np.zeros, shape=(1,) * 5, axes="abcde")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="expected"):
        inrcodec.info(stream(), picture=tmp_path / "missing" / "a.png")
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.inrc").write_bytes(stream())
    assert cli.main(["info", str(tmp_path / "a.inrc"), "--picture", str(tmp_path / "a.png")]) == 0
    assert "picture" in capsys.readouterr().out
    size_of(tmp_path / "a.png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.inrc", "a.png"]
