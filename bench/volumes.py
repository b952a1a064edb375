"""Rate and distortion of volumes: ``python -m bench.volumes PATH... --ratios 64 256 --out DIR``.

Every case runs in a process of its own, on files: encode, decode, compare. A row is printed as soon as it is measured;
``DIR/volumes.csv`` and ``DIR/volumes.md`` hold all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

COLUMNS = (
    "volume", "shape", "ratio_asked", "ratio", "bytes", "bits_per_voxel", "psnr_db", "ssim", "max_abs_error",
    "encode_s", "decode_s", "peak_gib",
)  # fmt: skip
HEADINGS = (
    "volume", "shape", "asked", "ratio", "bytes", "bits/voxel", "PSNR dB", "SSIM", "max error", "encode s", "decode s", "peak GiB",
)  # fmt: skip
PACKAGES = ("numpy", "torch", "constriction", "inrcodec")


def measure(path: Path, ratio: float, effort: int, picture: Path | None) -> dict[str, Any]:
    """One case, in this process.

    Parameters
    ----------
    path : Path
    ratio : float
    effort : int
    picture : Path or None
        Where to draw the comparison.
    """
    import inrcodec

    with tempfile.TemporaryDirectory() as folder:
        stream, decoded = Path(folder) / "a.inrc", Path(folder) / f"b{''.join(path.suffixes[-2:])}"
        began = time.perf_counter()
        encoded = inrcodec.encode(path, stream, ratio=ratio, effort=effort)
        encode_s = time.perf_counter() - began
        # A warm call: the first one pays for imports and thread pools.
        inrcodec.decode(stream)
        began = time.perf_counter()
        inrcodec.decode(stream)
        decode_s = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        inrcodec.decode(stream, decoded)
        compared = inrcodec.compare(path, decoded, compressed_bytes=stream.stat().st_size, picture=picture)
        shape = inrcodec.info(stream).shape
    return {
        "volume": path.name,
        "shape": "x".join(map(str, shape)),
        "ratio_asked": ratio,
        "ratio": compared.ratio,
        "bytes": encoded.bytes,
        "bits_per_voxel": compared.bits_per_voxel,
        "psnr_db": compared.psnr_db,
        "ssim": compared.ssim,
        "max_abs_error": compared.max_abs_error,
        "encode_s": encode_s,
        "decode_s": decode_s,
        "peak_gib": peak / 2**30,
    }


def measure_apart(path: Path, ratio: float, effort: int, picture: Path | None) -> dict[str, Any]:
    """One case in a child process, so that the peak memory is its own."""
    command = [sys.executable, "-m", "bench.volumes", str(path), "--ratios", str(ratio), "--effort", str(effort), "--case"]
    if picture is not None:
        command += ["--picture", str(picture)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def machine() -> list[str]:
    """Lines that say what the figures were measured with."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    commit = _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12")
    date = datetime.now(timezone.utc).date().isoformat()  # noqa: UP017
    return [
        f"Measured {date} at commit {commit or 'unknown'}, Python {platform.python_version()}, {versions}.",
        f"CPU: {_cpu()}, {os.cpu_count()} logical cores.",
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|" + "--:|" * (len(HEADINGS) - 2)]
    return "\n".join([*lines, *(_table_row(row) for row in rows)])


def _table_row(row: dict[str, Any]) -> str:
    forms = ("", "", "g", ".2f", "d", ".4f", ".2f", ".4f", "g", ".1f", ".2f", ".2f")
    cells = ["" if row[c] is None else format(row[c], form) for c, form in zip(COLUMNS, forms, strict=True)]
    return "| " + " | ".join(cells) + " |"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _write(folder: Path, rows: list[dict[str, Any]], command: str) -> None:
    with open(folder / "volumes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["# Volumes", "", f"Command: `{command}`", "", *machine(), "", table(rows), ""]
    lines += ["PSNR over each volume's own range. Decode: second call, into memory. Peak: of encode and decode in one process.", ""]
    (folder / "volumes.md").write_text("\n".join(lines))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.volumes", description="Rate and distortion of volumes.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64.0, 256.0])
    parser.add_argument("--effort", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--pictures", action="store_true", help="draw one comparison for each case")
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.paths[0], options.ratios[0], options.effort, options.picture)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    names = " ".join(path.name for path in options.paths)
    ratios = " ".join(f"{r:g}" for r in options.ratios)
    command = f"python -m bench.volumes {names} --ratios {ratios} --effort {options.effort}"
    rows: list[dict[str, Any]] = []
    print(table([]))
    for path in options.paths:
        for ratio in options.ratios:
            picture = options.out / f"{path.name.split('.')[0]}_{ratio:g}.png" if options.pictures else None
            rows.append(measure_apart(path, ratio, options.effort, picture))
            print(_table_row(rows[-1]), flush=True)
            _write(options.out, rows, command)


if __name__ == "__main__":
    main()
