"""Triton's sine networks in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("siren.py")


def test_boxes_and_fits_interpreted() -> None:
    run_cases("siren_device.py")


def test_streams_interpreted() -> None:
    run_cases("sci.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interpreted_slow() -> None:
    run_cases("siren.py", "-m", "slow")
    run_cases("siren_device.py", "-m", "slow")
    run_cases("sci.py", "-m", "slow")
