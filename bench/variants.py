"""What TINC's choices are worth at equal size: ``python -m bench.variants PATH --ratio 64``.

Encodes the central crop of a volume with different networks and allocations and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import inrcodec
from inrcodec.options import SciOptions, TincOptions
from inrcodec.sources import read_signal

CROP = (64, 128, 128)
DENSE: dict[str, Any] = {"root": "dense", "features": 128, "leaf_levels": 2}
TWO_LEVELS: dict[str, Any] = {"layers": (2, 2), "level_ratios": (1.0, 0.3), "network_share": 0.4}
VARIANTS: dict[str, dict[str, Any]] = {
    "default: separable root, adaptive leaves, widths by rate": {},
    "one leaf size": {"leaf_levels": 1},
    "dense root of 2 layers, local coordinates": DENSE | {"coordinates": "local", "layers": (2,), "network_share": 0.15},
    "dense root of 2 layers, global coordinates": DENSE | {"coordinates": "global", "layers": (2,), "network_share": 0.15},
    "dense root and segments of 8 cells, local": DENSE | TWO_LEVELS | {"coordinates": "local"},
    "dense root and segments of 8 cells, global": DENSE | TWO_LEVELS | {"coordinates": "global"},
    "widths equal": {"allocation": "equal"},
    "widths by interest": {"allocation": "interest"},
    "widths by variance": {"allocation": "variance"},
}


UNIFORM: dict[str, Any] = {"partition": "uniform", "allocation": "equal"}
SCI_VARIANTS: dict[str, dict[str, Any]] = {
    "default: spectrum partition, funnels, measured bandwidth, 2 starts, halo 1": {},
    "uniform grid": {"partition": "uniform"},
    "plain networks": {"taper": 0.0},
    "steeper funnels": {"taper": 1.0},
    "3 sine layers": {"layers": 3},
    "5 sine layers": {"layers": 5},
    "w0 of 20 everywhere": {"bandwidth": 20 / 27**0.5, "bandwidth_share": 1.0},
    "whole measured bandwidth": {"bandwidth_share": 1.0},
    "1 start": {"starts": 1},
    "4 starts": {"starts": 4},
    "no halo": {"halo": 0},
    "halo of 2": {"halo": 2},
    "weights equal": {"allocation": "equal"},
    "weights by size": {"allocation": "size"},
    "weights by variance": {"allocation": "variance"},
    "weights by concentration": {"allocation": "concentration"},
    "4.6 bits a weight": {"bits_per_weight": 4.6},
    "6 bits a weight": {"bits_per_weight": 6.0},
    "baseline: uniform grid of equal plain networks, w0 of 20, 1 start, no halo": UNIFORM
    | {"taper": 0.0, "bandwidth": 20 / 27**0.5, "bandwidth_share": 1.0, "starts": 1, "halo": 0},
}


def central_crop(samples: np.ndarray) -> np.ndarray:
    """The middle of a volume, at most `CROP` samples along its last three axes."""
    extents = [*samples.shape[: samples.ndim - 3], *CROP[-min(3, samples.ndim) :]]
    starts = [(n - min(n, e)) // 2 for n, e in zip(samples.shape, extents, strict=True)]
    return samples[tuple(slice(s, s + e) for s, e in zip(starts, extents, strict=True))]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.variants", description="The choices of a system at equal size.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--ratio", type=float, default=64)
    parser.add_argument("--effort", type=int, default=5)
    parser.add_argument("--method", choices=("tinc", "sci"), default="tinc")
    parser.add_argument("--restoration", action="store_true", help="correct the decoded samples afterwards")
    options = parser.parse_args()
    crop = np.ascontiguousarray(central_crop(read_signal(options.path, None).samples))
    print("| variant | ratio | PSNR dB | bits a weight | encode s |\n|---|--:|--:|--:|--:|")
    for name, choices in (VARIANTS if options.method == "tinc" else SCI_VARIANTS).items():
        began = time.perf_counter()
        chosen = {"tinc": TincOptions(**choices)} if options.method == "tinc" else {"sci": SciOptions(**choices)}
        blob = inrcodec.encode(
            crop, ratio=options.ratio, effort=options.effort, method=options.method, restoration=options.restoration, **chosen
        )
        seconds = time.perf_counter() - began
        report = inrcodec.compare(crop, inrcodec.decode(blob), compressed_bytes=len(blob))
        bits = inrcodec.info(blob).details["bits_per_weight"]
        print(f"| {name} | {report.ratio:.1f} | {report.psnr_db:.2f} | {bits:.2f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
