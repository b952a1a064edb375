"""The pyramid from samples to bytes and back: targets met, every reader agrees, the command line knows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import inrcodec
from inrcodec import OptionError, TargetError, cli, encoder
from inrcodec.fitting.goal import Goal
from inrcodec.models.pyramid import PyramidLayout
from inrcodec.options import EncodeOptions, PyramidOptions
from inrcodec.payload.sections import MAX_STEP
from inrcodec.systems import pyramid as module
from inrcodec.systems.pyramid import PyramidSystem
from inrcodec_formats.container.header import Quality
from samples import psnr_db, scan, tissue

SMALL = PyramidOptions(levels=4, context=8, synthesis=(4, 4), tile_edge=8, warm_start=False)
"""Networks of some hundred parameters: those of the defaults would be most of a tiny stream."""


def encode(volume: np.ndarray, *output: Path, **choices: Any) -> Any:
    return inrcodec.encode(volume, *output, **({"effort": 1, "method": "pyramid", "pyramid": SMALL} | choices))


SHAPES = [(60,), (16, 20), (3, 6, 7, 8), (5, 1, 30, 1)]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stream that is good enough is taken: where only a few samples count, no search comes close to its goal."""
    monkeypatch.setattr(encoder, "PSNR_WINDOW_DB", 2000.0)


@pytest.mark.usefixtures("hasty")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_signals_of_any_axes(shape: tuple[int, ...]) -> None:
    volume = scan(shape)
    decoded = inrcodec.decode(encode(volume, psnr_db=25)).samples
    assert decoded.shape == shape and decoded.dtype == volume.dtype
    assert psnr_db(volume, decoded) >= 25
    assert decoded.min() >= volume.min() and decoded.max() <= volume.max()


@pytest.mark.parametrize("dtype", ["int8", "uint16"])
def test_sizes_are_met_for_every_dtype(dtype: str, tmp_path: Path) -> None:
    volume = scan((8, 9, 10), dtype)
    report = encode(volume, tmp_path / "a.inrc", bits_per_voxel=11)
    assert 0.9 * 11 * volume.size / 8 <= report.bytes <= 11 * volume.size / 8
    decoded = inrcodec.decode(tmp_path / "a.inrc").samples
    assert decoded.dtype == dtype
    assert report.psnr_db == pytest.approx(psnr_db(volume, decoded), abs=1e-6) and report.psnr_db > 30


@pytest.mark.parametrize("goal", [{"ratio": 2}, {"psnr_db": 33}], ids=str)
def test_every_kind_of_target(goal: dict[str, float]) -> None:
    volume = scan((9, 10, 11))
    blob = encode(volume, **goal)
    if "psnr_db" in goal:
        assert 33 <= psnr_db(volume, inrcodec.decode(blob).samples) <= 33.5
    else:
        assert 0.9 * volume.size <= len(blob) <= volume.size
    assert inrcodec.info(blob).method == "pyramid"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("value", "dtype"), [(-1000, "int16"), (7, "uint8")])
def test_constant_signals(value: int, dtype: str) -> None:
    volume = np.full((9, 9, 9), value, dtype)
    assert (inrcodec.decode(encode(volume, psnr_db=60)).samples == value).all()


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), pytest.param((2, 2, 2, 2), marks=pytest.mark.slow)], ids=str)
def test_signals_too_short_to_be_halved(shape: tuple[int, ...]) -> None:
    volume = scan(shape)
    assert psnr_db(volume, inrcodec.decode(encode(volume, psnr_db=20)).samples) >= 20


def test_one_level_is_enough() -> None:
    volume = scan((12, 14))
    blob = encode(volume, psnr_db=25, pyramid=replace(SMALL, levels=1))
    assert inrcodec.info(blob).details["lattices"] == ["12x14"]
    assert psnr_db(volume, inrcodec.decode(blob).samples) >= 25


