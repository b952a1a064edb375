"""Interleaved rANS: an entropy coder whose lanes decode side by side. See README.md for every byte."""

from __future__ import annotations

from types import ModuleType

from ..backend import Backend, compiled_on_host
from . import reference
from .bands import BandCode, CodedError
from .reference import LEAST_STATE, RawBits, check_end, escape_bits, first_states, joined
from .tables import ALPHABET, PRECISION, TOTAL, Tables, proportional

__all__ = [
    "ALPHABET",
    "LEAST_STATE",
    "PRECISION",
    "TOTAL",
    "BandCode",
    "CodedError",
    "RawBits",
    "Tables",
    "check_end",
    "coder",
    "device_coder",
    "escape_bits",
    "first_states",
    "joined",
    "proportional",
]


def coder(backend: Backend) -> ModuleType:
    """The module to code single streams with: the reference, or the same compiled by Numba (for "triton" too: on the host)."""
    if not compiled_on_host(backend):
        return reference
    from . import cpu

    return cpu


def device_coder() -> ModuleType:
    """The module whose `decode_chunks` decodes many chunks in one launch; only asking for it imports Triton."""
    from . import triton

    return triton
