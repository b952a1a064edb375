"""Find the quality at which a codec lands on a rate: rates are measured, never believed."""

from __future__ import annotations

import math
from collections.abc import Callable

from .peers.base import QualityScale

CLOSE = 0.06
"""Accepted distance from the target, in octaves of the rate: 4 %."""
TRIALS = 9


def search_quality(
    rate_of: Callable[[float], float], target: float, scale: QualityScale, known: dict[float, float]
) -> float:
    """Quality whose rate is closest to `target`.

    Parameters
    ----------
    rate_of : callable
        Encodes at a quality and returns the rate in bits/voxel.
    target : float
        Bits/voxel.
    scale : QualityScale
    known : dict
        Rates by quality from earlier searches on the same signal; receives those of this one.

    Returns
    -------
    float
        The best quality tried. Whether its rate is close enough is the caller's business: a codec may have a floor.
    """
    if scale.exact:
        known[target] = rate_of(target)
        return target
    for _ in range(TRIALS):
        # A whole-number scale gives what its steps give: the loop ends when the best step was tried.
        quality = _next_quality(target, scale, known)
        if quality in known:
            break
        known[quality] = rate_of(quality)
        if abs(_octaves(known[quality], target)) <= CLOSE:
            break
    return min(known, key=lambda q: abs(_octaves(known[q], target)))


def _next_quality(target: float, scale: QualityScale, known: dict[float, float]) -> float:
    """Interpolate log2(rate) over the scale between the nearest neighbours, or extrapolate along the last slope."""
    points = sorted((scale.to_position(q), math.log2(max(rate, 1e-9))) for q, rate in known.items())
    wanted = math.log2(target)
    if not points:
        return scale.from_position(scale.to_position(scale.first))
    below = [p for p in points if p[1] <= wanted]
    above = [p for p in points if p[1] > wanted]
    if below and above:
        return _between(max(below), min(above), wanted, scale, known)
    nearest, other = (points[-1], points[-2:-1]) if below else (points[0], points[1:2])
    slope = scale.octaves
    if other and nearest[0] != other[0][0]:
        measured = (nearest[1] - other[0][1]) / (nearest[0] - other[0][0])
        slope = min(max(measured, scale.octaves / 4), scale.octaves * 4)
    return scale.from_position(nearest[0] + (wanted - nearest[1]) / slope)


def _between(
    low: tuple[float, float], high: tuple[float, float], wanted: float, scale: QualityScale, known: dict[float, float]
) -> float:
    """Interpolate; where that creeps along one side or repeats a trial, halve."""
    share = (wanted - low[1]) / max(high[1] - low[1], 1e-9)
    quality = scale.from_position(low[0] + min(max(share, 0.1), 0.9) * (high[0] - low[0]))
    if quality in known:
        quality = scale.from_position((low[0] + high[0]) / 2)
    return quality


def _octaves(rate: float, target: float) -> float:
    return math.log2(max(rate, 1e-9) / target)