@pytest.mark.parametrize("goal", [{"bits_per_voxel": 4}, {"psnr_db": 33}], ids=str)
@pytest.mark.parametrize(("above", "levels"), [(0, 7 + 7 + 2), (1, 7 + 3 + 1)])
def test_bands_meet_every_kind_of_target(above: int, levels: int, goal: dict[str, float], tmp_path: Path) -> None:
    """Where two of three axes are halved there are three bands."""
    volume = tissue((14, 17, 20))
    report = encode(volume, tmp_path / "a.inrc", **goal, pyramid=replace(SMALL, above=above, split=2))
    decoded = inrcodec.decode(tmp_path / "a.inrc").samples
    if "psnr_db" in goal:
        assert 33 <= psnr_db(volume, decoded) <= 33.5
    else:
        assert 0.9 * 4 * volume.size / 8 <= report.bytes <= 4 * volume.size / 8
    details = inrcodec.info(tmp_path / "a.inrc").details
    assert (report.choices["split"], details["split"], len(details["lattices"])) == (2, 2, levels)
    with inrcodec.open(tmp_path / "a.inrc") as image:
        assert np.array_equal(image[3:9, 5, ::2], decoded[3:9, 5, ::2])


def test_a_region_has_more_of_the_bands(tmp_path: Path) -> None:
    volume, inside = tissue((14, 17, 20)), np.zeros((14, 17, 20), bool)
    inside[2:9, 3:12, 4:13] = True
    options = replace(SMALL, split=2)
    found = [inrcodec.decode(encode(volume, bits_per_voxel=2.5, pyramid=options, **more)).samples for more in ({}, {"region": inside})]
    errors = [np.square(volume[inside].astype(float) - samples[inside]).mean() for samples in found]
    assert errors[1] < 0.9 * errors[0]


def test_more_room_than_needed_is_not_filled() -> None:
    volume = scan((6, 7, 8))
    assert len(encode(volume, ratio=1e-3)) < 4 * volume.nbytes


def test_a_smaller_ratio_than_one_that_is_reached_is_reached_too() -> None:
    volume = scan((9, 10, 11))
    assert len(encode(volume, ratio=1)) <= volume.nbytes


def test_a_psnr_out_of_reach_is_refused_with_what_can_be_had() -> None:
    with pytest.raises(TargetError, match=r"expected a PSNR that this signal can reach, at most \d+\.\d+ dB, found 500"):
        encode(scan((8, 9, 10)), psnr_db=500.0)


def test_sizes_out_of_reach_are_refused_with_what_can_be_had() -> None:
    with pytest.raises(TargetError, match=r"expected a target of at least \d+ bytes for this signal") as error:
        encode(scan((9, 10, 11)), ratio=100)
    assert "\n" not in str(error.value)


def test_steps_stay_such_as_a_stream_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no step makes a stream small enough, tries went further and further, to one that no decoder takes."""
    tried = []
    monkeypatch.setattr(PyramidSystem, "_fit_at", lambda self, step, goal: tried.append(step))
    monkeypatch.setattr(PyramidSystem, "_changed", lambda self, fewer: [])
    system = PyramidSystem.__new__(PyramidSystem)
    system._reached, system._goal = 1.0, Goal(bits=100.0)
    system._known, system._network_bits, system.task = {1.0: []}, 100, SimpleNamespace(section_bytes=0)  # type: ignore[assignment]
    system.fit = SimpleNamespace(step=MAX_STEP / 2, pressure=1.0, bits=lambda latents: 100.0)
    with pytest.raises(AttributeError):  # what codes the latents is not there
        system.draft(64.0, 1.0)
    assert tried == [MAX_STEP]


@pytest.mark.parametrize("fewer", [0.7, 1.0, 1.1, 3.0])
def test_a_step_is_of_all_bytes(fewer: float) -> None:
    """Networks and the container stay as they are, so that latents answer for all that is to be saved."""
    system = PyramidSystem.__new__(PyramidSystem)
    system._known, system._network_bits, system.task = {1.0: []}, 3000, SimpleNamespace(section_bytes=50)  # type: ignore[assignment]
    system.fit = SimpleNamespace(bits=lambda latents: 5000.0)  # type: ignore[assignment]
    rest = 3000 + 8 * (system.overhead_bytes + 50)
    assert (5000 + rest) / system.of_all(fewer) == pytest.approx(5000 / fewer + rest)
    assert system._of_latents_alone(system.of_all(fewer)) == pytest.approx(fewer)
    left = 5000 / system._of_latents_alone(64.0)
    assert left == pytest.approx((5000 + rest) / 64 / 16), "where less than nothing is left, a little is"


@pytest.mark.parametrize(("start", "slope"), [(0.0, 0.18), (0.1, 0.18), (0.0, 0.3), (0.06, 0.12), (-0.07, 0.18)], ids=str)
@pytest.mark.parametrize("usual", [0.18, 0.08])
@pytest.mark.parametrize("fewer", [1.05, 1.12])
def test_prices_that_were_tried_tell_the_next(start: float, slope: float, usual: float, fewer: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals answer a price in their own way, and doing the last part again alone changes its bits."""
    monkeypatch.setattr(PyramidSystem, "task", SimpleNamespace(timed=lambda name, work: work(), note=lambda name: None), raising=False)
    system, again = PyramidSystem.__new__(PyramidSystem), []

    def done_again(price: float, note: Any) -> float:
        again.append(price)
        return 1000 * 2 ** -(start + slope * np.log2(price))

    system._known = {1.0: 1000.0}
    system.fit = SimpleNamespace(bits=lambda latents: latents, again=done_again, octaves=usual)
    found = [system._at_price(system._octaves(fewer)) for _ in range(3)][-1]
    # Of sixteenths of octaves, the one that is not too dear.
    assert 0.999 < found * fewer / 1000 < 2 ** (1.01 * slope / 16)
    assert len(again) <= 3


