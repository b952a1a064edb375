"""Speed and memory of whole codecs on one machine in one run, and the lossless table.

Codec only: repeated calls inside one process, after a first one. Whole process: from starting the interpreter to the file on
the disk, with its peak memory. Every codec gets the same number of threads.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .machine import commit_of, gpu_name, machine_lines, today
from .peers import METHODS, Peer, make_peer
from .rd import start_child
from .report import title_of
from .signals import BenchSignal, load_signal
from .store import Row

COLUMNS = (
    "signal", "shape", "samples", "raw_bytes", "peer", "settings", "threads", "status", "reason", "quality", "bytes",
    "bits_per_voxel", "psnr_db",
    "encode_s", "encode_s_p20", "encode_s_p80", "decode_s", "decode_s_p20", "decode_s_p80",
    "encode_process_s", "encode_process_s_p20", "encode_process_s_p80", "encode_peak_mib",
    "decode_process_s", "decode_process_s_p20", "decode_process_s_p80", "decode_peak_mib", "version", "commit", "date",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What to time and how often.

    Attributes
    ----------
    target : float or None
        Bits/voxel; None for lossless.
    threads : int
    repeats : int
        Of the codec alone.
    process_repeats : int
        Of whole processes; 0 leaves them out.
    """

    target: float | None
    threads: int
    repeats: int
    process_repeats: int


def spread(seconds: Sequence[float], name: str) -> Row:
    """Median, 20th and 80th percentile."""
    low, middle, high = np.percentile(seconds, (20, 50, 80))
    return {name: float(middle), f"{name}_p20": float(low), f"{name}_p80": float(high)}


def measure(spec: str, signal: BenchSignal, peer: Peer, plan: Plan) -> Row:
    """Time one codec on one signal; failures are rows too."""
    row: Row = {
        "signal": signal.name, "shape": signal.shape_text, "samples": signal.samples, "raw_bytes": signal.raw_bytes,
        "peer": peer.spec, "settings": peer.settings, "threads": plan.threads, "commit": commit_of(peer.sources), "date": today(),
    }  # fmt: skip
    if plan.target is None and not peer.lossless:
        return {**row, "status": "unsupported", "reason": "no lossless mode" + (" yet" if peer.name in METHODS else "")}
    if plan.target is not None and peer.scale is None:
        return {**row, "status": "unsupported", "reason": "lossless only"}
    if refusal := peer.refuses(signal, plan.target is None):
        return {**row, "status": "unsupported", "reason": refusal}
    base = {"signal": spec, "peer": peer.spec, "order": peer.order, "threads": plan.threads}
    found = _warm(base, plan)
    if "error" in found:
        return {**row, "status": "failed", "reason": found["error"]}
    row |= {"status": "ok", "version": peer.version(), "bytes": found["bytes"], "bits_per_voxel": 8 * found["bytes"] / signal.samples}
    row |= {"quality": "" if found["quality"] is None else f"{peer.scale.name}={found['quality']:g}"}  # type: ignore[union-attr]
    row |= {"psnr_db": found["psnr_db"], **spread(found["encode_s"], "encode_s"), **spread(found["decode_s"], "decode_s")}
    if plan.process_repeats:
        row |= _whole_processes(base, found["quality"], plan)
    return row


def _warm(base: dict[str, Any], plan: Plan) -> dict[str, Any]:
    task = {**base, "do": "warm", "target": plan.target, "repeats": plan.repeats}
    child = start_child("bench.timing", task, plan.threads)
    out, errors = child.communicate()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if child.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    last = errors.strip().splitlines()[-1] if errors.strip() else "no message"
    how = f"killed by signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    return {"error": f"process ended: {how}; {last}"}


def _whole_processes(base: dict[str, Any], quality: float | None, plan: Plan) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        stream, target = str(Path(folder) / "stream"), str(Path(folder) / "samples")
        row: Row = {}
        for task in ({"do": "encode", "quality": quality, "stream": stream}, {"do": "decode", "stream": stream, "target": target}):
            runs = [_process({**base, **task}, plan.threads) for _ in range(plan.process_repeats)]
            row |= spread([seconds for seconds, _ in runs], f"{task['do']}_process_s")
            row[f"{task['do']}_peak_mib"] = max(peak for _, peak in runs)
    return row


