"""What a fit should reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """Exactly one of a size and an error.

    Attributes
    ----------
    bits : float or None
        Size of all blocks, in bits.
    error : float or None
        Mean squared error per sample.
    """

    bits: float | None = None
    error: float | None = None
