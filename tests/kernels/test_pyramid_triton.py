"""Triton's pyramid in its interpreter."""

from __future__ import annotations

import pytest

from .interpreter import run_cases

pytest.importorskip("triton")


def test_interpreted() -> None:
    run_cases("pyramid.py")


def test_coding_interpreted() -> None:
    run_cases("pyramid_coding.py")


def test_fit_interpreted() -> None:
    run_cases("pyramid_fit.py")


def test_streams_interpreted() -> None:
    run_cases("pyramid_decode.py")


def test_fits_of_the_encoder_interpreted() -> None:
    run_cases("pyramid_encode.py", "-k", "not streams")


def test_encoding_interpreted() -> None:
    run_cases("pyramid_encode.py", "-k", "streams")
