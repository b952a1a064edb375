"""Every Triton kernel compiles for the targets, without a GPU, and keeps to registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compile_report import Compiled, markdown

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
SPILLED = {
    "chains: moments, 3-60-60": 1136,
    "pyramid: distortion, 128 inputs, 32 in the second layer": 32,
    "siren: fit_adam, 3-64-48-40-1, fp32": 128,
    "siren: orthonormal, 128": 544,
}
"""Bytes that a thread may spill, where it is not none."""
EXCHANGES = {
    "pyramid: synthesise": 2,
    "restoration: ": 16,
    "pyramid: decode": 21,
    "pyramid: rate, 16 inputs": 63,
    "pyramid: rate, 32 inputs": 111,
    "pyramid: rate, 64 inputs": 27,
    "pyramid: distortion, 64 inputs, 16": 58,
    "pyramid: distortion, 64 inputs, 32": 106,
    "pyramid: distortion, 128 inputs, 32": 15,
    "pyramid: weighed": 58,
}
"""Most exchanges between threads, by how names of kernels begin: none or a few where threads have all taps of a site, those between
matrix products where there are such. A compiler that gives threads one tap each has many hundreds."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Compiled]:
    """In a process of its own: in this one, other tests may have Triton interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "formats")]),
    }
    command = [sys.executable, "-m", "bench.compile_report", "--json"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    found = [Compiled(**row) for row in json.loads(result.stdout)]
    print("\n" + markdown(found))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kernel_compiles_without_spills(rows: list[Compiled]) -> None:
    assert {row.target for row in rows} == {80, 90}
    assert {row.kernel.partition(":")[0] for row in rows} == folders_with_kernels()
    assert [row for row in rows if row.spilled_bytes > SPILLED.get(row.kernel, 0)] == []
    assert all(row.shared_bytes <= 163 * 1024 for row in rows)  # what a program can have on an A100
    limited = [(row, most) for row in rows for name, most in EXCHANGES.items() if row.kernel.startswith(name)]
    assert len(limited) > 20 and [row for row, most in limited if row.shuffles > most] == []


def folders_with_kernels() -> set[str]:
    return {path.parent.name for path in (ROOT / "kernels" / "inrcodec_kernels").glob("*/triton.py")}
