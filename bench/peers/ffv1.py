"""FFV1: lossless intra coding of frames, range coder, in a NUT container (its configuration has no bare form)."""

from __future__ import annotations

from .video import VideoCodec


class Ffv1(VideoCodec):
    """Version 3, large contexts, 4 slices a frame."""

    name, title = "ffv1", "FFV1"
    scale = None
    encoder, container, depths = "ffv1", "nut", (8, 10, 12, 14, 16)
    sources = ("bench/peers/ffv1.py", "bench/peers/video.py", "bench/frames.py")

    def fixed_settings(self) -> str:
        """Constant settings."""
        return "level 3, range coder, large contexts"

    def mapping(self, signal: object) -> str:
        """In words."""
        return "shifted to start at 0, exact"

    def options(self, quality: float | None) -> dict[str, str]:
        """Constant options."""
        return {"level": "3", "coder": "range_tab", "context": "1", "g": "1", "slices": "4", "slicecrc": "0"}
