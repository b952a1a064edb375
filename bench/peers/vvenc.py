"""VVC (vvenc), tuned for PSNR: no perceptual adaptation, constant QP, one key frame, bare Annex-B stream.

No package brings it, so its program `vvencapp` is looked for on the path; FFmpeg decodes. Its bit depths end at 10.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .base import PeerError, QualityScale
from .video import VideoCodec

PROGRAM = "vvencapp"


class Vvenc(VideoCodec):
    """Variants are vvenc's presets."""

    name, title = "vvenc", "VVC (vvenc)"
    variants = ("medium", "slower", "slow", "fast", "faster")
    scale = QualityScale("qp", 63, 0, first=37, integer=True, octaves=10.0)
    container, depths = "vvc", (8, 10)
    clips = lossless = False
    sources = ("bench/peers/vvenc.py", "bench/peers/video.py", "bench/frames.py")

    def missing(self) -> str:
        """The program too."""
        lacking = super().missing()
        if lacking or shutil.which(PROGRAM):
            return lacking
        return f"{self.name}: needs {PROGRAM}, not on the path; build it from github.com/fraunhoferhhi/vvenc"

    def version(self) -> str:
        """What the program says of itself."""
        told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False)
        return " ".join((told.stdout or told.stderr).split())

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"{self.variant} qpa=0 intraperiod=-1 CQP"

    def options(self, quality: float | None) -> dict[str, str]:
        """The program's options for one QP."""
        return {
            "--preset": self.variant,
            "--qp": f"{quality:.0f}",
            "--qpa": "0",
            "--intraperiod": "-1",
            "--internal-bitdepth": f"{self.most_bits}",
            "--decodedpicturehash": "0",
            "--threads": f"{self.threads}",
            "--verbosity": "1",
        }

    def _encode_frames(self, frames: Iterator[list[np.ndarray]], pixel_format: str, options: dict[str, str]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, stream = Path(folder) / "frames.yuv", Path(folder) / "stream.266"
            with source.open("wb") as out:
                for (image,) in frames:
                    height, width = image.shape
                    out.write(image.tobytes())
            given = [text for pair in options.items() for text in pair]
            layout = ["--size", f"{width}x{height}", "--format", f"yuv400_{self.most_bits}", "--framerate", "25"]
            ran = subprocess.run(
                [PROGRAM, "--input", str(source), "--output", str(stream), *layout, *given], capture_output=True, text=True, check=False
            )
            if ran.returncode or not stream.exists():
                said = (ran.stderr or ran.stdout).strip().splitlines()
                raise PeerError(f"{PROGRAM} ended with {ran.returncode}: {said[-1] if said else 'it said nothing'}")
            return stream.read_bytes()
