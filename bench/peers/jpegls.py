"""JPEG-LS (CharLS): lossless, or near-lossless with a bound on every error."""

from __future__ import annotations

import numpy as np

from .base import QualityScale
from .slices import SliceCodec


class JpegLs(SliceCodec):
    """Every slice one image. Its bound ends at 255 stored units, so low rates are out of reach on deep signals."""

    name, title = "jpegls", "JPEG-LS"
    scale = QualityScale("near", 255, 1, first=30, logarithmic=True, integer=True, octaves=5.0)
    sources = ("bench/peers/jpegls.py", "bench/peers/slices.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "near-lossless bound"

    def encode_image(self, image: np.ndarray, quality: float | None, bits: int) -> bytes:
        """Code one image."""
        import imagecodecs

        # The standard allows a bound of at most half the largest value.
        near = 0 if quality is None else min(int(quality), 127 if image.dtype == np.uint8 else 255)
        return imagecodecs.jpegls_encode(image, level=near)

    def decode_image(self, data: bytes) -> np.ndarray:
        """Decode one image."""
        import imagecodecs

        return imagecodecs.jpegls_decode(data)
