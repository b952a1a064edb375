"""Real clips, where they lie beside the project: what is read is what FFmpeg decodes, and it comes back."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from formats.clips import equal, psnr
from inrcodec_formats.video import ClipReader, ColourInfo, write_clip

FOLDER = Path(os.environ.get("INRCODEC_CLIPS", Path(__file__).parents[3] / "shared" / "data"))
CLIPS = {
    "control_carphone_qcif.mp4": (120, Fraction(1, 30_000), ColourInfo(0, 2, 2, 2, 1)),
    "video_laparoscopy_720p.mp4": (74, Fraction(1, 12_800), ColourInfo(1, 1, 2, 1, 1)),
    "video_eye_surgery_1080p.mkv": (26, Fraction(1, 1000), ColourInfo(2, 5, 2, 2, 2)),
}
FEW = 3  # frames of the large clips


@pytest.mark.parametrize("name", CLIPS)
def test_a_real_clip_comes_back(tmp_path: Path, name: str) -> None:
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER}; INRCODEC_CLIPS names another folder")
    frames, time_base, colour = CLIPS[name]
    with ClipReader(FOLDER / name) as reader:
        head = reader.header
        assert (head.frames, head.time_base, head.colour, head.pixel_format) == (frames, time_base, colour, "yuv420p")
        assert reader.notes == () and reader.others() == ()
        count = frames if "carphone" in name else FEW
        whole = list(reader.frames(0, count))
        assert equal(reader.frames(frames - 2), reader.frames(-2))
    with av.open(str(FOLDER / name)) as container:
        for frame, (y, _, _) in zip(islice(container.decode(video=0), FEW), whole, strict=False):
            assert np.array_equal(y, frame.reformat(format="yuv420p").to_ndarray()[: head.height])
    step = int(head.times[1] - head.times[0])
    part = replace(head, times=head.times[:count], last_duration=step)
    for target, codec in (("a.mp4", "h264"), ("a.mkv", "ffv1")):
        write_clip(tmp_path / target, part, whole, codec=codec)
        with ClipReader(tmp_path / target) as reader:
            found = reader.header
            assert (found.frames, found.colour, found.sample_aspect) == (count, head.colour, head.sample_aspect)
            unit = Fraction(1, 2000) if target.endswith("mkv") else 0
            for new, old in zip(found.times, part.times, strict=True):
                assert abs(int(new) * found.time_base - int(old) * head.time_base) <= unit
            if codec == "ffv1":
                assert equal(reader.frames(), whole)
            else:
                assert min(psnr(a, b, 8) for a, b in zip(reader.frames(), whole, strict=True)) > 45
