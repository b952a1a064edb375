"""Correction of decoded samples by a small convolutional network. See README.md for the mathematics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backend import REFERENCE, Backend
from . import reference, tiled
from .reference import Parameters

__all__ = ["Parameters", "correction", "loss_and_gradients", "restore"]


def correction(samples: Tensor, parameters: Parameters, backend: Backend = REFERENCE) -> Tensor:
    """What to add to samples, for those that have their whole neighbourhood in the box.

    Parameters
    ----------
    samples : Tensor, shape (B, n_z, n_y, n_x)
        In the network's units.
    parameters : Parameters
    backend : Backend
        All tensors are on its device; compiled ones take float32 and record no gradients.

    Returns
    -------
    Tensor, shape (B, n_z - 2 (k_z - 1), n_y - 2 (k_y - 1), n_x - 2 (k_x - 1))

    Raises
    ------
    ValueError
        If no sample has its whole neighbourhood in the box.
    """
    _check(samples, parameters)
    if backend.name == "triton":
        from .triton import correction as on_gpu

        changes: Tensor = on_gpu(samples, parameters)
        return changes
    if backend.name == "numba":
        from . import cpu

        return torch.from_numpy(cpu.correction(samples.numpy(), parameters))
    return tiled.correction(samples, parameters)


def restore(
    samples: Tensor,
    parameters: Parameters,
    unit: float,
    low: int,
    high: int,
    out: Tensor,
    before: Sequence[int],
    backend: Backend,
) -> None:
    """Write ``samples + unit correction(samples / unit)``; integers rounded, half to even, and clipped.

    Parameters
    ----------
    samples : Tensor of float32, shape (B, n_z, n_y, n_x)
        Those wanted, and what there is of the ring of ``k - 1`` samples around them; beyond, the samples of the edge count.
    parameters : Parameters
    unit : float
        The network's unit in units of the samples.
    low, high : int
        Range that integers are clipped to.
    out : Tensor of float32, uint8, int8, uint16, int16 or int32, shape (B, s_z, s_y, s_x)
    before : sequence of 3 int
        Samples along each axis that come before the first of `out`.
    backend : Backend
        All tensors are on its device.

    Raises
    ------
    ValueError
        If the samples of `out` are not all in the box.
    """
    ends = [b + n for b, n in zip(before, out.shape[1:], strict=True)]
    if len(out) != len(samples) or min(before) < 0 or any(e > n for e, n in zip(ends, samples.shape[1:], strict=True)):
        raise ValueError(
            f"expected {tuple(out.shape)} samples from {tuple(before)} on, found a box of {tuple(samples.shape)}; read a larger box"
        )
    if backend.name == "triton":
        from .triton import restore as on_gpu

        on_gpu(samples, parameters, unit, low, high, out, before)
    elif backend.name == "numba":
        from . import cpu

        cpu.restore(samples.numpy(), parameters, unit, low, high, out.numpy(), before)
    else:
        reference.restore(samples, parameters, unit, low, high, out, before, tiled.correction)


def loss_and_gradients(
    samples: Tensor, wanted: Tensor, parameters: Parameters, backend: Backend = REFERENCE
) -> tuple[float, Parameters]:
    """Mean squared error of the correction, and its gradients, for the fit.

    Parameters
    ----------
    samples : Tensor, shape (B, n_z, n_y, n_x)
        In the network's units, with the ring that the kernels need.
    wanted : Tensor, shape (B, n_z - 2 (k_z - 1), n_y - 2 (k_y - 1), n_x - 2 (k_x - 1))
        What the correction should be.
    parameters : Parameters
    backend : Backend
        Numba takes float32 on the CPU; for every other, torch differentiates, where the tensors are.

    Returns
    -------
    loss : float
    gradients : Parameters

    Raises
    ------
    ValueError
        If no sample has its whole neighbourhood in the box.
    """
    _check(samples, parameters)
    if backend.name == "numba":
        from . import fit

        loss, gradients = fit.loss_and_gradients(samples.numpy(), wanted.numpy(), parameters)
        return loss, Parameters(*map(torch.from_numpy, gradients))
    return reference.loss_and_gradients(samples, wanted, parameters, tiled.correction)


def _check(samples: Tensor, parameters: Parameters) -> None:
    reach = [2 * (k - 1) for k in parameters.first.shape[1:]]
    if any(n <= r for n, r in zip(samples.shape[1:], reach, strict=True)):
        raise ValueError(
            f"expected more than {tuple(reach)} samples along the axes, found a box of {tuple(samples.shape[1:])}; read a larger box"
        )
