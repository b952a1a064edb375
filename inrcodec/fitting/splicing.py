"""A size between those of two pyramids of one signal: the slices before one from the first, the others from the second.

Both are good ones at their size, so what lies between them is one too, but for the slices at the seam; taking the same bits off
single latents costs several times the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Integers = list[NDArray[np.int32]]


def spliced(
    larger: Integers, smaller: Integers, wanted: float, strides: Sequence[Sequence[int]], bits: Callable[[Integers], float]
) -> Integers:
    """As much of the larger one as makes no more than so many bits.

    Parameters
    ----------
    larger, smaller : list of ndarray of int32
        Latents of every level, those that take more bits than are wanted, and those that do not.
    wanted : float
        Bits.
    strides : sequence of sequence of int, one for each level
        Samples of the signal under a latent, along each of its axes, which are the last ones of the arrays.
    bits : callable
        ``bits(latents)``.

    Returns
    -------
    list of ndarray of int32
        `smaller` where even one slice of the other is too much.
    """
    first = larger[0].ndim - len(strides[0])
    extents = [n * stride for n, stride in zip(larger[0].shape[first:], strides[0], strict=True)]
    axis = int(np.argmax(extents))

    def joined(cut: int) -> Integers:
        """Those of the larger one before a cut."""
        found = []
        for a, b, stride in zip(larger, smaller, strides, strict=True):
            at = -(-cut // stride[axis])
            parts = [np.moveaxis(y, first + axis, 0) for y in (a, b)]
            found.append(np.ascontiguousarray(np.moveaxis(np.concatenate([parts[0][:at], parts[1][at:]]), 0, first + axis)))
        return found

    enough, too_much, best = 0, extents[axis], smaller
    while too_much - enough > 1:
        cut = (enough + too_much) // 2
        tried = joined(cut)
        if bits(tried) <= wanted:
            enough, best = cut, tried
        else:
            too_much = cut
    return best
