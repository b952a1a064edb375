"""Restored samples: boxes, points and scales of one stream tell of the same correction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import inrcodec
from inrcodec.image import Image

STREAM = Path(__file__).parents[1] / "golden" / "restored.inrc"


@pytest.fixture()
def image() -> Iterator[Image]:
    with inrcodec.open(STREAM) as opened:
        assert opened.restorer is not None
        yield opened


def test_the_correction_changes_samples(image: Image) -> None:
    start, stop = np.array([8, 20, 20]), np.array([24, 50, 50])
    assert image.restorer is not None
    change = image.restorer.change(start, stop)
    assert np.array_equal(image.restorer.box(start, stop), image.read_plain_box(start, stop) + change)
    assert np.abs(change).max() > 1


@pytest.mark.parametrize("key", [np.s_[3:9, 10:40, ::3], np.s_[0, :5, -7:], np.s_[31:, 63, 5], np.s_[::-5, 7:8, 1::20]])
def test_regions_are_those_of_the_whole(image: Image, key: tuple[object, ...]) -> None:
    whole = image[...].astype(int)
    difference = np.abs(image[key].astype(int) - whole[key])
    assert difference.max() <= 1 and difference.mean() < 0.01


def test_slabs_make_the_whole(image: Image) -> None:
    difference = np.abs(np.concatenate(list(image.slabs())).astype(int) - image[...])
    assert difference.max() <= 1 and difference.mean() < 0.01


def test_points_at_centres_are_samples(image: Image) -> None:
    random = np.random.default_rng(0)
    points = np.stack([random.integers(0, n, 300) for n in image.shape], axis=1)
    points[:3] = [[0, 0, 0], [31, 63, 63], [0, 63, 31]]
    assert np.abs(image.sample(points) - image[...][tuple(points.T)]).max() <= 0.51


def test_between_centres_the_correction_is_linear(image: Image) -> None:
    assert image.restorer is not None
    ends = np.array([[10.0, 20, 30], [10, 20, 31]])
    middle = image.restorer.change_at(np.array([[10, 20, 30.25]]))[0]
    first, second = image.restorer.change_at(ends)
    assert middle == pytest.approx(0.75 * first + 0.25 * second, rel=1e-3, abs=1e-3)
    beyond = image.restorer.change_at(np.array([[-0.5, 20, 63.5]]))
    assert beyond == pytest.approx(image.restorer.change_at(np.array([[0.0, 20, 63]])), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.7])
def test_scales_show_what_points_do(image: Image, scale: float) -> None:
    scaled = image.read(scale=scale)
    random = np.random.default_rng(1)
    places = np.stack([random.integers(0, n, 200) for n in scaled.shape], axis=1)
    points = (places + 0.5) * np.array(image.shape) / np.array(scaled.shape) - 0.5
    assert np.abs(scaled[tuple(places.T)] - image.sample(points)).max() <= 0.6
