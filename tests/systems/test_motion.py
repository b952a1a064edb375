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
from inrcodec.systems.base import Task
from inrcodec.systems.pyramid import PyramidSystem
from inrcodec_formats.container.header import Quality
from inrcodec_kernels.backend import Backend
from samples import panned, psnr_db, scan

SMALL = {"levels": 5, "context": 8, "synthesis": (4, 4), "warm_start": False}


def encode(clip: np.ndarray, motion: Any = "auto", **choices: Any) -> bytes:
    options = PyramidOptions(**SMALL, motion=motion)
    given = {"effort": 1, "method": "pyramid", "axes": "tyx", "bits_per_voxel": 0.5, "pyramid": options} | choices
    return inrcodec.encode(clip, **given)  # type: ignore[no-any-return]


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
        wish = replace(options, pyramid=PyramidOptions(motion=moves))
        task = Task(clip, 0, 255, wish, there, lambda *_: None, lambda _, work: work(), clip=True)
        system = PyramidSystem(task)
        system._stilled()
        assert (system.backend == there) is not moves
        assert not moves or "on the CPU" in system.backend.reason


def test_what_cannot_move_is_refused() -> None:
    with pytest.raises(OptionError, match="3 axes without channels"):
        encode(scan((40, 40), "uint8"), True, axes="yx")
    with pytest.raises(OptionError, match="True, False or 'auto'"):
        PyramidOptions(motion="always")  # type: ignore[arg-type]
