"""Clips on the command line: the same words as for volumes."""

import json

import numpy as np
import pytest

import inrcodec
from clips.cases import clip_file, clip_header
from inrcodec import cli
from inrcodec_formats.video.read import ClipReader


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip")
    clip_file(path / "in.mkv", clip_header(frames=5))
    words = ["encode", path / "in.mkv", path / "c.inrc", "--psnr-db", 30, "--effort", 1, "--no-restoration", "--quiet"]
    assert cli.main([str(word) for word in words]) == 0
    return path


def test_encode_tells_planes_and_groups(folder, capsys):
    words = ["encode", folder / "in.mkv", folder / "d.inrc", "--bits-per-voxel", 3, "--effort", 1, "--no-restoration", "--no-audio"]
    code, out, err = run(capsys, *words)
    assert code == 0 and "5 in 1 groups" in out and "UV " in out
    assert "read" in err and "frames 1 to 5 of 5, Y" in err
    code, out, _ = run(capsys, *words, "--json", "--force")
    report = json.loads(out)
    assert code == 0 and report["frames"] == 5 and set(report["psnr_parts_db"]) == {"Y", "UV"}


def test_decode_writes_all_frames_some_or_smaller_ones(folder, capsys):
    planes = inrcodec.decode(folder / "c.inrc").planes
    for name, words, picked in (("all", [], slice(None)), ("part", ["--region", "2:4"], slice(2, 4))):
        code, out, _ = run(capsys, "decode", folder / "c.inrc", folder / f"{name}.mkv", "--codec", "ffv1", *words)
        assert code == 0, out
        with ClipReader(folder / f"{name}.mkv") as clip:
            found = list(zip(*clip.frames(), strict=True))
        assert all(np.array_equal(np.stack(a), b[picked]) for a, b in zip(found, planes, strict=True))
    assert run(capsys, "decode", folder / "c.inrc", folder / "half.mkv", "--scale", 0.5)[0] == 0
    with ClipReader(folder / "half.mkv") as clip:
        assert (clip.header.height, clip.header.width, clip.header.frames) == (12, 16, 5)


def test_folders_of_pictures_are_clips(folder, capsys):
    gray = folder / "gray.mkv"
    planes = clip_file(gray, clip_header(frames=2, height=16, width=16, pixel_format="gray"))
    clip_file(folder / "pictures", clip_header(frames=2, height=16, width=16, pixel_format="gray"), planes)
    words = ["encode", folder / "pictures", folder / "g.inrc", "--psnr-db", 25, "--effort", 1, "--no-restoration"]
    assert run(capsys, *words)[0] == 0
    code, out, _ = run(capsys, "compare", gray, folder / "g.inrc", "--json")
    assert code == 0 and json.loads(out)["psnr_db"] >= 25


def test_info_verify_and_compare_know_clips(folder, capsys):
    code, out, _ = run(capsys, "info", folder / "c.inrc", "--json")
    details = json.loads(out)["details"]
    assert code == 0 and details["pixel_format"] == "yuv420p" and details["first_frames"] == [0]
    assert details["frames_per_second"] == pytest.approx(25)
    code, out, _ = run(capsys, "info", folder / "c.inrc")
    assert code == 0 and "yuv420p" in out
    code, out, _ = run(capsys, "verify", folder / "c.inrc", "--deep", "--json")
    assert code == 0 and json.loads(out)["chunks_checked"] >= 3
    code, out, _ = run(capsys, "compare", folder / "in.mkv", folder / "c.inrc", "--picture", folder / "p.png")
    assert code == 0 and "VMAF" in out and "V " in out and (folder / "p.png").stat().st_size > 5000


@pytest.mark.parametrize("region", ["2:9,3", "4:2", "::2", "9:12"])
def test_regions_that_are_no_frames_are_refused_in_a_line(folder, capsys, region):
    code, _, err = run(capsys, "decode", folder / "c.inrc", folder / "x.mkv", "--region", region)
    assert code == 2 and err.splitlines()[-1].startswith("inrcodec: expected --region of a clip as frames")


def test_a_volumes_suffix_for_a_clip_is_refused_in_a_line(folder, capsys):
    code, _, err = run(capsys, "decode", folder / "c.inrc", folder / "x.nii.gz")
    assert code == 1 and "expected a name ending in" in err and not (folder / "x.nii.gz").exists()
