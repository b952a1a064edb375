"""JPEG XL (libjxl): VarDCT by distance, modular for lossless. Its tuning is perceptual and cannot be switched to PSNR here."""

from __future__ import annotations

import numpy as np

from .base import QualityScale
from .slices import SliceCodec


class JpegXl(SliceCodec):
    """Every slice one image."""

    name, title = "jpegxl", "JPEG XL"
    variants = ("7", "3", "9")
    variant_word = "effort "
    scale = QualityScale("distance", 25.0, 0.02, first=3.0, logarithmic=True, octaves=7.0)
    sources = ("bench/peers/jpegxl.py", "bench/peers/slices.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"effort {self.variant}, gray, distance"

    def encode_image(self, image: np.ndarray, quality: float | None, bits: int) -> bytes:
        """Code one image."""
        import imagecodecs

        how = {"lossless": True} if quality is None else {"distance": quality}
        return imagecodecs.jpegxl_encode(
            image, effort=int(self.variant), photometric="gray", bitspersample=bits, usecontainer=False, numthreads=self.threads, **how
        )

    def decode_image(self, data: bytes) -> np.ndarray:
        """Decode one image."""
        import imagecodecs

        return imagecodecs.jpegxl_decode(data, numthreads=self.threads)
