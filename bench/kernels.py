"""Kernel timings against the counted floor and against torch: ``python -m bench.kernels --out DIR``.

The floor of an operation on a machine is the larger of its bytes over the memory bandwidth and its multiply-adds over the peak
rate, counted from the shapes; a sine counts as `SINE` multiply-adds. Bandwidth and rate are measured in the same run by a copy and a
matrix product, so no data sheet is needed. Runs on CUDA when there is any, else on the CPU, with the fastest backend there and with batched
torch on the same device, in turns.
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

from inrcodec_kernels import siren
from inrcodec_kernels.backend import REFERENCE, Backend, choose
from inrcodec_kernels.restoration import Parameters, restore
from inrcodec_kernels.separable import sine_waves, synthesise

from .machine import machine_lines

REPEATS = 15
SINE, SINE_AND_COSINE = 14, 20
"""Instructions of a sine by its polynomial, counted as multiply-adds."""


@dataclass(frozen=True)
class Case:
    """One operation on one size.

    Attributes
    ----------
    name : str
    samples : int
        Voxels that it makes or takes.
    operations : int
        Multiply-adds.
    moved : int
        Bytes that must be read or written once.
    ours, torchs : callable or None
        The work by our backend and by batched torch.
    """

    name: str
    samples: int
    operations: int
    moved: int
    ours: Callable[[], Any]
    torchs: Callable[[], Any] | None


def median_seconds(work: Callable[[], Any], device: str, repeats: int = REPEATS, first: int = 3) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile of repeated calls after some `first` ones, device work finished."""
    for _ in range(first):
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


def cases(backend: Backend) -> list[Case]:
    """The operations at sizes that fill a device."""
    large = backend.device != "cpu"
    funnels = [(24, 24), (24, 15, 9, 6), (32, 32, 32, 32, 32)]
    return [
        *(_reconstruct(backend, 4096 if large else 64, widths) for widths in funnels),
        *(_gradients(backend, 2048 if large else 32, widths, 512) for widths in funnels),
        *([] if large else [_fit(backend, 32, widths, 512) for widths in funnels]),
        *(_synthesis(backend, 4096 if large else 512, edge) for edge in (8, 16)),
        _restoration(backend, 256 if large else 96),
    ]


def _counts(axes: int, widths: tuple[int, ...]) -> tuple[int, int]:
    """Weights and sines of a network."""
    return sum(math.prod(shape) for shape in siren.layer_shapes(axes, widths)), sum(widths)


def _networks(blocks: int, widths: tuple[int, ...]) -> tuple[siren.Networks, list[Tensor]]:
    """Networks of quantised random weights, and the weights themselves."""
    random = np.random.default_rng(0)
    shapes = siren.layer_shapes(3, widths)
    parts = [random.normal(0, 100, (blocks, math.prod(shape))) for shape in shapes]
    steps = np.array([[0.03, *(0.01 / math.sqrt(shape[0]) for shape in shapes[1:])]] * blocks, dtype=np.float32)
    start = np.zeros((blocks, math.prod(shapes[0])), dtype=np.float32)
    networks = siren.Networks(widths, np.rint(np.concatenate(parts, axis=1)).astype(np.int32), steps, start)
    return networks, [torch.from_numpy(np.asarray(w, dtype=np.float32)) for w in siren.dequantised(networks, 3)]


