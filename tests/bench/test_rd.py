"""The runner and its report: rows at once, nothing measured twice, failures told, winners named."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Picture

from bench import rd
from bench.__main__ import main
from bench.peers import make_peer
from bench.report import curves_of, headline, latest, summaries, write_report
from bench.signals import SignalReadError, load_signal
from bench.store import Store

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["rd", "--signals", "synthetic:16", "--peers", "sperr,sz3", "--methods", "", "--rates", "0.5,1,2", "--jobs", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one small run."""
    for module in ("imagecodecs", "bjontegaard", "matplotlib"):
        pytest.importorskip(module, reason=f"needs {module}")
    out = tmp_path_factory.mktemp("rd")
    assert main([*ARGUMENTS, "--out", str(out)]) == 0
    return out


def rows_in(folder: Path) -> list[dict[str, str]]:
    with open(folder / "rd.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_rows_report_and_pictures(folder: Path) -> None:
    rows = rows_in(folder)
    assert [(r["peer"], r["target"]) for r in sorted(rows, key=lambda r: (r["peer"], float(r["target"])))] == [
        (peer, target) for peer in ("sperr", "sz3") for target in ("0.5", "1", "2")
    ]
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert abs(float(row["bits_per_voxel"]) / float(row["target"]) - 1) < 0.25
        assert float(row["bits_per_voxel"]) == pytest.approx(8 * int(row["bytes"]) / 16**3, rel=1e-5)
        assert row["commit"] and row["version"] and row["mapping"] and row["fingerprint"]
    for name in ("rd.md", "rd_summary.png", "rd_synthetic_16.png"):
        assert (folder / name).stat().st_size > 500
    text = (folder / "rd.md").read_text()
    assert "SPERR 3-D" in text.splitlines()[2]
    assert "Command: `python -m bench rd --signals synthetic:16" in text and "CPU:" in text and str(folder) not in text


def test_the_same_command_measures_nothing_twice(folder: Path) -> None:
    before = (folder / "rd.csv").read_bytes()
    assert main([*ARGUMENTS, "--out", str(folder)]) == 0
    assert (folder / "rd.csv").read_bytes() == before


def test_only_what_is_missing_is_planned(folder: Path) -> None:
    store = Store(folder / "rd.csv", rd.COLUMNS, rd.KEY)
    curves = rd.plan(["synthetic:16"], ["sperr", "sz3"], (0.5, 1.0, 3.0), (), store, print)
    assert [(c.peer.spec, c.targets) for c in curves] == [("sperr", [3.0]), ("sz3", [3.0])]
    assert sorted(rate for _, rate in curves[1].known) == sorted(
        float(r["bits_per_voxel"]) for r in rows_in(folder) if r["peer"] == "sz3"
    )


def test_another_commit_is_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rd, "commit_of", lambda sources: "feedc0ffee")
    store = Store(folder / "rd.csv", rd.COLUMNS, rd.KEY)
    assert [c.targets for c in rd.plan(["synthetic:16"], ["sperr"], (0.5,), (), store, print)] == [[0.5]]


def test_a_child_that_dies_is_reported_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "rd.csv", rd.COLUMNS, rd.KEY)
    (curve,) = rd.plan(["synthetic:16"], ["tinc"], (), (64, 32), store, print)
    killed = [sys.executable, "-c", "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"]
    pipe = subprocess.PIPE
    monkeypatch.setattr(rd, "start_child", lambda *_: subprocess.Popen(killed, stdout=pipe, stderr=pipe, text=True))
    told: list[dict[str, object]] = []
    rd.Runner(store, 1, told.append).run([curve])
    assert [row["status"] for row in store.rows] == ["failed", "failed"] and len(told) == 2
    assert "killed by signal 11" in store.rows[0]["reason"] and "last words" in store.rows[0]["reason"]


