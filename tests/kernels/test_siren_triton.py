"""The cases of `siren_triton_cases.py` in Triton's interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("siren_triton_cases.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interpreted_slow() -> None:
    run_cases("siren_triton_cases.py", "-m", "slow")
