"""Plain definitions of the operations on chains of sine layers: any float dtype, any device, differentiable.

Every other backend must match these functions. See README.md for the mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WIDEST = 512
"""Neurons of a layer beyond which batched products of torch are as fast as the compiled loops."""


def lacking(axes: int, widths: Sequence[int]) -> str:
    """Why the compiled loops are not for a class of chains; empty if they are."""
    if axes > 4 or max(widths, default=0) > WIDEST:
        return f"expected up to 4 axes and layers of up to {WIDEST} neurons, found {axes} and {tuple(widths)}"
    return ""


def joined(layers: Sequence[Tensor], axes: int) -> tuple[bool, ...]:
    """Which layers read the point besides their parent's activations; the first reads nothing else.

    Raises
    ------
    ValueError
        If the layers do not follow one another.
    """
    found: list[bool] = []
    width = 0
    for layer in layers:
        extra = layer.shape[-2] - 1 - width
        if extra not in ((axes,) if not found else (0, axes)):
            shapes = [tuple(each.shape) for each in layers]
            raise ValueError(f"expected layers of a chain over {axes} axes, found shapes {shapes}; pass matching ones")
        found.append(extra > 0)
        width = layer.shape[-1]
    return tuple(found)


def features(layers: Sequence[Tensor], points: Tensor) -> Tensor:
    """The constant 1 and the activations of the last layer, in the layers' dtype.

    Parameters
    ----------
    layers : sequence of Tensor, shapes (m, n_in + 1, n_out)
        Weights, the bias the last row. Rows beyond those of the layer before are for the point's coordinates.
    points : Tensor, shape (N, d)
        Of all chains.

    Returns
    -------
    Tensor, shape (m, N, W)
    """
    points = points.to(layers[0].dtype).expand(len(layers[0]), *points.shape)
    hidden = points
    for layer, reads in zip(layers, joined(layers, points.shape[-1]), strict=True):
        source = torch.cat([hidden, points], dim=-1) if reads and layer is not layers[0] else hidden
        hidden = torch.sin(torch.matmul(source, layer[:, :-1]) + layer[:, -1:])
    return torch.cat([torch.ones_like(hidden[..., :1]), hidden], dim=-1)


def moments(layers: Sequence[Tensor], points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As `chains.moments`."""
    found = features(layers, points).double()
    return found.mT @ found, targets.double() @ found


def pullback(layers: Sequence[Tensor], points: Tensor, targets: Tensor, head: Tensor) -> list[Tensor]:
    """Gradients of all layers where the loss's derivative by the activations h of a point is ``[h, targets, 1] head``.

    Parameters
    ----------
    layers, points, targets
        As in `moments`.
    head : Tensor, shape (m, W - 1 + B + 1, W - 1)
    """
    with torch.enable_grad():
        leaves = [layer.detach().requires_grad_(True) for layer in layers]
        hidden = features(leaves, points)[..., 1:]
        seen = torch.cat([hidden.detach(), targets.mT.to(hidden.dtype), torch.ones_like(hidden[..., :1])], dim=-1)
        return list(torch.autograd.grad(hidden, leaves, grad_outputs=seen @ head))


def write(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], layers: Sequence[Tensor], points: Tensor, readouts: Tensor,
    offset: float, low: int, high: int,
) -> None:  # fmt: skip
    """As `chains.write`."""
    samples = torch.matmul(features(layers, points), readouts.to(layers[0].dtype).unsqueeze(-1)).squeeze(-1)
    store(out, corner, cell, samples, offset, low, high)


def mix(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], basis: Tensor, coefficients: Tensor, offset: float, low: int,
    high: int,
) -> None:  # fmt: skip
    """As `chains.mix`."""
    store(out, corner, cell, coefficients.to(basis.dtype) @ basis.T, offset, low, high)


def store(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], samples: Tensor, offset: float, low: int, high: int
) -> None:
    """Put samples (n, prod(cell)) of leaves into a box, the offset added; other parameters as in `chains.write`."""
    for place, leaf in zip(corner.tolist(), (samples + offset).reshape(-1, *cell), strict=True):
        inside = [(max(0, -c), min(n, m - c)) for c, n, m in zip(place, cell, out.shape, strict=True)]
        if all(a < b for a, b in inside):
            part = leaf[tuple(slice(a, b) for a, b in inside)]
            target = out[tuple(slice(a + c, b + c) for (a, b), c in zip(inside, place, strict=True))]
            target.copy_(part if out.is_floating_point() else part.round().clamp(low, high))