def test_a_peer_that_raises_fails_alone() -> None:
    from bench.curve import curve_rows

    class Broken(type(make_peer("sperr"))):  # type: ignore[misc]
        def encode(self, signal, quality):
            if quality > 1:
                raise RuntimeError("no\nmemory")
            return super().encode(signal, quality)

    pytest.importorskip("imagecodecs")
    rows = list(curve_rows(Broken(), load_signal("synthetic:16"), [2.0, 0.5], {}))
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[1]["reason"] == "RuntimeError: no memory"


def test_a_rate_below_the_floor_is_unreachable() -> None:
    pytest.importorskip("imagecodecs")
    from bench.curve import curve_rows

    rows = list(curve_rows(make_peer("jpegls"), load_signal("synthetic:16"), [0.0001], {}))
    assert rows[0]["status"] == "unreachable" and "nearest rate" in rows[0]["reason"]


def test_what_a_codec_cannot_take_is_stored_as_unsupported(tmp_path: Path) -> None:
    clip = ROOT.parent / "shared" / "data" / "control_carphone_qcif.mp4"
    if not clip.exists():
        pytest.skip("needs the development data's clips")
    pytest.importorskip("av")
    store = Store(tmp_path / "rd.csv", rd.COLUMNS, rd.KEY)
    assert rd.plan([str(clip)], ["siren"], (), (), store, print) == []
    assert [(r["status"], r["reason"]) for r in store.rows] == [("unsupported", "no clips")]


