"""A second decoder, written from docs/container.md alone: the section FILT."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .stream import Bytes, Index, RangeDecoder, Table

# ---- FILT: restoration


class Restoration(NamedTuple):
    strength: float
    first: np.ndarray
    biases: np.ndarray
    middle: np.ndarray
    last: np.ndarray


def read_tensor(coder: RangeDecoder, shape: Index) -> np.ndarray:
    """A tensor as in NETW."""
    e = coder.digit(5) - 24
    table = Table(coder.digit(16), coder.digit(8), coder.digit(8))
    return np.reshape(coder.signed(math.prod(shape), table), shape) * 2.0**e


def read_restoration(body: bytes, d: int) -> Restoration:
    fields = Bytes(body)
    version, channels, strength = fields.fields("BBf")
    assert version == 0
    taps = (1,) * (d - 3) + (3,) * min(d, 3)  # further axes in front have one tap
    coder = RangeDecoder(fields.rest())
    shapes = ((channels, *taps), (2, channels), (channels, channels), (channels, *taps))
    return Restoration(strength, *(read_tensor(coder, shape) for shape in shapes))


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, x / 10)


def correlation(s: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Without padding."""
    kept = [n - taps + 1 for n, taps in zip(s.shape, kernel.shape, strict=True)]
    windows = ((i, tuple(slice(j, j + n) for j, n in zip(i, kept, strict=True))) for i in np.ndindex(kernel.shape))
    return sum(kernel[i] * s[window] for i, window in windows)


def restored(s: np.ndarray, network: Restoration, step: float) -> np.ndarray:
    u = max(network.strength * step, 2.0**-32) / 3
    padded = np.pad(s / u, [(taps - 1, taps - 1) for taps in network.first[0].shape], mode="edge")
    h = [
        leaky(correlation(padded, kernel - kernel.mean()) + bias)
        for kernel, bias in zip(network.first, network.biases[0], strict=True)
    ]
    g = leaky(np.tensordot(network.middle, h, 1) + network.biases[1].reshape(-1, *[1] * s.ndim))
    return s + u * sum(correlation(part, kernel) for part, kernel in zip(g, network.last, strict=True))
