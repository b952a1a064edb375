"""The pyramid's Triton kernels of the fit, in the interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


@pytest.mark.timeout(900)
def test_interpreted() -> None:
    run_cases("pyramid.py", "pyramid_fit.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_larger_layouts_interpreted() -> None:
    run_cases("pyramid.py", "pyramid_fit.py", options=("-m", "slow"))