def test_a_missing_package_skips_its_peers_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    store, said = Store(tmp_path / "rd.csv", rd.COLUMNS, rd.KEY), []
    assert rd.plan(["synthetic:16"], ["x265", "sperr"], (), (), store, said.append) == []
    assert said[0] == "skipped x265: needs av, not installed; pip install av"
    assert said[1].startswith("skipped sperr: needs imagecodecs")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "nope"], "expected one of x265"),
        (["--peers", "x265:warp"], "expected slow"),
        (["--signals", "absent.nii.gz"], "expected a file"),
        (["--signals", "synthetic:7"], "edge of 8 to 1024"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["rd", "--out", str(tmp_path), "--methods", ""]
    base += [] if "--signals" in arguments else ["--signals", "synthetic:16"]
    assert main([*base, *arguments]) == 2
    found = capsys.readouterr().err
    assert words in found and found.count("\n") == 1


def test_an_unreadable_signal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"not a volume")
    (tmp_path / "b.mp4").write_bytes(b"not a clip" * 100)
    for name in ("a.nii.gz", "b.mp4"):
        with pytest.raises(SignalReadError) as caught:
            load_signal(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


def made_row(signal: str, peer: str, rate: float, psnr: float, **more: str) -> dict[str, str]:
    row = dict.fromkeys(rd.COLUMNS, "") | {"signal": signal, "kind": "volume", "shape": "8x8x8", "peer": peer, "status": "ok"}
    row |= {"target": f"{rate:g}", "bits_per_voxel": f"{rate:g}", "psnr_db": f"{psnr:g}", "bytes": "9", "max_abs_error": "1"}
    return row | more


def made_rows() -> list[dict[str, str]]:
    rows = []
    for number in range(8):
        rate = 2.0 ** (number - 6)
        rows.append(made_row("a", "x265:slow", rate, 30 + 3 * number))
        rows.append(made_row("a", "tinc", rate, 28 + 3 * number))
        rows.append(made_row("b", "x265:slow", rate, 30 + 3 * number))
        rows.append(made_row("b", "tinc", rate, 33 + 3 * number))
        rows.append(made_row("labels_neurons_fibsem", "tinc", rate, 60 + 3 * number))
        rows.append(made_row("labels_neurons_fibsem", "x265:slow", rate, 20 + 3 * number))
    return rows


def test_the_first_lines_say_who_wins_also_when_it_is_not_us() -> None:
    rows = made_rows()
    lines = headline(curves_of(rows), {row["signal"]: row["kind"] for row in rows})
    assert "HEVC (x265), slow on a" in lines[0] and "inrcodec TINC on b" in lines[0]
    assert "labels" not in "".join(lines)
    # 2 dB behind and 3 dB ahead at 3 dB an octave: 2/3 of an octave more, one less, on average 1/6 less.
    assert f"{1 - 2 ** (-1 / 6):.0%} fewer bytes than HEVC (x265), slow" in lines[-1]


def test_the_report_leaves_nothing_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = made_rows()
    rows.append(made_row("a", "sz3", 0.01, 1, status="unreachable", reason="nearest rate is 1"))
    rows.append(made_row("a", "zfp", 0.01, 1, status="failed", reason="ValueError: odd"))
    rows.append(made_row("b", "svtav1:2", 0.01, 1, status="unsupported", reason="no yuv444p", target=""))
    text = write_report(tmp_path, rows, ["python -m bench rd"]).read_text()
    assert "- unreachable: a, SZ3 at 0.01 bits/voxel" in text
    assert "- failed: a, ZFP at 0.01 bits/voxel: ValueError: odd" in text
    assert "- unsupported: b, AV1 (SVT-AV1), preset 2: no yuv444p" in text


def test_the_summary_has_every_method_of_ours(tmp_path: Path) -> None:
    """Also one that was measured on fewer signals; the average leaves label maps out."""
    pytest.importorskip("bjontegaard")
    pytest.importorskip("matplotlib")
    rows = made_rows() + [made_row("b", "pyramid", 2.0 ** (number - 6), 36 + 3 * number) for number in range(8)]
    kinds = dict.fromkeys(("a", "b", "labels_neurons_fibsem"), "volume")
    tinc, pyramid = summaries(curves_of(rows), kinds)
    assert (tinc.method, pyramid.method) == ("inrcodec TINC", "inrcodec pyramid")
    assert tinc.signals == ["a", "b", "labels_neurons_fibsem", "average"] and pyramid.signals == ["b", "average"]
    # Three decibels are an octave of the rate here.
    assert tinc.values[0][0] == pytest.approx(2 ** (2 / 3) - 1, abs=1e-3) and tinc.values[0][1] == pytest.approx(0.5 - 1, abs=1e-3)
    assert pyramid.values == [[pytest.approx(0.25 - 1, abs=1e-3)] * 2]
    write_report(tmp_path, rows, [])
    with Picture.open(tmp_path / "rd_summary.png") as both:
        write_report(tmp_path, made_rows(), [])
        with Picture.open(tmp_path / "rd_summary.png") as alone:
            assert both.height > 1.5 * alone.height
    assert summaries({}, {}) == []


def test_clips_have_frames_a_second_where_volumes_have_seconds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed = {"encode_s": "24", "decode_s": "0.5"}
    rows = [made_row("a", "tinc", 0.5, 30, **speed), made_row("c", "tinc", 0.5, 30, kind="clip", shape="120x8x8", **speed)]
    volume, clip = write_report(tmp_path, rows, []).read_text().split("## c, 120x8x8")
    assert "| encode s | decode s |" in volume and "| 24.0 | 0.50 |" in volume
    assert "| encode frames/s | decode frames/s |" in clip and "| 5 | 240 |" in clip


def test_a_remeasured_row_replaces_the_old_one() -> None:
    old, new = made_row("a", "sz3", 1.0, 30, commit="1"), made_row("a", "sz3", 1.0, 31, commit="2")
    assert latest([old, new]) == [new]


def test_of_two_orders_of_a_series_the_better_is_kept() -> None:
    rows = []
    for number in range(5):
        rows.append(made_row("s", "x265:slow", 2.0**-number, 40 - 3 * number, settings="order=tz"))
        rows.append(made_row("s", "x265:slow", 2.0**-number, 44 - 3 * number, settings="order=zt"))
    assert curves_of(rows)["s"]["x265:slow"].settings == "order=zt"
