"""Plain definition of the separable operations: products with one small matrix per axis. Any float dtype, any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sine_waves(points: Tensor, count: int) -> Tensor:
    """The first `count` half-integer sine waves at points of one axis.

    Parameters
    ----------
    points : Tensor, shape (n,)
        Coordinates, -1..1 inside a block.
    count : int

    Returns
    -------
    Tensor, shape (n, count)
        ``sin(pi k / 2 (x + 1) + pi / 2)`` for k = 0 .. count - 1.
    """
    k = torch.arange(count, dtype=points.dtype, device=points.device)
    return torch.sin((points[:, None] + 1) * (k * (math.pi / 2)) + math.pi / 2)


def along_axes(blocks: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply every axis but the first by its matrix: ``out[b, q..] = sum_p blocks[b, p..] prod_j M_j[p_j, q_j]``.

    Parameters
    ----------
    blocks : Tensor, shape (B, n_1, ..., n_d)
    matrices : sequence of d Tensors, shapes (n_j, m_j)

    Returns
    -------
    Tensor, shape (B, m_1, ..., m_d)
    """
    for axis, matrix in enumerate(matrices, start=1):
        moved = blocks.movedim(axis, -1)
        blocks = torch.matmul(moved, matrix).movedim(-1, axis)
    return blocks.contiguous()


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
) -> None:
    """Write the samples of leaves into a box, computed in the bases' dtype; parameters as `inrcodec_kernels.separable.synthesise`."""
    counts = [basis.shape[1] for basis in bases]
    for place, coefficients in zip(corner.tolist(), values, strict=True):
        spectrum = torch.zeros(counts, dtype=bases[0].dtype, device=out.device)
        spectrum[tuple(lattice.T)] = coefficients.to(spectrum.dtype) * step
        leaf = along_axes(spectrum[None], [basis.T for basis in bases])[0] + offset
        inside = [(max(0, -c), min(n, m - c)) for c, n, m in zip(place, leaf.shape, out.shape, strict=True)]
        if all(a < b for a, b in inside):
            part = leaf[tuple(slice(a, b) for a, b in inside)]
            target = out[tuple(slice(a + c, b + c) for (a, b), c in zip(inside, place, strict=True))]
            target.copy_(part if out.is_floating_point() else part.round().clamp(low, high))
