"""A picture of a partition: its blocks over orthogonal slices, coloured by what each costs. Knows no method."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import SignalError

from .picture import DOTS_PER_INCH, droppable, grey_window, has_frames, spacing_line, stretch, upright, write_png
from .reports import InfoReport

if TYPE_CHECKING:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

IntArray = NDArray[np.int64]
ReadBox = Callable[[IntArray, IntArray], np.ndarray]
"""Called as ``read(start, stop)``, shapes (d,): the samples of the box [start, stop)."""

COLUMN_INCHES = 4.6
TALLEST_INCHES = 13.0
MOST_PIXELS = 2048
"""Slices with more samples along an axis are thinned: the picture has fewer dots than that."""
COLOURS, OPACITY = "viridis", 0.6
CONSTANT_COLOUR, LINE_COLOUR = "#f4845f", "#3b528b"
SCALE_PERCENTILES = (1.0, 99.5)
TINY = 1e-9
"""Stands for a rate of 0 where a logarithm is taken."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a partition and what they cost.

    Attributes
    ----------
    origin, extent : ndarray of int, shape (B, d)
        First sample and extents of each block, within the signal.
    bits : ndarray of float, shape (B,)
        Spent on each block.
    constant : ndarray of bool, shape (B,)
        Whether the block is a single value.
    """

    origin: IntArray
    extent: IntArray
    bits: NDArray[np.float64]
    constant: NDArray[np.bool_]

    @cached_property
    def rate(self) -> NDArray[np.float64]:
        """Bits per voxel of each block, shape (B,)."""
        return self.bits / self.extent.prod(axis=1)


@dataclass(frozen=True)
class Plane:
    """A slice through the middle of a signal.

    Attributes
    ----------
    name : str
        What is shown, e.g. ``"z = 64"``.
    start, stop : ndarray of int, shape (d,)
        The box of its samples: one sample along every axis that is not shown.
    vertical, horizontal : int
        Axes shown.
    """

    name: str
    start: IntArray
    stop: IntArray
    vertical: int
    horizontal: int

    @property
    def shape(self) -> tuple[int, int]:
        """Samples shown, (vertical, horizontal)."""
        return int(self.stop[self.vertical]), int(self.stop[self.horizontal])

    def crossed(self, blocks: Blocks) -> IntArray:
        """Numbers of the blocks that the slice cuts."""
        hit = (blocks.origin < self.stop) & (blocks.origin + blocks.extent > self.start)
        return np.flatnonzero(hit.all(axis=1))


def partition_title(report: InfoReport) -> str:
    """One line with the method, the number of blocks, the ratio and bits per voxel."""
    blocks = f"{report.blocks:,} block{'s' * (report.blocks != 1)}"
    return f"{report.method.upper()}   {blocks}   {report.ratio:.1f}:1, {report.bits_per_voxel:.3g} bits/voxel"


def save_partition(
    path: str | os.PathLike[str],
    blocks: Blocks,
    read: ReadBox,
    *,
    shape: Sequence[int],
    axes: str,
    spacing: Sequence[float] | None = None,
    units: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Write a PNG: each middle slice as decoded, and again with its blocks coloured by their bits per voxel.

    The colours' scale is logarithmic and the same for all slices; constant blocks are outlined only. Slices
    keep their physical aspect ratio, except that very thin stacks are stretched to stay visible. A 2-D image
    gives one row, a 4-D series its middle time point, channels (axis 0) the middle one, a 1-D signal a line over its
    blocks.

    Parameters
    ----------
    path : path
        Written whole or not at all; an existing file is replaced.
    blocks : Blocks
    read : callable
        ``read(start, stop)`` gives samples; asked for the slices only.
    shape : sequence of int
        Extents of the signal, slowest axis first, 1-D to 4-D.
    axes : str
        One letter per axis.
    spacing : sequence of float, optional
        Sample distance per axis; default 1.
    units : sequence of str, optional
        Unit per axis, written under the slices.
    title : str, optional
        First line of the picture, see `partition_title`.

    Raises
    ------
    SignalError
        If there are more than four axes.
    OutputError
        If the file cannot be written.
    """
    if not 1 <= len(shape) <= 4:
        raise SignalError(f"expected a signal of 1 to 4 axes, found {len(shape)}")
    distances = [abs(float(step)) or 1.0 for step in (spacing or (1.0,) * len(shape))]
    if len(shape) == 1:
        figure = _line_figure(blocks, read(np.zeros(1, dtype=np.int64), np.array(shape)), title)
    else:
        notes = [spacing_line(axes, distances, units)]
        if has_frames(axes):
            notes.insert(0, f"{axes[0]} = {shape[0] // 2}")
        figure = _slice_figure(blocks, read, middle_planes(shape, axes), axes, distances, title, notes)
    write_png(Path(path), figure)


