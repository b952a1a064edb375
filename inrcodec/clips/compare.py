"""Comparing two clips frame by frame: PSNR by plane, SSIM, VMAF where FFmpeg has it, and a picture of three frames."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from inrcodec_formats.errors import SignalError
from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.read import ClipReader

from ..backends import backend_for
from ..metrics import ErrorStatistics, error_statistics, ssim3d
from ..reports import ClipCompareReport
from .sources import ClipSource, SignalFrames, opened
from .stream import plane_names
from .survey import Frames, Planes
from .view import Clip
from .vmaf import vmaf

Progress = Callable[..., None]
Pair = tuple[Planes, Planes]
Shown = dict[int, tuple[np.ndarray, np.ndarray]]


def compare_clips(
    original: ClipSource,
    decoded: ClipSource,
    *,
    compressed_bytes: int | None = None,
    picture: str | os.PathLike[str] | None = None,
    progress: Progress,
) -> ClipCompareReport:
    """Measure what was lost; see `inrcodec.comparison.compare`. No more than a group of frames is held.

    Raises
    ------
    SignalError
        If the clips differ in size, number of frames or bit depth.
    """
    with _clip(original) as reference, _clip(decoded) as copy:
        _check_alike(reference.header, copy.header)
        comparison = _Comparison(reference, copy, progress)
        size = compressed_bytes or _stream_bytes(decoded)
        report = comparison.report(size, None if picture is None else os.fspath(picture))
        if picture is not None:
            _draw(comparison.shown, report, picture)
        return report


class _Comparison:
    """Sums over all frames of two clips."""

    def __init__(self, original: Frames | Clip, decoded: Frames | Clip, progress: Progress) -> None:
        self.original, self.decoded, self.header = original, decoded, original.header
        self.names = plane_names(self.header)
        self.notes = tuple(dict.fromkeys((*getattr(original, "notes", ()), *getattr(decoded, "notes", ()))))
        self.peak = self._own_range(progress)
        self.errors = [ErrorStatistics(0, 0, 0, 0)] * len(self.names)
        self.scores: list[float] = []
        self.shown: Shown = {}
        self.vmaf, self.vmaf_reason = vmaf(self._measured(progress), self.header)

    def _own_range(self, progress: Progress) -> float:
        low, high = math.inf, -math.inf
        for number, planes in enumerate(self.original.frames(), 1):
            low = min(low, *(int(plane.min()) for plane in planes))
            high = max(high, *(int(plane.max()) for plane in planes))
            progress("read", number / self.header.frames, "")
        return (high - low) or 1.0

    def _measured(self, progress: Progress) -> Iterator[Pair]:
        """Pairs of frames, each measured on its way."""
        frames = self.header.frames
        shown = {frames // 6, frames // 2, 5 * frames // 6}
        for number, pair in enumerate(zip(self.original.frames(), self.decoded.frames(), strict=True)):
            for plane, (a, b) in enumerate(zip(*pair, strict=True)):
                self.errors[plane] += error_statistics(a, b)
            score = ssim3d(pair[0][0], pair[1][0], self.peak)
            self.scores += [] if score is None else [score]
            if number in shown:
                self.shown[number] = pair[0][0], pair[1][0]
            yield pair
            progress("compare", (number + 1) / frames, "")

    def report(self, size: int | None, picture: str | None) -> ClipCompareReport:
        total = sum(self.errors, ErrorStatistics(0, 0, 0, 0))
        return ClipCompareReport(
            psnr_db=total.psnr(self.peak),
            psnr_range=self.peak,
            psnr_dtype_db=total.psnr(2.0**self.header.bit_depth - 1),
            ssim=sum(self.scores) / len(self.scores) if self.scores else None,
            mean_abs_error=total.sum_abs / total.voxels,
            max_abs_error=float(total.max_abs),
            voxels=total.voxels,
            bytes=size,
            ratio=total.voxels * self.header.dtype.itemsize / size if size else None,
            bits_per_voxel=8 * size / total.voxels if size else None,
            identical=total.max_abs == 0,
            picture=picture,
            frames=self.header.frames,
            psnr_planes_db={n: e.psnr(self.peak) for n, e in zip(self.names, self.errors, strict=True)},
            vmaf=self.vmaf,
            vmaf_reason=self.vmaf_reason,
            notes=self.notes,
        )


def _check_alike(one: ClipHeader, other: ClipHeader) -> None:
    found = [(h.frames, h.plane_shapes, h.bit_depth) for h in (one, other)]
    if found[0] != found[1]:
        told = [f"{frames} frames of {shapes} and {depth} bits" for frames, shapes, depth in found]
        raise SignalError(f"expected two clips of the same size, found {told[0]} and {told[1]}")


def _clip(source: ClipSource) -> Clip | SignalFrames | ClipReader:
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".inrc":
        return Clip(source, backend_for("auto"))
    return opened(source)


def _stream_bytes(decoded: ClipSource) -> int | None:
    if isinstance(decoded, (str, os.PathLike)) and Path(decoded).suffix.lower() == ".inrc":
        return Path(decoded).stat().st_size
    return None


def _draw(shown: Shown, report: ClipCompareReport, path: str | os.PathLike[str]) -> None:
    # Imported here: matplotlib is slow to load and only a picture needs it.
    from ..picture import comparison_title, save_frames

    planes = ", ".join(f"{name} {psnr:.2f}" for name, psnr in report.psnr_planes_db.items())
    save_frames(path, shown, title=comparison_title(report), note=f"PSNR by plane, dB: {planes}")
