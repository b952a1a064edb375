"""Plain definition of the sine-network operations: any float dtype, any device, differentiable.

Every other backend must match these functions, forward and gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sine_chain(inputs: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Apply ``h <- sin(h W + b)`` for each layer, for a batch of networks at once.

    Parameters
    ----------
    inputs : Tensor, shape (m or 1, N, n_in)
        Activations (or coordinates) of N points for each of m networks; 1 broadcasts.
    layers : sequence of (weight, bias)
        ``weight`` of shape (m or 1, n_in, n_out), ``bias`` of shape (m or 1, n_out); w0 is folded in.

    Returns
    -------
    Tensor, shape (m or 1, N, n_out)

    References
    ----------
    Sitzmann et al. 2020, arXiv:2006.09661.
    """
    hidden = inputs
    for weight, bias in layers:
        hidden = torch.sin(torch.matmul(hidden, weight) + bias.unsqueeze(-2))
    return hidden


def sine_product(points: Tensor, frequencies: Sequence[Tensor], phases: Sequence[Tensor], index: Tensor) -> Tensor:
    """Separable sine features: ``prod_j sin(omega_j[k_j] x_j + phi_j[k_j])`` for each lattice index k.

    Parameters
    ----------
    points : Tensor, shape (N, d)
        Coordinates, -1..1 inside a block.
    frequencies, phases : sequences of d Tensors, shape (n_j,)
        Radians per unit coordinate and radians.
    index : Tensor of int64, shape (W, d)
        Which frequency of each axis a feature takes.

    Returns
    -------
    Tensor, shape (N, W)

    References
    ----------
    Fathony et al. 2021, "Multiplicative Filter Networks" (ICLR); a product of d sines is a sum of 2^(d-1)
    plane waves, so this is a sine layer whose weights are tied.
    """
    product = None
    for axis, (omega, phase) in enumerate(zip(frequencies, phases, strict=True)):
        waves = torch.sin(points[:, axis, None] * omega + phase)
        factor = waves[:, index[:, axis]]
        product = factor if product is None else product * factor
    assert product is not None
    return product
