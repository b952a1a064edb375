"""The pyramid's Triton kernels of the way back, in the interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


@pytest.mark.timeout(900)
def test_interpreted() -> None:
    run_cases("pyramid_coding.py", "pyramid_decode.py", options=("-k", "not every_way"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_way_to_ask_interpreted() -> None:
    run_cases("pyramid_decode.py", options=("-k", "every_way"))
