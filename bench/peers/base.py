"""The one interface of every codec that is measured, ours included."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..signals import BenchSignal


class PeerError(Exception):
    """A codec that cannot do what was asked; the message is one line and says why."""


class UnreachableError(PeerError):
    """A rate that the codec cannot land on for this signal; not a failure."""


@dataclass(frozen=True)
class QualityScale:
    """The one number a codec takes for its quality.

    Attributes
    ----------
    name : str
        As the codec calls it, e.g. ``"qp"``.
    lowest, highest : float
        Values of the lowest and of the highest rate.
    first : float
        Where a search begins.
    logarithmic : bool
        The rate answers to the logarithm of the number (steps, error bounds, distances).
    integer : bool
        Only whole numbers exist.
    octaves : float
        Rough change of log2(rate) along the whole scale, for the first guess.
    exact : bool
        The number is the rate itself, in bits/voxel: nothing is searched.
    """

    name: str
    lowest: float
    highest: float
    first: float = 0.0
    logarithmic: bool = False
    integer: bool = False
    octaves: float = 9.0
    exact: bool = False

    def to_position(self, quality: float) -> float:
        """Place on the scale, 0 (lowest rate) to 1 (highest)."""
        low, high, value = (self._bent(v) for v in (self.lowest, self.highest, quality))
        return (value - low) / (high - low)

    def from_position(self, position: float) -> float:
        """Inverse of `to_position`, clipped to the scale and rounded where only whole numbers exist."""
        low, high = self._bent(self.lowest), self._bent(self.highest)
        value = low + min(max(position, 0.0), 1.0) * (high - low)
        value = math.exp(value) if self.logarithmic else value
        return float(round(value)) if self.integer else float(f"{value:.6g}")

    def _bent(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


class Peer(ABC):
    """One codec at one preset.

    Attributes
    ----------
    name : str
        As on the command line.
    title : str
        As in tables.
    variants : tuple of str
        Presets or modes that may follow the name after a colon; the first is the default.
    variant_word : str
        What a variant is called in tables, e.g. ``"effort "``.
    needs : tuple of str
        Modules that must be installed.
    install : str
        The command that installs them.
    scale : QualityScale or None
        None for codecs that are lossless only.
    lossless : bool
        Whether ``encode(signal, None)`` gives back every sample.
    most_bits : int
        Largest bit depth the codec takes; deeper signals are mapped, see `mapping`.
    clips : bool
        Whether it codes clips of three planes.
    sources : tuple of str
        Files, relative to the repository, whose change makes old results stale.
    """

    name: str
    title: str
    variants: tuple[str, ...] = ("",)
    variant_word = ""
    needs: tuple[str, ...] = ("imagecodecs",)
    install = "pip install imagecodecs"
    scale: QualityScale | None
    lossless = True
    most_bits = 16
    clips = True
    sources: tuple[str, ...] = ()

    def __init__(self, variant: str = "", order: str = "", threads: int = 1) -> None:
        self.variant = variant or self.variants[0]
        self.order = order
        self.threads = threads

    @property
    def spec(self) -> str:
        """Name and variant, as on the command line."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def settings(self) -> str:
        """Everything that decides the stream besides the quality."""
        return " ".join(filter(None, [self.fixed_settings(), f"order={self.order}" if self.order else ""]))

    def fixed_settings(self) -> str:
        """Constant settings, in the codec's own words."""
        return ""

    def orders(self, signal: BenchSignal) -> tuple[str, ...]:
        """Orders in which a 4-D series can be laid out as one stack; both are tried and the better one is kept."""
        return ("",)

    def missing(self) -> str:
        """Why this codec cannot run here, with the command that helps; empty when it can."""
        lacking = [module for module in self.needs if importlib.util.find_spec(module) is None]
        return f"{self.name}: needs {', '.join(lacking)}, not installed; {self.install}" if lacking else ""

    def version(self) -> str:
        """What exactly coded, as far as the package tells."""
        import imagecodecs

        name = "jpeg2k" if self.name == "jpeg2000" else self.name
        return str(getattr(imagecodecs, f"{name}_version")())

    def refuses(self, signal: BenchSignal, lossless: bool = False) -> str:
        """Why this codec cannot take `signal`; empty when it can."""
        if signal.kind == "clip" and not self.clips:
            return "no clips"
        if lossless and signal.bits > self.most_bits:
            return f"at most {self.most_bits} bits, the signal needs {signal.bits}"
        return ""

    def mapping(self, signal: BenchSignal) -> str:
        """How stored values reach the codec, in words."""
        return f"value - {signal.low}, exact" if signal.low else "as stored"

    @abstractmethod
    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress; None asks for lossless.

        Raises
        ------
        PeerError
            If the codec cannot do it.
        """

    @abstractmethod
    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress what `encode` made into planes of stored integers."""


def fold(volume: np.ndarray, order: str) -> np.ndarray:
    """Lay a 2-D to 4-D array out as a stack ``(n, h, w)``; a series by time first (``"tz"``) or slice first (``"zt"``)."""
    if volume.ndim == 4 and order == "zt":
        volume = volume.swapaxes(0, 1)
    return np.ascontiguousarray(volume).reshape(-1, *volume.shape[-2:])


def unfold(stack: np.ndarray, shape: Iterable[int], order: str) -> np.ndarray:
    """Inverse of `fold`."""
    shape = tuple(shape)
    if len(shape) == 4 and order == "zt":
        return np.ascontiguousarray(stack.reshape(shape[1], shape[0], *shape[2:]).swapaxes(0, 1))
    return stack.reshape(shape)


def series_orders(signal: BenchSignal) -> tuple[str, ...]:
    """Both layouts for a 4-D series, none for anything else."""
    return ("tz", "zt") if signal.main.ndim == 4 else ("",)
