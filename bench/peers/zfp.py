"""ZFP (doi:10.1109/TVCG.2014.2346458): transformed blocks of 4^3, bit planes cut at an error tolerance."""

from __future__ import annotations

import numpy as np

from .arrays import ArrayCodec
from .base import QualityScale


class Zfp(ArrayCodec):
    """Quality by the tolerance of its fixed-accuracy mode, its best one for PSNR; a power of two in effect."""

    name, title = "zfp", "ZFP"
    scale = QualityScale("tolerance", 2.0**20, 0.5, first=512.0, logarithmic=True, octaves=9.0)
    sources = ("bench/peers/zfp.py", "bench/peers/arrays.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "fixed accuracy"

    def encode_array(self, array: np.ndarray, quality: float | None) -> bytes:
        """Code one array."""
        import imagecodecs

        if quality is None:
            return imagecodecs.zfp_encode(array, mode=imagecodecs.ZFP.MODE.REVERSIBLE)
        return imagecodecs.zfp_encode(array, quality, mode=imagecodecs.ZFP.MODE.FIXED_ACCURACY)

    def decode_array(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Decode one array."""
        import imagecodecs

        return imagecodecs.zfp_decode(data).reshape(shape)
