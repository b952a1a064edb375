"""The linear readout at the end of every network, in whitened coordinates.

A block's last layer is linear in its weights, so for given features F (N samples, W features) the best weights are
the solution of least squares. Writing ``F = Q L^T`` with orthonormal Q, the weights ``a = L^-T c`` reconstruct
``F a = Q c``: quantising c instead of a makes the squared error of a block exactly the squared error of its
coefficients, whatever the features are. The stream holds c; decoders find L from the features themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inrcodec_kernels import chains
from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.projection import project
from inrcodec_kernels.separable import along_axes, sine_waves, synthesise

RIDGE = 1e-7
"""Added to the Gram matrix, relative to its mean diagonal: keeps nearly dependent features harmless."""


UNSOUND = "expected networks of finite features and readouts, found others; correct the weights"
LARGEST = 1e20
"""Readouts stay below this; more, or NaN, comes from hostile weights only."""
_NUMBERS = 1 << 22
"""Weights, sums or samples of private networks held at a time."""

Window = tuple[slice, ...]
"""Part of a cell: one slice per axis."""


class Readout(Protocol):
    """Readouts of a batch of leaves of one level, in whitened coordinates.

    `W` coefficients a leaf, in the order of the layout's lattice; float32 unless said otherwise.
    """

    def project(self, samples: Tensor, backend: Backend = REFERENCE) -> Tensor:
        """Best coefficients (B, W) of blocks' samples (B, N)."""
        ...

    def reconstruct(self, coefficients: Tensor, window: Window | None = None) -> Tensor:
        """Samples (B, N) of coefficients (B, W); with a window, only those of that part of the cell."""
        ...

    def synthesise(
        self, out: Tensor, corner: Tensor, values: Tensor, step: float, offset: float, low: int, high: int, backend: Backend
    ) -> None:
        """Write samples of integers (B, W) times the step into a box, leaf b's first at ``corner[b]``; see `chains.write`."""
        ...

    def evaluate(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """Values (B, P) at block coordinates (P, d), any points; float64."""
        ...

    def evaluate_grid(self, axes: Sequence[Tensor], coefficients: Tensor) -> Tensor:
        """Values (B, P_1, ..., P_d) on the grid of the coordinates along each axis; float64."""
        ...


class SeparableReadout:
    """Readout of products of per-axis sine waves, shared by all leaves of a level; each axis is whitened by itself.

    Parameters
    ----------
    cell : tuple of int
        Samples of a leaf along each axis.
    lattice : ndarray of int64, shape (W, d)
        Frequency index of each coefficient.
    """

    def __init__(self, cell: tuple[int, ...], lattice: np.ndarray) -> None:
        self.cell, self.lattice = cell, lattice
        self.counts = tuple(int(n) + 1 for n in lattice.max(axis=0))
        self._place = torch.from_numpy(np.ravel_multi_index(tuple(lattice.T), self.counts))
        axes = [whitened_axis(n, m) for n, m in zip(cell, self.counts, strict=True)]
        self._factors, self._bases = [factor for factor, _ in axes], [basis for _, basis in axes]
        self._frequencies = torch.tensor(lattice)

    def project(self, samples: Tensor, backend: Backend = REFERENCE) -> Tensor:
        """Best coefficients (B, W) of blocks' samples (B, N)."""
        bases, place = [basis.numpy() for basis in self._bases], self._place.numpy()
        return torch.from_numpy(project(samples.numpy(), bases, place, backend=backend))

    def reconstruct(self, coefficients: Tensor, window: Window | None = None) -> Tensor:
        """Samples (B, N) of coefficients (B, W), or those of a window."""
        bases = self._bases if window is None else [b[w] for b, w in zip(self._bases, window, strict=True)]
        return self._synthesise(coefficients, bases).reshape(len(coefficients), -1)

    def synthesise(
        self, out: Tensor, corner: Tensor, values: Tensor, step: float, offset: float, low: int, high: int, backend: Backend
    ) -> None:
        """Write samples of leaves into a box, see `inrcodec_kernels.separable.synthesise`; `corner` and `values` on the CPU."""
        tensors = (corner, values, self._frequencies, *self._bases)
        corner, values, lattice, *bases = (t.to(backend.device) for t in tensors)
        synthesise(out, corner, values, lattice, bases, step, offset, low, high, backend)

    def evaluate(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """Values (B, P) at block coordinates (P, d)."""
        spectrum = self._spectrum(coefficients.double(), self.counts)
        values = spectrum.unsqueeze(1).expand(-1, len(points), *self.counts)
        for axis in range(len(self.cell)):
            waves = self._waves(axis, points[:, axis])
            values = torch.einsum("bpk...,pk->bp...", values, waves)
        return values

    def evaluate_grid(self, axes: Sequence[Tensor], coefficients: Tensor) -> Tensor:
        """Values (B, P_1, ..., P_d) on a grid."""
        return self._synthesise(coefficients.double(), [self._waves(j, x) for j, x in enumerate(axes)])

    def _waves(self, axis: int, points: Tensor) -> Tensor:
        return _unfactored(sine_waves(points.double(), self.counts[axis]), self._factors[axis])

    def _spectrum(self, coefficients: Tensor, counts: Sequence[int], kept: slice | np.ndarray = slice(None)) -> Tensor:
        """Coefficients on the grid of frequencies (B, m_1, ..., m_d)."""
        place = torch.from_numpy(np.ravel_multi_index(tuple(self.lattice[kept].T), tuple(counts)))
        full = torch.zeros((len(coefficients), int(np.prod(counts))), dtype=coefficients.dtype)
        full[:, place] = coefficients[:, kept]
        return full.reshape(-1, *counts)

    def _synthesise(self, coefficients: Tensor, waves: Sequence[Tensor]) -> Tensor:
        """Sum of waves (n_j, m_j); frequencies that no leaf of the batch uses are left out."""
        kept = np.flatnonzero((coefficients != 0).any(dim=0).numpy())
        counts = (self.lattice[kept].max(axis=0) + 1).tolist() if len(kept) else [1] * len(self.cell)
        spectrum = self._spectrum(coefficients, counts, kept)
        return along_axes(spectrum, [w[:, :n].T for w, n in zip(waves, counts, strict=True)])


class DenseReadout:
    """Readout of any features, whitened together: one basis for all leaves, or one for each.

    Parameters
    ----------
    features : callable
        ``features(points)``: shape (m or 1, P, W) for block coordinates (P, d).
    cell : tuple of int
        Samples of a leaf along each axis.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], cell: tuple[int, ...]) -> None:
        self._features, self._cell = features, cell
        with torch.no_grad():
            at_samples = features(sample_points(cell))
            self._factor = whitening(at_samples)
            self._basis = whitened(at_samples, self._factor)

    def project(self, samples: Tensor, backend: Backend = REFERENCE) -> Tensor:
        """Best coefficients (B, W) of blocks' samples (B, N)."""
        return torch.matmul(samples.unsqueeze(-2), self._basis).squeeze(-2)

    def reconstruct(self, coefficients: Tensor, window: Window | None = None) -> Tensor:
        """Samples (B, N) of coefficients (B, W), or those of a window."""
        basis = self._basis
        if window is not None:
            shaped = basis.reshape(len(basis), *self._cell, -1)
            basis = shaped[(slice(None), *window)].reshape(len(basis), -1, basis.shape[-1])
        return torch.matmul(basis, coefficients.unsqueeze(-1)).squeeze(-1)

    def synthesise(
        self, out: Tensor, corner: Tensor, values: Tensor, step: float, offset: float, low: int, high: int, backend: Backend
    ) -> None:
        """Write samples of leaves into a box; of those that share one basis, see `inrcodec_kernels.chains.mix`."""
        if len(self._basis) > 1:
            samples = self.reconstruct(values.float() * step)
            chains.store(out, corner, self._cell, samples, offset, low, high)
            return
        tensors = (corner, self._basis[0], values.float() * step)
        corner, basis, coefficients = (t.to(backend.device) for t in tensors)
        chains.mix(out, corner, self._cell, basis, coefficients, offset, low, high, backend)

    def evaluate(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """Values (B, P) at block coordinates (P, d)."""
        with torch.no_grad():
            basis = _unfactored(self._features(points), self._factor)
        return torch.matmul(basis, coefficients.double().unsqueeze(-1)).squeeze(-1)

    def evaluate_grid(self, axes: Sequence[Tensor], coefficients: Tensor) -> Tensor:
        """Values (B, P_1, ..., P_d) on a grid."""
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
        return self.evaluate(points, coefficients).reshape(-1, *(len(x) for x in axes))


class ChainReadout:
    """Readouts of leaves with a network each, by the operations on chains: features are evaluated and never stored.

    Parameters
    ----------
    layers : callable
        ``layers(part)``: the chains of some of the leaves, see `inrcodec_kernels.chains.moments`.
    weights : int
        Numbers of a chain.
    cell : tuple of int
        Samples of a leaf along each axis.
    width : int
        Coefficients of a leaf: those of the first features.
    backend : Backend
        One that is `inrcodec_kernels.chains.suited`.
    """

    def __init__(
        self, layers: Callable[[slice], list[Tensor]], weights: int, cell: tuple[int, ...], width: int, backend: Backend
    ) -> None:
        self._layers, self._weights, self._cell, self.width, self.backend = layers, weights, cell, width, backend
        self._points = sample_points(cell).to(backend.device)

    def project(self, samples: Tensor) -> Tensor:
        """Best coefficients (m, W) of the leaves' samples (m, N)."""
        found = torch.empty(len(samples), self.width)
        for part in self._parts(len(samples), samples.shape[1]):
            targets = samples[part, None].to(self.backend.device)
            factor, products = self._sums(self._layers(part), targets)
            found[part] = torch.linalg.solve_triangular(factor, products.mT, upper=False).squeeze(-1).float().cpu()
        return found

    def synthesise(
        self, out: Tensor, corner: Tensor, values: Tensor, step: float, offset: float, low: int, high: int, backend: Backend
    ) -> None:
        """Write samples of the leaves into a box, see `inrcodec_kernels.chains.write`."""
        corner = corner.to(backend.device)
        for part in self._parts(len(values), 0):
            layers = self._layers(part)
            coefficients = values[part].to(backend.device, torch.float64) * step
            readouts = self._unwhitened(layers, coefficients)
            chains.write(out, corner[part], self._cell, layers, self._points, readouts, offset, low, high, backend)

    def _unwhitened(self, layers: Sequence[Tensor], coefficients: Tensor) -> Tensor:
        """Weights of all features, float32: ``F a = Q c`` where ``a = L^-T c``."""
        factor, _ = self._sums(layers, self._points.new_empty(len(coefficients), 0, len(self._points)))
        solved = torch.linalg.solve_triangular(factor.mT, coefficients.unsqueeze(-1), upper=True).squeeze(-1)
        if not bool((solved.abs() < LARGEST).all()):
            raise ValueError(UNSOUND)
        return torch.nn.functional.pad(solved.float(), (0, layers[-1].shape[-1] + 1 - self.width))

    def _sums(self, layers: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Whitening factor, and products of the targets with the features."""
        with torch.no_grad():
            gram, products = chains.moments(layers, self._points, targets, self.backend)
        return factor_of(gram[:, : self.width, : self.width]), products[:, :, : self.width]

    def _parts(self, count: int, samples: int) -> list[slice]:
        size = max(1, _NUMBERS // max(self._weights, self.width**2, samples))
        return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def cell_axis(count: int) -> Tensor:
    """Block coordinates of `count` samples, cell-centred: ``(2 i + 1) / count - 1``; float64."""
    return (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1


def sample_points(cell: tuple[int, ...]) -> Tensor:
    """Block coordinates of a cell's samples in raster order, shape (prod(cell), d), float32."""
    axes = [cell_axis(n) for n in cell]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(cell)).float()


def whitening(features: Tensor, ridge: float = RIDGE) -> Tensor:
    """Cholesky factor L of the Gram matrix of each network's features.

    Parameters
    ----------
    features : Tensor, shape (m, N, W)
    ridge : float
        Relative to the Gram matrix's mean diagonal.

    Returns
    -------
    Tensor of float64, shape (m, W, W)
        Lower triangular; ``features = basis @ L^T`` with (nearly) orthonormal columns of `basis`.
    """
    double = features.double()
    return factor_of(double.transpose(-1, -2) @ double, ridge)


def factor_of(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """The same from the Gram matrices (m, W, W), float64.

    Raises
    ------
    ValueError
        If features are not finite.
    """
    added = ridge * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram + added[:, None, None] * eye)
    if bool(((failed != 0) | ~added.isfinite()).any()):
        raise ValueError(UNSOUND)
    return factor


@lru_cache(maxsize=128)
def whitened_axis(count: int, waves: int) -> tuple[Tensor, Tensor]:
    """Cholesky factor and whitened waves of an axis of `count` samples: float64 (waves, waves), float32 (count, waves).

    The same few axes come again in every stream; do not change what is returned.
    """
    exact = sine_waves(cell_axis(count), waves)
    factor = whitening(exact[None])[0]
    return factor, _unfactored(exact, factor).float()


def whitened(features: Tensor, factor: Tensor) -> Tensor:
    """Features in the whitened coordinates of `factor`: ``features @ L^-T``, shape (m, N, W), in the features' dtype."""
    return _unfactored(features, factor).to(features.dtype)


def _unfactored(features: Tensor, factor: Tensor) -> Tensor:
    solved = torch.linalg.solve_triangular(factor, features.double().transpose(-1, -2), upper=False)
    return solved.transpose(-1, -2)
