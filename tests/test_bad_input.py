"""Bad input ends in a correct result or in one line that says what was expected, what was found and what to do."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest

import inrcodec
from inrcodec import ContainerError, OptionError, OutputError, SignalError, TargetError, cli
from inrcodec.options import TincOptions
from samples import psnr_db, scan

LARGEST_HEAP = 64 << 20
"""Python heap that a hostile file of a kilobyte may cost."""


@pytest.fixture(scope="module")
def stream() -> bytes:
    return inrcodec.encode(scan((9, 10, 11)), ratio=4, effort=1, method="tinc")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def assert_refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The command fails with one line, and the folder holds what it held."""
    before = sorted(folder.rglob("*"))
    code, err = run(capsys, *arguments, "--quiet")
    assert code not in (0, None)
    assert len(err.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
    return err


# Signals


BAD_SIGNALS = {
    "empty": np.zeros(0, "int16"),
    "empty axis": np.zeros((3, 0, 2), "uint8"),
    "no dimension": np.array(5),
    "five dimensions": np.zeros((1, 1, 1, 1, 1), "uint8"),
    "bool": np.zeros((3, 3, 3), bool),
    "complex": np.zeros((3, 3), complex),
    "object": np.array([1, 2], dtype=object),
    "text": np.array(["a", "b"]),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.zeros(3, [("a", "u1")]),
    "NaN": np.array([[1.0, np.nan]]),
    "infinity": np.array([[1.0, -np.inf]], "float32"),
    "fractions": np.array([0.5, 0.25]),
    "beyond 16 bits": np.array([0, 70000]),
    "masked": np.ma.masked_array([1, 2, 3], [False, True, False]),
    "None": None,
}


@pytest.mark.parametrize("name", BAD_SIGNALS)
def test_signals_that_cannot_be_coded(name: str, tmp_path: Path) -> None:
    with pytest.raises(SignalError) as error:
        inrcodec.encode(BAD_SIGNALS[name], tmp_path / "o.inrc", ratio=8, effort=1, method="tinc")
    assert "expected" in one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in BAD_SIGNALS if n not in ("object", "masked", "None")])
def test_files_that_cannot_be_coded(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", BAD_SIGNALS[name])
    err = assert_refused(capsys, tmp_path, "encode", tmp_path / "a.npy", tmp_path / "o.inrc", "--ratio", 8)
    assert "expected" in err


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1), (2,), (1, 3, 1), (2, 2, 2, 2)])
def test_smallest_signals(shape: tuple[int, ...]) -> None:
    volume = scan(shape)
    decoded = inrcodec.decode(inrcodec.encode(volume, psnr_db=30, effort=1, method="tinc")).samples
    assert decoded.shape == shape
    assert psnr_db(volume, decoded) >= 30


@pytest.mark.parametrize("value", [-32768, 0, 77, 32767])
@pytest.mark.parametrize("shape", [(50,), (7, 9), (9, 8, 7), (2, 3, 4, 5)])
def test_constant_signals(shape: tuple[int, ...], value: int) -> None:
    blob = inrcodec.encode(np.full(shape, value, "int16"), psnr_db=60, effort=1, method="tinc")
    assert (inrcodec.decode(blob).samples == value).all()
    assert len(blob) < 220


def test_one_outlier_does_not_spoil_the_rest() -> None:
    volume = scan((12, 12, 12))
    volume[3, 4, 5] = 32767
    decoded = inrcodec.decode(inrcodec.encode(volume, psnr_db=60, effort=1, method="tinc")).samples
    assert psnr_db(volume, decoded) >= 60