def middle_planes(shape: Sequence[int], axes: str) -> list[Plane]:
    """Middle slice across each of the three space axes (of the middle time point of a series, or channel).

    Axes of one sample are left out first, so that a one-slice stack is shown as the image it is.

    Parameters
    ----------
    shape : sequence of int
        2-D to 4-D, slowest axis first.
    axes : str
        One letter per axis.
    """
    first = has_frames(axes)
    space = range(int(first), len(shape))
    dropped = {space[axis] for axis in droppable(tuple(shape[axis] for axis in space))}
    kept = [axis for axis in space if axis not in dropped]
    still = {0: shape[0] // 2} if first else {}
    if len(kept) == 2:
        return [_plane(f"{axes[kept[0]]}, {axes[kept[1]]}", shape, still, kept)]
    planes = []
    for axis in kept:
        middle = shape[axis] // 2
        rest = [other for other in kept if other != axis]
        planes.append(_plane(f"{axes[axis]} = {middle}", shape, {**still, axis: middle}, rest))
    return planes


def _plane(name: str, shape: Sequence[int], fixed: dict[int, int], shown: list[int]) -> Plane:
    start, stop = np.zeros(len(shape), dtype=np.int64), np.array(shape, dtype=np.int64)
    for axis, index in fixed.items():
        start[axis], stop[axis] = index, index + 1
    return Plane(name, start, stop, *shown)


def _slice_figure(
    blocks: Blocks, read: ReadBox, planes: list[Plane], axes: str, spacing: list[float], title: str, notes: list[str]
) -> Figure:
    from matplotlib.figure import Figure

    slices = [_thinned(read(plane.start, plane.stop).reshape(plane.shape)) for plane in planes]
    window = grey_window(slices)
    sizes = [(n * spacing[p.vertical], m * spacing[p.horizontal]) for p in planes for n, m in [p.shape]]
    widest = max(width for _, width in sizes)
    factors = [stretch(height, widest) for height, _ in sizes]
    if max(factors) > 1:
        notes = [*notes, "thin slices stretched in height"]
    heights = [COLUMN_INCHES * factor * height / widest for factor, (height, _) in zip(factors, sizes, strict=True)]
    shrink = min(1.0, TALLEST_INCHES / sum(heights))
    column, heights = max(1.8, COLUMN_INCHES * shrink), [height * shrink for height in heights]
    size = (2 * column + 1.1, max(2.6, sum(heights) + 0.12 * len(planes) + 1.0))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(len(planes), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    norm = _scale(blocks)
    for row, plane, values, factor in zip(grid, planes, slices, factors, strict=True):
        aspect = factor * spacing[plane.vertical] / spacing[plane.horizontal]
        _draw_grey(row, plane, values, window, aspect, axes)
        _draw_blocks(row[1], plane, blocks, norm)
    grid[0, 0].set_title("decoded", fontsize=10)
    grid[0, 1].set_title("blocks", fontsize=10)
    _finish(figure, grid.ravel().tolist(), norm, blocks, title, notes)
    for row in grid:
        # Slices narrower than the widest stand side by side; the colour bar had moved both to the right.
        row[0].set_anchor("E")
        row[1].set_anchor("W")
    return figure


def _thinned(values: np.ndarray) -> np.ndarray:
    rows, columns = (-(-n // MOST_PIXELS) for n in values.shape)
    return values[::rows, ::columns].astype(np.float64)


def _draw_grey(
    row: Any, plane: Plane, values: np.ndarray, window: tuple[float, float], aspect: float, axes: str
) -> None:
    """Draw the slice in every panel of a row, in coordinates of samples: their corners are whole numbers."""
    origin = upright(axes[plane.vertical])
    height, width = plane.shape
    bounds = (0, width, 0, height) if origin == "lower" else (0, width, height, 0)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": window[0], "vmax": window[1], "interpolation": "nearest"}
    for axis in row:
        axis.imshow(values, aspect=aspect, origin=origin, extent=bounds, **grey)
        axis.set_xticks([])
        axis.set_yticks([])
    row[0].set_ylabel(plane.name, fontsize=8)


def _draw_blocks(axis: Any, plane: Plane, blocks: Blocks, norm: LogNorm) -> None:
    here = plane.crossed(blocks)
    shown = [plane.horizontal, plane.vertical]
    low = blocks.origin[here][:, shown]
    high = low + blocks.extent[here][:, shown]
    # Outlines that would cover the smallest blocks get thinner with them.
    width = min(0.6, 25.0 * float(np.median(high - low)) / max(plane.shape))
    _add_rectangles(axis, low, high, blocks, here, norm, width)


def _add_rectangles(
    axis: Any, low: np.ndarray, high: np.ndarray, blocks: Blocks, here: IntArray, norm: LogNorm, width: float
) -> None:
    """Draw blocks `here` as rectangles from `low` to `high`, shapes (n, 2) of (x, y)."""
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], axis=1)
    constant = blocks.constant[here]
    axis.add_collection(_coloured(corners[~constant], blocks.rate[here][~constant], norm, width), autolim=False)
    axis.add_collection(_outlined(corners[constant], width), autolim=False)


def _coloured(corners: np.ndarray, rate: np.ndarray, norm: LogNorm, width: float) -> PolyCollection:
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection

    face = colormaps[COLOURS](norm(np.maximum(rate, TINY)))
    face[:, 3] = OPACITY
    return PolyCollection(list(corners), facecolors=face, edgecolors=(0, 0, 0, 0.75), linewidths=width)


def _outlined(corners: np.ndarray, width: float) -> PolyCollection:
    """Constant blocks: an outline that shows on black air and on white bone, and is no colour of the scale."""
    from matplotlib.collections import PolyCollection

    return PolyCollection(list(corners), facecolors="none", edgecolors=CONSTANT_COLOUR, linewidths=max(width, 0.4))


def _scale(blocks: Blocks) -> LogNorm:
    """Logarithmic scale over the rates of all blocks that are coloured, but for a few extremes."""
    from matplotlib.colors import LogNorm

    rates = blocks.rate[~blocks.constant & (blocks.bits > 0)]
    if not len(rates):
        return LogNorm(0.1, 1.0)
    low, high = np.percentile(rates, SCALE_PERCENTILES).tolist()
    # A factor of 4 at least: blocks that cost about the same must not get the two ends of the colours.
    middle = (low * high) ** 0.5
    return LogNorm(min(low, middle / 2), max(high, middle * 2))


def _finish(figure: Figure, panels: list[Any], norm: LogNorm, blocks: Blocks, title: str, notes: list[str]) -> None:
    """Add what all panels share: colour bar, legend of constant blocks, title and notes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Patch

    if not blocks.constant.all():
        bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=panels, extend="both", aspect=32, pad=0.02)
        bar.set_label("bits/voxel", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        _plain_ticks(bar.ax.yaxis)
    if blocks.constant.any():
        share = float(blocks.bits[blocks.constant].sum() / max(blocks.bits.sum(), TINY))
        label = f"constant: {blocks.constant.sum():,} of {len(blocks.bits):,} blocks, {share:.1%} of their bits"
        patch = Patch(facecolor="none", edgecolor=CONSTANT_COLOUR, label=label)
        figure.legend(handles=[patch], loc="outside lower right", fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    figure.supxlabel("   ".join(notes), fontsize=7, color="0.35")


def _plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis 0.1, 0.2, 0.5 rather than in powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _line_figure(blocks: Blocks, samples: np.ndarray, title: str) -> Figure:
    """Draw a signal over its coloured blocks, and below it the rate of each block."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5), dpi=DOTS_PER_INCH, layout="constrained")
    signal, rate = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    norm = _scale(blocks)
    signal.plot(np.arange(len(samples)) + 0.5, samples.astype(np.float64), color="black", linewidth=0.9, zorder=3)
    bottom, top = signal.get_ylim()
    start, stop = blocks.origin[:, 0], blocks.origin[:, 0] + blocks.extent[:, 0]
    low, high = np.stack([start, np.full(len(start), bottom)], 1), np.stack([stop, np.full(len(stop), top)], 1)
    here, width = np.arange(len(start)), min(0.6, 30.0 / len(start))
    _add_rectangles(signal, low, high, blocks, here, norm, width)
    signal.set_xlim(0, len(samples))
    signal.set_ylim(bottom, top)
    signal.set_ylabel("decoded, stored units", fontsize=8)
    order = np.argsort(start)
    # Blocks of no bits at all have no place on a logarithmic axis: gaps.
    steps = np.where(blocks.bits > 0, blocks.rate, np.nan)[order]
    rate.stairs(steps, [*start[order], len(samples)], color=LINE_COLOUR, baseline=None)
    rate.set_yscale("log")
    _plain_ticks(rate.yaxis)
    rate.set_ylabel("bits/voxel", fontsize=8)
    rate.set_xlabel("sample", fontsize=8)
    _finish(figure, [signal, rate], norm, blocks, title, [])
    return figure
