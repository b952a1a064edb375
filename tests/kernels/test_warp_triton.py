"""Triton's warp in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("warp.py")
