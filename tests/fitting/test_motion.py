"""Motion: known displacements are found, still frames give the frames back, and errors of displaced frames have right gradients."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting import motion
from inrcodec.fitting.motion import Displaced, find_motion, inside_of_still, promises, stilled
from inrcodec.fitting.pyramid_start import sample_weights
from inrcodec.models.pyramid import PyramidLayout, initial_networks
from inrcodec_kernels.backend import REFERENCE, choose
from inrcodec_kernels.pyramid import distortion
from inrcodec_kernels.registration import sampled
from inrcodec_kernels.warp import Field, positions
from pyramid_streams import random_field
from samples import panned, scan


@pytest.mark.parametrize("speed", [0.0, 0.7, 6.3])
def test_a_pan_is_found(speed: float) -> None:
    clip = panned((7, 96, 120), speed)
    field = find_motion(clip)
    assert field is not None
    places = positions(field, (0, 0, 0), clip.shape).astype(np.float64) / 16 - np.indices(clip.shape[1:])
    frames = np.arange(7)
    for axis, rate in ((0, -speed / 2), (1, speed)):
        moved = places[:, axis, 24:-24, 24:-24].mean((1, 2))
        np.testing.assert_allclose(moved - moved[3], rate * (frames - 3), atol=0.15)
    assert field.still[0] <= 96 + 3.5 * speed + 3 and field.still[1] <= 120 + 6.5 * speed + 3


def test_a_zoom_is_found() -> None:
    """Each side of the frame moves its own way."""
    wide = panned((1, 200, 200), 0.0)[0].astype(np.float32)
    at = 100 + np.outer(1 + 0.02 * np.arange(3), np.arange(-48, 48))
    clip = np.stack([sampled(wide, np.stack(np.meshgrid(p, p, indexing="ij"))) for p in at])
    field = find_motion(clip)
    assert field is not None
    moved = positions(field, (0, 0, 0), clip.shape)[2] - positions(field, (0, 0, 0), clip.shape)[1]
    np.testing.assert_allclose(moved[:, 16::32, 16::32] / 16, 0.02 / 1.02 * (np.indices((96, 96)) - 48)[:, 16::32, 16::32], atol=0.2)


def test_motion_promises_something_where_frames_move() -> None:
    assert promises(panned((8, 64, 64), 3.0))
    still = scan((1, 64, 64), "uint8").repeat(8, axis=0).astype(float)
    assert not promises(still + np.random.default_rng(0).normal(0, 5, still.shape))
    assert not promises(np.repeat(scan((1, 64, 64), "uint8"), 8, axis=0))


@pytest.mark.parametrize("shape", [(3, 96, 96), (8, 31, 96), (96, 96), (2, 8, 64, 64)])
def test_short_small_and_other_signals_are_left_alone(shape: tuple[int, ...]) -> None:
    assert not promises(np.zeros(shape, np.uint8))


def test_a_camera_that_goes_far_away_is_refused() -> None:
    assert find_motion(panned((10, 64, 64), 12.0)) is None


def test_still_frames_give_the_frames_back() -> None:
    clip = panned((6, 64, 80), 5.2)
    field = find_motion(clip)
    assert field is not None
    still = stilled(clip, field, choose("cpu"))
    assert still.samples.shape == (6, *field.still) and 0.4 < still.known.mean() < 0.9
    moved = motion._displaced(still.samples, field, choose("cpu"))
    assert np.sqrt(np.square(moved - clip).mean()) < 1.0
    # What the camera has left stays as it was: neighbours differ little, wherever they lie.
    assert np.sqrt(np.square(np.diff(still.samples, axis=0)).mean()) < 0.2 * np.sqrt(np.square(np.diff(clip.astype(float), axis=0)).mean())


@pytest.mark.parametrize("weighed", [None, (1, 9, 10), (3, 9, 10)], ids=str)
@pytest.mark.parametrize("backend", [REFERENCE, choose("cpu")], ids=str)
def test_gradients_of_displaced_errors(backend: object, weighed: tuple[int, ...] | None) -> None:
    """Against differences of the squares themselves, along random directions."""
    field: Field = random_field((3, 9, 10), (11, 12), most=20)
    layout = PyramidLayout((3, 11, 12), ((False, True, True),), 8, (4, 4))
    _, synthesis = initial_networks(layout, 0)
    random = np.random.default_rng(1)
    latents = [random.standard_normal(s).astype(np.float32) for s in layout.kernel.shapes]
    target = random.standard_normal((3, 9, 10)).astype(np.float32)
    weights = None if weighed is None else sample_weights(random.random(weighed).astype(np.float32))
    given = layout.kernel, target, backend, weights

    def squares(by: float, ways: list[np.ndarray], of_skips: float) -> float:
        moved = [(y + np.float32(by) * way).astype(np.float32) for y, way in zip(latents, ways, strict=True)]
        network = synthesis._replace(skips=synthesis.skips + np.float32(by * of_skips))
        return Displaced(field)(moved, network, *given)[0]  # type: ignore[arg-type]

    _, of_latents, of_synthesis = Displaced(field)(latents, synthesis, *given)  # type: ignore[arg-type]
    for of_skips in (0.0, 1.0):
        ways = [random.standard_normal(y.shape).astype(np.float32) for y in latents]
        expected = sum(float((g * way).sum()) for g, way in zip(of_latents, ways, strict=True)) + of_skips * of_synthesis.skips.sum()
        found = (squares(1e-2, ways, of_skips) - squares(-1e-2, ways, of_skips)) / 2e-2
        assert found == pytest.approx(expected, rel=1e-2)


def test_errors_count_as_much_as_their_weights() -> None:
    """Of frames that are the still ones, displaced by nothing."""
    random = np.random.default_rng(0)
    still = random.standard_normal((2, 12, 12)).astype(np.float32)
    field = random_field((2, 12, 12), (12, 12), most=0)
    layout = PyramidLayout((2, 12, 12), (), 8, (4, 4))
    synthesis, weights = initial_networks(layout, 0)[1], random.random((1, 12, 12)).astype(np.float32)
    latents = [np.zeros(s, np.float32) for s in layout.kernel.shapes]
    found, _, _ = Displaced(field)(latents, synthesis, layout.kernel, still, choose("cpu"), sample_weights(weights))
    expected, _, _ = distortion(latents, synthesis, layout.kernel, still.reshape(layout.kernel.shape), choose("cpu"), sample_weights(weights))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("place", [(slice(2, 4), slice(3, 9)), (slice(0, 1), slice(0, 1))])
def test_what_is_inside_of_frames_is_inside_of_still_ones(place: tuple[slice, slice]) -> None:
    clip = panned((6, 64, 80), 5.2)
    field = find_motion(clip)
    assert field is not None
    inside = np.zeros(clip.shape, dtype=bool)
    inside[:, *place] = True
    found = inside_of_still(inside, field, choose("cpu"))
    assert found.shape == (6, *field.still) and found.dtype == bool
    assert 0 < np.count_nonzero(found) <= 3 * np.count_nonzero(inside)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 1, 9), (5, 9, 1), (5, 2, 2), (2, 3, 40)])
def test_frames_of_few_samples_are_no_fault(shape: tuple[int, ...]) -> None:
    field = find_motion(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8))
    if min(shape) < 2:
        assert field is None
    elif field is not None:  # noise may lead to still frames that are too large
        assert field.frame == shape[1:]
