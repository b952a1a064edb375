"""Which method is taken: by a short trial of every system (`method="auto"`), or where nothing is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import inrcodec
from inrcodec import TargetError, encoder
from inrcodec.fitting.goal import Goal
from inrcodec.options import EncodeOptions, PyramidOptions, SciOptions, TincOptions
from inrcodec.region import Region
from inrcodec.systems import auto
from inrcodec.systems.auto import RIVAL_SAMPLES, TRIAL_SAMPLES, has_rival, trial_part, usual, verdict
from inrcodec.systems.pyramid import PyramidSystem
from inrcodec.systems.tinc import TincSystem
from inrcodec_formats.container.header import Quality
from samples import psnr_db, scan


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 40, 50), (300, 200, 100), (2, 90, 300, 300), (3_000_000,)])
def test_the_part_is_the_middle_and_bounded(shape: tuple[int, ...]) -> None:
    volume = np.broadcast_to(np.int16(1), shape)
    part, _ = trial_part(volume)
    assert part.size <= TRIAL_SAMPLES and part.ndim == len(shape)
    assert part.shape == shape if volume.size <= TRIAL_SAMPLES else part.size > TRIAL_SAMPLES // 4


def test_the_part_is_cut_out_of_the_middle() -> None:
    volume = np.arange(4 * TRIAL_SAMPLES, dtype=np.int32)
    part, _ = trial_part(volume)
    assert part[0] - volume[0] == volume[-1] - part[-1]
    assert (np.diff(part) == 1).all()


def test_the_part_lies_around_a_region() -> None:
    volume, mask = np.arange(300 * 200 * 100).reshape(300, 200, 100), np.zeros((200, 100), bool)
    mask[180:, 90:] = True
    part, region = trial_part(volume, Region(mask))
    assert region is not None and part.size <= TRIAL_SAMPLES
    assert region.mask(part.shape).sum() > 0.9 * 20 * 10 * len(part)
    inside = np.broadcast_to(mask, volume.shape).ravel()[part]
    assert np.array_equal(region.mask(part.shape), inside)


def test_the_verdict_weighs_what_was_not_given() -> None:
    outcomes = {"tinc": (36.0, 900), "sci": (34.0, 700)}
    assert verdict(outcomes, True, (8, 9))[0] == "tinc"
    assert verdict(outcomes, False, (8, 9))[0] == "sci"
    assert "tinc 36.00 dB" in verdict(outcomes, True, (8, 9))[1] and "8x9" in verdict(outcomes, True, (8, 9))[1]


@pytest.mark.parametrize("target", [{"ratio": 12}, {"psnr_db": 32}])
def test_auto_takes_the_winner_and_says_why(target: dict[str, float], tmp_path) -> None:
    volume = scan((12, 20, 18))
    report = inrcodec.encode(volume, tmp_path / "a.inrc", method="auto", effort=2, **target)
    assert report.method == inrcodec.info(tmp_path / "a.inrc").method
    reason = report.choices["method_reason"]
    assert "tinc" in reason and "12x20x18" in reason
    alone = inrcodec.encode(volume, method=report.method, effort=2, **target)
    assert (tmp_path / "a.inrc").read_bytes() == alone


def test_the_command_line_tells_of_the_trial(tmp_path, capsys) -> None:
    from inrcodec.cli import main

    np.save(tmp_path / "v.npy", scan((12, 20, 18)))
    main(["encode", str(tmp_path / "v.npy"), str(tmp_path / "v.inrc"), "--ratio", "12", "--method", "auto", "--effort", "1"])
    assert "trial" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("choices", "method"),
    [
        ({}, None),
        ({"tinc": TincOptions(starts=1)}, "tinc"),
        ({"sci": SciOptions(blocks=3)}, "sci"),
        ({"pyramid": PyramidOptions(levels=3)}, "pyramid"),
        ({"tinc": TincOptions()}, None),
        ({"tinc": TincOptions(starts=1), "sci": SciOptions(blocks=3)}, None),
        ({"tinc": TincOptions(starts=1), "method": "auto"}, "auto"),
    ],
    ids=str,
)
def test_options_of_a_method_ask_for_it(choices: dict[str, object], method: str | None) -> None:
    assert EncodeOptions(Quality("ratio", 8.0), **choices).asked == method  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "effort", "first"),
    [
        ((8192,), 5, "pyramid"), ((20, 20, 30), 3, "pyramid"), ((8191,), 5, "tinc"),
        ((20, 20, 30), 2, "tinc"), ((2, 20, 20, 30), 5, "tinc"),
    ],
    ids=str,
)  # fmt: skip
def test_what_nobody_asked_for_depends_on_the_signal_and_on_the_effort(shape: tuple[int, ...], effort: int, first: str) -> None:
    found = usual(np.broadcast_to(np.int16(1), shape), effort)
    assert found[0] == first and found[-1] == "tinc"


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyramids are tried first, of small signals too, and refuse, as `test_pyramid.py` has them do by themselves after minutes of search."""

    def refuse(self: PyramidSystem, goal: Goal) -> None:
        raise TargetError("expected a PSNR that this signal can reach, at most 44 dB, found 90; ask for less")

    monkeypatch.setattr(PyramidSystem, "prepare", refuse)
    monkeypatch.setattr(encoder, "usual", lambda volume, effort: ("pyramid", "tinc"))


