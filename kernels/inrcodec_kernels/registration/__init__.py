"""How far frames are off, and which way: what registering one with another needs. See README.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..backend import REFERENCE, Backend, compiled_on_host
from . import reference
from .reference import Hats, sampled

__all__ = ["Hats", "difference", "sampled", "sums", "with_slopes"]

Floats = NDArray[np.float32]


def with_slopes(frame: Floats) -> Floats:
    """A frame and its slopes along y and x, central differences; shape (h, w, 3)."""
    return np.stack([frame, *np.gradient(frame)], axis=-1)


def sums(frame: Floats, known: Floats, nodes: Floats, shift: int, outlier: float, backend: Backend = REFERENCE) -> Floats:
    """What a step of Gauss and Newton needs at each node: slopes squared, along y, along x, and both; and slopes times the rest.

    Parameters
    ----------
    frame : ndarray of float32, shape (h, w)
    known : ndarray of float32, shape (H, W, 3)
        The other frame, `with_slopes`; at least 2 x 2 samples.
    nodes : ndarray of float32, shape (2, K_y, K_x)
        Displacements along y and x, in samples; ``K_y = ((h - 1) >> shift) + 2``, and so for x.
    shift : int
    outlier : float
        The rest from which on a sample counts for less than half.
    backend : Backend
        With "triton" as well, this runs on the CPU.

    Returns
    -------
    ndarray of float32, shape (5, K_y, K_x)
    """
    if compiled_on_host(backend):
        from . import cpu

        return cpu.sums(frame, known, nodes, shift, outlier)
    return reference.sums(frame, known, nodes, shift, outlier)


def difference(frame: Floats, other: Floats, nodes: Floats, shift: int, backend: Backend = REFERENCE) -> float:
    """Mean squared difference of a frame and another one that is displaced; parameters as those of `sums`."""
    if compiled_on_host(backend):
        from . import cpu

        return cpu.difference(frame, other, nodes, shift)
    return reference.difference(frame, other, nodes, shift)