# Options


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"ratio": 8, "psnr_db": 40},
        {"ratio": 8, "bits_per_voxel": 1, "psnr_db": 40},
        {"ratio": 0},
        {"ratio": -3},
        {"ratio": math.nan},
        {"bits_per_voxel": math.inf},
        {"psnr_db": "40"},
        {"ratio": True},
        {"ratio": 8, "method": "jpeg"},
        {"ratio": 8, "effort": 0},
        {"ratio": 8, "effort": 2.5},
        {"ratio": 8, "device": "abacus"},
        {"ratio": 8, "seed": -1},
        {"ratio": 8, "tinc": {"root": "dense"}},
    ],
)
def test_options_out_of_range(choices: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        inrcodec.encode(scan((4, 4)), tmp_path / "o.inrc", **{"method": "tinc", **choices})
    assert "expected" in one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_step_for_integers_is_refused() -> None:
    with pytest.raises(SignalError, match="real values"):
        inrcodec.encode(scan((4, 4)), ratio=8, quantise_step=0.5, method="tinc")


def test_numpy_numbers_are_numbers() -> None:
    assert inrcodec.encode(scan((9, 9)), psnr_db=np.float32(30), effort=1, method="tinc")


# Targets


def test_a_ratio_beyond_the_header_says_what_can_be_had(tmp_path: Path) -> None:
    volume = scan((10, 10, 10))
    with pytest.raises(TargetError) as error:
        inrcodec.encode(volume, tmp_path / "o.inrc", ratio=1e6, effort=1, method="tinc")
    words = one_line(error).split()
    least = int(words[words.index("least") + 1])
    assert list(tmp_path.iterdir()) == []
    assert len(inrcodec.encode(volume, bits_per_voxel=8 * least / volume.size, effort=1, method="tinc")) <= least


def test_a_ratio_beyond_the_header_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", scan((9, 9)))
    err = assert_refused(capsys, tmp_path, "encode", tmp_path / "a.npy", tmp_path / "o.inrc", "--ratio", 1e6, "--effort", 1)
    assert "at least" in err


@pytest.mark.parametrize("goal", [500.0, 5000.0])
def test_beyond_every_psnr_is_lossless(goal: float) -> None:
    volume = scan((8, 9, 10))
    assert (inrcodec.decode(inrcodec.encode(volume, psnr_db=goal, effort=1, method="tinc")).samples == volume).all()


def test_a_psnr_that_networks_cannot_reach_says_what_can_be_had(tmp_path: Path) -> None:
    options = TincOptions(root="dense", features=2, starts=1)
    with pytest.raises(TargetError) as error:
        inrcodec.encode(scan((8, 9, 10)), tmp_path / "o.inrc", psnr_db=70, effort=1, tinc=options, method="tinc")
    assert "at most" in one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choices", [{"ratio": 1e-3}, {"bits_per_voxel": 1e3}])
def test_more_room_than_needed_is_not_filled(choices: dict[str, float]) -> None:
    volume = scan((6, 7, 8))
    blob = inrcodec.encode(volume, effort=1, **choices, method="tinc")
    assert len(blob) < 4 * volume.nbytes
    assert (inrcodec.decode(blob).samples == volume).all()


# Files


def test_encode_refuses_outputs_before_the_work(tmp_path: Path) -> None:
    def no_work(stage: str, fraction: float, note: str) -> None:
        raise AssertionError("the work had begun")

    volume = scan((6, 6))
    with pytest.raises(OptionError, match=r"\.inrc"):
        inrcodec.encode(volume, tmp_path / "o.nii.gz", ratio=2, progress=no_work, method="tinc")
    with pytest.raises(OutputError, match="folder"):
        inrcodec.encode(volume, tmp_path / "no" / "o.inrc", ratio=2, progress=no_work, method="tinc")
    (tmp_path / "folder.inrc").mkdir()
    with pytest.raises(OutputError, match="folder"):
        inrcodec.encode(volume, tmp_path / "folder.inrc", ratio=2, progress=no_work, method="tinc")


def test_decode_refuses_outputs(stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("o.xyz", "o", "o.inrc"):
        with pytest.raises(inrcodec.FormatError) as error:
            inrcodec.decode(stream, tmp_path / name)
        one_line(error)
    with pytest.raises(OutputError):
        inrcodec.decode(stream, tmp_path / "no" / "o.npy")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.inrc").write_bytes(stream)
    assert_refused(capsys, tmp_path, "decode", tmp_path / "a.inrc", tmp_path / "o.xyz")


@pytest.mark.parametrize("source", [None, 3, io.StringIO("text"), b"", b"\x93NUMPY", bytearray(b"abc")])
def test_sources_that_are_no_streams(source: object) -> None:
    for act in (inrcodec.decode, inrcodec.open, inrcodec.info, inrcodec.verify):
        with pytest.raises(ContainerError) as error:
            act(source)
        one_line(error)


def test_other_files_under_the_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", scan((6, 6)))
    (tmp_path / "a.npy").rename(tmp_path / "a.inrc")
    for command in (["info"], ["verify"], ["decode"]):
        rest = [tmp_path / "o.npy"] if command == ["decode"] else []
        assert_refused(capsys, tmp_path, *command, tmp_path / "a.inrc", *rest) if command != ["info"] else None
    assert run(capsys, "info", tmp_path / "a.inrc")[0] == 1


@pytest.mark.parametrize("stage", ["read", "partition", "code", "verify"])
def test_interrupted_encode_leaves_nothing(stage: str, tmp_path: Path) -> None:
    def interrupt(now: str, fraction: float, note: str) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inrcodec.encode(scan((6, 6, 6)), tmp_path / "o.inrc", bits_per_voxel=8, effort=1, progress=interrupt, method="tinc")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_decode_leaves_nothing(stream: bytes, tmp_path: Path) -> None:
    def interrupt(stage: str, fraction: float, note: str) -> None:
        if fraction > 0:
            raise KeyboardInterrupt

    for name in ("o.nii", "o.nii.gz", "o.nrrd", "o.tif", "o.npy"):
        with pytest.raises(KeyboardInterrupt):
            inrcodec.decode(stream, tmp_path / name, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_damage_on_the_command_line(stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "a.inrc"
    damaged.write_bytes(stream[:200] + bytes([stream[200] ^ 4]) + stream[201:])
    assert_refused(capsys, tmp_path, "decode", damaged, tmp_path / "o.npy")
    assert_refused(capsys, tmp_path, "verify", damaged)
    damaged.write_bytes(stream[:-5])
    assert_refused(capsys, tmp_path, "decode", damaged, tmp_path / "o.npy")
