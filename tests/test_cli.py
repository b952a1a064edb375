"""The command line: exit codes, one-line errors, JSON, and that every option arrives.

The codec itself is replaced by a lossless stand-in that stores the array in a zip file; what is tested is
everything around it.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inrcodec
from inrcodec import cli, comparison, console, reports
from inrcodec_formats import registry
from inrcodec_formats.errors import ContainerError, OptionError, TargetError
from inrcodec_formats.signal import Signal


class FakeImage:
    bytes_read = 123

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.closed = True

    def __init__(self, source):
        self.samples = load(source).samples
        self.shape, self.dtype = self.samples.shape, self.samples.dtype

    def __getitem__(self, index):
        return self.samples[index]

    def read(self, *, scale=1.0):
        step = round(1 / scale)
        return self.samples[(slice(None, None, step),) * self.samples.ndim]


class FakeCodec:
    """Stands in for the public functions of `inrcodec` and remembers how they were called."""

    def __init__(self):
        self.calls = []
        self.error = None

    def encode(self, source, target, *, progress, **options):
        self.calls.append(options)
        progress("fit", 0.5, "PSNR 34.1 dB")
        if self.error is not None:
            raise self.error
        signal = registry.read(source, quantise_step=options.get("quantise_step"))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, samples=signal.samples)
        Path(target).write_bytes(buffer.getvalue())
        count = len(buffer.getvalue())
        return reports.EncodeReport(
            bytes=count,
            raw_bytes=signal.header.raw_bytes,
            ratio=signal.header.raw_bytes / count,
            bits_per_voxel=8 * count / signal.header.voxels,
            psnr_db=float("inf"),
            ssim=1.0,
            max_abs_error=0.0,
            target={name: options[name] for name in options if name in ("ratio", "bits_per_voxel", "psnr_db")},
            method=options.get("method", "tinc"),
            blocks=8,
            weights=np.int64(100),
            bits_per_weight=6.5,
            seconds={"fit": 1.0, "code": 0.5},
            backend="cpu",
            backend_reason="no GPU [here]",
            seed=options.get("seed", 0),
            effort=options["effort"],
            output=str(target),
        )

    def decode(self, source, target=None, *, device="auto", progress=None):
        signal = load(source)
        if progress is not None:
            progress("decode", 1.0)
        if target is None:
            return signal
        registry.write_signal(target, signal)
        return reports.DecodeReport(
            bytes=9, bytes_read=9, voxels=signal.header.voxels, seconds=0.1, mvoxels_per_second=1.0, output=str(target)
        )

    def info(self, source, *, picture=None):
        if picture is not None:
            Path(picture).write_bytes(b"PNG")
        header = load(source).header
        count = Path(source).stat().st_size
        return reports.InfoReport(
            path=str(source),
            bytes=count,
            shape=header.shape,
            axes=header.axes,
            dtype=header.dtype,
            file_dtype=header.file_dtype,
            spacing=(3.0, 2.0, 1.0)[-len(header.shape) :],
            units=("mm",) * len(header.shape),
            source_format="npy",
            method="tinc",
            target={"ratio": 64.0},
            ratio=2.0,
            bits_per_voxel=4.0,
            blocks=8,
            constant_blocks=1,
            chunks=2,
            weights=100,
            parts={"header": 10, "blocks": count - 10},
            picture=None if picture is None else str(picture),
        )

    def verify(self, source, *, deep=False):
        load(source)
        return reports.VerifyReport(ok=True, bytes=9, sections_checked=3, chunks_checked=2, deep=deep, seconds=0.1)

    def open(self, source, *, device="auto"):
        return FakeImage(source)


def load(source):
    try:
        with np.load(source) as archive:
            return Signal.from_array(archive["samples"])
    except (TypeError, ValueError) as error:
        raise ContainerError(f"expected an .inrc stream, found something else in {Path(source).name}") from error


@pytest.fixture
def codec(monkeypatch):
    fake = FakeCodec()
    for name in ("encode", "decode", "info", "verify", "open"):
        monkeypatch.setattr(inrcodec, name, getattr(fake, name), raising=False)
    monkeypatch.setattr(comparison, "decode_signal", lambda source, backend, progress: fake.decode(source, progress=progress))
    return fake


@pytest.fixture
def volume(tmp_path):
    """A small volume, and the folder it lies in as its parent."""
    path = tmp_path / "volume.npy"
    np.save(path, np.random.default_rng(0).integers(0, 999, (8, 9, 10)).astype(np.int16))
    return path


@pytest.fixture
def compressed(codec, volume):
    path = volume.with_name("volume.inrc")
    assert cli.main(["encode", str(volume), str(path), "--ratio", "2", "--quiet"]) == 0
    return path


def run(capsys, *arguments):
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_one_line_error(capsys, code, words, *arguments):
    got, out, err = run(capsys, *arguments)
    assert got == code, err
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("inrcodec: ")]
    assert len(errors) == 1
    assert err.endswith(errors[0] + "\n")
    assert "Traceback" not in err
    for word in words:
        assert str(word) in errors[0]


def test_encode_passes_every_option(codec, volume, capsys):
    code, out, err = run(
        capsys, "encode", volume, volume.with_name("o.inrc"), "--psnr-db", 40, "--method", "sci", "--effort", 3,
        "--device", "cpu", "--seed", 7, "--axes", "zyx",
    )  # fmt: skip
    assert code == 0
    expected = {"psnr_db": 40.0, "method": "sci", "effort": 3, "device": "cpu", "seed": 7, "quantise_step": None, "axes": "zyx", "restoration": True, "audio": True}
    expected |= {"region": None, "emphasis": None, "motion": "auto"}
    assert codec.calls == [expected]
    assert "PSNR 34.1 dB" in err
    assert "infinite" in out
    assert "no GPU [here]" in out.replace("\n", "")


@pytest.mark.parametrize(("given", "passed"), [([], "auto"), (["--motion"], True), (["--no-motion"], False)], ids=str)
def test_motion_is_automatic_unless_said(codec, volume, capsys, given, passed):
    code, _, _ = run(capsys, "encode", volume, volume.with_name("o.inrc"), "--ratio", 2, *given)
    assert code == 0 and codec.calls[-1]["motion"] == passed


def test_encode_takes_a_region_as_slices_or_as_a_file(codec, volume, capsys):
    output, mask = volume.with_name("o.inrc"), volume.with_name("mask.npy")
    np.save(mask, np.eye(9, 10, dtype=np.uint8))
    code, _, _ = run(capsys, "encode", volume, output, "--ratio", 2, "--region", "2:5, 1:-1", "--emphasis", 20)
    assert code == 0 and codec.calls[-1]["region"] == (slice(2, 5), slice(1, -1)) and codec.calls[-1]["emphasis"] == 20
    code, _, _ = run(capsys, "encode", volume, output, "--force", "--ratio", 2, "--region", mask)
    assert code == 0 and codec.calls[-1]["region"] == mask and codec.calls[-1]["emphasis"] is None
    assert_one_line_error(capsys, 1, ["none.png"], "encode", volume, output, "-f", "--ratio", 2, "--region", "none.png")
    assert_one_line_error(capsys, 2, ["1:2:3:4"], "encode", volume, output, "-f", "--ratio", 2, "--region", "1:2:3:4")


def test_regions_that_do_not_fit_are_one_line(volume, capsys):
    output, mask = volume.with_name("o.inrc"), volume.with_name("mask.npy")
    np.save(mask, np.zeros((9, 10), np.uint8))
    target = ["encode", volume, output, "--ratio", 2]
    assert_one_line_error(capsys, 2, ["samples inside", "zeros only"], *target, "--region", mask)
    assert_one_line_error(capsys, 2, ["(8, 9, 10)", "none"], *target, "--region", "20:30,:")
    assert_one_line_error(capsys, 2, ["emphasis"], *target, "--emphasis", 4)
    np.save(mask, np.ones((10, 9), np.uint8))
    assert_one_line_error(capsys, 2, ["(9, 10)", "found (10, 9)"], *target, "--region", mask)
    np.save(mask, -np.ones((9, 10), np.int16))
    assert_one_line_error(capsys, 2, ["found -1"], *target, "--region", mask)
    assert_one_line_error(capsys, 2, ["emphasis from 1", "found 0.5"], *target, "--region", "1:5,:", "--emphasis", 0.5)
    assert not output.exists()


def test_the_report_tells_of_the_region(volume, capsys):
    code, out, _ = run(capsys, "encode", volume, volume.with_name("o.inrc"), "--ratio", 3, "--effort", 1, "--region", "2:5,1:5")
    assert code == 0 and "PSNR, region" in out and "PSNR, outside" in out


def test_round_trip(compressed, volume, capsys):
    decoded = volume.with_name("decoded.npy")
    assert run(capsys, "decode", compressed, decoded)[0] == 0
    code, out, _ = run(capsys, "compare", volume, decoded, "--compressed", compressed, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["identical"] is True
    assert report["psnr_db"] is None
    assert report["bytes"] == compressed.stat().st_size


def test_compare_takes_the_compressed_file_itself(compressed, volume, capsys):
    picture = volume.with_name("picture.png")
    code, out, _ = run(capsys, "compare", volume, compressed, "--picture", picture)
    assert code == 0
    assert "identical" in out
    assert f"{compressed.stat().st_size} B" in out
    assert picture.exists()


@pytest.mark.parametrize("arguments", [["info"], ["verify"], ["verify", "--deep"]])
def test_json_is_one_object(arguments, compressed, capsys):
    code, out, err = run(capsys, *arguments, compressed, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["bytes"] > 0


def test_encode_json_keeps_progress_off_stdout(codec, volume, capsys):
    _, out, err = run(capsys, "encode", volume, volume.with_name("o.inrc"), "--ratio", 2, "--json")
    assert json.loads(out)["weights"] == 100
    assert "fit" in err


def test_quiet_is_silent(compressed, volume, capsys):
    assert run(capsys, "decode", compressed, volume.with_name("o.npy"), "--quiet") == (0, "", "")


def test_info_lists_the_parts(compressed, capsys):
    code, out, _ = run(capsys, "info", compressed)
    assert code == 0
    assert "8 x 9 x 10 (z, y, x)" in out
    assert "header" in out


def test_info_writes_a_picture_and_says_so(compressed, volume, capsys):
    picture = volume.with_name("p.png")
    code, out, _ = run(capsys, "info", compressed, "--picture", picture)
    assert code == 0
    assert "".join(str(picture).split()) in "".join(out.split()), "a long path is wrapped, with the table's indentation"
    code, out, _ = run(capsys, "info", compressed, "--picture", picture, "--force", "--json")
    assert json.loads(out)["picture"] == str(picture)
    assert json.loads(run(capsys, "info", compressed, "--json")[1])["picture"] is None


def test_info_refuses_bad_picture_names(compressed, volume, capsys):
    before = sorted(volume.parent.iterdir())
    folder = volume.parent / "no"
    assert_one_line_error(capsys, 2, [".png"], "info", compressed, "--picture", volume.with_name("p.jpg"))
    assert_one_line_error(capsys, 1, ["folder"], "info", compressed, "--picture", folder / "p.png")
    assert sorted(volume.parent.iterdir()) == before
    taken = volume.with_name("taken.png")
    taken.write_bytes(b"precious")
    assert_one_line_error(capsys, 1, ["--force"], "info", compressed, "--picture", taken)
    assert taken.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("4:6,:,::2", np.s_[4:6, :, ::2]),
        ("[2, 1:-1]", np.s_[2:3, 1:-1]),
        ("-1,-1,-1", np.s_[-1:, -1:, -1:]),
        ("...", None),
        ("a:b", None),
        ("1:2:3:4", None),
        (":: 00", None),
        ("", None),
    ],
)
def test_region(text, index, compressed, volume, capsys):
    output = volume.with_name("region.npy")
    arguments = ("decode", compressed, output, f"--region={text}")
    if index is None:
        assert_one_line_error(capsys, 2, ["--region", text], *arguments)
        assert not output.exists()
    else:
        code, out, _ = run(capsys, *arguments, "--json")
        assert code == 0
        assert json.loads(out)["bytes_read"] == 123
        np.testing.assert_array_equal(np.load(output), np.load(volume)[index])


@pytest.mark.parametrize("text", ["99,:,:", "5:5", ":,:,:,:"])
def test_region_outside(text, compressed, volume, capsys):
    assert_one_line_error(
        capsys,
        2,
        ["--region", "(8, 9, 10)" if text != ":,:,:,:" else "3 parts"],
        "decode",
        compressed,
        volume.with_name("o.npy"),
        "--region",
        text,
    )


def test_region_and_scale_keep_the_geometry(compressed, volume, capsys):
    output = volume.with_name("o.nii.gz")
    assert run(capsys, "decode", compressed, output, "--region", ":,::2,1")[0] == 0
    header = registry.read(output).header
    assert (header.axes, header.shape, header.spacing) == ("zyx", (8, 5, 1), (3.0, 4.0, 1.0))
    assert run(capsys, "decode", compressed, output, "--scale", 0.5, "--force")[0] == 0
    header = registry.read(output).header
    assert header.shape == (4, 5, 5)
    assert header.spacing == pytest.approx((6.0, 3.6, 2.0))


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([], ["exactly one", "--ratio", "--bits-per-voxel", "--psnr-db", "found none"]),
        (["--ratio", "3", "--psnr-db", "40"], ["found --ratio and --psnr-db"]),
        (["--ratio", "many"], ["--ratio", "--help"]),
        (["--ratio", "3", "--colour", "red"], ["--colour"]),
    ],
)
def test_usage_errors(targets, words, codec, volume, capsys):
    assert_one_line_error(capsys, 2, words, "encode", volume, volume.with_name("o.inrc"), *targets)
    assert codec.calls == []


def test_unknown_command_and_missing_arguments(capsys):
    assert_one_line_error(capsys, 2, ["explode"], "explode")
    assert_one_line_error(capsys, 2, ["IN"], "encode")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OptionError("effort out of range"), 2),
        (TargetError("ratio 1e9 cannot\nbe reached"), 1),
        (PermissionError(13, "Permission denied", "volume.npy"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_of_the_codec_are_one_line(error, code, codec, volume, capsys):
    codec.error = error
    output = volume.with_name("o.inrc")
    assert_one_line_error(capsys, code, [], "encode", volume, output, "--ratio", 3)
    got, out, _ = run(capsys, "encode", volume, output, "--ratio", 3, "--json")
    assert got == code
    assert json.loads(out)["exit_code"] == code
    assert not output.exists()


def test_a_defect_is_not_hidden(codec, volume):
    codec.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["encode", str(volume), str(volume.with_name("o.inrc")), "--ratio", "3"])


@pytest.mark.parametrize("command", [["info"], ["verify"], ["decode", "o.npy"], ["encode", "o.inrc", "--ratio=2"]])
def test_missing_input(command, codec, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    assert_one_line_error(capsys, 1, ["nothing.here"], name, "nothing.here", *rest)
    assert_one_line_error(capsys, 1, ["folder"], name, tmp_path, *rest)


def test_not_an_inrc_file(codec, volume, capsys):
    for command in ("info", "verify"):
        assert_one_line_error(capsys, 1, ["expected", volume.name], command, volume)


def test_existing_output_needs_force(codec, volume, capsys):
    output = volume.with_name("o.inrc")
    output.write_bytes(b"precious")
    assert_one_line_error(capsys, 1, ["--force"], "encode", volume, output, "--ratio", 3)
    assert output.read_bytes() == b"precious"
    assert run(capsys, "encode", volume, output, "--ratio", 3, "--force")[0] == 0
    assert output.read_bytes() != b"precious"


def test_output_is_checked_before_the_work(codec, volume, capsys):
    assert_one_line_error(capsys, 2, [".inrc"], "encode", volume, volume.with_name("o.nii"), "--ratio", 3)
    assert_one_line_error(capsys, 1, ["folder"], "encode", volume, volume.parent / "no" / "o.inrc", "--ratio", 3)
    (volume.parent / "folder.inrc").mkdir()
    assert_one_line_error(capsys, 1, ["folder"], "encode", volume, volume.parent / "folder.inrc", "--ratio", 3)
    assert codec.calls == []


def test_shapes_that_differ(codec, volume, capsys):
    other = volume.with_name("other.npy")
    np.save(other, np.zeros((2, 3), np.int16))
    assert_one_line_error(capsys, 1, ["same shape"], "compare", volume, other)


def test_decode_refuses_region_with_scale(compressed, volume, capsys):
    arguments = ("decode", compressed, volume.with_name("o.npy"))
    assert_one_line_error(capsys, 2, ["both"], *arguments, "--region", ":", "--scale", 2)
    assert_one_line_error(capsys, 2, ["--scale"], *arguments, "--scale", 0)


def test_help_and_version(capsys):
    for arguments in ([], ["--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert "encode" in out
    assert run(capsys, "--version")[0] == 0


def test_demo_leaves_its_files_and_says_so(codec, tmp_path, capsys):
    folder = tmp_path / "new" / "demo"
    code, out, _ = run(capsys, "demo", "--output", folder)
    assert code == 0
    for name in ("example.inrc", "example_decoded.nii.gz", "example.png"):
        assert (folder / name).exists()
        assert str(folder / name) in out
    assert "inrcodec info" in out
    code, out, _ = run(capsys, "demo", "--output", folder, "--json")
    assert json.loads(out)["compare"]["identical"] is True


def test_heavy_modules_wait_for_the_command_that_needs_them():
    check = (
        "import sys, inrcodec.cli; print([m for m in ('torch', 'skimage', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, env=_environment()
    )
    assert result.stdout.strip() == "[]"


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_progress_without_a_terminal_is_a_line_for_each_tenth(capsys):
    with console.ProgressDisplay() as display:
        for step in range(101):
            display("fit", step / 100, "PSNR 30 dB" if step > 50 else "")
        display("code", 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 13
    assert lines[-1].startswith("code")


def test_progress_on_a_terminal_draws_bars(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with console.ProgressDisplay() as display:
        display("fit", 0.5, "PSNR 30 dB")
        display("code", 2.0)
    assert "PSNR 30 dB" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (2048, "2048 B (2.0 KiB)")])
def test_sizes(count, text):
    assert console.size(count) == text
