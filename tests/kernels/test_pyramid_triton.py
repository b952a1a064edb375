"""Triton's pyramid in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


@pytest.mark.timeout(900)
def test_interpreted() -> None:
    run_cases("pyramid.py", "pyramid_coding.py", "pyramid_fit.py", "pyramid_decode.py")


def test_fits_of_the_encoder_interpreted() -> None:
    run_cases("pyramid_encode.py", options=("-k", "not streams"))


def test_encoding_interpreted() -> None:
    run_cases("pyramid_encode.py", options=("-k", "streams"))
