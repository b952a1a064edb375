"""Large boxes, made piece by piece."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

_SAMPLES = 1 << 22
"""Samples made at a time."""


def in_parts(
    start: NDArray[np.int64], stop: NDArray[np.int64], make: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """A box, made part by part."""
    found = np.empty(tuple((stop - start).tolist()), dtype=np.float32)
    for part in _parts(found.shape):
        found[part] = make(start + [s.start for s in part], start + [s.stop for s in part])
    return found


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a box into parts of at most `_SAMPLES`, along its first axes."""
    cuts, left = [], _SAMPLES
    for n, rest in zip(shape, [math.prod(shape[axis + 1 :]) for axis in range(len(shape))], strict=True):
        length = min(n, max(1, left // max(rest, 1)))
        cuts.append([slice(a, min(a + length, n)) for a in range(0, n, max(length, 1))])
        left = max(left // length, 1) if rest > left else _SAMPLES
    yield from itertools.product(*cuts)
