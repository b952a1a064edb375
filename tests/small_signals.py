"""Small signals that every peer must take."""

from __future__ import annotations

import numpy as np

from bench.signals import BenchSignal, synthetic_volume


def small_signals() -> dict[str, BenchSignal]:
    """A 12-bit volume, an 8-bit one of odd extents, a signed 4-D series and clips of two chroma layouts."""
    base = synthetic_volume(64)
    series = np.stack([base[:5, :49, :51], base[5:10, :49, :51] + 3, base[10:15, :49, :51]]).astype(np.int16) - 2000
    eight = (base >> 4).astype(np.uint8)
    half = [np.ascontiguousarray(eight[k : k + 6, ::2, ::2]) for k in (10, 20)]
    return {
        "twelve": BenchSignal("twelve", "volume", (base[:12],)),
        "odd": BenchSignal("odd", "volume", (np.ascontiguousarray(eight[:9, :49, :51]),)),
        "series": BenchSignal("series", "volume", (series,)),
        "clip420": BenchSignal("clip420", "clip", (eight[:6], half[0], half[1])),
        "clip444": BenchSignal("clip444", "clip", (eight[:6], eight[6:12], eight[12:18])),
    }
