"""Clips of moving cameras from samples to bytes and back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import inrcodec
from inrcodec import OptionError
from inrcodec.options import EncodeOptions, PyramidOptions
from inrcodec.systems import stilled as module
from inrcodec.systems.base import Task
from inrcodec.systems.pyramid import PyramidSystem
from inrcodec.systems.stilled import with_still_frames
from inrcodec_formats.container.header import Quality
from inrcodec_kernels.backend import Backend, choose
from samples import panned, psnr_db, scan, tissue

SMALL = {"levels": 5, "context": 8, "synthesis": (4, 4), "warm_start": False}


def encode(clip: np.ndarray, motion: Any = "auto", **choices: Any) -> bytes:
    options = PyramidOptions(**SMALL)
    given = {"effort": 1, "method": "pyramid", "axes": "tyx", "bits_per_voxel": 0.5, "pyramid": options, "motion": motion} | choices
    return inrcodec.encode(clip, **given)  # type: ignore[no-any-return]


def plainly(clip: np.ndarray, method: str, **choices: Any) -> bytes:
    """By a method without options."""
    return inrcodec.encode(clip, **{"effort": 3, "axes": "tyx", "method": method} | choices)  # type: ignore[no-any-return]


def task_of(clip: np.ndarray, options: EncodeOptions, backend: Backend | None = None) -> Task:
    there = choose("cpu") if backend is None else backend
    return Task(clip, 0, 255, options, there, lambda *_: None, lambda _, work: work(), clip=True)


def moving(blob: bytes) -> bool:
    return "still_frames" in inrcodec.info(blob).details


def test_motion_of_a_pan_pays() -> None:
    clip = panned((6, 48, 64), 3.4)
    blobs = {wish: encode(clip, wish, bits_per_voxel=None, psnr_db=30) for wish in ("auto", False)}
    assert moving(blobs["auto"]) and not moving(blobs[False])
    found = {wish: inrcodec.decode(blob).samples for wish, blob in blobs.items()}
    assert all(psnr_db(clip, samples) >= 30 for samples in found.values())
    assert len(blobs["auto"]) < 0.75 * len(blobs[False])
    with inrcodec.open(blobs["auto"]) as image:
        np.testing.assert_array_equal(image[2:5, 7:30, 20:61], found["auto"][2:5, 7:30, 20:61])


@pytest.mark.parametrize("method", ["tinc", "sci"])
def test_still_frames_are_coded_by_every_method(method: str) -> None:
    clip = panned((6, 48, 64), 3.4)
    blobs = {wish: plainly(clip, method, motion=wish, bits_per_voxel=1) for wish in ("auto", False)}
    assert moving(blobs["auto"]) and not moving(blobs[False])
    assert all(0.9 * clip.size / 8 <= len(blob) <= clip.size / 8 for blob in blobs.values())
    found = {wish: inrcodec.decode(blob).samples for wish, blob in blobs.items()}
    assert psnr_db(clip, found["auto"]) > psnr_db(clip, found[False]) + 3
    with inrcodec.open(blobs["auto"]) as image:
        np.testing.assert_array_equal(image[2:5, 7:30, 20:61], found["auto"][2:5, 7:30, 20:61])
        assert image.read(scale=0.5).shape == (3, 24, 32)


def test_a_psnr_is_that_of_frames() -> None:
    clip = panned((6, 48, 64), 3.4)
    report = inrcodec.encode(clip, psnr_db=38, axes="tyx", effort=3, method="tinc")
    assert moving(report) and 38 <= psnr_db(clip, inrcodec.decode(report).samples) <= 38.3


def test_a_region_of_moving_frames_gains_by_tinc() -> None:
    clip, place = panned((6, 48, 64), 3.4), (slice(12, 36), slice(16, 48))
    psnrs = []
    for region in (None, place):
        blob = plainly(clip, "tinc", region=region, emphasis=region and 32.0, bits_per_voxel=0.7)
        assert moving(blob)
        psnrs.append(psnr_db(clip[:, *place], inrcodec.decode(blob).samples[:, *place]))
    assert psnrs[1] > psnrs[0] + 0.5


def test_restored_samples_are_those_of_frames() -> None:
    """The network corrects frames, not still ones: every way to ask for them gives the same."""
    plane = tissue((1, 120, 220))[0]
    clip = np.stack([plane[4:100, 3 * t : 3 * t + 160] for t in range(12)])
    blob = plainly(clip, "tinc", bits_per_voxel=0.2, effort=5)
    assert moving(blob)
    with inrcodec.open(blob) as image:
        assert image.restorer is not None
        expected = image[...]
        np.testing.assert_array_equal(image[3:5, 17:60, 20:61], expected[3:5, 17:60, 20:61])
        np.testing.assert_array_equal(np.concatenate(list(image.slabs())), expected)
        assert image.sample(np.array([[4, 20, 30]])) == pytest.approx(float(expected[4, 20, 30]), abs=0.51)


@pytest.mark.parametrize("kind", ["bits_per_voxel", "ratio", "psnr_db"])
def test_the_less_is_asked_for_the_less_displacements_take(kind: Any) -> None:
    clip = panned((6, 96, 128), 3.4)
    values = {"bits_per_voxel": (2, 0.01), "ratio": (4, 800), "psnr_db": (45, 20)}[kind]
    moved = [with_still_frames(task_of(clip, EncodeOptions(Quality(kind, value), motion=True))).moving for value in values]
    assert moved[0] is not None and moved[1] is not None
    assert len(moved[1].section.data) < 0.8 * len(moved[0].section.data)


def test_motion_that_is_not_worth_its_bits_stays_off() -> None:
    """Frames of noise that lie elsewhere each time: where hardly a bit is left for them, displacements would take most."""
    plane = np.random.default_rng(0).integers(0, 255, (1, 90, 140)).astype(np.uint8)[0]
    clip = np.stack([plane[y : y + 64, x : x + 96] for y, x in np.random.default_rng(1).integers(0, 26, (6, 2))])
    moved = {bits: with_still_frames(task_of(clip, EncodeOptions(Quality("bits_per_voxel", bits)))).moving for bits in (3.0, 0.01)}
    assert moved[3.0] is not None and moved[0.01] is None


def test_frames_of_too_many_samples_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, options = panned((6, 48, 64), 3.4), EncodeOptions(Quality("ratio", 8.0))
    monkeypatch.setattr(module, "_MOST_SAMPLES", clip.size - 1)
    assert with_still_frames(task_of(clip, options)).moving is None
    with pytest.raises(OptionError, match=f"at most {clip.size - 1} samples for motion=True, found {clip.size}"):
        with_still_frames(task_of(clip, replace(options, motion=True)))


def test_what_no_frame_sees_counts_for_less() -> None:
    clip = panned((6, 48, 64), 3.4)
    task = with_still_frames(task_of(clip, EncodeOptions(Quality("ratio", 8.0))))
    assert task.moving is not None and task.region is not None and task.options.region is None
    weights = task.region.weights(task.volume.shape)
    assert set(np.unique(weights)) == {np.float32(1 / 8), np.float32(1)}
    np.testing.assert_array_equal(weights == 1, task.moving.known)
    assert task_of(clip, EncodeOptions(Quality("ratio", 8.0))).region is None


def test_displacements_count_for_the_size() -> None:
    clip = panned((6, 48, 48), 2.5)
    blob = encode(clip, bits_per_voxel=2)
    assert moving(blob) and 0.8 * clip.size / 4 <= len(blob) <= clip.size / 4


def test_a_region_of_moving_frames_gains() -> None:
    """Though it is elsewhere in every still frame."""
    clip, place = panned((6, 48, 64), 3.4), (slice(12, 36), slice(16, 48))
    psnrs = []
    for region in (None, place):
        blob = encode(clip, region=region, emphasis=region and 32.0, bits_per_voxel=1)
        assert moving(blob)
        psnrs.append(psnr_db(clip[:, *place], inrcodec.decode(blob).samples[:, *place]))
    assert psnrs[1] > psnrs[0] + 2


def test_a_psnr_is_that_of_the_region_of_moving_frames() -> None:
    clip, place = panned((6, 48, 64), 3.4), (slice(12, 36), slice(16, 48))
    blob = encode(clip, bits_per_voxel=None, psnr_db=30, region=place, emphasis=math.inf)
    rest = (clip - inrcodec.decode(blob).samples.astype(int))[:, *place]
    assert moving(blob)
    assert 30 <= 10 * math.log10(float(np.ptp(clip)) ** 2 / np.square(rest).mean()) <= 30.2


def test_slices_of_volumes_move_only_when_asked_to() -> None:
    slices = panned((6, 48, 48), 2.5)
    assert not moving(encode(slices, axes="zyx", bits_per_voxel=2))
    assert moving(encode(slices, True, axes="zyx", bits_per_voxel=2))


def test_displaced_frames_are_fitted_on_the_cpu() -> None:
    clip, options = panned((6, 48, 48), 2.5), EncodeOptions(Quality("ratio", 8.0), method="pyramid")
    there = Backend("triton", "cuda")
    for moves in (True, False):
        wish = replace(options, motion=moves)
        system = PyramidSystem(with_still_frames(task_of(clip, wish, there)))
        assert (system.backend == there) is not moves
        assert not moves or "on the CPU" in system.backend.reason


def test_what_cannot_move_is_refused() -> None:
    with pytest.raises(OptionError, match="3 axes without channels"):
        encode(scan((40, 40), "uint8"), True, axes="yx")
    with pytest.raises(OptionError, match="True, False or 'auto'"):
        encode(panned((6, 48, 48), 2.5), "always")
