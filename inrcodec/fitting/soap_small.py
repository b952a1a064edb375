"""SOAP of one small matrix, in numpy.

As `Soap` moves a batch of one, but where a matrix has some hundred elements nearly all of its time goes into calls of torch;
numpy's cost a fraction.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack

from inrcodec_kernels.siren.soap import CURVATURE_DECAY, DECAY, EVERY, LEAST_SCALE, MOMENTUM, eigenvectors

Matrix = NDArray[np.float64]


class SmallSoap:
    """A matrix that moves by SOAP; see `inrcodec_kernels.siren.soap`, which is the definition.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
        Moved in place.
    momentum : float
        Averaging of gradients.
    every : int
        Steps between updates of the eigenbases.
    """

    def __init__(self, values: Matrix, momentum: float = MOMENTUM, every: int = EVERY) -> None:
        self.values, self.momentum, self.every, self.steps = values, momentum, every, 0
        self._mean, self._square = np.zeros_like(values), np.zeros_like(values)
        self._sides: list[Matrix] = []
        self._bases: list[Matrix] = []

    def move(self, gradient: Matrix, rate: float) -> None:
        """A step down the gradient; the first one only looks at the curvature."""
        self.steps += 1
        sides = [gradient @ gradient.T, gradient.T @ gradient]
        if self.steps == 1:
            self._sides = sides
            self._bases = [eigenvectors(torch.from_numpy(side)[None])[0].numpy() for side in sides]
            return
        for known, new in zip(self._sides, sides, strict=True):
            _follow(known, new, CURVATURE_DECAY)
        self.values -= rate * self._direction(gradient)
        if self.steps % self.every == 0:
            self._turn()

    def _direction(self, gradient: Matrix) -> Matrix:
        left, right = self._bases
        _follow(self._mean, gradient, self.momentum)
        _follow(self._square, (left.T @ gradient @ right) ** 2, DECAY)
        mean = (left.T @ self._mean @ right) / (1 - self.momentum ** (self.steps - 1))
        scale = np.sqrt(self._square / (1 - DECAY ** (self.steps - 1)))
        return left @ (mean / np.maximum(scale, LEAST_SCALE)) @ right.T

    def _turn(self) -> None:
        """Let the eigenbases follow the curvature: as `Soap` does, sorted first, the squares with them."""
        for i, (side, basis) in enumerate(zip(self._sides, self._bases, strict=True)):
            if len(side) == 1:
                continue
            image = side @ basis
            order = np.argsort(-(basis * image).sum(0))
            self._bases[i] = orthonormal(image[:, order])
            self._square = self._square.take(order, i)


def _follow(average: Matrix, new: Matrix, decay: float) -> None:
    """Average in place."""
    average *= decay
    average += (1 - decay) * new


def orthonormal(matrix: Matrix) -> Matrix:
    """The orthonormal columns of the QR decomposition of a square matrix, without the checks that cost as much again."""
    factored, scales, _, _ = lapack.dgeqrf(matrix)
    return lapack.dorgqr(factored, scales)[0]
