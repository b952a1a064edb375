"""Comparing clips: PSNR by plane, SSIM, the picture, and VMAF's way through FFmpeg."""

import re
from dataclasses import replace

import av
import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

import inrcodec
from clips.cases import FAST, clip_file, clip_header, clip_signal, moving, psnr_of, signal_of
from inrcodec.clips import vmaf as vmaf_module
from inrcodec.clips.vmaf import program_with, through_filter, through_program, vmaf
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
    if "libvmaf" in av.filter.filters_available or program_with("libvmaf"):
        assert 0 <= report.vmaf <= 100 and report.vmaf_reason is None
    else:
        assert report.vmaf is None and "libvmaf" in report.vmaf_reason


def test_better_copies_have_a_higher_vmaf():
    """Of frames large enough that their details count."""
    if not program_with("libvmaf"):
        pytest.skip("no ffmpeg with libvmaf: pip install imageio-ffmpeg")
    header, scores = clip_header(frames=4, height=144, width=176), []
    original = moving(header)
    for width in (1, 5, 15):
        copy = tuple(uniform_filter1d(plane, width, axis=-1) for plane in original)
        score, reason = vmaf(in_pairs(original, copy), header)
        assert reason is None
        scores.append(score)
    assert 95 < scores[0] <= 100 and scores[0] > scores[1] + 3 > scores[2] + 6


def in_pairs(original, decoded):
    return zip(zip(*original, strict=True), zip(*decoded, strict=True), strict=True)


@pytest.mark.parametrize("way", ["PyAV", "program"])
@pytest.mark.parametrize(("pixel_format", "height", "width"), [("yuv420p", 24, 32), ("yuv420p", 23, 35), ("yuv422p10le", 24, 33)])
def test_frames_reach_a_filter_that_compares_whole_and_in_order(way, pixel_format, height, width, tmp_path):
    """By FFmpeg's filter psnr, which every build has: the same way as VMAF's."""
    header = clip_header(frames=5, height=height, width=width, pixel_format=pixel_format)
    original, decoded = moving(header), moving(header, seed=1)
    arguments = header, "psnr", f"stats_file={tmp_path / 'log'}"
    if way == "PyAV":
        through_filter(in_pairs(original, decoded), *arguments)
    elif program := program_with("psnr"):
        assert through_program(program, in_pairs(original, decoded), *arguments, str(tmp_path)) == ""
    else:
        pytest.skip("no ffmpeg program: pip install imageio-ffmpeg")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 5
    for line, (y, *_), (other, *_) in zip(lines, zip(*original, strict=True), zip(*decoded, strict=True), strict=True):
        error = np.square(y.astype(float) - other).mean()
        assert float(re.search(r"mse_y:(\S+)", line)[1]) == pytest.approx(error, abs=0.006)


SCORED = '{"pooled_metrics": {"vmaf": {"min": 70.5, "mean": 81.25}}}'


@pytest.mark.parametrize("lines", ["exit 0", "echo no such option >&2; exit 3", "exit 3", "cat > /dev/null; echo late >&2; exit 3", "cat > /dev/null; rm vmaf.json"])
def test_a_program_that_fails_is_told_and_all_frames_are_measured(lines, monkeypatch, tmp_path):
    """Though it reads none of the frames, or all of them, and whatever it leaves behind."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho '{SCORED}' > vmaf.json\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setattr(av.filter, "filters_available", set())
    monkeypatch.setattr(vmaf_module, "program_with", lambda name: str(program))
    header = clip_header(frames=9, height=120, width=160)  # more than a pipe holds
    pairs = in_pairs(moving(header), moving(header, seed=1))
    score, reason = vmaf(pairs, header)
    assert score is None and reason.startswith(f"{program} failed: ") and "\n" not in reason and len(reason) > len(f"{program} failed: ")
    assert next(pairs, None) is None


def test_without_any_ffmpeg_that_has_it_the_way_to_one_is_told(pair, monkeypatch):
    monkeypatch.setattr(av.filter, "filters_available", set())
    monkeypatch.setattr(vmaf_module, "program_with", lambda name: None)
    report = inrcodec.compare(*pair)
    assert report.vmaf is None and "pip install imageio-ffmpeg" in report.vmaf_reason and report.frames == 5


def test_programs_that_cannot_be_run_are_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(vmaf_module, "_packaged", lambda: str(tmp_path / "missing"))
    assert program_with.__wrapped__("psnr") is None


def test_vmaf_reads_what_the_filter_writes(pair, monkeypatch):
    def filtered(pairs, header, name, arguments):
        assert name == "libvmaf" and len(list(pairs)) == 1
        path = re.fullmatch(r"log_fmt=json:log_path=(.*)", arguments)[1]
        with open(path, "w", encoding="utf-8") as log:
            log.write(SCORED)

    monkeypatch.setattr(av.filter, "filters_available", {"libvmaf"})
    monkeypatch.setattr(vmaf_module, "through_filter", filtered)
    assert vmaf(iter([((), ())]), clip_header()) == (81.25, None)