@pytest.mark.usefixtures("refusing")
def test_where_a_pyramid_cannot_reach_the_target_it_is_tinc_and_the_report_says_why(tmp_path) -> None:
    volume = scan((8, 9, 10))
    report = inrcodec.encode(volume, tmp_path / "a.inrc", psnr_db=40, effort=1)
    assert report.method == "tinc" and psnr_db(volume, inrcodec.decode(tmp_path / "a.inrc").samples) >= 40
    assert report.choices["method_reason"].startswith("pyramid: expected a PSNR that this signal can reach")
    assert (tmp_path / "a.inrc").read_bytes() == inrcodec.encode(volume, psnr_db=40, effort=1, method="tinc")


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("asked", [{"method": "pyramid"}, {"pyramid": PyramidOptions(levels=2)}], ids=str)
def test_a_pyramid_that_was_asked_for_is_not_replaced(asked: dict[str, Any]) -> None:
    with pytest.raises(TargetError, match="at most 44 dB"):
        inrcodec.encode(scan((8, 9, 10)), psnr_db=40, effort=1, **asked)


@pytest.mark.parametrize(
    ("samples", "size", "expected"),
    [
        (RIVAL_SAMPLES, RIVAL_SAMPLES // 8, True), (RIVAL_SAMPLES - 1, RIVAL_SAMPLES, False), (1 << 20, 26_214, False),
        (1 << 20, 26_215, True),
    ],
)  # fmt: skip
def test_large_streams_of_large_signals_have_a_rival(samples: int, size: int, expected: bool) -> None:
    assert has_rival(samples, size) is expected


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small signals at the least effort become pyramids, and have rivals."""
    for name, value in {"LEAST_SAMPLES": 300, "LEAST_EFFORT": 1, "RIVAL_SAMPLES": 300}.items():
        monkeypatch.setattr(auto, name, value)


SMOOTH, NOISE = np.rint(900 * np.sin(np.arange(600) / 9)).astype(np.int16), np.random.default_rng(3).integers(0, 900, 600).astype(np.int16)


@pytest.mark.usefixtures("rivals")
@pytest.mark.parametrize("target", [{"bits_per_voxel": 12}, {"psnr_db": 35}], ids=str)
@pytest.mark.parametrize("samples", [SMOOTH, NOISE], ids=["smooth", "noise"])
def test_the_better_of_a_pyramid_and_its_rival_is_kept(samples: np.ndarray, target: dict[str, float], tmp_path) -> None:
    report = inrcodec.encode(samples, tmp_path / "a.inrc", effort=1, **target)
    alone = {name: inrcodec.encode(samples, effort=1, method=name, **target) for name in ("pyramid", "tinc")}
    errors = {name: psnr_db(samples, inrcodec.decode(blob).samples) for name, blob in alone.items()}
    best = min(alone, key=lambda name: len(alone[name]) if "psnr_db" in target else -errors[name])
    assert report.method == best and (tmp_path / "a.inrc").read_bytes() == alone[best]
    told = report.choices["method_reason"]
    assert all(name in told for name in alone) and " on a part" not in told
    assert report.seconds["rival"] > 0


@pytest.mark.usefixtures("rivals")
def test_where_the_rival_cannot_reach_the_target_it_is_the_pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TincSystem, goal: Goal) -> None:
        raise TargetError("expected a target of at least 900 bytes")

    monkeypatch.setattr(TincSystem, "prepare", refuse)
    blob = inrcodec.encode(SMOOTH, bits_per_voxel=12, effort=1)
    assert blob == inrcodec.encode(SMOOTH, bits_per_voxel=12, effort=1, method="pyramid")


def test_signals_become_pyramids_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "LEAST_SAMPLES", 300)
    monkeypatch.setattr(auto, "LEAST_EFFORT", 1)
    blob = inrcodec.encode(scan((300,)), bits_per_voxel=20, effort=1)
    assert inrcodec.info(blob).method == "pyramid"


def test_what_no_method_reaches_is_refused() -> None:
    with pytest.raises(TargetError, match="expected a target of at least") as error:
        inrcodec.encode(scan((8, 9, 10)), ratio=1e6, effort=1)
    assert "\n" not in str(error.value)
