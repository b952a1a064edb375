"""Bjøntegaard deltas between curves, over their overlap only, and averages in the log domain."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

METHOD = "pchip"


@dataclass(frozen=True)
class Curve:
    """Rate–distortion points of one codec on one signal, rates and PSNR strictly increasing.

    Attributes
    ----------
    rates : tuple of float
        Bits/voxel.
    psnrs : tuple of float
        dB.
    settings : str
        What decided the streams besides the quality.
    """

    rates: tuple[float, ...]
    psnrs: tuple[float, ...]
    settings: str = ""

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, float]], settings: str = "") -> Curve:
        """Keep what a user would: points that no smaller stream matches. Exact copies (infinite PSNR) are left out."""
        kept: list[tuple[float, float]] = []
        for rate, psnr in sorted(set(points)):
            if math.isfinite(psnr) and (not kept or psnr > kept[-1][1]):
                if kept and kept[-1][0] == rate:
                    kept.pop()
                kept.append((rate, psnr))
        return cls(tuple(r for r, _ in kept), tuple(p for _, p in kept), settings)

    def psnr_at(self, rate: float) -> float | None:
        """PSNR at a rate, interpolated over log(rate); None outside the curve."""
        if len(self.rates) < 2 or not self.rates[0] <= rate <= self.rates[-1]:
            return None
        return float(np.interp(math.log(rate), np.log(self.rates), self.psnrs))


@dataclass(frozen=True)
class Delta:
    """How a tested codec compares with an anchor.

    Attributes
    ----------
    rate : float
        BD-rate: 0.1 is 10 % more bytes than the anchor at equal PSNR, negative is fewer.
    psnr_db : float
        BD-PSNR at equal rate.
    overlap_db, overlap_rate : tuple of float
        Ends of the common range, in dB and in bits/voxel: all that the figures speak of.
    """

    rate: float
    psnr_db: float
    overlap_db: tuple[float, float]
    overlap_rate: tuple[float, float]


def delta(anchor: Curve, test: Curve) -> Delta | None:
    """BD-rate and BD-PSNR of `test` against `anchor`; None where the curves share less than 1 dB or half an octave.

    References
    ----------
    Herglotz, Kränzler, Mons, Kaup, "Beyond Bjøntegaard: limits of video compression performance comparisons",
    arXiv:2202.12565, whose package does the interpolation.
    """
    import bjontegaard

    if min(len(anchor.rates), len(test.rates)) < 3:
        return None
    in_db = _overlap(anchor.psnrs, test.psnrs)
    in_rate = _overlap(anchor.rates, test.rates)
    if in_db[1] - in_db[0] < 1 or in_rate[1] < in_rate[0] * math.sqrt(2):
        return None
    curves = (anchor.rates, anchor.psnrs, test.rates, test.psnrs)
    how = {"method": METHOD, "require_matching_points": False, "min_overlap": 0}
    return Delta(
        rate=float(bjontegaard.bd_rate(*curves, **how)) / 100,
        psnr_db=float(bjontegaard.bd_psnr(*curves, **how)),
        overlap_db=in_db,
        overlap_rate=in_rate,
    )


def better(a: Curve, b: Curve) -> Curve:
    """The curve that needs fewer bits; by mean PSNR where they cannot be compared."""
    compared = delta(a, b)
    if compared is not None:
        return b if compared.rate < 0 else a
    return max(a, b, key=lambda curve: (len(curve.psnrs), sum(curve.psnrs)))


def mean_rate(rates: Iterable[float]) -> float:
    """Average of BD-rates in the log domain: twice the bytes and half the bytes average to no change."""
    logs = [math.log1p(rate) for rate in rates]
    return math.expm1(sum(logs) / len(logs))


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float]:
    return max(a[0], b[0]), min(a[-1], b[-1])
