"""Comparing clips: PSNR by plane, SSIM, the picture, and VMAF's way through FFmpeg."""

import re
from dataclasses import replace

import av
import numpy as np
import pytest

import inrcodec
from clips.cases import FAST, clip_file, clip_header, clip_signal, moving, psnr_of, signal_of
from inrcodec.clips import vmaf as vmaf_module
from inrcodec.clips.vmaf import through_filter, vmaf
from inrcodec.reports import json_safe
from inrcodec_formats.errors import SignalError


@pytest.fixture(scope="module")
def pair():
    signal = clip_signal(frames=5)
    rng = np.random.default_rng(0)
    changed = [np.clip(p + rng.integers(-3, 4, p.shape), 0, 255).astype(p.dtype) for p in signal.planes]
    return signal, replace(signal, planes=tuple(changed))


def test_psnr_is_over_all_planes_and_by_plane(pair):
    original, decoded = pair
    report = inrcodec.compare(original, decoded, compressed_bytes=1000)
    assert report.psnr_db == pytest.approx(psnr_of(original.planes, decoded.planes))
    for name, a, b in zip("YUV", original.planes, decoded.planes, strict=True):
        error = np.square(a.astype(float) - b).mean()
        assert report.psnr_planes_db[name] == pytest.approx(10 * np.log10(report.psnr_range**2 / error))
    assert report.ratio == sum(p.size for p in original.planes) / 1000
    assert 0.5 < report.ssim < 1 and report.max_abs_error == 3 and not report.identical and report.frames == 5
    assert json_safe(report)["psnr_planes_db"]["V"] > 30


def test_a_copy_is_identical(pair):
    report = inrcodec.compare(pair[0], pair[0])
    assert report.identical and report.psnr_db == np.inf and report.ssim == pytest.approx(1)


def test_files_and_streams_are_compared_and_drawn(tmp_path):
    planes = clip_file(tmp_path / "in.mkv", clip_header(frames=7))
    inrcodec.encode(tmp_path / "in.mkv", tmp_path / "c.inrc", bits_per_voxel=2, **FAST)
    report = inrcodec.compare(tmp_path / "in.mkv", tmp_path / "c.inrc", picture=tmp_path / "p.png")
    assert report.bytes == (tmp_path / "c.inrc").stat().st_size
    assert report.psnr_db == pytest.approx(psnr_of(planes, inrcodec.decode(tmp_path / "c.inrc").planes))
    with av.open(tmp_path / "p.png") as picture:
        drawn = next(picture.decode(video=0)).to_ndarray(format="rgb24")
    # Three rows of three pictures of 32 x 24, and an error scale in red and blue.
    assert 0.4 < drawn.shape[0] / drawn.shape[1] < 1
    assert np.ptp(drawn.astype(int), axis=2).max() > 100


def test_clips_that_differ_in_size_or_kind_are_not_compared(pair):
    original = pair[0]
    fewer = clip_header(frames=4)
    with pytest.raises(SignalError, match=r"5 frames .* and 4 frames"):
        inrcodec.compare(original, signal_of(fewer, moving(fewer)))
    with pytest.raises(SignalError, match="expected a clip"):
        inrcodec.compare(original, np.zeros((5, 32, 48), np.uint8))


def test_vmaf_is_measured_or_the_reason_is_told(pair):
    report = inrcodec.compare(*pair)
    if "libvmaf" in av.filter.filters_available:
        assert 0 <= report.vmaf <= 100
    else:
        assert report.vmaf is None and "libvmaf" in report.vmaf_reason


def test_frames_reach_a_filter_that_compares_whole_and_in_order(pair, tmp_path):
    """By FFmpeg's filter psnr, which every build has: the same way as VMAF's."""
    original, decoded = pair
    pairs = list(zip(zip(*original.planes, strict=True), zip(*decoded.planes, strict=True), strict=True))
    through_filter(iter(pairs), clip_header(frames=5), "psnr", f"stats_file={tmp_path / 'log'}")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 5
    for line, ((y, *_), (other, *_)) in zip(lines, pairs, strict=True):
        error = np.square(y.astype(float) - other).mean()
        assert float(re.search(r"mse_y:(\S+)", line)[1]) == pytest.approx(error, abs=0.006)


def test_vmaf_reads_what_the_filter_writes(pair, monkeypatch):
    def filtered(pairs, header, name, arguments):
        assert name == "libvmaf" and len(list(pairs)) == 1
        path = re.fullmatch(r"log_fmt=json:log_path=(.*)", arguments)[1]
        with open(path, "w", encoding="utf-8") as log:
            log.write('{"pooled_metrics": {"vmaf": {"min": 70.5, "mean": 81.25}}}')

    monkeypatch.setattr(av.filter, "filters_available", {"libvmaf"})
    monkeypatch.setattr(vmaf_module, "through_filter", filtered)
    assert vmaf(iter([((), ())]), clip_header()) == (81.25, None)
