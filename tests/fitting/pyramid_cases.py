"""What several tests of fits share."""

from __future__ import annotations

import numpy as np

from samples import tissue


def quiet(fraction: float, note: str) -> None:
    """Progress that nobody reads."""


def small() -> np.ndarray:
    """A signal that is fitted in a second."""
    return tissue((16, 20, 24))
