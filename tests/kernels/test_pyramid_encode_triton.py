"""Whole fits and encodings of pyramids with Triton's kernels, in the interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


@pytest.mark.slow
def test_fits_of_the_encoder_interpreted() -> None:
    run_cases("pyramid_encode.py", options=("-k", "not streams"))


@pytest.mark.slow
def test_encoding_interpreted() -> None:
    run_cases("pyramid_encode.py", options=("-k", "streams"))
