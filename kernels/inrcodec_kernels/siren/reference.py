"""Plain definition of the sine-network operation: any float dtype, any device, differentiable.

Every other backend must match this function, forward and gradient.
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
