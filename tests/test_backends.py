"""A device that is missing or fails gives one line, and no half file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import inrcodec
from inrcodec import backends
from inrcodec.backends import backend_for, device_errors
from inrcodec.encoder import Encoder
from inrcodec.image import Image
from inrcodec.options import EncodeOptions
from inrcodec_formats.container.header import Quality
from inrcodec_formats.signal import Signal
from inrcodec_kernels.backend import VARIABLE, Backend
from samples import scan

GPU = Backend("triton", "cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_an_option_error() -> None:
    with pytest.raises(inrcodec.OptionError, match="expected a CUDA device and Triton for device='cuda', found no CUDA device"):
        inrcodec.decode(b"", device="cuda")
    with pytest.raises(inrcodec.OptionError, match="found no CUDA device"):
        inrcodec.encode(np.zeros((4, 4, 4), dtype=np.uint8), ratio=2, device="cuda:0", method="tinc")


def test_a_variable_that_names_nothing_is_an_option_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "abacus")
    with pytest.raises(inrcodec.OptionError, match="expected INRCODEC_BACKEND"):
        backend_for("auto")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore lines"), "expected enough memory on cuda:0"),
        (RuntimeError("CUDA error: unspecified launch failure\nmore lines"), "expected cuda:0 to work, found CUDA error"),
        (torch.AcceleratorError("device lost"), "expected cuda:0 to work, found device lost; use device='cpu'"),
    ],
)
def test_a_failing_device_is_one_line(error: Exception, words: str) -> None:
    with pytest.raises(inrcodec.DeviceError, match=words) as found, device_errors(GPU):
        raise error
    assert "\n" not in str(found.value) and isinstance(found.value, RuntimeError)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="ours") as found, device_errors(GPU):
        raise RuntimeError("ours")
    assert type(found.value) is RuntimeError
    with pytest.raises(RuntimeError, match="CUDA") as found, device_errors(Backend("numba")):
        raise RuntimeError("CUDA is not what failed here")
    assert type(found.value) is RuntimeError


def test_a_device_that_goes_away_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = scan((12, 20, 20))
    blob = inrcodec.encode(volume, ratio=8, effort=1, method="tinc")
    plain, calls = Image.read_box, []

    def failing(image: Image, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        calls.append(0)
        if len(calls) > 1:
            raise torch.AcceleratorError("CUDA error: the launch timed out")
        return plain(image, start, stop)

    monkeypatch.setattr(Image, "read_box", failing)
    monkeypatch.setattr(Image, "slabs", lambda image: (image.read_box(np.array([z, 0, 0]), np.array([z + 6, 20, 20])) for z in (0, 6)))
    monkeypatch.setattr(backends, "choose", lambda device: Backend("reference", "cuda:0" if device == "cuda" else "cpu"))
    with pytest.raises(inrcodec.DeviceError, match="the launch timed out"):
        inrcodec.decode(blob, tmp_path / "out.npy", device="cuda")
    assert list(tmp_path.iterdir()) == []


def test_reasons_of_a_fit_and_of_a_decoder_elsewhere_are_told_once() -> None:
    options = EncodeOptions(target=Quality("ratio", 8.0), device="cpu")
    running = Encoder(Signal.from_array(np.zeros((2, 3), np.uint8)), options, lambda stage, fraction, note: None)
    running.backend = Backend("triton", "cuda:0")
    running.system = SimpleNamespace(backend=Backend("numba", "cpu", "no kernels for its fit"))  # type: ignore[assignment]
    for decoded_by, reasons in (
        (running.backend, ["no kernels for its fit"]),
        (running.system.backend, ["no kernels for its fit"]),  # type: ignore[attr-defined]
        (Backend("numba", "cpu", "too wide"), ["no kernels for its fit", "too wide"]),
    ):
        running.decoded_by = decoded_by
        assert running._reasons() == reasons
    running.system = SimpleNamespace(backend=running.backend)  # type: ignore[assignment]
    running.decoded_by = running.backend
    assert running._reasons() == []
