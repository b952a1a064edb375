"""JPEG 2000 (OpenJPEG): the 9/7 wavelet, one tile, one layer, rate set by a target PSNR for every slice.

A low target gives a constant image; that is why the search looks at the decoded samples' size, never at the request.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import QualityScale
from .slices import SliceCodec


class Jpeg2000(SliceCodec):
    """``slices``: one codestream for each slice. ``volume``: slices as components of one codestream, so that the headers
    are paid once and the rate is shared out among slices; single slices can then no longer be read alone."""

    name, title = "jpeg2000", "JPEG 2000"
    variants = ("slices", "volume")
    scale = QualityScale("psnr", 12.0, 90.0, first=40.0, octaves=12.0)
    sources = ("bench/peers/jpeg2000.py", "bench/peers/slices.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "9/7, 6 resolutions, 64x64 code blocks, target PSNR"

    def encode_image(self, image: np.ndarray, quality: float | None, bits: int) -> bytes:
        """Code one image or one stack."""
        import imagecodecs

        many: dict[str, Any] = {"planar": True, "mct": False} if image.ndim == 3 else {}
        return imagecodecs.jpeg2k_encode(
            image,
            level=quality or 0,
            codecformat="j2k",
            reversible=quality is None,
            bitspersample=bits,
            numthreads=self.threads,
            **many,
        )

    def decode_image(self, data: bytes) -> np.ndarray:
        """Decode one codestream."""
        import imagecodecs

        return imagecodecs.jpeg2k_decode(data, planar=self.variant == "volume" or None, numthreads=self.threads)
