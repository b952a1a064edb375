"""Triton's chains of sine layers in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("chains.py")


@pytest.mark.slow
def test_more_samples_interpreted() -> None:
    run_cases("chains.py", options=("-m", "slow"))
