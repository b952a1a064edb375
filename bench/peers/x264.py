"""H.264 (x264), tuned for PSNR, constant QP, bare Annex-B stream; gray has at most 10 bits."""

from __future__ import annotations

from .base import QualityScale
from .video import VideoCodec


class X264(VideoCodec):
    """Variants are x264's presets."""

    name, title = "x264", "H.264 (x264)"
    variants = ("veryslow", "slow", "medium", "fast")
    scale = QualityScale("qp", 63, 1, first=36, integer=True, octaves=11.0)
    encoder, container, depths = "libx264", "h264", (8, 10)
    sources = ("bench/peers/x264.py", "bench/peers/video.py", "bench/frames.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"{self.variant} tune=psnr keyint=infinite CQP"

    def options(self, quality: float | None) -> dict[str, str]:
        """Options for one QP; 0 is lossless."""
        tuned = f"keyint=infinite:threads={self.threads}"
        return {"preset": self.variant, "tune": "psnr", "qp": f"{quality or 0:.0f}", "x264-params": tuned}
