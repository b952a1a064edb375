"""Throughput, lossless and kernel timings: what they count, and that failures are rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import inrcodec
from bench import gpu, kernels, pyramid_stream, throughput
from bench.__main__ import main
from bench.bare import lacking
from bench.peers import PeerError, make_peer
from bench.peers.sperr import Sperr
from bench.readme import BEGIN, block, split, update
from bench.signals import load_signal
from bench.timing import repeated, warm
from inrcodec.image import Image
from inrcodec_kernels import backend, siren
from inrcodec_kernels.backend import choose
from pyramid_streams import flags, made

ROOT = Path(__file__).parents[2]
SIGNAL = "synthetic:16"


def rows_in(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["peer"]: row for row in csv.DictReader(file)}


def test_throughput_times_codec_and_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imagecodecs")
    arguments = ["--peers", "sz3,jpeg2000:volume", "--methods", "", "--repeats", "3", "--process-repeats", "1", "--rate", "2"]
    assert main(["throughput", "--signals", SIGNAL, *arguments, "--out", str(tmp_path)]) == 0
    rows = rows_in(tmp_path / "throughput.csv")
    assert set(rows) == {"sz3", "jpeg2000:volume"}
    for row in rows.values():
        assert row["status"] == "ok", row["reason"]
        for work in ("encode", "decode"):
            assert 0 < float(row[f"{work}_s_p20"]) <= float(row[f"{work}_s"]) <= float(row[f"{work}_s_p80"])
            # A process starts an interpreter and imports numpy; the codec alone does not.
            assert float(row[f"{work}_process_s"]) > float(row[f"{work}_s"])
            assert float(row[f"{work}_peak_mib"]) > 20
    text = (tmp_path / "throughput.md").read_text()
    assert "fastest is" in text.splitlines()[2] and "x JPEG 2000" in text
    line = next(line for line in text.splitlines() if line.startswith("| JPEG 2000, volume"))
    assert "| 1.00 |" in line


def test_lossless_rows_are_exact_failed_or_empty(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    assert main(["lossless", "--signals", SIGNAL, "--peers", "jpegls,zfp", "--out", str(tmp_path)]) == 0
    rows = rows_in(tmp_path / "lossless.csv")
    assert rows["tinc"]["status"] == "unsupported" and rows["tinc"]["reason"] == "no lossless mode yet"
    assert rows["jpegls"]["status"] == rows["zfp"]["status"] == "ok"
    assert float(rows["jpegls"]["bits_per_voxel"]) < 16
    assert "inrcodec has no lossless mode yet" in (tmp_path / "lossless.md").read_text()


def test_lossless_that_changes_a_sample_is_an_error() -> None:
    pytest.importorskip("imagecodecs")

    class OffByOne(Sperr):
        def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
            (volume,) = super().decode(data)
            volume[0, 0, :2] ^= 1
            return (volume,)

    with pytest.raises(PeerError, match="found 2 of 4096 changed"):
        warm(OffByOne(), load_signal(SIGNAL), None, 3)


def test_a_codec_that_dies_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs")
    plan = throughput.Plan(target=-1.0, threads=1, repeats=3, process_repeats=0)
    row = throughput.measure(SIGNAL, load_signal(SIGNAL), make_peer("sperr"), plan)
    assert row["status"] == "failed" and "process ended: exit code 1" in row["reason"]


def test_repeats_end_with_the_budget_but_not_before_three() -> None:
    calls = []
    assert len(repeated(lambda: calls.append(1), 9, budget_s=0.0)) == 3 and len(calls) == 4
    assert len(repeated(lambda: None, 9, budget_s=60.0)) == 9


def test_spread_is_median_and_percentiles() -> None:
    assert throughput.spread([5.0, 1.0, 3.0, 2.0, 4.0], "s") == pytest.approx({"s": 3.0, "s_p20": 1.8, "s_p80": 4.2})


def test_kernel_rows_compare_with_the_counted_floor() -> None:
    case = kernels.Case("x", 1000, operations=2_000_000, moved=4000, ours=lambda: torch.ones(1000).sum(), torchs=lambda: torch.ones(9).sum())
    row = kernels.measure(case, "cpu", bandwidth=1e9, rate=1e12)
    assert row["floor_ms"] == pytest.approx(0.004) and row["bound"] == "memory"
    assert row["fraction_of_floor"] == pytest.approx(row["floor_ms"] / row["ms"])
    assert row["times_torch"] == pytest.approx(row["torch_ms"] / row["ms"])
    assert len(kernels.table([row])) == 3


def test_every_kernel_case_runs_by_both_and_counts() -> None:
    backend = choose("cpu")
    for case in (
        kernels._reconstruct(backend, 8, (5, 4)),
        kernels._gradients(backend, 2, (5,), 16),
        kernels._fit(backend, 2, (5,), 16, steps=2, edge=4),
        kernels._synthesis(backend, 3, 4),
        kernels._restoration(backend, 9, 4),
    ):
        assert case.samples > 0 and case.operations > case.samples and case.moved > case.samples
        assert case.torchs is not None
        case.ours(), case.torchs()


def test_what_a_reconstruction_reads_is_what_torch_gives() -> None:
    """The peer evaluates the very networks that are timed."""
    networks, weights = kernels._networks(2, (5, 4))
    box = np.zeros((2, 8, 4, 4), dtype=np.float32)
    one = np.ones(2, dtype=np.float32)
    blocks = siren.Blocks(np.array([[0, 0, 0], [4, 0, 0]]), np.full((2, 3), 4), one, 0 * one)
    siren.accumulate(box[0], box[1], blocks, networks, 0, choose("cpu"))
    axis = (2 * torch.arange(4) + 1) / 4 - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)
    assert np.allclose(box[0].reshape(2, -1), siren.forward(weights, points), atol=1e-4) and (box[1] == 1).all()


def test_without_a_gpu_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "")
    for name in gpu.DECODERS:
        assert gpu.rows_of(name, load_signal(SIGNAL)) == [f"| {name} | | | not measured yet: no CUDA device here |"]


def test_with_a_gpu_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "a GPU")
    (row,) = gpu.rows_of("inrcodec TINC, with the copy to the host", load_signal("synthetic:32"))
    assert "not measured: " in row and "cuda" in row


def fake_decoder(difference: int):
    def decoder(signal, made):
        found = signal.main + np.uint16(difference)
        yield gpu.Timed("fake", 0.25, lambda: found, signal.main)

    return decoder


@pytest.mark.parametrize(("difference", "words"), [(0, "| fake | 0.2500 | "), (1, "| fake | 0.2500 | "), (2, "differs from the CPU decoder by up to 2")])
def test_gpu_samples_are_compared_before_they_are_timed(difference: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "a GPU")
    monkeypatch.setattr(kernels, "_finish", lambda device: None)
    monkeypatch.setattr(gpu, "DECODERS", {"fake": fake_decoder(difference)})
    (row,) = gpu.rows_of("fake", load_signal(SIGNAL))
    assert row.startswith(words) if difference < 2 else words in row


def test_streams_made_before_are_taken(tmp_path: Path) -> None:
    signal = load_signal(SIGNAL)
    gpu.stream_file(tmp_path, "sci", signal).write_bytes(b"made before")
    assert gpu.stream_of("sci", signal, tmp_path) == b"made before"


def test_clips_are_compared_and_their_frames_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = inrcodec.open
    monkeypatch.setattr(gpu, "gpu_name", lambda: "a GPU")
    monkeypatch.setattr(kernels, "_finish", lambda device: None)
    monkeypatch.setattr(inrcodec, "open", lambda stream, device: opened(stream, device="cpu"))
    assert "encode one there" in gpu.rows_of("inrcodec, clips", load_signal(SIGNAL), tmp_path)[0]
    (tmp_path / "clip-one.inrc").write_bytes((ROOT / "tests" / "golden" / "clip.inrc").read_bytes())
    (row,) = gpu.rows_of("inrcodec, clips", load_signal(SIGNAL), tmp_path)
    assert re.match(r"\| inrcodec clip \d+x\d+, with the copy to the host, \d+ frames, \d+ frames/s \| ", row), row


def test_a_pyramid_is_enlarged_by_repeating_its_latents() -> None:
    of, times = made((4, 8, 12), flags(3, 3), 4), (2, 1, 3)
    with Image(pyramid_stream.enlarged(of.blob(), times)) as image:
        assert image[...].shape == (8, 8, 36)
        for level, latents in enumerate(of.latents):
            expected = np.tile(latents, times)
            assert np.array_equal(image.blocks.latents.read(level, (0, 0, 0, 0), expected.shape), expected)
    with pytest.raises(ValueError, match="without a remainder"):
        pyramid_stream.enlarged(made((3, 8, 12), flags(3, 3), 4).blob(), times)


def test_a_pyramid_for_a_gpu_has_the_size_of_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "CORNER", 8)
    monkeypatch.setattr(inrcodec, "encode", lambda part, **options: made(part.shape, flags(3, 3), 4).blob())
    samples = inrcodec.decode(gpu.pyramid_stream(load_signal(SIGNAL))).samples
    assert samples.shape == (16, 16, 16)
    with pytest.raises(PeerError, match="choose another --edge"):
        gpu.pyramid_stream(load_signal("synthetic:17"))


def test_bare_machines_are_told_what_a_test_lacks(tmp_path: Path) -> None:
    needy = tmp_path / "test_x.py"
    needy.write_text("import numpy\nimport no_such_module_here\nfrom . import y\n")
    assert lacking(needy, tmp_path) == {"no_such_module_here"}
    assert lacking(ROOT / "tests" / "kernels" / "test_siren.py", ROOT) == set()


def test_readme_tables_are_those_of_the_results_they_name() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    begin = BEGIN.search(text)
    assert begin is not None
    folder = ROOT / begin.group(1)
    assert split(text)[1] == block(folder) + "\n"


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="expected `<!-- begin"):
        update(tmp_path / "README.md", tmp_path)


def test_a_step_of_a_pyramid_s_fit_is_timed_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 17**3 * 90)
    monkeypatch.setattr(backend, "choose", lambda device: backend.best_on_cpu())
    (timed,) = gpu.pyramid_step(load_signal("synthetic:17"))
    assert "(90 bytes a sample at most)" in timed.name and 0 < timed.bits_per_voxel < 16
    assert timed.work() is None