def _process(task: dict[str, Any], threads: int) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB of one child."""
    began = time.perf_counter()
    child = start_child("bench.timing", task, threads, pipes=False)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, f"bench.timing {task['do']} {task['peer']}")
    return seconds, usage.ru_maxrss / 1024


def mega(amount: float, seconds: Any) -> float:
    """Millions per second."""
    return float(amount) / float(seconds) / 1e6


def throughput_lines(rows: Sequence[Row], plan: Plan, command: str) -> list[str]:
    """The report: decode and encode tables of every signal."""
    names = {"jpeg2000": "JPEG 2000", "x265": "HEVC"}
    lines = ["# Throughput", "", *_fastest(rows), "", f"Command: `{command}`", "", *machine_lines(), ""]
    lines += [
        f"{plan.threads} threads for every codec, each at the setting closest to {plan.target:g} bits/voxel. Medians (20th to 80th percentile).",
        "Codec only: calls inside one process after a first one. Whole process: interpreter, imports, reading, coding, writing; peak memory of that process.",
        "MB/s are of the stored samples. Times JPEG 2000, times HEVC: speed over theirs, codec only, same run.",
    ]
    for signal in dict.fromkeys(row["signal"] for row in rows):
        found = [row for row in rows if row["signal"] == signal]
        for work in ("decode", "encode"):
            lines += ["", f"## {signal}, {found[0]['shape']}: {work}", ""]
            head = ["codec", "bits/voxel", "PSNR dB", "Mvoxel/s", "MB/s", *(f"x {names[n]}" for n in names)]
            head += ["whole process Mvoxel/s", "s", "peak MiB"]
            lines += ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
            lines += [_speed_line(row, found, work, tuple(names)) for row in found]
    return lines


def _fastest(rows: Sequence[Row]) -> list[str]:
    """Who is fastest, in words."""
    lines = []
    for signal in dict.fromkeys(row["signal"] for row in rows):
        done = [row for row in rows if row["signal"] == signal and row["status"] == "ok"]
        if len(done) < 2:
            continue
        for work in ("decode", "encode"):
            ordered = sorted(done, key=lambda row: row[f"{work}_s"])
            words = f"- {signal}, {work}: fastest is {_speed_words(ordered[0], work)}"
            ours = [row for row in ordered if row["peer"].partition(":")[0] in METHODS]
            words += "".join(f"; {_speed_words(row, work)}, place {ordered.index(row) + 1} of {len(ordered)}" for row in ours)
            lines.append(words + ".")
    return lines or ["Nothing was measured."]


def _speed_words(row: Row, work: str) -> str:
    return f"{title_of(row['peer'])} with {mega(row['samples'], row[f'{work}_s']):.1f} Mvoxel/s"


def _speed_line(row: Row, rows: Sequence[Row], work: str, baselines: Sequence[str]) -> str:
    if row["status"] != "ok":
        return f"| {title_of(row['peer'])} | {row['status']}: {row['reason']} |" + " |" * (6 + len(baselines))
    seconds = row[f"{work}_s"]
    speeds = [mega(row["samples"], row[f"{work}_s{end}"]) for end in ("", "_p80", "_p20")]
    cells = [title_of(row["peer"]), f"{row['bits_per_voxel']:.4f}", f"{row['psnr_db']:.2f}"]
    cells += [f"{speeds[0]:.1f} ({speeds[1]:.1f} to {speeds[2]:.1f})", f"{mega(row['raw_bytes'], seconds):.1f}"]
    for name in baselines:
        base = next((r for r in rows if r["status"] == "ok" and r["peer"].partition(":")[0] == name), None)
        cells.append("" if base is None else f"{base[f'{work}_s'] / seconds:.2f}")
    whole = row.get(f"{work}_process_s")
    cells += [f"{mega(row['samples'], whole):.1f}", f"{whole:.2f}", f"{row[f'{work}_peak_mib']:.0f}"] if whole else ["", "", ""]
    return "| " + " | ".join(cells) + " |"


def gpu_lines(specs: Sequence[str]) -> list[str]:
    """Decoders on the GPU, volume by volume; one line where there is none."""
    if not gpu_name():
        return ["", "GPU decoders: not measured yet, no CUDA device here."]
    from .gpu import section

    lines = []
    for signal in map(load_signal, specs):
        if signal.kind == "volume":
            lines += ["", f"## {signal.name}, {signal.shape_text}: decode on the GPU", "", *section(signal)]
    return lines


def lossless_lines(rows: Sequence[Row], plan: Plan, command: str) -> list[str]:
    """The lossless report: one table per signal, every stream decoded and compared sample by sample."""
    lines = ["# Lossless", "", *_smallest(rows), "", f"Command: `{command}`", "", *machine_lines(), ""]
    lines += [f"{plan.threads} threads for every codec; every stream was decoded and every sample compared. Medians, codec only."]
    for signal in dict.fromkeys(row["signal"] for row in rows):
        found = [row for row in rows if row["signal"] == signal]
        lines += ["", f"## {signal}, {found[0]['shape']}", ""]
        lines += ["| codec | bits/voxel | ratio | encode Mvoxel/s | decode Mvoxel/s |", "|---|--:|--:|--:|--:|"]
        for row in sorted(found, key=lambda row: row.get("bits_per_voxel", math.inf)):
            if row["status"] != "ok":
                lines.append(f"| {title_of(row['peer'])} | | | | {row['status']}: {row['reason']} |")
                continue
            speeds = [f"{mega(row['samples'], row[f'{work}_s']):.1f}" for work in ("encode", "decode")]
            ratio = row["raw_bytes"] / row["bytes"]
            lines.append(f"| {title_of(row['peer'])} | {row['bits_per_voxel']:.3f} | {ratio:.2f} | {speeds[0]} | {speeds[1]} |")
    return lines


def _smallest(rows: Sequence[Row]) -> list[str]:
    lines = []
    for signal in dict.fromkeys(row["signal"] for row in rows):
        done = [row for row in rows if row["signal"] == signal and row["status"] == "ok"]
        if done:
            best = min(done, key=lambda row: row["bytes"])
            lines.append(f"- {signal}: smallest is {title_of(best['peer'])} with {best['bits_per_voxel']:.3f} bits/voxel.")
    lines += ["- inrcodec has no lossless mode yet: its rows are empty."]
    return lines


def peers_to_time(names: Sequence[str], signal: BenchSignal, threads: int) -> list[Peer]:
    """Codecs that are installed; a series takes the first of its orders."""
    peers = []
    for name in names:
        if not make_peer(name).missing():
            peers.append(make_peer(name, make_peer(name).orders(signal)[0], threads))
    return peers


def run(specs: Sequence[str], names: Sequence[str], plan: Plan, on_row: Any) -> list[Row]:
    """Time every codec on every signal, one after the other: nothing else of ours runs meanwhile."""
    rows = []
    for spec in specs:
        signal = load_signal(spec)
        for peer in peers_to_time(names, signal, plan.threads):
            rows.append(measure(spec, signal, peer, plan))
            on_row(rows[-1])
    return rows
