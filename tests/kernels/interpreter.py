"""Kernels for GPUs in Triton's interpreter: cases run in a process of their own, because Triton decides on import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_cases(*files: str, options: tuple[str, ...] = ()) -> None:
    """Run pytest on files of cases in `interpreted/`, with the interpreter, and fail with what it says.

    Files given together share a process, whose start takes as long as many a case.
    """
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "formats")]),
    }
    cases = [f"tests/kernels/interpreted/{file}" for file in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *cases, *options]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
