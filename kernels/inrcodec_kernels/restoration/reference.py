"""Plain definition of the correction of decoded samples. Any float dtype, any device; the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SLOPE = 0.1
"""Slope of the leaky ReLU below zero."""


class Parameters(NamedTuple):
    """Parameters of one network of W channels; kernels have `k_z x k_y x k_x` taps, each extent 1 or 3.

    Attributes
    ----------
    first : Tensor, shape (W, k_z, k_y, k_x)
        Kernels of the first layer before their mean is taken off.
    biases : Tensor, shape (2, W)
        Of the first and of the middle layer.
    middle : Tensor, shape (W, W)
        Channel out, channel in.
    last : Tensor, shape (W, k_z, k_y, k_x)
        Kernels of the last layer; their responses are summed.
    """

    first: Tensor
    biases: Tensor
    middle: Tensor
    last: Tensor


def without_mean(kernels: Tensor) -> Tensor:
    """Kernels (W, k_z, k_y, k_x) less the mean of each: they see differences and no absolute level."""
    return kernels - kernels.mean(dim=(1, 2, 3), keepdim=True)


def correction(samples: Tensor, parameters: Parameters) -> Tensor:
    """What to add to samples, for those that have their whole neighbourhood in the box.

    Parameters
    ----------
    samples : Tensor, shape (B, n_z, n_y, n_x)
    parameters : Parameters
        Of the dtype of the samples.

    Returns
    -------
    Tensor, shape (B, n_z - 2 (k_z - 1), n_y - 2 (k_y - 1), n_x - 2 (k_x - 1))
    """
    first, biases, middle, last = parameters
    hidden = functional.conv3d(samples[:, None], without_mean(first)[:, None], biases[0])
    hidden = functional.leaky_relu(hidden, SLOPE)
    hidden = torch.einsum("oc,bczyx->bozyx", middle, hidden) + biases[1][:, None, None, None]
    hidden = functional.leaky_relu(hidden, SLOPE)
    return functional.conv3d(hidden, last[None])[:, 0]


def restore(
    samples: Tensor,
    parameters: Parameters,
    unit: float,
    low: int,
    high: int,
    out: Tensor,
    before: Sequence[int],
    form: Callable[[Tensor, Parameters], Tensor] = correction,
) -> None:
    """Write corrected samples; parameters as `inrcodec_kernels.restoration.restore`, `form` makes the correction."""
    ring = [k - 1 for k in parameters.first.shape[1:]]
    places = [
        torch.arange(b - r, b + n + r, device=samples.device).clamp(0, m - 1)
        for b, r, n, m in zip(before, ring, out.shape[1:], samples.shape[1:], strict=True)
    ]
    ringed = samples[:, places[0][:, None, None], places[1][:, None], places[2]]
    z, y, x = (slice(r, n - r) for r, n in zip(ring, ringed.shape[1:], strict=True))
    result = form(ringed / unit, parameters) * unit + ringed[:, z, y, x]
    out.copy_(result if out.is_floating_point() else result.round_().clamp_(low, high))


def loss_and_gradients(
    samples: Tensor,
    wanted: Tensor,
    parameters: Parameters,
    form: Callable[[Tensor, Parameters], Tensor] = correction,
) -> tuple[float, Parameters]:
    """Mean squared error of the correction and its gradients; parameters as `inrcodec_kernels.restoration.loss_and_gradients`."""
    leaves = Parameters(*(p.detach().requires_grad_(True) for p in parameters))
    with torch.enable_grad():
        loss = (form(samples, leaves) - wanted).square().mean()
        gradients = torch.autograd.grad(loss, leaves)
    return float(loss.detach()), Parameters(*gradients)
