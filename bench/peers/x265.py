"""HEVC (x265), tuned for PSNR: no psychovisual terms, constant QP, one key frame, bare Annex-B stream.

Measured on a chest CT: CRF without adaptive quantisation, with or without cutree, 16 B-frames, another pbratio and no SAO
are all within 3 % of the constant QP in rate at equal PSNR. A QP below 0 crashes the library.
"""

from __future__ import annotations

from .base import QualityScale
from .video import VideoCodec


class X265(VideoCodec):
    """Variants are x265's presets. One thread: no wavefronts, no frame threads, which is also its best compression."""

    name, title = "x265", "HEVC (x265)"
    variants = ("slow", "veryslow", "medium", "fast")
    scale = QualityScale("qp", 51, 0, first=30, integer=True, octaves=10.0)
    encoder, container = "libx265", "hevc"
    sources = ("bench/peers/x265.py", "bench/peers/video.py", "bench/frames.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"{self.variant} psy-rd=0 psy-rdoq=0 keyint=-1 CQP"

    def options(self, quality: float | None) -> dict[str, str]:
        """Options for one QP."""
        rate = "lossless=1" if quality is None else f"qp={quality:.0f}"
        pools = "pools=none:frame-threads=1:wpp=0" if self.threads == 1 else f"pools={self.threads}"
        tuned = f"{rate}:psy-rd=0:psy-rdoq=0:info=0:keyint=-1:log-level=none:{pools}"
        return {"preset": self.variant, "x265-params": tuned}
