"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for many small networks at once.

The curvature of a layer's weights is approximated by a product of one matrix per side (Kronecker); in the eigenbases
of the two, Adam's scaling of single weights is close to a Newton step. The matrices of these networks are tiny, and
all blocks' are factored in one batch.

References
----------
Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MOMENTUM, DECAY, CURVATURE_DECAY, EVERY = 0.95, 0.95, 0.95, 10
"""Averaging of gradients, of their squares and of the curvature; steps between updates of the eigenbases."""
LEAST_SCALE = 1e-12
"""Smaller gradients do not move anything."""


def _orthonormal(matrices: Tensor) -> Tensor:
    return torch.linalg.qr(matrices)[0]


class Soap:
    """Optimiser of batched weight matrices.

    Parameters
    ----------
    parameters : list of Tensor, shapes (n, rows, columns)
        A matrix for each of n networks; each is preconditioned by itself.
    momentum, decay, curvature_decay : float
        Averaging of gradients, of their squares, and of the curvature's sides.
    every : int
        Steps between updates of the eigenbases.
    orthonormal : callable
        From matrices (n, r, r) to the orthonormal columns of their QR decompositions.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        momentum: float = MOMENTUM,
        decay: float = DECAY,
        curvature_decay: float = CURVATURE_DECAY,
        every: int = EVERY,
        orthonormal: Callable[[Tensor], Tensor] = _orthonormal,
    ) -> None:
        self.parameters, self._orthonormal = parameters, orthonormal
        self.momentum, self.decay, self.curvature_decay, self.every = momentum, decay, curvature_decay, every
        self.steps = 0
        self._mean = [torch.zeros_like(p) for p in parameters]
        self._square = [torch.zeros_like(p) for p in parameters]
        self._sides: list[list[Tensor]] = [[] for _ in parameters]
        self._bases: list[list[Tensor]] = [[] for _ in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move all parameters by their gradients; the first call only looks at the curvature."""
        self.steps += 1
        if self.steps == 1:
            self.look()
            return
        self.move(rate, *self.corrections(self.steps))
        if self.steps % self.every == 0:
            self.turn()

    def corrections(self, step: int) -> tuple[float, float]:
        """What the averages of gradients and of their squares are divided by in a step, from 2: they started as zeros."""
        return 1 - self.momentum ** (step - 1), 1 - self.decay ** (step - 1)

    @torch.no_grad()
    def look(self) -> None:
        """Take the eigenbases from the first gradients."""
        for i, parameter in enumerate(self.parameters):
            self._sides[i] = _sides_of(_gradient(parameter))
            self._bases[i] = [eigenvectors(side) for side in self._sides[i]]

    @torch.no_grad()
    def move(self, rate: float | Tensor, of_mean: float | Tensor, of_square: float | Tensor) -> None:
        """Follow the curvature and move all parameters; tensors of one number make it a launch that can be replayed."""
        for i, parameter in enumerate(self.parameters):
            gradient = _gradient(parameter)
            for known, new in zip(self._sides[i], _sides_of(gradient), strict=True):
                known.lerp_(new, 1 - self.curvature_decay)
            parameter -= rate * self._direction(i, gradient, of_mean, of_square)

    @torch.no_grad()
    def turn(self) -> None:
        """Let the eigenbases follow the curvature, in place."""
        for i in range(len(self.parameters)):
            self._turn(i)

    def _turn(self, i: int) -> None:
        """Follow the slowly turning eigenvectors by one step of orthogonal iteration.

        That keeps them in descending order of eigenvalue only: in any other it lets the first ones run to the
        greatest, away from the squares averaged along them. So they are sorted first, the squares with them.
        """
        for side in (0, 1):
            image = self._sides[i][side] @ self._bases[i][side]
            order = (self._bases[i][side] * image).sum(-2).argsort(dim=-1, descending=True)
            self._bases[i][side].copy_(self._orthonormal(image.gather(-1, order[:, None].expand_as(image))))
            square = self._square[i] if side else self._square[i].mT
            square.copy_(square.gather(-1, order[:, None].expand_as(square)))

    def _direction(self, i: int, gradient: Tensor, of_mean: float | Tensor, of_square: float | Tensor) -> Tensor:
        left, right = self._bases[i]
        self._mean[i].lerp_(gradient, 1 - self.momentum)
        self._square[i].lerp_((left.mT @ gradient @ right) ** 2, 1 - self.decay)
        mean = (left.mT @ self._mean[i] @ right) / of_mean
        scale = (self._square[i] / of_square).sqrt().clamp(min=LEAST_SCALE)
        return left @ (mean / scale) @ right.mT


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _sides_of(gradient: Tensor) -> list[Tensor]:
    return [gradient @ gradient.mT, gradient.mT @ gradient]


def eigenvectors(side: Tensor) -> Tensor:
    """Eigenvectors of symmetric matrices (n, r, r) as columns, the greatest eigenvalue first."""
    scale = side.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-30)
    eye = torch.eye(side.shape[-1], dtype=side.dtype, device=side.device)
    # A little of the identity keeps the solver away from blocks without any gradient.
    return torch.linalg.eigh(side / scale[:, None, None] + 1e-6 * eye)[1].flip(-1)
