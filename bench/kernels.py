"""Kernel timings against the counted floor: ``python -m bench.kernels --out DIR``.

The floor of an operation on a machine is the larger of its bytes over the memory bandwidth and its multiply-adds over the peak
rate, counted from the shapes. Bandwidth and rate are measured in the same run by a copy and a matrix product, so no data sheet
is needed. Runs on CUDA when there is any, else on the CPU; needs torch only.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrcodec_kernels.separable import along_axes, sine_waves
from inrcodec_kernels.siren import sine_chain

from .machine import machine_lines

REPEATS = 20


@dataclass(frozen=True)
class Case:
    """One operation on one size.

    Attributes
    ----------
    name : str
    samples : int
        Voxels that it makes or takes.
    operations : int
        Multiply-adds and sines, one each.
    moved : int
        Bytes that must be read or written once.
    work : callable
    """

    name: str
    samples: int
    operations: int
    moved: int
    work: Callable[[], Any]


def median_seconds(work: Callable[[], Any], device: str, repeats: int = REPEATS) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile of repeated calls, device work finished."""
    for _ in range(3):
        work()
    found = []
    for _ in range(repeats):
        _finish(device)
        began = time.perf_counter()
        work()
        _finish(device)
        found.append(time.perf_counter() - began)
    low, middle, high = np.percentile(found, (20, 50, 80))
    return float(middle), float(low), float(high)


def limits(device: str) -> tuple[float, float]:
    """Bytes/s of a large copy and multiply-adds/s of a float32 matrix product, measured."""
    big = torch.empty((64 if device == "cpu" else 512) << 20, dtype=torch.uint8, device=device)
    other = torch.empty_like(big)
    copied = 2 * big.numel() / median_seconds(lambda: other.copy_(big), device, 10)[0]
    edge = 1024 if device == "cpu" else 8192
    a = torch.randn(edge, edge, device=device)
    product = edge**3 / median_seconds(lambda: a @ a, device, 10)[0]
    return copied, product


def cases(device: str) -> list[Case]:
    """The operations of both kernel folders at sizes that fill a device."""
    large = device != "cpu"
    return [
        *(_separable(device, 4096 if large else 256, edge) for edge in (8, 16)),
        *(_siren(device, 2048 if large else 64, width, backward) for width in (24, 32) for backward in (False, True)),
    ]


def _separable(device: str, blocks: int, edge: int) -> Case:
    coefficients = torch.randn(blocks, edge, edge, edge, device=device)
    points = torch.linspace(-1, 1, edge, device=device)
    waves = [sine_waves(points, edge).T.contiguous()] * 3
    samples = blocks * edge**3
    return Case(f"separable along_axes, {blocks} blocks of {edge}^3", samples, 3 * edge * samples, 8 * samples, lambda: along_axes(coefficients, waves))


def _siren(device: str, blocks: int, width: int, backward: bool) -> Case:
    points = torch.rand(1, 4096, 3, device=device) * 2 - 1
    shapes = [(3, width), (width, width), (width, 1)]
    layers = [(torch.randn(blocks, a, b, device=device) / a, torch.randn(blocks, b, device=device)) for a, b in shapes]
    tensors = [t.requires_grad_(backward) for pair in layers for t in pair]
    samples = blocks * 4096
    forward = samples * sum(a * b + b for a, b in shapes)
    weights = 4 * blocks * sum(a * b + b for a, b in shapes)

    def work() -> Tensor:
        out = sine_chain(points, layers)
        if backward:
            torch.autograd.grad(out.sum(), tensors)
        return out

    name = f"sine_chain 3-{width}-{width}-1, {blocks} blocks of 16^3, {'forward and backward' if backward else 'forward'}"
    return Case(name, samples, forward * (3 if backward else 1), 4 * samples + weights * (2 if backward else 1), work)


def measure(case: Case, device: str, bandwidth: float, rate: float) -> dict[str, Any]:
    """One row: time, speed, floor and the fraction of it that was reached."""
    middle, low, high = median_seconds(case.work, device)
    floor = max(case.moved / bandwidth, case.operations / rate)
    return {
        "operation": case.name,
        "ms": 1e3 * middle,
        "ms_p20": 1e3 * low,
        "ms_p80": 1e3 * high,
        "gvoxel_per_s": case.samples / middle / 1e9,
        "floor_ms": 1e3 * floor,
        "bound": "memory" if case.moved / bandwidth > case.operations / rate else "arithmetic",
        "fraction_of_floor": floor / middle,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as Markdown."""
    lines = ["| operation | ms (20th to 80th percentile) | Gvoxel/s | floor ms | bound by | reached |", "|---|--:|--:|--:|---|--:|"]
    for row in rows:
        cells = [row["operation"], f"{row['ms']:.3f} ({row['ms_p20']:.3f} to {row['ms_p80']:.3f})", f"{row['gvoxel_per_s']:.3f}"]
        cells += [f"{row['floor_ms']:.3f}", row["bound"], f"{row['fraction_of_floor']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure, print and write ``kernels.md`` and ``kernels.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description="Kernel timings against the counted floor.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bandwidth, rate = limits(device)
    rows = []
    for case in cases(device):
        rows.append(measure(case, device, bandwidth, rate))
        print(table(rows[-1:])[-1], flush=True)
    lines = ["# Kernels", "", *machine_lines(), f"Device: {device}. Measured here: copy {bandwidth / 1e9:.0f} GB/s, float32 product {rate / 1e12:.2f} T multiply-adds/s."]
    lines += ["Backend: the reference in plain torch, the only one so far.", "", *table(rows)]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kernels.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    finite = [{k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()} for row in rows]
    (options.out / "kernels.json").write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