def _reconstruct(backend: Backend, blocks: int, widths: tuple[int, ...], edge: int = 16) -> Case:
    """Blocks of edge^3 samples side by side, without a halo, into float sums or, on a device, 16-bit integers."""
    networks, weights = _networks(blocks, widths)
    side = round(blocks ** (1 / 3))
    shape = (side * edge,) * 3
    origin = np.stack(np.meshgrid(*[np.arange(side) * edge] * 3, indexing="ij"), -1).reshape(-1, 3)[:blocks]
    place = siren.Blocks(origin, np.full_like(origin, edge), np.full(blocks, 300.0, np.float32), np.full(blocks, 500.0, np.float32))
    count, sines = _counts(3, widths)
    samples = blocks * edge**3
    axis = (2 * torch.arange(edge) + 1) / edge - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3).to(backend.device)
    there = [w.to(backend.device) for w in weights]
    total, share = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def batched() -> None:
        """What `INRCODEC_BACKEND=reference` runs on a CPU; the networks alone on a device."""
        with torch.no_grad():
            if backend.device == "cpu":
                siren.accumulate(total, share, place, networks, 0, REFERENCE)
            else:
                siren.forward(there, points)

    if backend.name == "triton":
        from inrcodec_kernels.siren.triton import place as on_device

        arrays = [a.astype(np.int32) if a.dtype == np.int64 else a for a in (*place, *networks[1:])]
        to = [torch.from_numpy(np.ascontiguousarray(a)).to(backend.device) for a in arrays]
        out = torch.empty(shape, dtype=torch.uint16, device=backend.device)

        def work() -> None:
            on_device(out, siren.Blocks(*to[:4]), siren.Networks(widths, *to[4:]), 0.0, 0, 65535)
    else:

        def work() -> None:
            siren.accumulate(total, share, place, networks, 0, backend)
    operations = samples * (count + SINE * sines)
    name = f"reconstruct {'-'.join(map(str, (3, *widths, 1)))}, {blocks} blocks of {edge}^3"
    return Case(name, samples, operations, (2 if backend.name == "triton" else 16) * samples + 4 * blocks * count, work, batched)


def _gradients(backend: Backend, blocks: int, widths: tuple[int, ...], points: int) -> Case:
    """Loss and gradients of one step."""
    weights = [w.to(backend.device) for w in _networks(blocks, widths)[1]]
    random = torch.Generator().manual_seed(0)
    places = (torch.rand((blocks, points, 3), generator=random) * 2 - 1).to(backend.device)
    targets = torch.randn((blocks, points), generator=random).to(backend.device)
    count, sines = _counts(3, widths)
    samples = blocks * points
    name = f"loss and gradients {'-'.join(map(str, (3, *widths, 1)))}, {blocks} blocks, {points} points"
    return Case(
        name, samples, samples * (3 * count + SINE_AND_COSINE * sines), 16 * samples + 8 * blocks * count,
        lambda: siren.loss_and_gradients(weights, places, targets, backend),
        lambda: siren.loss_and_gradients(weights, places, targets, REFERENCE),
    )  # fmt: skip


def _fit(backend: Backend, blocks: int, widths: tuple[int, ...], points: int, steps: int = 20, edge: int = 16) -> Case:
    """Whole steps of a fit by SOAP: draw, gradients, descent."""
    random = np.random.default_rng(0)
    weights = _networks(blocks, widths)[1]
    size = edge**3
    samples = siren.Samples(
        random.normal(size=blocks * size).astype(np.float32), np.arange(blocks) * size, np.full((blocks, 3), edge),
        np.full((blocks, 3), 0.5, np.float32), np.full((blocks, 3), 2 / edge, np.float32), np.arange(blocks, dtype=np.uint32),
    )  # fmt: skip
    rates = np.full(steps, 1e-3, dtype=np.float32)
    count, sines = _counts(3, widths)
    drawn = blocks * points * steps

    def work(chosen: Backend) -> Any:
        return siren.fit([w.clone() for w in weights], samples, points, rates, lambda fraction, loss: None, chosen)

    name = f"fit {'-'.join(map(str, (3, *widths, 1)))}, {blocks} blocks, {steps} steps of {points} points"
    return Case(name, drawn, drawn * (3 * count + SINE_AND_COSINE * sines), 4 * drawn, lambda: work(backend), lambda: work(REFERENCE))


