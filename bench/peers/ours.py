"""Ours, through the public API like anybody else's: `inrcodec.encode` and `inrcodec.decode`, every byte counted."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ..signals import BenchSignal
from .base import Peer, PeerError, QualityScale, UnreachableError


class Inrcodec(Peer):
    """One of our methods; variants are efforts. Rates are asked for as bits/voxel, nothing is searched outside."""

    title = "inrcodec"
    variants = ("", "1", "2", "3", "4", "6", "7", "8", "9")
    variant_word = "effort "
    needs = ("torch", "constriction", "zstandard", "google_crc32c")
    install = "pip install -e ."
    scale = QualityScale("bits_per_voxel", 0.001, 32.0, exact=True)
    lossless = False
    sources = ("inrcodec", "kernels", "formats", "bench/peers/ours.py")
    method: str

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"effort {self.variant or 5}"

    def mapping(self, signal: BenchSignal) -> str:
        """In words."""
        return "as stored"

    def version(self) -> str:
        """Of the package."""
        import inrcodec

        return f"inrcodec {inrcodec.__version__}"

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress to at most `quality` bits/voxel."""
        import inrcodec

        if quality is None:
            raise PeerError("no lossless mode yet")
        self._set_threads()
        effort = int(self.variant or 5)
        try:
            return self._encode(_source(signal), quality, effort)
        except inrcodec.TargetError as error:
            raise UnreachableError(str(error)) from None

    def _encode(self, source: Any, bits_per_voxel: float, effort: int) -> bytes:
        import inrcodec

        return inrcodec.encode(source, bits_per_voxel=bits_per_voxel, method=self.method, effort=effort)

    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress the whole signal."""
        import inrcodec

        self._set_threads()
        return inrcodec.decode(data).planes

    def _set_threads(self) -> None:
        import torch

        torch.set_num_threads(self.threads)


def _source(signal: BenchSignal) -> Any:
    """A volume's array, or a clip's planes as frames at a constant rate, without sound."""
    if signal.kind != "clip":
        return signal.main
    from inrcodec import Signal
    from inrcodec_formats.video.header import ClipHeader

    frames, height, width = signal.main.shape
    halved = signal.planes[1].shape[2] < width
    header = ClipHeader(width, height, "yuv420p" if halved else "yuv444p", Fraction(1, 25), np.arange(frames), 1)
    luma = Signal.from_array(signal.main, axes="tyx")
    return Signal(signal.planes, luma.with_header(source_header=header.to_bytes()).header)


class Tinc(Inrcodec):
    """TINC at its default options."""

    name, title, method = "tinc", "inrcodec TINC", "tinc"


class Sci(Inrcodec):
    """SCI at its default options."""

    name, title, method = "sci", "inrcodec SCI", "sci"


class Pyramid(Inrcodec):
    """The pyramid at its default options."""

    name, title, method = "pyramid", "inrcodec pyramid", "pyramid"


class PlainSiren(Inrcodec):
    """The baseline that both systems must beat: a uniform grid of equal plain SIRENs.

    Four sine layers of equal width, every block alike, no overlap, one start, nothing corrected afterwards; same
    optimiser, steps, quantisation and coding as SCI. The frequency scale w0 is the best of a sweep with an eighth of the steps.
    """

    name, title, method = "siren", "plain SIREN grid", "sci"
    clips = False
    w0 = (10.0, 20.0, 40.0)

    def fixed_settings(self) -> str:
        """Constant settings."""
        return f"effort {self.variant or 5}, best w0 of {', '.join(f'{w:g}' for w in self.w0)}"

    def _encode(self, samples: np.ndarray, bits_per_voxel: float, effort: int) -> bytes:
        def at(w0: float, effort: int) -> bytes:
            return self._with_w0(samples, bits_per_voxel, effort, w0)

        best = min(self.w0, key=lambda w0: self._error(samples, at(w0, max(1, effort - 3))))
        return at(best, effort)

    def _with_w0(self, samples: np.ndarray, bits_per_voxel: float, effort: int, w0: float) -> bytes:
        import inrcodec
        from inrcodec.options import SciOptions

        # A coordinate layer of U(+-w0 / d) has this RMS frequency.
        bandwidth = w0 / (samples.ndim * 3**0.5)
        plain = SciOptions(
            partition="uniform", allocation="equal", taper=0.0, bandwidth=bandwidth, bandwidth_share=1.0, halo=0, starts=1
        )
        return inrcodec.encode(
            samples, bits_per_voxel=bits_per_voxel, method="sci", effort=effort, restoration=False, sci=plain
        )

    def _error(self, samples: np.ndarray, data: bytes) -> float:
        return float(np.mean((self.decode(data)[0].astype(np.float64) - samples) ** 2))
