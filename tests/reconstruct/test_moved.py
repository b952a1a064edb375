"""Samples of displaced frames: every way to ask for them gives the same, and a few take a part of the still frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inrcodec
from inrcodec.block_bits import block_bits
from inrcodec.image import Image
from inrcodec.reconstruct import pieces
from inrcodec.reconstruct.moved import Moved
from inrcodec_kernels.warp import warp
from pyramid_streams import made, made_moving

BLOB = made_moving().blob()


def whole_of(image: Image) -> np.ndarray:
    """All samples, not rounded."""
    return image.blocks.box(np.zeros(image.ndim, int), np.array(image.shape), image._chunks)


def test_frames_are_still_frames_displaced() -> None:
    of = made_moving()
    still = made(of.stream.layout.shape, of.stream.layout.halved, 8)
    with inrcodec.open(BLOB) as image, inrcodec.open(still.blob()) as beside:
        assert isinstance(image.blocks, Moved) and image.shape == (5, 17, 22)
        expected = warp(whole_of(beside), (0, 0), of.field, (0, 0, 0), image.shape, image.backend)  # type: ignore[arg-type]
        found = whole_of(image)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(expected).max() > 100


def test_boxes_are_parts_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = inrcodec.decode(BLOB).samples
    with inrcodec.open(BLOB) as image:
        np.testing.assert_array_equal(image[1:4, 3:9, 5:21], expected[1:4, 3:9, 5:21])
        np.testing.assert_array_equal(image[4, 16, 21], expected[4, 16, 21])
        np.testing.assert_array_equal(np.concatenate(list(image.slabs())), expected)
        np.testing.assert_array_equal(image.read_tensor(np.array([1, 0, 2]), np.array([3, 9, 8])).numpy(), expected[1:3, :9, 2:8])
    monkeypatch.setattr(pieces, "_SAMPLES", 50)
    np.testing.assert_array_equal(inrcodec.decode(BLOB).samples, expected)


def test_points_and_grids_lie_between_samples() -> None:
    with inrcodec.open(BLOB) as image:
        whole = np.clip(whole_of(image), image.blocks.low, image.blocks.high)
        points = np.array([[1, 2, 3], [4, 16, 21], [2, 3, 4.5]])
        expected = [whole[1, 2, 3], whole[4, 16, 21], None]
        found = image.sample(points)
        np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-6)
        unclipped = whole_of(image)[2, 3]
        assert found[2] == pytest.approx(np.clip((unclipped[4] + unclipped[5]) / 2, image.blocks.low, image.blocks.high), rel=1e-5)
        assert image.read(scale=2.0).shape == (10, 34, 44)


def test_a_sample_takes_a_part_of_the_still_frames() -> None:
    with inrcodec.open(BLOB) as image:
        image[0, 0, 0]
        assert image.voxels_evaluated <= 36
        assert 0 < image.bytes_read < len(BLOB)


def test_info_and_the_picture_know_of_motion(tmp_path: Path) -> None:
    details = inrcodec.info(BLOB, picture=tmp_path / "blocks.png").details
    assert details["still_frames"] == "20x25" and details["motion_spacing"] == 8
    assert 0 < details["largest_motion"] <= 10
    assert (tmp_path / "blocks.png").stat().st_size > 1000
    with inrcodec.open(BLOB) as image:
        assert block_bits(image).sum() == 8 * int(image.container.chunks.length.sum())