def _synthesis(backend: Backend, leaves: int, edge: int) -> Case:
    """Leaves of edge^3 samples whose coefficients lie below a quarter of the frequencies, into 16-bit integers."""
    random = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lattice = index[np.argsort((index**2).sum(1), kind="stable")]
    used = int((lattice.max(axis=1) < edge // 2).sum() // 2)
    values = np.zeros((leaves, len(lattice)), dtype=np.int32)
    values[:, :used] = random.integers(-9, 10, (leaves, used))
    side = math.ceil(leaves ** (1 / 3))
    corner = np.stack(np.meshgrid(*[np.arange(side) * edge] * 3, indexing="ij"), -1).reshape(-1, 3)[:leaves]
    waves = sine_waves((2 * torch.arange(edge) + 1) / edge - 1, edge).contiguous()
    tensors = [torch.from_numpy(np.ascontiguousarray(a)).to(backend.device) for a in (corner, values, lattice)]
    bases = [waves.to(backend.device)] * 3
    out = torch.zeros((side * edge,) * 3, dtype=torch.int16, device=backend.device)

    def work(chosen: Backend) -> None:
        synthesise(out, *tensors, bases, 0.5, 100.0, -1000, 1000, chosen)

    samples, m = leaves * edge**3, int(lattice[:used].max()) + 1
    operations = leaves * (edge * m**3 + edge**2 * m**2 + edge**3 * m)
    return Case(
        f"synthesis of {leaves} leaves of {edge}^3, {used} of {len(lattice)} coefficients used", samples, operations,
        2 * samples + 4 * values.size, lambda: work(backend), lambda: work(Backend("reference", backend.device)),
    )  # fmt: skip


def _restoration(backend: Backend, edge: int, width: int = 16) -> Case:
    """A volume of edge^3 samples corrected, rounded and clipped to 16 bits."""
    random = torch.Generator().manual_seed(0)
    shapes = ((width, 3, 3, 3), (2, width), (width, width), (width, 3, 3, 3))
    parameters = Parameters(*(torch.randn(s, generator=random).div(5).to(backend.device) for s in shapes))
    samples = (100 * torch.randn((1, edge, edge, edge), generator=random)).to(backend.device)
    out = torch.zeros(samples.shape, dtype=torch.int16, device=backend.device)

    def work(chosen: Backend) -> None:
        with torch.no_grad():
            restore(samples, parameters, 30.0, -1000, 1000, out, (0, 0, 0), chosen)

    return Case(
        f"restoration, {width} channels, {edge}^3", edge**3, edge**3 * (width**2 + 2 * width * 27), 6 * edge**3,
        lambda: work(backend), lambda: work(Backend("reference", backend.device)),
    )  # fmt: skip


def measure(case: Case, device: str, bandwidth: float, rate: float) -> dict[str, Any]:
    """One row: time, speed, floor, the fraction of it that was reached, and torch's time over ours."""
    middle, low, high = median_seconds(case.ours, device)
    floor = max(case.moved / bandwidth, case.operations / rate)
    torchs = None if case.torchs is None else median_seconds(case.torchs, device, 3, 1)[0]
    return {
        "operation": case.name,
        "ms": 1e3 * middle,
        "ms_p20": 1e3 * low,
        "ms_p80": 1e3 * high,
        "mvoxel_per_s": case.samples / middle / 1e6,
        "floor_ms": 1e3 * floor,
        "bound": "memory" if case.moved / bandwidth > case.operations / rate else "arithmetic",
        "fraction_of_floor": floor / middle,
        "torch_ms": None if torchs is None else 1e3 * torchs,
        "times_torch": None if torchs is None else torchs / middle,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as Markdown."""
    lines = [
        "| operation | ms (20th to 80th percentile) | Mvoxel/s | floor ms | bound by | reached | torch ms | times torch |",
        "|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        cells = [row["operation"], f"{row['ms']:.3f} ({row['ms_p20']:.3f} to {row['ms_p80']:.3f})", f"{row['mvoxel_per_s']:.1f}"]
        cells += [f"{row['floor_ms']:.3f}", row["bound"], f"{row['fraction_of_floor']:.1%}"]
        cells += ["", ""] if row["torch_ms"] is None else [f"{row['torch_ms']:.3f}", f"{row['times_torch']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure, print and write ``kernels.md`` and ``kernels.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description="Kernel timings against the counted floor.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    backend = choose("auto")
    bandwidth, rate = limits(backend.device)
    rows = []
    for case in cases(backend):
        rows.append(measure(case, backend.device, bandwidth, rate))
        print(table(rows[-1:])[-1], flush=True)
    lines = ["# Kernels", "", *machine_lines(), f"Backend: {backend.title}, {torch.get_num_threads()} threads. Measured here: copy {bandwidth / 1e9:.0f} GB/s, float32 product {rate / 1e9:.0f} G multiply-adds/s."]
    lines += ["Peer: the same in batched torch on the same device.", "", *table(rows)]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kernels.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    finite = [{k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()} for row in rows]
    (options.out / "kernels.json").write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
