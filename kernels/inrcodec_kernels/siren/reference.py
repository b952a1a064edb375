"""Plain definitions of the operations on sine networks: any float dtype, the forward operation differentiable.

Every other backend must match these functions. See README.md for the mathematics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .soap import Soap

LARGEST = 1e20
"""What a network gives stays below this; more, or NaN, comes from hostile weights only."""
UNSOUND = "expected networks of finite values, found others; correct the weights"
_BATCH = 1 << 21
"""Activations of a layer at a time."""

Note = Callable[[float, float], None]
"""``note(fraction, loss)``: progress of a fit, and the mean of the smoothed losses known so far."""


class Blocks(NamedTuple):
    """Where blocks lie in a box of samples, and their units.

    Attributes
    ----------
    origin : ndarray of int64, shape (n, d)
        First sample of each block, in the box's coordinates; may be negative.
    extent : ndarray of int64, shape (n, d)
    scale, mean : ndarray of float, shape (n,)
        A sample is ``mean + scale * net(x)``.
    """

    origin: NDArray[np.int64]
    extent: NDArray[np.int64]
    scale: NDArray[np.floating]
    mean: NDArray[np.floating]

    def part(self, begin: int, end: int) -> Blocks:
        """Some of the blocks."""
        here = slice(begin, end)
        return Blocks(self.origin[here], self.extent[here], self.scale[here], self.mean[here])


class Networks(NamedTuple):
    """Quantised networks of one class; no widths are constants, whose blocks are their means.

    Attributes
    ----------
    widths : tuple of int
        Of the sine layers.
    quantised : ndarray of int32, shape (n, P)
        Weights, layer by layer in raster order, the bias the last row of each.
    steps : ndarray of float, shape (n, layers)
        Quantisation step of each layer, the linear output included.
    start : ndarray of float, shape (n, (d + 1) * widths[0])
        Added to the first layer.
    """

    widths: tuple[int, ...]
    quantised: NDArray[np.int32]
    steps: NDArray[np.floating]
    start: NDArray[np.floating]

    def part(self, begin: int, end: int) -> Networks:
        """Some of the networks."""
        here = slice(begin, end)
        return Networks(self.widths, self.quantised[here], self.steps[here], self.start[here])


class Format(NamedTuple):
    """What the samples of a box are to be.

    Attributes
    ----------
    offset : float
        Added to all.
    dtype : numpy dtype
        float32, or integers of up to 16 bits: these are rounded half to even and clipped.
    low, high : int
        Smallest and largest integer.
    """

    offset: float
    dtype: np.dtype[Any]
    low: int
    high: int

    @property
    def rounded(self) -> bool:
        """Whether samples are integers."""
        return self.dtype.kind != "f"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The same in torch."""
        return torch.from_numpy(np.empty(0, self.dtype)).dtype


class Samples(NamedTuple):
    """What networks are fitted to: each block's samples, and where they lie in block coordinates.

    Sample i along an axis has the coordinate ``(i + shift) * unit - 1``.

    Attributes
    ----------
    values : ndarray of float32, shape (N,)
        Of all blocks, each in raster order.
    begin : ndarray of int64, shape (n,)
        First value of each block.
    box : ndarray of int64, shape (n, d)
        Extents of each block; at most 2**31 samples.
    shift, unit : ndarray of float32, shape (n, d)
    key : ndarray of uint32, shape (n,)
        Of each block's random numbers.
    """

    values: NDArray[np.float32]
    begin: NDArray[np.int64]
    box: NDArray[np.int64]
    shift: NDArray[np.float32]
    unit: NDArray[np.float32]
    key: NDArray[np.uint32]


class Quantiser(NamedTuple):
    """Quantisation that a fit is made robust to, and what the weights' bits cost.

    Attributes
    ----------
    noise : ndarray of float32, shape (n, layers)
        Step of each layer: as much uniform noise is added to its weights in every step's forward operation.
    price : ndarray of float32, shape (n, layers)
        Of a bit: ``price * sum(log2(1 + |w - start| / noise))`` is added to the loss.
    start : ndarray of float32, shape (n, (d + 1) * widths[0])
        What the first layer's weights are stored as differences to; the others' is zero.
    """

    noise: NDArray[np.float32]
    price: NDArray[np.float32]
    start: NDArray[np.float32]


