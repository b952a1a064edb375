"""The README's tables, made from the CSV files of one results folder and put between two markers."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from .report import Curves, averaged, curves_of, headline, latest, title_of
from .signals import LABEL_MAPS
from .store import Row
from .throughput import mega

BEGIN = re.compile(r"<!-- begin: python -m bench readme --results (\S+) -->\n")
END = "<!-- end: python -m bench readme -->"
METHOD = "tinc"
RATIOS = (256, 64, 16)
SHOWN = ("sci", "x265:veryslow", "x265:slow", "svtav1:2", "sperr", "jpeg2000:volume", "jpeg2000:slices", "jpegxl:9", "sz3")


def update(readme: Path, folder: Path) -> None:
    """Rewrite the block between the markers, and the folder that the first one names.

    Raises
    ------
    ValueError
        If the README has no markers or the folder no results.
    """
    before, _, after = split(readme.read_text("utf-8"))
    begin = f"<!-- begin: python -m bench readme --results {folder.as_posix()} -->\n"
    readme.write_text(before + begin + block(folder) + "\n" + END + after, encoding="utf-8")


def split(text: str) -> tuple[str, str, str]:
    """What stands before, between and after the markers.

    Raises
    ------
    ValueError
        If the markers are missing.
    """
    begin = BEGIN.search(text)
    if begin is None or END not in text[begin.end() :]:
        raise ValueError(f"expected `<!-- begin: python -m bench readme --results FOLDER -->` and `{END}` in the README, found none")
    between, after = text[begin.end() :].split(END, 1)
    return text[: begin.start()], between, after


def block(folder: Path) -> str:
    """The tables of a results folder as Markdown.

    Raises
    ------
    ValueError
        If there is no ``rd.csv``.
    """
    rows = latest(_read(folder / "rd.csv"))
    if not rows:
        raise ValueError(f"expected rd.csv with rows in {folder}, found none; run `python -m bench rd` first")
    curves = curves_of(rows)
    kinds = {row["signal"]: row["kind"] for row in rows}
    parts = [*headline(curves, kinds), "", *_fidelity(curves, rows, kinds)]
    timed = _read(folder / "throughput.csv")
    if timed:
        parts += ["", *_speed(timed)]
    sizes = _read(folder / "lossless.csv")
    if sizes:
        parts += ["", *_lossless(sizes)]
    return "\n".join(parts)


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _fidelity(curves: Curves, rows: Sequence[Row], kinds: dict[str, str]) -> list[str]:
    """Ours at three ratios, and every peer's PSNR at the very rate that ours took."""
    peers = [peer for peer in SHOWN if any(peer in known for known in curves.values())]
    head = ["volume", "ratio", "bits/voxel", "SSIM", "max error", "**TINC**", *(title_of(peer) for peer in peers)]
    lines = ["PSNR in dB at equal bits/voxel (peers interpolated at our rate; best in bold):", ""]
    lines += ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    names = averaged(curves, kinds) + [name for name in LABEL_MAPS if name in curves]
    for name in names:
        ours = sorted((r for r in rows if (r["signal"], r["peer"], r["status"]) == (name, METHOD, "ok")), key=lambda r: float(r["target"]))
        for wanted in RATIOS:
            row = min(ours, key=lambda r: abs(float(r["ratio"]) - wanted), default=None)
            if row is not None and abs(float(row["ratio"]) / wanted - 1) < 0.05:
                lines.append(_fidelity_line(name, row, curves, peers))
    return lines


def _fidelity_line(name: str, row: Row, curves: Curves, peers: Sequence[str]) -> str:
    rate, own = float(row["bits_per_voxel"]), float(row["psnr_db"])
    found = [curves[name][peer].psnr_at(rate) if peer in curves[name] else None for peer in peers]
    best = max([own, *(value for value in found if value is not None)])
    shown = [("" if v is None else f"**{v:.2f}**" if v == best else f"{v:.2f}") for v in [own, *found]]
    cells = [name, f"{float(row['ratio']):.1f}", f"{rate:.4f}", f"{float(row['ssim']):.4f}" if row["ssim"] else "", f"{float(row['max_abs_error']):g}"]
    return "| " + " | ".join([*cells, *shown]) + " |"


def _speed(rows: Sequence[Row]) -> list[str]:
    lines = [f"Speed at about {_common_rate(rows):.2g} bits/voxel, {rows[0]['threads']} threads each, codec only, median Mvoxel/s (decode / encode):", ""]
    signals = list(dict.fromkeys(row["signal"] for row in rows))
    lines += ["| codec | " + " | ".join(signals) + " |", "|---|" + "--:|" * len(signals)]
    for peer in dict.fromkeys(row["peer"] for row in rows):
        found = {row["signal"]: row for row in rows if row["peer"] == peer and row["status"] == "ok"}
        cells = [_speed_cell(found[name]) if name in found else "" for name in signals]
        lines.append(f"| {title_of(peer)} | {' | '.join(cells)} |")
    return lines


def _common_rate(rows: Sequence[Row]) -> float:
    rates = sorted(float(row["bits_per_voxel"]) for row in rows if row["status"] == "ok")
    return rates[len(rates) // 2]


def _speed_cell(row: Row) -> str:
    return " / ".join(f"{mega(float(row['samples']), row[f'{work}_s']):.1f}" for work in ("decode", "encode"))


def _lossless(rows: Sequence[Row]) -> list[str]:
    """Bits/voxel without loss; ours is empty until it exists."""
    signals = list(dict.fromkeys(row["signal"] for row in rows))
    lines = ["Lossless, bits/voxel, every sample compared:", "", "| codec | " + " | ".join(signals) + " |", "|---|" + "--:|" * len(signals)]
    for peer in dict.fromkeys(row["peer"] for row in rows):
        found = {row["signal"]: row for row in rows if row["peer"] == peer}
        cells = [_lossless_cell(found.get(name)) for name in signals]
        lines.append(f"| {title_of(peer)} | {' | '.join(cells)} |")
    return lines


def _lossless_cell(row: Row | None) -> str:
    if row is None or row["status"] == "unsupported":
        return ""
    return f"{float(row['bits_per_voxel']):.2f}" if row["status"] == "ok" else row["status"]
