"""High-throughput JPEG 2000 (OpenJPH): the 9/7 wavelet at one base quantiser step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import QualityScale
from .slices import SliceCodec


class Htj2k(SliceCodec):
    """``slices`` or ``volume``, as for JPEG 2000."""

    name, title = "htj2k", "HTJ2K"
    variants = ("slices", "volume")
    scale = QualityScale("step", 0.3, 0.00001, first=0.01, logarithmic=True, octaves=12.0)
    sources = ("bench/peers/htj2k.py", "bench/peers/slices.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "9/7, base step"

    def encode_image(self, image: np.ndarray, quality: float | None, bits: int) -> bytes:
        """Code one image or one stack."""
        import imagecodecs

        many: dict[str, Any] = {"planar": True} if image.ndim == 3 else {}
        lossless = quality is None
        # The step is relative to the dtype's full range: fill it, so that it means the same at any depth.
        spare = 0 if lossless else image.dtype.itemsize * 8 - bits
        return imagecodecs.htj2k_encode(image << spare, level=quality or 0, reversible=lossless, **many) + bytes([spare])

    def decode_image(self, data: bytes) -> np.ndarray:
        """Decode one codestream."""
        import imagecodecs

        image = imagecodecs.htj2k_decode(data[:-1], planar=self.variant == "volume" or None)
        spare = data[-1]
        return image if spare == 0 else image.astype(np.float32) / (1 << spare)
