"""Triton's decoder of chunks in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("rans.py")


@pytest.mark.slow
def test_interpreted_slow() -> None:
    run_cases("rans.py", options=("-m", "slow"))
