"""Signals in parts: any box is that of the parts, only those that are touched decode, and values between them come from both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

import inrcodec
from inrcodec.block_bits import blocks_of
from inrcodec.decoder import count_weights
from inrcodec.image import Image
from inrcodec.reconstruct.parted import PartedPyramid
from pyramid_streams import flags, made, made_parted, parted_blob

AXES = pytest.mark.parametrize("axis", [0, 1, 2])


@cache
def blob_and_whole(axis: int) -> tuple[bytes, np.ndarray]:
    """A stream, and what its parts decode to as streams of their own, side by side."""
    parts = made_parted(axis=axis)
    return parted_blob(parts, axis), np.concatenate([inrcodec.decode(part.blob()).samples for part in parts], axis)


@AXES
def test_a_signal_is_its_parts_side_by_side(axis: int) -> None:
    blob, whole = blob_and_whole(axis)
    assert np.array_equal(inrcodec.decode(blob).samples, whole)
    with inrcodec.open(blob) as image:
        assert isinstance(image.blocks, PartedPyramid)
        assert np.array_equal(np.concatenate(list(image.slabs())), whole)
        assert np.array_equal(image.read_tensor().numpy(), whole)


@settings(max_examples=40, deadline=None)
@given(axis=st.integers(0, 2), data=st.data())
def test_any_box_equals_that_part_of_the_whole(axis: int, data: st.DataObject) -> None:
    blob, whole = blob_and_whole(axis)
    start = [data.draw(st.integers(0, n - 1)) for n in whole.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, whole.shape, strict=True)]
    with inrcodec.open(blob) as image:
        assert np.array_equal(image.read_box(np.array(start), np.array(stop)), whole[tuple(map(slice, start, stop))])
        plain = image.read_plain_box(np.array(start), np.array(stop))
        assert np.array_equal(np.clip(np.rint(plain), -1000, 1000), whole[tuple(map(slice, start, stop))])
        assert image.voxels_evaluated == 2 * plain.size


def plain_whole(image: Image) -> np.ndarray:
    return image.read_plain_box(np.zeros(image.ndim, int), np.array(image.shape)).astype(np.float64)


@AXES
def test_points_across_a_face_see_samples_of_both_parts(axis: int) -> None:
    with inrcodec.open(blob_and_whole(axis)[0]) as image:
        plain, face = plain_whole(image), image.blocks.cut.edges[1]
        place = [5, 6, 4]
        for share in (0.25, 0.5, 0.75):
            place[axis] = face - 1
            low = plain[tuple(place)]
            place[axis] = face
            expected = low + share * (plain[tuple(place)] - low)
            point = np.array(place, dtype=np.float64)
            point[axis] = face - 1 + share
            assert image.sample(point[None])[0] == pytest.approx(np.clip(expected, -1000, 1000), abs=1e-2)


@AXES
def test_scales_across_faces_agree_with_points(axis: int) -> None:
    with inrcodec.open(blob_and_whole(axis)[0]) as image:
        found = image.read(scale=1.5)
        grids = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(found.shape, image.shape, strict=True)]
        points = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, 3)
        assert np.abs(image.sample(points) - found.ravel()).max() <= 0.5 + 1e-3


@AXES
def test_parts_decode_alone(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, whole = blob_and_whole(axis)
    with inrcodec.open(blob) as image:
        chunks: list[int] = []
        read = image.container.read_chunk
        monkeypatch.setattr(image.container, "read_chunk", lambda n: (chunks.append(n), read(n))[1])
        for number in (1, 0, 2):
            chunks.clear()
            inside = image.blocks.cut.box(number, image.shape)
            assert np.array_equal(image[inside], whole[inside])
            held = image.container.chunks.first[chunks]
            assert len(chunks) and {image.blocks.tree.part_of(int(n)) for n in held} == {number}
            assert list(image.blocks._parts)[-1] == number and len(image.blocks._parts) <= 2


def test_costs_and_weights_are_those_of_the_parts() -> None:
    parts = made_parted()
    blob = parted_blob(parts)
    with inrcodec.open(blob) as image:
        blocks, expected = blocks_of(image), [tuple(part.stream.tiles.box(t)) for part in parts for t in range(part.stream.tiles.count)]
        assert len(blocks.bits) == len(expected) == image.blocks.tree.count
        assert blocks.bits.sum() == 8 * int(image.container.chunks.length.sum())
        latents = [int(np.prod(np.subtract(b, a))) for a, b in expected]
        constant, weights = count_weights(image)
        shared = sum(part.stream.layout.parameters for part in parts)
        assert weights - shared == sum(n for n, empty in zip(latents, blocks.constant, strict=True) if not empty)
        assert constant == blocks.constant.sum()


def test_info_tells_of_every_part_and_draws_all_of_them(tmp_path: Path) -> None:
    blob = parted_blob(made_parted())
    info = inrcodec.info(blob, picture=tmp_path / "a.png")
    assert info.details["signal_parts"] == ["9x11x10", "6x11x10", "8x11x10"] and info.details["steps"] == [3.5, 4.5, 5.5]
    assert info.details["context_widths"] == [4, 8, 4]
    with Picture.open(tmp_path / "a.png") as picture:
        picture.load()
        assert min(picture.size) > 100
    assert inrcodec.verify(blob, deep=True).ok


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(12,), (9,)], 0), ([(4, 7), (6, 7)], 0), ([(8, 5), (8, 9)], 1), ([(2, 5, 6, 7), (3, 5, 6, 7)], 0),
        ([(3, 5, 6, 4), (3, 5, 6, 3)], 3), ([(1, 4, 4), (1, 4, 4)], 0),
    ],
    ids=str,
)  # fmt: skip
def test_signals_of_any_axes(shapes: list[tuple[int, ...]], axis: int) -> None:
    parts: list[Any] = [made(shape, flags(len(shape), 2), 4, seed) for seed, shape in enumerate(shapes)]
    expected = np.concatenate([inrcodec.decode(part.blob()).samples for part in parts], axis)
    assert np.array_equal(inrcodec.decode(parted_blob(parts, axis)).samples, expected)
