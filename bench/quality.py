"""Fidelity of a decoded signal, planes together."""

from __future__ import annotations

import numpy as np

from inrcodec.metrics import ErrorStatistics, error_statistics, ssim3d

from .peers.base import PeerError
from .signals import BenchSignal

SSIM_FRAMES = 16


def check_decoded(signal: BenchSignal, decoded: tuple[np.ndarray, ...]) -> None:
    """Every voxel must be there, in the stored type, and not a blank image.

    Raises
    ------
    PeerError
        If shape, count or dtype differ, or a plane came back constant that was not.
    """
    expected = [(plane.shape, plane.dtype) for plane in signal.planes]
    found = [(plane.shape, plane.dtype) for plane in decoded]
    if expected != found:
        raise PeerError(f"expected {expected} back, found {found}")
    if np.ptp(signal.main) > 0 and np.ptp(decoded[0]) == 0:
        raise PeerError("decoded to a constant image")


def measure_quality(signal: BenchSignal, decoded: tuple[np.ndarray, ...]) -> dict[str, float | None]:
    """PSNR over the signal's own range and all planes, SSIM, largest error.

    SSIM is 3-D for volumes; for clips that of single luma frames, over 16 frames evenly spread.
    """
    total = _errors(signal, decoded)
    return {
        "psnr_db": total.psnr(_span(signal)),
        "ssim": _ssim(signal, decoded[0], _span(signal)),
        "max_abs_error": float(total.max_abs),
    }


def measure_psnr(signal: BenchSignal, decoded: tuple[np.ndarray, ...]) -> float:
    """PSNR alone, in dB."""
    return _errors(signal, decoded).psnr(_span(signal))


def _errors(signal: BenchSignal, decoded: tuple[np.ndarray, ...]) -> ErrorStatistics:
    parts = (error_statistics(a, b) for a, b in zip(signal.planes, decoded, strict=True))
    return sum(parts, ErrorStatistics(0, 0, 0, 0))


def _span(signal: BenchSignal) -> float:
    return float(signal.high - signal.low) or 1.0


def _ssim(signal: BenchSignal, decoded: np.ndarray, span: float) -> float | None:
    if signal.kind == "volume":
        return ssim3d(signal.main, decoded, span)
    chosen = np.unique(np.linspace(0, len(decoded) - 1, SSIM_FRAMES).round().astype(int))
    scores = [ssim3d(signal.main[t], decoded[t], span) for t in chosen]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
