"""What is found out about a clip before it is coded, once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import inrcodec
from inrcodec.clips.stream import Part
from inrcodec.clips.survey import Survey, groups
from inrcodec.fitting import motion
from inrcodec.fitting.spread import Spread
from inrcodec.region import Region
from inrcodec_formats.video.header import ClipHeader
from samples import panned

from .cases import FAST, clip_header, signal_of

LUMA, CHROMA = Part("Y", (0,)), Part("UV", (1, 2))
MOVING = panned((6, 48, 64), 3.4)
PLANES = (MOVING, MOVING[:, ::2, ::2], MOVING[:, ::2, ::2])


def surveyed(planes: tuple[np.ndarray, ...], wish: bool | str = "auto", regions: dict[tuple[int, ...], Region] | None = None) -> Survey:
    survey = Survey([CHROMA, LUMA], wish, regions or {})
    survey.add(planes)
    return survey


def test_luma_that_moves_is_measured_on_still_frames() -> None:
    moved, left = surveyed(PLANES), surveyed(PLANES, False)
    assert moved.motion[0] is not None and left.motion == [None]
    assert moved.spreads[1].bits(8.0) < 0.6 * left.spreads[1].bits(8.0) == 0.6 * Spread.of(MOVING).bits(8.0)
    for survey in (moved, left):
        assert survey.spreads[0].bits(8.0) == Spread.of(np.stack(PLANES[1:])).bits(8.0)


def test_only_what_lies_around_a_region_is_measured() -> None:
    place = (slice(12, 36), slice(16, 48))
    survey = surveyed(PLANES, regions={(48, 64): Region(place)})
    assert survey.motion[0] is not None
    assert survey.spreads[1].bits(8.0) == Spread.of(MOVING[:, *place]).bits(8.0)


def test_planes_of_one_part_do_not_move() -> None:
    survey = Survey([Part("GBR", (0, 1, 2))], "auto", {})
    survey.add((MOVING, MOVING, MOVING))
    assert survey.motion == [None] and len(survey.spreads) == 1
    # Channels that are alike cost once.
    assert survey.spreads[0].bits(8.0 * 3**0.5) == pytest.approx(Spread.of(MOVING).bits(8.0), rel=0.05)


@pytest.mark.parametrize("still", [True, False])
def test_frames_are_registered_once(still: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    find = motion.find_motion
    monkeypatch.setattr(motion, "find_motion", lambda volume, **others: found.append(len(volume)) or find(volume, **others))
    luma = np.repeat(MOVING[:1], 6, 0) if still else MOVING
    planes = luma, *(np.repeat(luma[:1, ::2, ::2], 6, 0) for _ in range(2))
    inrcodec.encode(signal_of(clip_header(6, 48, 64), planes), bits_per_voxel=1, **FAST)
    assert found == ([] if still else [6])


def test_groups_hold_all_frames_in_order() -> None:
    class Frames:
        header: ClipHeader = clip_header(7, 24, 32)

        def frames(self) -> Iterator[tuple[np.ndarray, ...]]:
            for t in range(7):
                yield tuple(np.full(shape, t, np.uint8) for shape in self.header.plane_shapes)

    found = list(groups(Frames(), [0, 3, 4]))  # type: ignore[arg-type]
    assert [group[0][:, 0, 0].tolist() for group in found] == [[0, 1, 2], [3], [4, 5, 6]]
    assert all(tuple(plane.shape[1:] for plane in group) == Frames.header.plane_shapes for group in found)
