"""Scene cuts and lengths of groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.clips.groups import LEAST_FRAMES, MOST_FRAMES, CutFinder, group_starts, most_frames, thumbnail


def scene(seed, frames, noise=2.0):
    """A picture that drifts by a sample a frame."""
    rng = np.random.default_rng(seed)
    wide = np.repeat(np.repeat(rng.integers(0, 256, (4, 10)), 12, 0), 12, 1).astype(float)
    views = [wide[:, t : t + 60] for t in range(frames)]
    return [np.clip(view + rng.normal(0, noise, view.shape), 0, 255).astype(np.uint8) for view in views]


def cuts(frames):
    finder = CutFinder(255)
    for frame in frames:
        finder.add(frame)
    return finder.cuts()


def test_a_cut_is_found_where_it_is():
    assert cuts(scene(0, 20) + scene(1, 20)) == [20]


def test_cuts_near_the_ends_and_near_each_other_are_found():
    assert cuts(scene(0, 2) + scene(1, 5) + scene(2, 30) + scene(3, 1)) == [2, 7, 37]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length):
    frames = scene(0, 30)
    for flash in range(length):
        frames[12 + flash] = np.full_like(frames[0], 255)
    assert cuts(frames) == []


def test_motion_and_noise_are_no_cuts():
    assert cuts(scene(0, 60, noise=15)) == []
    assert cuts([np.full((20, 30), 4 * t, np.uint8) for t in range(60)]) == []


def test_a_still_clip_and_one_frame_have_no_cuts():
    still = np.zeros((9, 7), np.uint8)
    assert cuts([still] * 20) == [] and cuts([still]) == []


def test_a_thumbnail_holds_means_at_the_edges_too():
    plane = np.arange(6 * 9, dtype=np.uint16).reshape(6, 9)
    small = thumbnail(plane)
    assert small.shape == (2, 3)
    assert small[0, 0] == plane[:4, :4].mean() and small[1, 2] == plane[4:, 8:].mean()


@given(st.data(), st.integers(1, 700), st.integers(1, 2**25))
def test_groups_begin_at_cuts_and_are_neither_too_long_nor_needlessly_short(data, frames, luma):
    found = sorted(data.draw(st.sets(st.integers(1, max(1, frames - 1)), max_size=5))) if frames > 1 else []
    starts, most = group_starts(frames, found, luma), most_frames(luma)
    lengths = np.diff([*starts, frames])
    assert starts[0] == 0 and set(found) <= set(starts) and LEAST_FRAMES <= most <= MOST_FRAMES
    assert lengths.min() >= 1 and lengths.max() <= most
    for begin, end in zip([0, *found], [*found, frames], strict=True):
        inside = [n for start, n in zip(starts, lengths, strict=True) if begin <= start < end]
        assert len(inside) == -(-(end - begin) // most) and max(inside) - min(inside) <= 1


@pytest.mark.parametrize(("height", "width", "frames"), [(144, 176, 64), (720, 1280, 32), (1080, 1920, 32), (1440, 2560, 18), (2160, 3840, 8)])
def test_frames_of_usual_sizes(height, width, frames):
    assert most_frames(height * width) == frames


@pytest.mark.parametrize(("height", "width", "frames"), [(144, 176, 64), (720, 1280, 32), (1080, 1920, 16), (1440, 2560, 9), (2160, 3840, 8)])
def test_groups_of_a_pyramid_are_not_cut_into_parts(height, width, frames):
    assert most_frames(height * width, 1 << 25) == frames
    assert np.diff(group_starts(200, [], height * width, 1 << 25)).max() <= frames
