"""Sine networks: chains of sine layers, blended blocks of them, and their fit. See README.md for the mathematics."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import Backend, best_on_cpu
from . import reference
from .reference import (
    LARGEST,
    UNSOUND,
    Blocks,
    Format,
    Networks,
    Note,
    Quantiser,
    Samples,
    dequantised,
    draw,
    forward,
    layer_shapes,
    sine_chain,
)

__all__ = [
    "LARGEST", "BlendedBox", "Blocks", "Format", "Networks", "Note", "Quantiser", "Samples", "accumulate", "dequantised", "draw",
    "fit", "forward", "layer_shapes", "loss_and_gradients", "sine_chain", "suited",
]  # fmt: skip

LEAST_SHARE = 1e-6
"""Samples that no block reaches are divided by this."""


def suited(backend: Backend, ndim: int, classes: Iterable[Sequence[int]]) -> Backend:
    """The backend, or the best one of the CPU where a class of networks is not for devices.

    Parameters
    ----------
    backend : Backend
    ndim : int
        Axes of the blocks.
    classes : iterable of sequence of int
        Widths of the sine layers of each class; none are constants.
    """
    if backend.name != "triton":
        return backend
    triton = _module("triton")
    reasons = (triton.lacking(ndim, widths or (2,)) for widths in classes)
    reason = next(filter(None, reasons), "")
    return best_on_cpu(f"Triton: {reason}") if reason else backend


def accumulate(total: Any, share: Any, blocks: Blocks, networks: Networks, halo: int, backend: Backend) -> None:
    """Add blocks of one class to a box: their samples weighted by how far inside a block they lie, and the weights.

    Sample i of an axis of a block of extent e has the block coordinate ``(2 i + 1) / e - 1``, i from ``-halo`` to
    ``e + halo - 1``; what lies outside the box is left out.

    Parameters
    ----------
    total, share : ndarray of float32, shape of the box
        Changed in place. For Triton, sums as its `accumulate` has them, on its device, and so all other arrays.
    blocks : Blocks
    networks : Networks
    halo : int
        Samples by which blocks overlap their neighbours; 0 cuts sharply.
    backend : Backend

    Raises
    ------
    ValueError
        If a network gives what is not finite or not below `LARGEST`. `total` is then of no use.
    """
    if backend.name == "triton":
        unsound = total.new_zeros(1, dtype=torch.int32)
        _module("triton").accumulate(total, share, blocks, networks, halo, unsound=unsound)
        if int(unsound):
            raise ValueError(UNSOUND)
    elif backend.name == "numba":
        _module("cpu").accumulate(total, share, blocks, networks, halo)
    else:
        reference.accumulate(total, share, blocks, networks, halo)


class BlendedBox:
    """A box of samples to which blocks are added, class after class.

    Parameters
    ----------
    shape : tuple of int
    halo : int
        As in `accumulate`. Blocks without a halo must not overlap.
    backend : Backend
        One that is `suited`.
    form : Format
    """

    def __init__(self, shape: tuple[int, ...], halo: int, backend: Backend, form: Format) -> None:
        if backend.name == "triton":
            self._box = _module("triton_box").Box(shape, halo, form, backend.device)
        else:
            self._box = _Sums(shape, halo, form, backend)

    def add(self, blocks: Blocks, networks: Networks) -> None:
        """Add blocks of one class.

        Raises
        ------
        ValueError
            As `accumulate`; a device says so only when the samples are asked for.
        torch.OutOfMemoryError
            If the device has not the memory for a single block.
        """
        self._box.add(blocks, networks)

    def finish(self) -> NDArray[Any]:
        """Samples (ends the use of this object): sums over shares, plus the offset; raises as `add`."""
        return self.finish_there().cpu().numpy()

    def finish_there(self) -> Tensor:
        """The same, left where the backend has them."""
        samples: Tensor = self._box.finish()
        return samples


class _Sums:
    """A box on the CPU."""

    def __init__(self, shape: tuple[int, ...], halo: int, form: Format, backend: Backend) -> None:
        self.halo, self.form, self.backend = halo, form, backend
        self._total = np.zeros(shape, dtype=np.float32)
        self._share = np.zeros(shape, dtype=np.float32)

    def add(self, blocks: Blocks, networks: Networks) -> None:
        accumulate(self._total, self._share, blocks, networks, self.halo, self.backend)

    def finish(self) -> Tensor:
        np.maximum(self._share, np.float32(LEAST_SHARE), out=self._share)
        self._total /= self._share
        self._total += np.float32(self.form.offset)
        if self.form.rounded:
            np.rint(self._total, out=self._total)
            np.clip(self._total, self.form.low, self.form.high, out=self._total)
        return torch.from_numpy(self._total.astype(self.form.dtype, copy=False))


def loss_and_gradients(
    weights: Sequence[Tensor], points: Tensor, targets: Tensor, backend: Backend
) -> tuple[Tensor, list[Tensor]]:
    """Mean squared errors of n networks of one class, and the gradients of their sum.

    Parameters
    ----------
    weights : sequence of Tensor, shapes (n, n_in + 1, n_out), float32
    points : Tensor, shape (n, N, d), float32
    targets : Tensor, shape (n, N), float32
    backend : Backend

    Returns
    -------
    errors : Tensor, shape (n,)
    gradients : list of Tensor, shapes of the weights
    """
    module = _module({"triton": "triton", "numba": "cpu", "reference": "reference"}[backend.name])
    errors, gradients = module.loss_and_gradients(weights, points, targets)
    return errors, gradients


def fit(
    weights: list[Tensor],
    samples: Samples,
    points: int,
    rates: NDArray[np.float32],
    note: Note,
    backend: Backend,
    quantiser: Quantiser | None = None,
) -> NDArray[np.float64]:
    """Fit n networks of one class by SOAP, each to samples of its block that are drawn anew in every step.

    The same samples are drawn whatever the backend and the number of threads. A class that is not for devices is fitted
    on the CPU. For many steps of Adam in one launch, see `fit_adam` of the Triton kernels.

    Parameters
    ----------
    weights : list of Tensor, shapes (n, n_in + 1, n_out), float32
        On the CPU, changed in place.
    samples : Samples
    points : int
        Drawn from every block in a step.
    rates : ndarray of float32, shape (steps,)
        Learning rates. SOAP's first step only looks at the curvature.
    note : callable
        ``note(fraction, loss)``, now and then.
    backend : Backend
    quantiser : Quantiser or None
        What quantisation will do to the weights, and its price; None fits as if there were none.

    Returns
    -------
    ndarray of float64, shape (n,)
        Mean squared error of each block, smoothed over the last steps; without the price of the weights.

    Raises
    ------
    ValueError
        If a layer has a price but no noise.

    References
    ----------
    Vyas et al. 2024, arXiv:2409.11321.
    """
    if quantiser is not None and np.any((quantiser.price > 0) & ~(quantiser.noise > 0)):
        raise ValueError("expected noise in every layer that has a price, found none; give its quantisation step")
    backend = suited(backend, samples.box.shape[1], [[w.shape[-1] for w in weights[:-1]]])
    where = {"device": backend.device} if backend.name == "triton" else {}
    module = _module({"triton": "triton_fit", "numba": "cpu_fit", "reference": "reference"}[backend.name])
    loss: NDArray[np.float64] = module.fit(weights, samples, points, rates, note, quantiser, **where)
    return loss


def _module(name: str) -> Any:
    """An implementation, imported when it is needed: Numba and Triton may not be installed."""
    return importlib.import_module(f".{name}", __name__)
