"""Frames from still frames, displaced by a coarse field, and the adjoint. See README.md."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import REFERENCE, Backend, compiled_on_host, on_device
from . import reference
from .layout import MAX_SHIFT, MIN_SHIFT, NODE_LIMIT, Field, Place, check, nodes_of, positions, seen

__all__ = [
    "MAX_SHIFT", "MIN_SHIFT", "NODE_LIMIT", "Field", "Place", "adjoint", "check", "nodes_of", "positions", "seen", "warp", "warp_there",
]  # fmt: skip

Floats = NDArray[np.float32]


def warp(
    still: Floats, origin: tuple[int, int], field: Field, start: Place, stop: Place, backend: Backend = REFERENCE
) -> Floats:
    """Samples of a box of frames: the same, to the last bit, as those of any other box.

    Parameters
    ----------
    still : ndarray of float32, shape (stop[0] - start[0], a, b)
        Of the still frames start[0] to stop[0] a part that holds what `seen` says.
    origin : tuple of 2 int
        Place of the part's first sample in each still frame.
    field : Field
        Of all frames, checked by `check`.
    start, stop : tuple of 3 int
        The box, (frame, y, x).
    backend : Backend
        With "triton" as well, this runs on the CPU; `warp_there` is for devices.

    Returns
    -------
    ndarray of float32, shape ``stop - start``

    Raises
    ------
    ValueError
        If samples are missing.
    """
    _check_part(still.shape, origin, field, start, stop)
    if compiled_on_host(backend):
        from . import cpu

        return cpu.warp(still, origin, field, start, stop)
    found: Floats = reference.warped(torch.from_numpy(still), origin, field, start, stop).numpy()
    return found


def warp_there(still: Tensor, origin: tuple[int, int], field: Field, start: Place, stop: Place, backend: Backend) -> Tensor:
    """As `warp`, of a tensor on the backend's device, where the result stays."""
    _check_part(tuple(still.shape), origin, field, start, stop)
    if on_device(backend):
        from . import triton

        found: Tensor = triton.warp(still, origin, field, start, stop)
        return found
    return torch.from_numpy(warp(still.cpu().numpy(), origin, field, start, stop, backend)).to(still.device)


def adjoint(gradients: Floats, field: Field, backend: Backend = REFERENCE) -> Floats:
    """Gradients by the samples of all still frames, from those by the samples of all frames.

    Parameters
    ----------
    gradients : ndarray of float32, shape (n, h, w)
    field : Field
    backend : Backend
        With "triton" as well, this runs on the CPU.

    Returns
    -------
    ndarray of float32, shape (n, *field.still)

    Raises
    ------
    ValueError
        If the shape is not that of the field's frames.
    """
    expected = (len(field.nodes), *field.frame)
    if gradients.shape != expected:
        raise ValueError(f"expected gradients of shape {expected}, found {gradients.shape}; give those of all frames")
    if compiled_on_host(backend):
        from . import cpu

        return cpu.adjoint(gradients, field)
    found: Floats = reference.adjoint(gradients, field).astype(np.float32, copy=False)
    return found


def _check_part(shape: tuple[int, ...], origin: tuple[int, int], field: Field, start: Place, stop: Place) -> None:
    low, high = seen(field, start, stop)
    held = [(0, high[0] - low[0]), *((o, o + n) for o, n in zip(origin, shape[1:], strict=True))]
    wanted = [(0, shape[0]), *zip(low[1:], high[1:], strict=True)]
    if held[0] != wanted[0] or any(a < o or b > e for (a, b), (o, e) in zip(wanted, held, strict=True)):
        raise ValueError(f"expected samples {low} to {high} of still frames, found {shape} from {origin} on; read more")