def layer_shapes(ndim: int, widths: Sequence[int]) -> list[tuple[int, int]]:
    """Shape of each layer's weights, bias row included, the linear output last."""
    return [(n_in + 1, n_out) for n_in, n_out in itertools.pairwise((ndim, *widths, 1))]


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


def forward(weights: Sequence[Tensor], points: Tensor) -> Tensor:
    """Outputs of n networks of one class.

    Parameters
    ----------
    weights : sequence of Tensor, shapes (n, n_in + 1, n_out)
        Layer by layer, the bias the last row; one output.
    points : Tensor, shape (n or 1, N, d)

    Returns
    -------
    Tensor, shape (n, N)
    """
    hidden = sine_chain(points, [(w[:, :-1], w[:, -1]) for w in weights[:-1]])
    last = weights[-1]
    return (torch.matmul(hidden, last[:, :-1]) + last[:, -1:]).squeeze(-1)


def blend_ramp(index: NDArray[np.int64], extent: int, halo: int) -> NDArray[np.float64]:
    """Weight of a block's samples along one axis: 1 inside, linear to 0 across its faces; 1 everywhere without a halo."""
    if halo == 0:
        return np.ones(len(index))
    ramp: NDArray[np.float64] = np.minimum(index + 0.5, extent - 0.5 - index) / (2 * halo) + 0.5
    return np.clip(ramp, 0.0, 1.0)


def accumulate(total: np.ndarray, share: np.ndarray, blocks: Blocks, networks: Networks, halo: int) -> None:
    """As `siren.accumulate`, in the dtype of `total`; blocks that meet the box alike are evaluated together."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for k, (origin, extent) in enumerate(zip(blocks.origin.tolist(), blocks.extent.tolist(), strict=True)):
        low = tuple(max(-halo, -o) for o in origin)
        high = tuple(min(e + halo, n - o) for o, e, n in zip(origin, extent, total.shape, strict=True))
        if all(a < b for a, b in zip(low, high, strict=True)):
            groups.setdefault((tuple(extent), low, high), []).append(k)
    for (extent, low, high), members in groups.items():
        indices = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
        axes = [(2 * i + 1) / e - 1 for i, e in zip(indices, extent, strict=True)]
        ramp = np.ones(())
        for i, e in zip(indices, extent, strict=True):
            ramp = np.multiply.outer(ramp, blend_ramp(i, e, halo))
        ramp = ramp.astype(total.dtype)
        for k, values in zip(members, _values(axes, blocks, networks, members, total.dtype), strict=True):
            place = tuple(slice(o + a, o + b) for o, a, b in zip(blocks.origin[k].tolist(), low, high, strict=True))
            total[place] += ramp * values.reshape(ramp.shape)
            share[place] += ramp


def _values(
    axes: list[np.ndarray], blocks: Blocks, networks: Networks, members: list[int], dtype: np.dtype
) -> np.ndarray:
    """Samples of blocks on the same grid of block coordinates, shape (n, points)."""
    mean = blocks.mean[members].astype(dtype)[:, None]
    count = math.prod(map(len, axes))
    if not networks.widths:
        return np.broadcast_to(mean, (len(members), count))
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, len(axes)).astype(dtype)
    mine = Networks(networks.widths, networks.quantised[members], networks.steps[members], networks.start[members])
    weights = [torch.from_numpy(w) for w in dequantised(mine, len(axes), dtype.type)]
    batch = max(1, _BATCH // (len(members) * max(networks.widths)))
    with torch.no_grad():
        parts = [forward(weights, torch.from_numpy(mesh[:, at : at + batch])) for at in range(0, count, batch)]
    found = torch.cat(parts, dim=1).numpy()
    if not np.all(np.abs(found) < LARGEST):
        raise ValueError(UNSOUND)
    return found * blocks.scale[members].astype(dtype)[:, None] + mean


def dequantised(networks: Networks, ndim: int, dtype: type = np.float32) -> list[np.ndarray]:
    """Weights of all layers, shapes (n, n_in + 1, n_out); hostile ones may be infinite or NaN."""
    layers, at = [], 0
    for layer, shape in enumerate(layer_shapes(ndim, networks.widths)):
        stop = at + math.prod(shape)
        with np.errstate(over="ignore", invalid="ignore"):
            part: np.ndarray = networks.quantised[:, at:stop].astype(dtype) * networks.steps[:, layer, None].astype(
                dtype
            )
            layers.append((part + networks.start.astype(dtype) if layer == 0 else part).reshape(-1, *shape))
        at = stop
    return layers


def loss_and_gradients(weights: Sequence[Tensor], points: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
    """As `siren.loss_and_gradients`, in the dtype of the weights."""
    with torch.enable_grad():
        leaves = [w.detach().requires_grad_(True) for w in weights]
        errors = (forward(leaves, points) - targets).square().mean(1)
        gradients = torch.autograd.grad(errors.sum(), leaves)
    return errors.detach(), list(gradients)


def mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3: every bit of the result depends on all of the argument's."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def random_bits(key: NDArray[np.uint32], step: int, count: int) -> NDArray[np.uint32]:
    """Numbers 0 to `count` of a step's stream of each key, shape (n, count)."""
    here = mix(mix(key) + np.uint32(step * 0x9E3779B9 % 2**32))
    return mix(here[:, None] + np.arange(count, dtype=np.uint32) * np.uint32(0x85EBCA77))


