"""Chains of sine layers whose linear readouts are solved for: moments of their features, and leaves put into a box. See README.md."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backend import Backend, best_on_cpu
from . import reference
from .reference import features, store

__all__ = ["features", "mix", "moments", "store", "suited", "write"]


def suited(backend: Backend, axes: int, widths: Sequence[int]) -> Backend:
    """The backend, or the next one that is for chains of these widths, with the reason.

    Parameters
    ----------
    backend : Backend
    axes : int
    widths : sequence of int
        Neurons of each layer.
    """
    if backend.name == "triton":
        reason = _module("triton").lacking(axes, widths)
        if not reason:
            return backend
        backend = best_on_cpu(f"Triton: {reason}")
    if backend.name == "numba" and (reason := reference.lacking(axes, widths)):
        return Backend("reference", "cpu", "; ".join(filter(None, [backend.reason, f"Numba: {reason}"])))
    return backend


def moments(layers: Sequence[Tensor], points: Tensor, targets: Tensor, backend: Backend) -> tuple[Tensor, Tensor]:
    """Gram matrices of chains' features F (N, W), and the products of targets with them; differentiable by the layers.

    Features are the constant 1 and the activations of the last layer. They are rounded to float32 as they are evaluated,
    and summed in float64: a least-squares solution from these sums is as exact as one from F.

    Parameters
    ----------
    layers : sequence of Tensor, shapes (m, n_in + 1, n_out), float32
        Weights, the bias the last row. Rows beyond those of the layer before are for the point's coordinates.
    points : Tensor, shape (N, d), float32
        Of all chains.
    targets : Tensor, shape (m, B, N), float32
    backend : Backend
        One that is `suited`; all tensors are on its device.

    Returns
    -------
    gram : Tensor of float64, shape (m, W, W)
        ``F^T F``
    products : Tensor of float64, shape (m, B, W)
        ``targets F``

    Raises
    ------
    ValueError
        If shapes do not belong together.
    """
    reference.joined(layers, points.shape[-1])
    if targets.ndim != 3 or len(targets) != len(layers[0]) or targets.shape[-1] != len(points):
        expected = len(layers[0]), "B", len(points)
        raise ValueError(f"expected targets of shape {expected}, found {tuple(targets.shape)}; pass one row a point")
    if backend.name == "reference":
        return reference.moments(layers, points, targets)
    found: tuple[Tensor, Tensor] = _Moments.apply(backend, points, targets, *layers)
    return found


class _Moments(torch.autograd.Function):
    """Moments by a compiled backend: features are made anew on the way back, and never stored."""

    @staticmethod
    def forward(ctx: Any, backend: Backend, points: Tensor, targets: Tensor, *layers: Tensor) -> tuple[Tensor, Tensor]:
        ctx.backend = backend
        ctx.save_for_backward(points, targets, *layers)
        gram, products = _of(backend).moments([w.detach() for w in layers], points, targets)
        return gram, products

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        points, targets, *layers = ctx.saved_tensors
        gradients = _of(ctx.backend).pullback([w.detach() for w in layers], points, targets, head_of(*slopes))
        return None, None, None, *gradients


def head_of(gram_slope: Tensor, product_slope: Tensor) -> Tensor:
    """The layer that gives the loss's derivative by activations h from ``[h, targets, 1]``, float32: see README.md."""
    both = gram_slope + gram_slope.mT
    return torch.cat([both[:, 1:, 1:], product_slope[:, :, 1:], both[:, :1, 1:]], dim=1).float()


def write(
    out: Tensor,
    corner: Tensor,
    cell: tuple[int, ...],
    layers: Sequence[Tensor],
    points: Tensor,
    readouts: Tensor,
    offset: float,
    low: int,
    high: int,
    backend: Backend,
) -> None:
    """Write the samples ``offset + F readout`` of leaves with a chain each into a box.

    Parameters
    ----------
    out : Tensor of float32, uint8, int8, uint16, int16 or int32, d axes, 1 to 4
        Written where leaves cover it. Integers are rounded, half to even, and clipped.
    corner : Tensor of int64, shape (m, d)
        Where the first sample of each leaf lies in `out`; leaves may begin before it and end beyond it.
    cell : tuple of int
        Samples of a leaf along each axis.
    layers, points
        As in `moments`; the points of a leaf's samples in raster order.
    readouts : Tensor of float32, shape (m, W)
        Finite.
    offset : float
    low, high : int
        Range that integers are clipped to.
    backend : Backend
        One that is `suited`; all tensors are on its device.
    """
    _of(backend).write(out, corner, cell, layers, points, readouts, offset, low, high)


def mix(
    out: Tensor,
    corner: Tensor,
    cell: tuple[int, ...],
    basis: Tensor,
    coefficients: Tensor,
    offset: float,
    low: int,
    high: int,
    backend: Backend,
) -> None:
    """Write the samples ``offset + basis coefficients`` of leaves that share a basis into a box.

    Parameters
    ----------
    out, corner, cell, offset, low, high, backend
        As in `write`.
    basis : Tensor of float32, shape (prod(cell), W)
    coefficients : Tensor of float32, shape (n, W)
    """
    _of(backend).mix(out, corner, cell, basis, coefficients, offset, low, high)


def _of(backend: Backend) -> Any:
    return _module({"triton": "triton", "numba": "cpu", "reference": "reference"}[backend.name])


def _module(name: str) -> Any:
    """An implementation, imported when it is needed: Numba and Triton may not be installed."""
    return importlib.import_module(f".{name}", __name__)
