"""Image codecs: every slice of every plane is one image, or a whole plane is one image of many components."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ..signals import BenchSignal
from .base import Peer, fold
from .framing import Layout, pack, unpack


class SliceCodec(Peer):
    """A codec of single images, applied slice by slice; with the variant ``volume``, where offered, to the whole stack."""

    @abstractmethod
    def encode_image(self, image: np.ndarray, quality: float | None, bits: int) -> bytes:
        """Code one image ``(h, w)``, or a stack ``(n, h, w)`` as its components; None asks for lossless."""

    @abstractmethod
    def decode_image(self, data: bytes) -> np.ndarray:
        """Decode what `encode_image` made."""

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress every slice."""
        layout = Layout.of(signal, quality is None)
        images: list[np.ndarray] = []
        for plane in signal.planes:
            stack = fold(layout.shifted(plane), "")
            images += [stack] if self.variant == "volume" else list(stack)
        return pack(layout, [bytes(self.encode_image(image, quality, layout.bits)) for image in images])

    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress every slice."""
        layout, parts = unpack(data)
        planes, at = [], 0
        for shape in layout.shapes:
            count = 1 if self.variant == "volume" else int(np.prod(shape[:-2]))
            stack = np.stack([self.decode_image(part) for part in parts[at : at + count]])
            planes.append(layout.stored(stack.reshape(shape)))
            at += count
        return tuple(planes)
