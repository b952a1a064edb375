"""Comparing two signals, or two clips: `compare`, its report and its picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from inrcodec_formats import registry
from inrcodec_formats.axes import CHANNEL, AxisOrder
from inrcodec_formats.errors import SignalError
from inrcodec_formats.signal import Signal

from .backends import backend_for
from .clips.sources import is_clip_source
from .decoder import decode_signal
from .metrics import error_statistics, own_range, ssim3d
from .reports import CompareReport

SignalLike: TypeAlias = Signal | np.ndarray | str | os.PathLike[str]
Progress: TypeAlias = Callable[..., None]


def compare(
    original: SignalLike,
    decoded: SignalLike,
    *,
    compressed_bytes: int | None = None,
    picture: str | os.PathLike[str] | None = None,
    quantise_step: float | None = None,
    progress: Progress | None = None,
) -> CompareReport:
    """Measure what a codec lost.

    Parameters
    ----------
    original, decoded : Signal, ndarray or path
        Where `original` is a clip, so must `decoded` be.
        `decoded` may be an ``.inrc`` file: it is decoded, and its size taken for `compressed_bytes`.
    compressed_bytes : int, optional
        Size of the compressed file, for the ratio.
    picture : path, optional
        Where to write a PNG of three orthogonal slices, or of three frames: original, decoded, error.
    quantise_step : float, optional
        For files of fractions: the smallest difference to keep. Default the step that `decoded` records.
    progress : callable, optional
        Called as ``progress(stage, fraction, note="")``.

    Returns
    -------
    CompareReport
        Of clips a `inrcodec.reports.ClipCompareReport`.

    Raises
    ------
    SignalError
        If the shapes differ.
    """
    report_progress = progress or _silent
    if is_clip_source(original):
        if isinstance(decoded, np.ndarray):
            raise SignalError("expected a clip to compare a clip with, found an array; name the decoded file or the .inrc")
        from .clips.compare import compare_clips

        return compare_clips(
            original, decoded, compressed_bytes=compressed_bytes, picture=picture, progress=report_progress
        )
    decoded_signal, decoded_bytes = _load_decoded(decoded, quantise_step, report_progress)
    step = quantise_step or decoded_signal.header.quantise_step
    original_signal = _load(original, step)
    report_progress("compare", 0.0, "")
    report = _measure(original_signal, decoded_signal, compressed_bytes or decoded_bytes, picture)
    report_progress("compare", 0.8 if picture else 1.0, "")
    if picture is not None:
        _draw(original_signal, decoded_signal, report, picture)
        report_progress("compare", 1.0, "")
    return report


def _measure(
    original: Signal, decoded: Signal, compressed: int | None, picture: str | os.PathLike[str] | None
) -> CompareReport:
    reference, copy = _comparable(original, decoded)
    statistics = error_statistics(reference, copy)
    data_range = own_range(reference)
    return CompareReport(
        psnr_db=statistics.psnr(data_range),
        psnr_range=data_range,
        psnr_dtype_db=statistics.psnr(_dtype_range(original)),
        ssim=_ssim(reference, copy, data_range, _axes(original, decoded)),
        mean_abs_error=statistics.sum_abs / statistics.voxels,
        max_abs_error=float(statistics.max_abs),
        voxels=statistics.voxels,
        bytes=compressed,
        ratio=original.header.raw_bytes / compressed if compressed else None,
        bits_per_voxel=8 * compressed / statistics.voxels if compressed else None,
        identical=statistics.max_abs == 0,
        picture=None if picture is None else os.fspath(picture),
    )


def _comparable(original: Signal, decoded: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Stored integers; values when a file of fractions is involved, so that both sides have the same unit."""
    if original.header.quantise_step is None and decoded.header.quantise_step is None:
        return original.samples, decoded.samples
    return original.values, decoded.values


def _axes(original: Signal, decoded: Signal) -> str:
    """Those of the side that knows of channels: a plain array does not."""
    known = original.header.axes, decoded.header.axes
    return known[CHANNEL in known[1]]


def _ssim(reference: np.ndarray, copy: np.ndarray, data_range: float, axes: str) -> float | None:
    """SSIM; of channels, the mean over them."""
    if CHANNEL not in axes:
        return ssim3d(reference, copy, data_range)
    channels = zip(*map(AxisOrder.of(axes).coded_view, (reference, copy)), strict=True)
    known = [score for one, other in channels if (score := ssim3d(one, other, data_range)) is not None]
    return sum(known) / len(known) if known else None


def _dtype_range(signal: Signal) -> float:
    limits = np.iinfo(signal.header.dtype)
    return float(limits.max - limits.min) * (signal.header.quantise_step or 1.0)


def _draw(original: Signal, decoded: Signal, report: CompareReport, path: str | os.PathLike[str]) -> None:
    # Imported here: matplotlib is slow to load and only a picture needs it.
    from .picture import comparison_title, save_comparison

    reference, copy = _comparable(original, decoded)
    header, axes = original.header, _axes(original, decoded)
    order = AxisOrder.of(axes)
    save_comparison(
        path,
        order.coded_view(reference),
        order.coded_view(copy),
        axes="".join(order.to_coded(axes)),
        spacing=order.to_coded(header.spacing),
        units=order.to_coded(header.units),
        title=comparison_title(report),
    )


def _load(source: SignalLike, quantise_step: float | None) -> Signal:
    if isinstance(source, Signal):
        return source
    if isinstance(source, np.ndarray):
        return Signal.from_array(source, quantise_step=quantise_step if source.dtype.kind == "f" else None)
    return registry.read(source, quantise_step=quantise_step)


def _load_decoded(source: SignalLike, quantise_step: float | None, progress: Progress) -> tuple[Signal, int | None]:
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".inrc":
        return decode_signal(source, backend_for("auto"), progress), Path(source).stat().st_size
    return _load(source, quantise_step), None


def _silent(stage: str, fraction: float, note: str = "") -> None:
    """Progress that nobody watches."""
