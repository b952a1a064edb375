"""Large signals as parts of one stream, from samples to bytes and back: targets met, and memory bounded by a part."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inrcodec
from inrcodec import OptionError
from inrcodec.fitting.goal import Goal
from inrcodec.options import EncodeOptions, PyramidOptions
from inrcodec.region import Region
from inrcodec.systems import PyramidSystem, Task, parted, system_for
from inrcodec.systems.parted import CodedPart, PartedPyramidSystem
from inrcodec_formats.container.header import Quality
from inrcodec_kernels.backend import choose
from samples import colours, panned, psnr_db, scan

SMALL = PyramidOptions(levels=4, context=8, synthesis=(4, 4), tile_edge=8, warm_start=False, above=0, part_samples=2200)
"""Parts of 2200 samples at most."""


def encode(volume: np.ndarray, *output: Path, **choices: Any) -> Any:
    return inrcodec.encode(volume, *output, **({"effort": 1, "method": "pyramid", "pyramid": SMALL} | choices))


SIGNALS = {
    "a plane": (scan((60, 70)), {}, ["16x70", "24x70", "20x70"]),
    "a volume": (scan((15, 16, 17), "uint8"), {}, ["8x16x17", "7x16x17"]),
    "a series": (scan((4, 8, 9, 10)), {}, ["2x8x9x10", "2x8x9x10"]),
    "channels": (colours((14, 8, 9)), {"axes": "zyxc"}, ["3x8x8x9", "3x6x8x9"]),
}
every_signal = pytest.mark.parametrize("name", SIGNALS)


@every_signal
def test_sizes_are_met(name: str, tmp_path: Path) -> None:
    volume, choices, parts = SIGNALS[name]
    report = encode(volume, tmp_path / "a.inrc", bits_per_voxel=6, **choices)
    limit = 6 * volume.size / 8
    assert 0.97 * limit <= report.bytes <= limit
    decoded = inrcodec.decode(tmp_path / "a.inrc").samples
    assert decoded.shape == volume.shape and decoded.dtype == volume.dtype
    assert report.psnr_db == pytest.approx(psnr_db(volume, decoded), abs=1e-6) and report.psnr_db > 30
    info = inrcodec.info(tmp_path / "a.inrc")
    assert info.details["signal_parts"] == parts and report.choices["signal_parts"] == len(parts)
    assert report.blocks == info.blocks and inrcodec.verify(tmp_path / "a.inrc", deep=True).ok
    with inrcodec.open(tmp_path / "a.inrc") as image:
        key = tuple(slice(n // 4, -(n // 4) or None) for n in volume.shape)
        assert np.array_equal(image[key], decoded[key])


@pytest.mark.parametrize(
    "name", ["a plane", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a volume", "a series", "channels"))]
)
def test_psnrs_are_met(name: str) -> None:
    volume, choices, _ = SIGNALS[name]
    assert 31 <= psnr_db(volume, inrcodec.decode(encode(volume, psnr_db=31, **choices)).samples) <= 31.4


def test_the_same_seed_gives_the_same_bytes_and_ratios_are_targets_too() -> None:
    volume = scan((15, 14, 12))
    assert volume.size > SMALL.part_samples
    blob = encode(volume, ratio=1.5)
    assert blob == encode(volume.copy(order="F"), ratio=1.5) and 0.97 * volume.nbytes / 1.5 <= len(blob) <= volume.nbytes / 1.5


def test_small_signals_stay_whole() -> None:
    assert "signal_parts" not in inrcodec.info(encode(scan((10, 12, 13)), bits_per_voxel=8)).details


def task(volume: np.ndarray, **choices: Any) -> Task:
    options = EncodeOptions(Quality("bits_per_voxel", 4.0), method="pyramid", effort=1, pyramid=SMALL, **choices)
    low, high = int(volume.min()), int(volume.max())
    return Task(volume, low, high, options, choose("cpu"), lambda *_: None, lambda _, work: work())


@pytest.mark.parametrize(
    ("target", "worse"),
    [
        ({"bits_per_voxel": 9}, lambda g: Goal(bits=2 * g.bits)),
        pytest.param({"psnr_db": 32}, lambda g: Goal(error=4 * g.error), marks=pytest.mark.slow),
    ],
    ids=["bits", "error"],
)
def test_targets_hold_where_the_last_part_cannot_make_up_for_the_others(
    monkeypatch: pytest.MonkeyPatch, target: dict[str, float], worse: Any
) -> None:
    """Parts take twice their share, or miss it by much: all are fitted anew for less, and the target is met all the same."""
    fitted, rounds = PartedPyramidSystem._fitted, []

    def spoilt(self: PartedPyramidSystem, number: int, goal: Goal) -> CodedPart:
        rounds.append(number)
        return fitted(self, number, goal if number == self._order[-1] else worse(goal))

    monkeypatch.setattr(PartedPyramidSystem, "_fitted", spoilt)
    volume = scan((16, 14, 11))
    blob = encode(volume, **target)
    assert len(rounds) > 2 and set(rounds) == {0, 1}, "one round of fits did not do"
    if "psnr_db" in target:
        assert 32 <= psnr_db(volume, inrcodec.decode(blob).samples) <= 32.4
    else:
        assert 0.95 * 9 * volume.size / 8 <= len(blob) <= 9 * volume.size / 8


def test_what_a_part_took_is_taken_off_and_the_last_one_alone_lands(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = scan((24, 14, 15))
    asked: list[tuple[float, int]] = []
    fitted = PartedPyramidSystem._fitted

    def watched(self: PartedPyramidSystem, number: int, goal: Goal) -> CodedPart:
        before = sum(part.bits for part in self._coded.values())
        coded = fitted(self, number, goal)
        asked.append((goal.bits + before, coded.bits))
        return coded

    monkeypatch.setattr(PartedPyramidSystem, "_fitted", watched)
    system = system_for("pyramid", task(volume))
    assert isinstance(system, PartedPyramidSystem)
    system.prepare(Goal(bits=24_000.0))
    assert len(asked) == 3 and asked[-1][0] == pytest.approx(24_000), "the last one is asked for all that is left"
    first, second = system.draft(1.0, 1.0), system.draft(1.03, 1.0)
    last = system._order[-1]
    kept = [n for n in range(3) if n != last]
    for number in kept:
        own = system._coded[number].chunks
        assert all(all(chunk in draft.chunks for chunk in own) for draft in (first, second))
    sizes = [sum(len(body) for _, body in draft.chunks) for draft in (first, second)]
    assert sizes[0] > sizes[1]


def coded(latent_bytes: int, fixed: int = 1000) -> CodedPart:
    """A part of so many bytes in one chunk, and besides."""
    return CodedPart(bytes(fixed - 24), b"", [(1, bytes(latent_bytes))], 0, 1, (8,), 0, 0.0, 1.0)


def test_the_last_part_makes_up_for_all_or_all_are_fitted_anew() -> None:
    system = PartedPyramidSystem(task(scan((24, 14, 15))))
    system._order, system._coded = [2, 0, 1], {0: coded(3000), 1: coded(4000), 2: coded(2000)}
    assert system._of_last(1.0) == 1.0
    # A tenth of all 12,000 bytes is three tenths of the last part's latents.
    assert system._of_last(1 / 0.9) == pytest.approx(4000 / 2800)
    assert system._of_last(1 / 1.1) == pytest.approx(4000 / 5200)
    assert system._of_last(1 / 0.8) is None and system._of_last(1 / 1.2) is None and system._of_last(64.0) is None


def test_a_part_that_is_far_from_its_share_is_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    system = PartedPyramidSystem(task(scan((24, 14, 15))))
    steps: list[float] = []
    sizes = iter([3.0, 1.1])

    def draft(self: PyramidSystem, step: float, pressure: float) -> Any:
        steps.append(step)

    monkeypatch.setattr(PyramidSystem, "prepare", lambda self, goal: None)
    monkeypatch.setattr(PyramidSystem, "draft", draft)
    monkeypatch.setattr(CodedPart, "of", lambda *_: CodedPart(b"", b"", [(1, bytes(int(1000 * next(sizes)) - 24))], 0, 1, (8,), 0, 0.0, 1.0))
    assert system._fitted(0, Goal(bits=8000.0)).bits == 8 * 1100
    assert steps == pytest.approx([1.0, 3.0]) and system._last_step == pytest.approx(3.0)


@pytest.mark.slow
def test_regions_are_handed_to_the_parts() -> None:
    volume = scan((24, 14, 15))
    mask = np.zeros(volume.shape, bool)
    mask[1:7, 3:9] = True
    blob = encode(volume, psnr_db=40, region=mask, emphasis=32.0)
    error = (inrcodec.decode(blob).samples.astype(float) - volume) ** 2
    inside = 10 * np.log10(np.ptp(volume.astype(float)) ** 2 / error[mask].mean())
    assert 40 <= inside <= 40.4
    assert error[8:].mean() > 2 * error[mask].mean(), "parts without any of the region are coarser"
    system = PartedPyramidSystem(task(volume, region=Region(mask[3], 8.0)))
    assert all(np.shares_memory(system._task_of(n).options.region.inside, mask) for n in range(3)), "a plane serves every part"


def test_motion_is_not_looked_for_in_parts() -> None:
    clip, options = panned((8, 40, 40), 2.5), replace(SMALL, part_samples=7000)
    blob = encode(clip, axes="tyx", bits_per_voxel=3, pyramid=options)
    assert "signal_parts" in inrcodec.info(blob).details
    with pytest.raises(OptionError, match=r"at most 7000 samples for motion=True, found 12800"):
        encode(clip, axes="tyx", bits_per_voxel=3, pyramid=options, motion=True)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(OptionError, match=r"expected at most 1024 parts of a signal, found \d+; raise part_samples"):
        encode(np.zeros((2_200_000,), np.uint8), ratio=4, pyramid=replace(SMALL, part_samples=1024))


@pytest.mark.parametrize("samples", [1023, 1 << 29, 2.0**20, True])
def test_limits_out_of_range(samples: Any) -> None:
    with pytest.raises(OptionError, match="expected part_samples to be a whole number"):
        PyramidOptions(part_samples=samples)


def peak_of_encoding(volume: np.ndarray, options: PyramidOptions) -> int:
    tracemalloc.start()
    try:
        encode(volume, bits_per_voxel=2, pyramid=options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_is_that_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many parts take no more, but for the signal and its stream; a fit of all takes as much as all."""
    monkeypatch.setattr(EncodeOptions, "pyramid_steps", 8)
    monkeypatch.setattr(parted, "size_window", lambda samples: 0.1)
    volume, part = scan((64, 40, 40)), replace(SMALL, part_samples=16 * 40 * 40)
    encode(volume[:32], bits_per_voxel=2, pyramid=part)  # compiled, and what is kept from fit to fit is there
    two, four = (peak_of_encoding(volume[:n], part) for n in (32, 64))
    whole = peak_of_encoding(volume[:32], replace(part, part_samples=32 * 40 * 40))
    assert four <= 1.05 * two + 2 * volume.nbytes
    assert whole > 1.6 * two
