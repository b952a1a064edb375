"""SZ3 (arXiv:2111.02925): prediction and interpolation under a bound on every error."""

from __future__ import annotations

import numpy as np

from .arrays import HALF, ArrayCodec
from .base import QualityScale


class Sz3(ArrayCodec):
    """Quality by the absolute error bound, in stored units."""

    name, title = "sz3", "SZ3"
    scale = QualityScale("bound", 20000.0, 0.5, first=50.0, logarithmic=True, octaves=14.0)
    sources = ("bench/peers/sz3.py", "bench/peers/arrays.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "absolute bound"

    def encode_array(self, array: np.ndarray, quality: float | None) -> bytes:
        """Code one array."""
        import imagecodecs

        return imagecodecs.sz3_encode(array, "abs", abs=quality or HALF)

    def decode_array(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Decode one array."""
        import imagecodecs

        return imagecodecs.sz3_decode(data, shape, np.float32)
