"""Streams with dense roots: whatever evaluates their networks, the samples are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import inrcodec
from inrcodec import ContainerError
from inrcodec.image import Image
from inrcodec.models.tinc import TincModel
from inrcodec.options import TincOptions
from inrcodec.reports import EncodeReport
from inrcodec_kernels.backend import REFERENCE, Backend
from samples import psnr_db, scan

NUMBA = Backend("numba")
KINDS: dict[str, dict[str, Any]] = {
    "local": {"coordinates": "local", "layers": (2,), "level_ratios": (1.0,)},
    "global": {"coordinates": "global", "layers": (2,), "level_ratios": (1.0,)},
    "local, segments": {"coordinates": "local", "layers": (2, 1), "level_ratios": (1.0, 0.8), "leaf_levels": 1},
    "global, segments": {"coordinates": "global", "layers": (1, 1), "level_ratios": (1.0, 0.8), "leaf_levels": 1},
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def stream(request: pytest.FixtureRequest) -> bytes:
    options = TincOptions(root="dense", network_share=0.3, starts=1, **request.param)
    return inrcodec.encode(scan((17, 21, 19)), ratio=4, effort=1, restoration=False, tinc=options, device="cpu", method="tinc")


def test_samples_are_those_of_torch(stream: bytes) -> None:
    pytest.importorskip("numba")
    with Image(stream, NUMBA) as fast, Image(stream, REFERENCE) as plain:
        found, expected = fast[...].astype(int), plain[...].astype(int)
        difference = np.abs(found - expected)
        assert difference.max() <= 1 and np.count_nonzero(difference) <= 1 + difference.size // 1000
        assert psnr_db(scan((17, 21, 19)), found) > 15
        box = np.array([3, 5, 1]), np.array([12, 6, 19])
        assert np.array_equal(fast.read_box(*box), found[3:12, 5:6, 1:19])
        floats = fast.read_plain_box(*box)
        assert np.abs(np.rint(floats).clip(fast.blocks.low, fast.blocks.high) - found[3:12, 5:6, 1:19]).max() == 0
        assert fast.backend == NUMBA and plain.backend == REFERENCE


@pytest.mark.parametrize("backend", [NUMBA, REFERENCE], ids=["numba", "reference"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_networks_that_are_not_finite_are_the_file_s_fault(stream: bytes, backend: Backend, value: float) -> None:
    with Image(stream, backend) as image:
        model: TincModel = image.blocks.model  # type: ignore[attr-defined]
        model.parameters["root.0.bias"][0, 0] = value
        with pytest.raises(ContainerError, match="finite"):
            image[...]


def test_a_report_says_what_evaluated(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TincOptions(root="dense", network_share=0.3, starts=1, leaf_levels=1)
    report = inrcodec.encode(
        scan((9, 10, 11)), tmp_path / "out.inrc", ratio=4, effort=1, restoration=False, tinc=options, device="cpu", method="tinc"
    )
    assert isinstance(report, EncodeReport) and report.backend.startswith(("Numba", "torch"))
    monkeypatch.setattr("inrcodec_kernels.chains.reference.WIDEST", 1)
    with Image((tmp_path / "out.inrc").read_bytes(), NUMBA) as image:
        assert image.backend.name == "numba" and "Numba: expected" in image.backend.reason
