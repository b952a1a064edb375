"""Codecs of whole arrays of real numbers: SPERR, SZ3 and ZFP. They work in float32 and the decoder rounds."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ..signals import BenchSignal
from .base import Peer, fold, series_orders, unfold
from .framing import Layout, pack, unpack

HALF = 0.499
"""An error bound below one half: rounding then gives every integer back."""


class ArrayCodec(Peer):
    """Every plane one array of float32; a 4-D series is one stack in either order."""

    def orders(self, signal: BenchSignal) -> tuple[str, ...]:
        """Both layouts of a series."""
        return series_orders(signal)

    def mapping(self, signal: BenchSignal) -> str:
        """In words."""
        return f"value - {signal.low} as float32, rounded after decoding"

    @abstractmethod
    def encode_array(self, array: np.ndarray, quality: float | None) -> bytes:
        """Code one float32 array ``(n, h, w)``; None asks for errors below one half."""

    @abstractmethod
    def decode_array(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Decode what `encode_array` made."""

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress every plane."""
        layout = Layout.of(signal, quality is None)
        stacks = (fold(layout.shifted(plane), self.order).astype(np.float32) for plane in signal.planes)
        return pack(layout, [bytes(self.encode_array(stack, quality)) for stack in stacks])

    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress every plane."""
        layout, parts = unpack(data)
        planes = []
        for part, shape in zip(parts, layout.shapes, strict=True):
            stack = self.decode_array(part, (int(np.prod(shape[:-2])), *shape[-2:]))
            planes.append(layout.stored(unfold(stack, shape, self.order)))
        return tuple(planes)
