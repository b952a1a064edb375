"""A picture of what a codec lost: orthogonal slices of the original, the decoded volume and their difference."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inrcodec_formats.atomic import atomic_output
from inrcodec_formats.errors import SignalError

from .reports import CompareReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
COLUMN_INCHES = 3.1
WINDOW_PERCENTILES = (0.5, 99.5)
ERROR_PERCENTILE = 99.8
MIN_ROW_FRACTION = 0.22
"""A thin stack is stretched to this height over width, so that its rows can still be seen."""


@dataclass(frozen=True)
class SlicePair:
    """One slice through both volumes, with the physical size of its samples.

    Attributes
    ----------
    name : str
        What is shown, e.g. ``"z = 64"``.
    vertical, horizontal : str
        Axis letters.
    reference, decoded : ndarray
        Shape (vertical, horizontal).
    height, width : float
        Extent of the slice in the unit of the spacing.
    """

    name: str
    vertical: str
    horizontal: str
    reference: np.ndarray
    decoded: np.ndarray
    height: float
    width: float


def comparison_title(report: CompareReport) -> str:
    """One line with PSNR, SSIM and, when the size is known, the ratio and bits per voxel."""
    parts = ["identical" if report.identical else f"PSNR {report.psnr_db:.2f} dB"]
    if report.ssim is not None:
        parts.append(f"SSIM {report.ssim:.4f}")
    if report.ratio is not None and report.bits_per_voxel is not None:
        parts.append(f"{report.ratio:.1f}:1, {report.bits_per_voxel:.3f} bits/voxel")
    return "   ".join(parts)


def save_comparison(
    path: str | os.PathLike[str],
    original: np.ndarray,
    decoded: np.ndarray,
    *,
    axes: str | None = None,
    spacing: Sequence[float] | None = None,
    units: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Write a PNG: original, decoded and error side by side, one row for each of three middle slices.

    Both volumes share one grey window (percentiles of the original); the error map is centred on white and its
    colour bar is in stored units. Slices keep their physical aspect ratio, except that very thin stacks are
    stretched to stay visible. A 2-D image gives one row, a 4-D series its middle time point, channels (axis 0) the
    middle one, a 1-D signal a line plot.

    Parameters
    ----------
    path : path
        Written whole or not at all; an existing file is replaced.
    original, decoded : ndarray
        Same shape, 1-D to 4-D, slowest axis first.
    axes : str, optional
        One letter per axis; default ``"tzyx"`` from the right.
    spacing : sequence of float, optional
        Sample distance per axis; default 1.
    units : sequence of str, optional
        Unit per axis, written under the title.
    title : str, optional
        First line of the picture, see `comparison_title`.

    Raises
    ------
    SignalError
        If the shapes differ or there are more than four axes.
    OutputError
        If the file cannot be written.
    """
    original, decoded = np.asanyarray(original), np.asanyarray(decoded)
    if original.shape != decoded.shape or not 1 <= original.ndim <= 4:
        raise SignalError(
            f"expected two arrays of the same shape, 1-D to 4-D, found {original.shape} and {decoded.shape}"
        )
    axes = axes or "tzyx"[-original.ndim :]
    distances = [abs(float(step)) or 1.0 for step in (spacing or (1.0,) * original.ndim)]
    if original.ndim == 1:
        figure = _line_figure(original, decoded, title)
    else:
        notes = [spacing_line(axes, distances, units)]
        if has_frames(axes):
            notes.insert(0, f"{axes[0]} = {original.shape[0] // 2}")
        figure = _slice_figure(middle_slices(original, decoded, axes, distances), title, notes)
    write_png(Path(path), figure)


def save_frames(
    path: str | os.PathLike[str], frames: Mapping[int, tuple[np.ndarray, np.ndarray]], *, title: str = "", note: str = ""
) -> None:
    """Write a PNG of frames of a clip: original, decoded and error side by side, a row each; see `save_comparison`.

    Parameters
    ----------
    path : path
    frames : mapping of int to (ndarray, ndarray)
        By number: one plane of the original and of the decoded frame, shape (height, width).
    title, note : str, optional
        First and last line.
    """
    pairs = [_slice_pair(f"frame {number}", *pair, "yx", (1.0, 1.0)) for number, pair in sorted(frames.items())]
    write_png(Path(path), _slice_figure(pairs, title, [note]))


