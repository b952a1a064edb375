"""AV1 (SVT-AV1): 4:2:0 only, 8 or 10 bits; volumes travel as 10-bit luma with constant chroma, bare OBU stream.

Measured on a chest CT: leaving its adaptive quantisation off costs 15 % of the rate at equal PSNR, so it stays on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..signals import BenchSignal
from .base import QualityScale
from .video import VideoCodec


class SvtAv1(VideoCodec):
    """Variants are SVT-AV1's presets."""

    name, title = "svtav1", "AV1 (SVT-AV1)"
    variants = ("2", "4", "6", "8")
    variant_word = "preset "
    scale = QualityScale("qp", 63, 1, first=45, integer=True, octaves=8.0)
    encoder, container, depths = "libsvtav1", "obu", (8, 10)
    clip_formats = ("yuv420p",)
    has_gray = lossless = False
    sources = ("bench/peers/svtav1.py", "bench/peers/video.py", "bench/frames.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"preset {self.variant} tune=1 keyint=-1 CQP"

    def options(self, quality: float | None) -> dict[str, str]:
        """Options for one QP."""
        return {"preset": self.variant, "svtav1-params": f"rc=0:qp={quality:.0f}:tune=1:keyint=-1:lp={self.threads}"}

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress all frames into one bare stream."""
        with scheduling_kept():
            return super().encode(signal, quality)


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """The encoder makes the thread that opens it a real-time one where it may (as root), and leaves it so; whatever came after it would be timed like that."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
