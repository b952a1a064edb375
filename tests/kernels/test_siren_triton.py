"""Triton's sine networks in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


FILES = "siren.py", "siren_device.py", "sci.py"


@pytest.mark.timeout(900)
def test_interpreted() -> None:
    run_cases(*FILES)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interpreted_slow() -> None:
    run_cases(*FILES, options=("-m", "slow"))