@pytest.mark.parametrize(("fewer", "answers", "tries"), [(1.1, 0.3, 1), (1.03, 0.1, 2), (0.95, 0.3, 1), (1.1, 0.02, 2), (1.002, 0.3, 0)])
def test_what_lies_between_two_prices_is_spliced(fewer: float, answers: float, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One further price is enough where bits answer as they usually do; where they do not, what is nearest is taken."""
    monkeypatch.setattr(PyramidSystem, "task", SimpleNamespace(timed=lambda name, work: work(), note=lambda name: None), raising=False)
    system, again = PyramidSystem.__new__(PyramidSystem), []

    def latents(bits: float) -> list[np.ndarray]:
        return [np.full((1, 40, 5, 5), round(bits), np.int32)]

    def done_again(price: float, note: Any) -> list[np.ndarray]:
        again.append(price)
        return latents(1000 * 2 ** -(answers * np.log2(price)))

    system._known, system.layout = {1.0: latents(1000)}, SimpleNamespace(strides=[(1, 1, 1)])  # type: ignore[assignment, dict-item]
    system.fit = SimpleNamespace(bits=lambda y: float(y[0].mean()), again=done_again, octaves=0.2)  # type: ignore[assignment]
    found, wanted = float(system._nearest(fewer)[0].mean()), 1000 / fewer
    assert len(again) == tries
    if tries and answers >= 0.1:
        assert 0.995 * wanted < found <= wanted
    else:
        assert found == min((float(y[0].mean()) for y in system._known.values()), key=lambda size: abs(size - wanted))


@pytest.mark.parametrize(
    ("saved", "fewer", "found", "tries"),
    [
        ([12], 1.01, 988, 1), ([4, 12], 1.01, 988, 2),
        ([-3, 5, -8, 2], 1.01, 995, 4), ([-3, -5, -8, -9], 1.01, 1000, 4), ([], 1.0, 1000, 0), ([], 0.99, 1000, 0),
    ],
    ids=str,
)  # fmt: skip
def test_latents_that_take_more_bits_when_single_ones_change_stay(
    saved: list[int], fewer: float, found: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, asked = PyramidSystem.__new__(PyramidSystem), []

    def changed(latents: int, bits: float, *others: Any) -> int:
        asked.append(bits)
        return latents - saved[len(asked) - 1]

    monkeypatch.setattr(module, "trimmed", changed)
    monkeypatch.setattr(PyramidSystem, "_stream", SimpleNamespace(tiles=None))
    monkeypatch.setattr(PyramidSystem, "_nearest", lambda self, fewer: 1000)
    system._known, system._coder, system._curvature, system._disturbed = {1.0: 1000}, None, [], []  # type: ignore[assignment, dict-item]
    system.fit = SimpleNamespace(bits=lambda latents: float(latents), slopes=None)  # type: ignore[assignment]
    assert system._changed(fewer) == found
    assert len(asked) == tries and asked == sorted(asked)


@pytest.mark.parametrize(
    ("wish", "samples", "weighted", "warm"),
    [
        ("auto", 1 << 16, False, True),
        ("auto", (1 << 16) + 1, False, False),
        ("auto", 1 << 20, True, True),
        (True, 1 << 20, False, True),
        (False, 100, False, False),
    ],
)
def test_shipped_networks_serve_signals_without_lessons(wish: bool | str, samples: int, weighted: bool, warm: bool) -> None:
    system = PyramidSystem.__new__(PyramidSystem)
    system.options, system.volume = PyramidOptions(warm_start=wish), np.broadcast_to(np.int16(0), samples)  # type: ignore[arg-type]
    system._weights = np.ones(1, np.float32) if weighted else None
    name, parameters = system._shipped(PyramidLayout((40, 40, 40), ((True, True, True),) * 4, 24, (16, 16)))
    assert bool(name) == bool(parameters) == warm


@pytest.mark.parametrize(
    ("wish", "edge", "size", "networks", "context", "synthesis"),
    [
        ({}, 60, 201_000, 3, 32, (32, 16)), ({}, 40, 300_000, 3, 32, (32, 16)), ({}, 40, 199_000, 1, 32, (32, 16)), ({}, 40, 50_000, 1, 24, (16, 16)), ({}, 40, 6_000, 1, 16, (8, 8)),
        ({}, 200, 21_000, 1, 32, (32, 16)), ({}, 200, 28_000, 2, 32, (32, 16)), ({}, 200, 31_000, 3, 32, (32, 16)), ({}, 140, 40_000, 1, 32, (32, 16)),
        ({}, 200, 19_000, 1, 16, (8, 8)), ({}, 40, 100, 1, 8, (4, 4)),
        ({"networks": 8, "context": 12}, 40, 300_000, 5, 12, (32, 16)), ({"networks": 2, "synthesis": (8, 8)}, 40, 100, 2, 8, (8, 8)),
    ],
)  # fmt: skip
def test_large_streams_have_large_networks(
    wish: dict[str, Any], edge: int, size: int, networks: int, context: int, synthesis: tuple[int, int]
) -> None:
    """So have streams of large signals, whose errors are worth much."""
    system = PyramidSystem.__new__(PyramidSystem)
    system.options = PyramidOptions(**wish)
    bare = PyramidLayout((edge,) * 3, ((True, True, True),) * 4)
    found = system._sized(bare, SimpleNamespace(), Goal(bits=8.0 * size))  # type: ignore[arg-type]
    assert (found.networks, found.context, found.synthesis) == (networks, context, synthesis)
    assert found.wide == (min(size, edge**3) >= 200_000)
    system.options = PyramidOptions(**wish, wide=not found.wide)
    assert system._sized(bare, SimpleNamespace(), Goal(bits=8.0 * size)).wide != found.wide  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return scan((9, 13, 12))


@pytest.fixture(scope="module")
def stream(volume: np.ndarray) -> bytes:
    return encode(volume, bits_per_voxel=7)


def test_another_seed_gives_other_bytes(volume: np.ndarray, stream: bytes) -> None:
    assert encode(volume, bits_per_voxel=7, seed=1) != stream


def test_the_same_seed_gives_the_same_bytes_and_the_report_tells_what_was_made(volume: np.ndarray, stream: bytes, tmp_path: Path) -> None:
    stages: list[tuple[str, float]] = []
    report = encode(
        volume.copy(order="F"),
        tmp_path / "a.inrc",
        bits_per_voxel=7,
        progress=lambda stage, fraction, note: stages.append((stage, fraction)),
    )
    blob = (tmp_path / "a.inrc").read_bytes()
    info = inrcodec.info(blob)
    assert blob == stream and report.bytes == info.bytes == len(blob)
    assert report.method == info.method == "pyramid" and report.blocks == info.blocks > 3
    assert report.psnr_db == pytest.approx(psnr_db(volume, inrcodec.decode(blob).samples), abs=1e-6)
    assert report.choices["lattices"] == info.details["lattices"] and info.details["lattices"][0] == "9x13x12"
    assert (
        info.details["tile_edge"] == 8
        and info.details["context_width"] == 8
        and info.details["synthesis_widths"] == "4-4"
    )
    assert info.details["latents"] == sum(
        int(np.prod([int(n) for n in lattice.split("x")])) for lattice in info.details["lattices"]
    )
    assert {"partition", "fit", "code"} <= {stage for stage, _ in stages}
    assert all(0 <= fraction <= 1 for _, fraction in stages)


@pytest.mark.parametrize(
    "key", [np.s_[3:9, 4:13, 1:11], np.s_[::3, ::-2, 1::5], np.s_[8, ...], np.s_[0, 0, 0], np.s_[5:5]], ids=str
)
def test_regions_are_crops_of_the_whole(stream: bytes, key: Any) -> None:
    whole = inrcodec.decode(stream).samples
    with inrcodec.open(stream) as image:
        assert np.array_equal(image[key], whole[key])


def test_streams_are_verified(volume: np.ndarray, stream: bytes) -> None:
    assert inrcodec.verify(stream, deep=True).ok


def test_all_tiles_count_in_the_picture(stream: bytes, tmp_path: Path) -> None:
    inrcodec.info(stream, picture=tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 100


@pytest.mark.usefixtures("hasty")
def test_the_command_line(volume: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", volume)

    def run(*arguments: object) -> str:
        assert cli.main([str(a) for a in arguments]) in (0, None)
        return capsys.readouterr().out

    run(
        "encode",
        tmp_path / "a.npy",
        tmp_path / "a.inrc",
        "--psnr-db",
        20,
        "--method",
        "pyramid",
        "--effort",
        1,
        "--quiet",
    )
    assert "pyramid" in run("info", tmp_path / "a.inrc", "--picture", tmp_path / "a.png")
    run("verify", tmp_path / "a.inrc", "--deep")
    run("decode", tmp_path / "a.inrc", tmp_path / "b.npy", "--quiet")
    decoded = np.load(tmp_path / "b.npy")
    assert np.array_equal(decoded, inrcodec.decode(tmp_path / "a.inrc").samples)
    assert psnr_db(volume, decoded) >= 20


@pytest.mark.parametrize("above", [0, 2, pytest.param(1, marks=pytest.mark.slow)])
def test_lattices_without_latents_are_as_many_as_were_asked_for(above: int) -> None:
    # The 246 latents of the last have nothing to say with more bits than these.
    volume, bits = tissue((20, 24, 28)), [0.8, 0.8, 0.4][above]
    blob = encode(volume, bits_per_voxel=bits, pyramid=replace(SMALL, above=above))
    finest = inrcodec.info(blob).details["lattices"][0]
    assert finest == ["20x24x28", "10x12x14", "5x6x7"][above]
    with inrcodec.open(blob) as image:
        assert image.blocks.stream.layout.apart == (above > 0)
    assert 0.9 * bits * volume.size / 8 <= len(blob) <= bits * volume.size / 8
    assert psnr_db(volume, inrcodec.decode(blob).samples) > 20


@pytest.mark.parametrize("wide", [False, True])
def test_contexts_are_as_wide_as_was_asked_for(volume: np.ndarray, wide: bool) -> None:
    blob = encode(volume, bits_per_voxel=7, pyramid=replace(SMALL, wide=wide))
    assert inrcodec.info(blob).details["wide"] is wide
    with inrcodec.open(blob) as image:
        assert image.blocks.stream.layout.wide is wide
        assert len(image.blocks.context[0].first) == 21 + 28 * wide
    assert psnr_db(volume, inrcodec.decode(blob).samples) > 20


@pytest.mark.parametrize(
    "choices",
    [
        {"levels": 0}, {"levels": 9}, {"levels": 2.0}, {"context": 0}, {"context": 6}, {"context": 36}, {"context": True},
        {"synthesis": (16,)}, {"synthesis": [16, 16]}, {"synthesis": (16, 18)}, {"synthesis": (64, 16)}, {"tile_edge": 7},
        {"tile_edge": 257}, {"warm_start": 1}, {"wide": 1}, {"wide": "auto"}, {"above": -1}, {"above": 3}, {"above": True}, {"part_samples": 1023}, {"part_samples": 2e6},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range(choices: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="expected") as error:
        PyramidOptions(**choices)
    assert "\n" not in str(error.value)


def test_options_survive_a_dictionary() -> None:
    options = EncodeOptions(Quality("ratio", 8.0), method="pyramid", pyramid=SMALL)
    assert EncodeOptions.from_dict(options.to_dict()) == options
    plain = SMALL.to_dict() | {"synthesis": [4, 4]}
    assert PyramidOptions.from_dict(plain) == SMALL
    with pytest.raises(OptionError, match="found widht"):
        PyramidOptions.from_dict({"widht": 4})
    with pytest.raises(OptionError, match="expected pyramid to be PyramidOptions"):
        EncodeOptions(Quality("ratio", 8.0), pyramid={"levels": 3})  # type: ignore[arg-type]
