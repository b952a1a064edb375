"""Plots of a run: one picture of curves per signal, and one of all BD-rates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from .bd import Curve

MARKERS = "osv^D<>Pphd*X8"
OWN_COLOURS = "#b2182b", "#542788", "#b35806", "#1b7837"
"""Of our methods, in the order of their names."""


class Summary(NamedTuple):
    """BD-rates of one of our methods.

    Attributes
    ----------
    method : str
    peers, signals : list of str
    values : list of list of float or None
        Of every peer, for every signal and their average.
    """

    method: str
    peers: list[str]
    signals: list[str]
    values: list[list[float | None]]


def plot_signal(path: Path, signal: str, curves: dict[str, Curve], own: set[str]) -> None:
    """PSNR over bits/voxel, one line per codec; our methods bold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    names = sorted(curves, key=lambda name: (name.split(",")[0] not in own, name))
    for number, name in enumerate(names):
        ours = name.split(",")[0] in own
        axes.plot(
            curves[name].rates,
            curves[name].psnrs,
            label=name,
            color=OWN_COLOURS[number % len(OWN_COLOURS)] if ours else f"C{number % 10}",
            linewidth=2.8 if ours else 1.2,
            linestyle="-" if ours or number <= 10 else "--",
            marker=MARKERS[number % len(MARKERS)],
            markersize=5 if ours else 3.5,
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log", base=2)
    ticks = [2.0**k for k in range(-9, 4)]
    axes.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
    axes.set_xlabel("bits/voxel")
    axes.set_ylabel("PSNR over the own range, dB")
    axes.set_title(signal)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, frameon=False)
    _limit(axes, curves)
    figure.savefig(path)


def _limit(axes: object, curves: dict[str, Curve]) -> None:
    """Cut off what one codec alone reaches at absurdly low quality."""
    lows = sorted(curve.psnrs[0] for curve in curves.values())
    highs = sorted(curve.psnrs[-1] for curve in curves.values())
    if lows:
        axes.set_ylim(lows[len(lows) // 2] - 8, highs[-1] + 2)  # type: ignore[attr-defined]
        rates = [rate for curve in curves.values() for rate in curve.rates]
        axes.set_xlim(min(rates) * 0.9, max(rates) * 1.1)  # type: ignore[attr-defined]


def plot_summary(path: Path, summaries: list[Summary]) -> None:
    """BD-rates as coloured tables, one for each of our methods: blue where we need fewer bytes, red where we need more."""
    from matplotlib.figure import Figure

    widest = max((len(summary.signals) for summary in summaries), default=1)
    heights = [1.6 + 0.38 * len(summary.peers) for summary in summaries] or [2.0]
    figure = Figure(figsize=(1.6 + 1.15 * widest, sum(heights)), dpi=110, layout="constrained")
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    if not summaries:
        panels[0].text(0.5, 0.5, "no curve of ours", ha="center")
        panels[0].set_axis_off()
    for axes, summary in zip(panels, summaries, strict=False):
        _draw(axes, summary)
    figure.savefig(path)


def _draw(axes: Any, summary: Summary) -> None:
    logs = [[math.nan if v is None else math.log2(1 + v) for v in row] for row in summary.values]
    axes.imshow(logs, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
    for y, row in enumerate(summary.values):
        for x, value in enumerate(row):
            text = "" if value is None else f"{value:+.0%}"
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="w" if value and abs(math.log2(1 + value)) > 1.3 else "k")
    short = [name.replace("_", " ", 1).replace("_", "\n", 1) for name in summary.signals]
    axes.set_xticks(range(len(short)), short, fontsize=7)
    axes.set_yticks(range(len(summary.peers)), summary.peers, fontsize=8)
    axes.axvline(len(short) - 1.5, color="k", linewidth=1)
    axes.set_title(f"BD-rate of {summary.method}: bytes at equal PSNR\nblue = fewer than the peer", fontsize=9)
