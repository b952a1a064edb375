"""SCI: a private funnel of sine layers for every block.

The network of block k sees block coordinates and says how the block differs from its mean, in units of its spread::

    f_k(x) = mean_k + 2^(scale_k / 2) net_k(x),      net(x) = W_L sin(W_(L-1) ... sin(W_0 x + b_0) ... + b_(L-1)) + b_L

Widths fall from layer to layer (a funnel): a two-layer sine network is a sum over combinations of its first layer's
frequencies, so the first layer, which says what frequencies there are, is the widest. Blocks of one *class* have the
same widths and are evaluated together. Weights are kept with the bias as their last row.

First layers start from numbers that every decoder can draw for itself, so the stream holds only how far they moved.

References
----------
Yang et al. 2023, "SCI: A Spectrum Concentrated Implicit Neural Compression for Biomedical Data" (AAAI), arXiv:2209.15180.
Sitzmann et al. 2020, arXiv:2006.09661; w0 is folded into the stored weights.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.siren import forward
from inrcodec_kernels.siren import layer_shapes as weight_shapes

__all__ = [
    "LEAST_WIDTH",
    "MAX_WIDTH",
    "Widths",
    "first_layers",
    "forward",
    "funnel",
    "half_octaves",
    "weight_count",
    "weight_shapes",
]

Widths = tuple[int, ...]
LEAST_WIDTH = 2
"""Narrower layers carry nothing."""
MAX_WIDTH = 512
"""Widest layer that a decoder accepts."""


def weight_count(ndim: int, widths: Widths) -> int:
    """Number of weights of one network."""
    return sum(math.prod(shape) for shape in weight_shapes(ndim, widths))


def funnel(ndim: int, weights: int, layers: int, taper: float) -> Widths:
    """Widest funnel of at most so many weights, and no layer wider than `MAX_WIDTH`.

    Parameters
    ----------
    ndim : int
        Coordinate axes.
    weights : int
    layers : int
        Sine layers, at most; small networks get fewer.
    taper : float
        Each layer is ``2 ** -taper`` as wide as the one before; 0 makes all alike.

    Returns
    -------
    tuple of int
        Empty where not even the narrowest network fits.
    """
    for depth in range(layers, 0, -1):
        low, high = LEAST_WIDTH - 1, 1 + min(weights, MAX_WIDTH)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if weight_count(ndim, _tapered(middle, depth, taper)) <= weights else (low, middle)
            )
        # A funnel that ends in a layer of two is too steep for its size: fewer layers serve better.
        if low >= LEAST_WIDTH and (depth == 1 or low * 2 ** (-taper * (depth - 1)) >= LEAST_WIDTH):
            return _tapered(low, depth, taper)
    return ()


def _tapered(first: int, depth: int, taper: float) -> Widths:
    return tuple(max(LEAST_WIDTH, round(first * 2 ** (-taper * layer))) for layer in range(depth))


def first_layers(bandwidth: NDArray[np.int64], width: int, draw: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Where the first layers of some blocks start: alike on every machine.

    Parameters
    ----------
    bandwidth : ndarray of int, shape (n, d)
        Half octaves of the RMS frequency along each axis, in radians per unit coordinate.
    width : int
    draw : ndarray of uint64, shape (n,)
        Key of each block's random numbers.

    Returns
    -------
    ndarray of float32, shape (n, d + 1, width)
        Weights ``U(+-sqrt(3) 2^(bandwidth / 2))``, and in the last row biases ``U(+-pi)``.
    """
    n, ndim = bandwidth.shape
    uniform = _uniform(draw, (ndim + 1) * width).reshape(n, ndim + 1, width)
    reach = np.full((n, ndim + 1), math.pi)
    reach[:, :ndim] = math.sqrt(3.0) * half_octaves(bandwidth)
    return (uniform * reach[:, :, None]).astype(np.float32)


def half_octaves(exponent: NDArray[np.int64]) -> NDArray[np.float64]:
    """``2 ** (exponent / 2)``, alike on every machine: halves by one constant, the rest exact."""
    halved = np.ldexp(1.0, exponent >> 1)
    return np.where(exponent & 1, halved * 1.4142135623730951, halved)


def _uniform(key: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """`count` numbers in [-1, 1) for each key, shape (n, count): splitmix64 in counter mode, the upper 24 bits."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, count + 1, dtype=np.uint64)
        x: NDArray[np.uint64] = np.multiply.outer(key, np.array([0x2545F4914F6CDD1D], dtype=np.uint64)) + counter
        x *= np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1