def draw(samples: Samples, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Points (n, count, d) and targets (n, count) that a step of the fit sees of each block, float32."""
    volume = samples.box.prod(axis=1).astype(np.uint64)
    index = ((random_bits(samples.key, step, count) * volume[:, None]) >> np.uint64(32)).astype(np.int64)
    targets = samples.values[samples.begin[:, None] + index]
    place = np.empty((*index.shape, samples.box.shape[1]), dtype=np.float32)
    for axis in reversed(range(samples.box.shape[1])):
        index, place[:, :, axis] = np.divmod(index, samples.box[:, axis, None])
    points = (place + samples.shift[:, None]) * samples.unit[:, None] - np.float32(1)
    return torch.from_numpy(points), torch.from_numpy(targets)


NOISE_STREAM = 0xA511E9B3
"""Sets the random numbers of the noise apart from those of the draw."""


def _noisy(weights: Sequence[Tensor], quantiser: Quantiser, key: NDArray[np.uint32], step: int) -> list[Tensor]:
    counts = [w[0].numel() for w in weights]
    bits = random_bits(key ^ np.uint32(NOISE_STREAM), step, sum(counts))
    uniform = torch.from_numpy((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5))
    noise = torch.from_numpy(quantiser.noise)
    return [
        w + (part * noise[:, layer, None]).view_as(w)
        for layer, (w, part) in enumerate(zip(weights, uniform.split(counts, dim=1), strict=True))
    ]


def _rate(weights: Sequence[Tensor], quantiser: Quantiser) -> Tensor:
    """What the bits of all weights cost, shape (n,)."""
    noise, price = torch.from_numpy(quantiser.noise), torch.from_numpy(quantiser.price)
    cost = torch.zeros(len(noise))
    for layer, weight in enumerate(weights):
        moved = weight.flatten(1) - (torch.from_numpy(quantiser.start) if layer == 0 else 0)
        # Without a price there may be no noise, and no logarithm.
        step = torch.where(price[:, layer] > 0, noise[:, layer], 1.0)[:, None]
        cost = cost + price[:, layer] * torch.log2(1 + moved.abs() / step).sum(1)
    return cost


def fit(
    weights: list[Tensor],
    samples: Samples,
    points: int,
    rates: NDArray[np.float32],
    note: Note,
    quantiser: Quantiser | None = None,
) -> NDArray[np.float64]:
    """As `siren.fit`: all blocks together, step by step."""
    leaves = [w.detach().requires_grad_(True) for w in weights]
    optimiser = Soap(leaves)
    smooth = torch.ones(len(samples.begin))
    for step, rate in enumerate(rates.tolist()):
        x, targets = draw(samples, step, points)
        with torch.enable_grad():
            seen = leaves if quantiser is None else _noisy(leaves, quantiser, samples.key, step)
            errors = (forward(seen, x) - targets).square().mean(1)
            loss = errors if quantiser is None else errors + _rate(leaves, quantiser)
            gradients = torch.autograd.grad(loss.sum(), leaves)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimiser.step(rate)
        smooth.lerp_(errors.detach(), smoothing(step))
        if step % 20 == 0:
            note((step + 1) / len(rates), float(smooth.mean()))
    return smooth.double().numpy()


def smoothing(step: int) -> float:
    """Share of a step's error in the smoothed loss: an average of all steps at first, then of about the last 20."""
    return max(0.05, 1 / (step + 1))