def middle_slices(original: np.ndarray, decoded: np.ndarray, axes: str, spacing: Sequence[float]) -> list[SlicePair]:
    """Cut the middle slice across each of the three space axes (of the middle time point of a series, or channel).

    Axes of one sample are left out first, so that a one-slice stack is shown as the image it is.
    """
    if has_frames(axes):
        middle = original.shape[0] // 2
        original, decoded = original[middle], decoded[middle]
        axes, spacing = axes[1:], spacing[1:]
    dropped = droppable(original.shape)
    original, decoded = np.squeeze(original, dropped), np.squeeze(decoded, dropped)
    kept = [axis for axis in range(len(axes)) if axis not in dropped]
    axes, spacing = "".join(axes[axis] for axis in kept), [spacing[axis] for axis in kept]
    if original.ndim == 2:
        return [_slice_pair(f"{axes[0]}, {axes[1]}", original, decoded, axes, spacing)]
    pairs = []
    for axis, size in enumerate(original.shape):
        index = (slice(None),) * axis + (size // 2,)
        rest = [other for other in range(3) if other != axis]
        pairs.append(
            _slice_pair(
                f"{axes[axis]} = {size // 2}",
                original[index],
                decoded[index],
                "".join(axes[other] for other in rest),
                [spacing[other] for other in rest],
            )
        )
    return pairs


def has_frames(axes: str) -> bool:
    """Whether axis 0 counts volumes or images: time points of a series, or channels."""
    return len(axes) == 4 or (len(axes) == 3 and axes[0] == "c")


def droppable(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of one sample that can go while two axes remain."""
    single = [axis for axis, size in enumerate(shape) if size == 1]
    return tuple(single[: max(0, len(shape) - 2)])


def _slice_pair(name: str, original: np.ndarray, decoded: np.ndarray, axes: str, spacing: Sequence[float]) -> SlicePair:
    return SlicePair(
        name=name,
        vertical=axes[0],
        horizontal=axes[1],
        reference=original.astype(np.float64),
        decoded=decoded.astype(np.float64),
        height=original.shape[0] * spacing[0],
        width=original.shape[1] * spacing[1],
    )


def _slice_figure(pairs: list[SlicePair], title: str, notes: list[str]) -> Figure:
    from matplotlib.figure import Figure

    widest = max(pair.width for pair in pairs)
    if any(stretch(pair.height, widest) > 1 for pair in pairs):
        notes = [*notes, "thin slices stretched in height"]
    heights = [COLUMN_INCHES * stretch(pair.height, widest) * pair.height / widest for pair in pairs]
    # One very long axis must not make a picture nobody can open: shrink everything to a tall page at most.
    shrink = min(1.0, 14.0 / sum(heights))
    column, heights = max(1.2, COLUMN_INCHES * shrink), [height * shrink for height in heights]
    figure = Figure(
        figsize=(3 * column + 1.1, sum(heights) + 0.12 * len(pairs) + 0.75), dpi=DOTS_PER_INCH, layout="constrained"
    )
    grid = figure.subplots(len(pairs), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
    window = grey_window([pair.reference for pair in pairs])
    limit, clipped = _error_limit(pairs)
    for row, pair in zip(grid, pairs, strict=True):
        error_map = _draw_row(row, pair, widest, window, limit)
    for axis, heading in zip(grid[0], ("original", "decoded", "decoded \N{MINUS SIGN} original"), strict=True):
        axis.set_title(heading, fontsize=10)
    extend = "both" if clipped else "neither"
    bar = figure.colorbar(error_map, ax=grid[:, 2].tolist(), extend=extend, aspect=30, pad=0.03)
    bar.set_label("error in stored units", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for axis in grid[:, 2]:
        axis.set_anchor("C")  # the colour bar had pushed its column to the right
    figure.supxlabel("   ".join(notes), fontsize=7, color="0.35")
    return figure


def _draw_row(row: Any, pair: SlicePair, widest: float, window: tuple[float, float], limit: float) -> Any:
    """Draw one slice three times; returns the error image, for the colour bar."""
    rows, columns = pair.reference.shape
    aspect = stretch(pair.height, widest) * (pair.height / rows) / (pair.width / columns)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": window[0], "vmax": window[1]}
    signed: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    shown = ((pair.reference, grey), (pair.decoded, grey), (pair.decoded - pair.reference, signed))
    for axis, (image, style) in zip(row, shown, strict=True):
        # The last axis runs to the right and the first one up: upright for volumes whose z points to the head.
        drawn = axis.imshow(image, aspect=aspect, origin=upright(pair.vertical), interpolation="nearest", **style)
        axis.set_xticks([])
        axis.set_yticks([])
    row[0].set_ylabel(pair.name, fontsize=8)
    return drawn


def stretch(height: float, widest: float) -> float:
    """How much taller than life a slice is drawn: 1 keeps the physical aspect ratio, see MIN_ROW_FRACTION."""
    return max(1.0, MIN_ROW_FRACTION * widest / height)


def upright(vertical: str) -> Literal["lower", "upper"]:
    """Where a slice's first row is drawn: at the bottom for z, which points to the head."""
    return "lower" if vertical == "z" else "upper"


def grey_window(slices: Sequence[np.ndarray]) -> tuple[float, float]:
    """Values to draw black and white, the same for all slices: percentiles that a few outliers do not move."""
    values = np.concatenate([values.ravel() for values in slices])
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(high) + 0.5)


def _error_limit(pairs: list[SlicePair]) -> tuple[float, bool]:
    """Half-width of the error scale, and whether a few larger errors lie beyond it."""
    errors = np.concatenate([np.abs(pair.decoded - pair.reference).ravel() for pair in pairs])
    largest = float(errors.max())
    limit = float(np.percentile(errors, ERROR_PERCENTILE)) or largest or 1.0
    return limit, limit < largest


def _line_figure(original: np.ndarray, decoded: np.ndarray, title: str) -> Figure:
    from matplotlib.figure import Figure

    reference, copy = original.astype(np.float64), decoded.astype(np.float64)
    figure = Figure(figsize=(9, 5), dpi=DOTS_PER_INCH, layout="constrained")
    signal, error = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    signal.plot(reference, color="0.55", linewidth=2, label="original")
    signal.plot(copy, color="#b2182b", linewidth=1, label="decoded")
    signal.legend(fontsize=8, frameon=False)
    signal.set_ylabel("stored units", fontsize=8)
    error.plot(copy - reference, color="#2166ac", linewidth=1)
    error.axhline(0, color="0.7", linewidth=0.5)
    error.set_ylabel("decoded \N{MINUS SIGN} original", fontsize=8)
    error.set_xlabel("sample", fontsize=8)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def spacing_line(axes: str, spacing: Sequence[float], units: Sequence[str] | None) -> str:
    """Say the distance between samples along every axis."""
    named = zip(axes, spacing, units or ("",) * len(axes), strict=True)
    return "spacing " + ", ".join(f"{letter} {step:.4g} {unit}".rstrip() for letter, step, unit in named)


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", pil_kwargs={"optimize": True})
    with atomic_output(path) as stream:
        stream.write(buffer.getvalue())
