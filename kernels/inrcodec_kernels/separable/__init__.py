"""Separable sine networks: waves of one axis, products along all axes, and leaves put into a box. See README.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backend import Backend
from . import reference
from .reference import along_axes, sine_waves

__all__ = ["along_axes", "sine_waves", "synthesise"]


def synthesise(
    out: Tensor,
    corner: Tensor,
    values: Tensor,
    lattice: Tensor,
    bases: Sequence[Tensor],
    step: float,
    offset: float,
    low: int,
    high: int,
    backend: Backend,
) -> None:
    """Write the samples of leaves of one level into a box.

    Sample q of leaf b is ``offset + step sum_w values[b, w] prod_j bases[j][q_j, lattice[w, j]]``; see `reference.synthesise`.

    Parameters
    ----------
    out : Tensor of float32, uint8, int8, uint16, int16 or int32, d axes, 1 to 4
        Written where leaves cover it. Integers are rounded, half to even, and clipped.
    corner : Tensor of int64, shape (n, d)
        Where the first sample of each leaf lies in `out`; leaves may begin before it and end beyond it.
    values : Tensor of int32, shape (n, W)
    lattice : Tensor of int64, shape (W, d)
        Frequencies of the coefficients, none twice.
    bases : sequence of d Tensors of float32, shapes (samples of a leaf, frequencies)
    step, offset : float
    low, high : int
        Range that integers are clipped to.
    backend : Backend
        All tensors are on its device.

    Raises
    ------
    ValueError
        If shapes do not belong together.
    """
    _check(out, corner, values, lattice, bases)
    if backend.name == "triton":
        from .triton import synthesise as on_gpu

        on_gpu(out, corner, values, lattice, bases, step, offset, low, high)
    elif backend.name == "numba":
        from . import cpu

        arrays = [basis.numpy() for basis in bases]
        cpu.synthesise(out.numpy(), corner.numpy(), values.numpy(), lattice.numpy(), arrays, step, offset, low, high)
    else:
        reference.synthesise(out, corner, values, lattice, bases, step, offset, low, high)


def _check(out: Tensor, corner: Tensor, values: Tensor, lattice: Tensor, bases: Sequence[Tensor]) -> None:
    count, axes = len(values), out.ndim
    if not 1 <= axes <= 4 or corner.shape != (count, axes) or lattice.shape != (values.shape[1], axes) or len(bases) != axes:
        raise ValueError(
            f"expected corners, a lattice and bases of a box's 1 to 4 axes, found a box {tuple(out.shape)}, corners "
            f"{tuple(corner.shape)}, values {tuple(values.shape)}, a lattice {tuple(lattice.shape)} and {len(bases)} bases; pass matching ones"
        )
    counts = torch.tensor([basis.shape[1] for basis in bases])
    if len(lattice) and not bool(((lattice >= 0) & (lattice < counts.to(lattice.device))).all()):
        raise ValueError(f"expected frequencies from 0 and below {counts.tolist()}, found others; pass larger bases")
