"""Ours, through the public API like anybody else's: `inrcodec.encode` and `inrcodec.decode`, every byte counted."""

from __future__ import annotations

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
    clips = False
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

    def refuses(self, signal: BenchSignal, lossless: bool = False) -> str:
        """Clips until there is video."""
        return "no video yet" if signal.kind == "clip" else ""

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress to at most `quality` bits/voxel."""
        import inrcodec

        if quality is None:
            raise PeerError("no lossless mode yet")
        self._set_threads()
        effort = int(self.variant or 5)
        try:
            return inrcodec.encode(signal.main, bits_per_voxel=quality, method=self.method, effort=effort)
        except inrcodec.TargetError as error:
            raise UnreachableError(str(error)) from None

    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress the whole signal."""
        import inrcodec

        self._set_threads()
        return inrcodec.decode(data).planes

    def _set_threads(self) -> None:
        import torch

        torch.set_num_threads(self.threads)


class Tinc(Inrcodec):
    """TINC at its default options."""

    name, title, method = "tinc", "inrcodec TINC", "tinc"
