"""The linear readout at the end of every network, in whitened coordinates.

A block's last layer is linear in its weights, so for given features F (N samples, W features) the best weights are
the solution of least squares. Writing ``F = Q L^T`` with orthonormal Q, the weights ``a = L^-T c`` reconstruct
``F a = Q c``: quantising c instead of a makes the squared error of a block exactly the squared error of its
coefficients, whatever the features are. The stream holds c; decoders find L from the features themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-7
"""Added to the Gram matrix, relative to its mean diagonal: keeps nearly dependent features harmless."""


def whitening(features: Tensor) -> Tensor:
    """Cholesky factor L of the Gram matrix of each network's features.

    Parameters
    ----------
    features : Tensor, shape (m, N, W)

    Returns
    -------
    Tensor of float64, shape (m, W, W)
        Lower triangular; ``features = basis @ L^T`` with (nearly) orthonormal columns of `basis`.
    """
    double = features.double()
    gram = double.transpose(-1, -2) @ double
    ridge = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.cholesky(gram + ridge[:, None, None] * eye)


def whitened(features: Tensor, factor: Tensor) -> Tensor:
    """Features in the whitened coordinates of `factor`: ``features @ L^-T``, shape (m, N, W), in the features' dtype."""
    solved = torch.linalg.solve_triangular(factor, features.double().transpose(-1, -2), upper=False)
    return solved.transpose(-1, -2).to(features.dtype)
