"""TINC streams on the GPU backend, in Triton's interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("tinc.py")


@pytest.mark.slow
def test_roots_without_segments_interpreted() -> None:
    run_cases("tinc.py", options=("-m", "slow"))
