"""How both networks' losses bend with all of their parameters: Gauss and Newton's matrices, from some of the sites.

Both networks are one: two hidden layers and a linear skip. With ``d`` the gradients of an output by parameters and ``O`` the second derivatives of what a
site costs by its outputs, changes ``c`` of the parameters add ``c' M c`` to the cost, ``M = sum d' O d / 2`` over sites. Of squared errors O is 2. Of bits it
comes from differences, as far from each other as rounding moves outputs, for they have an edge at the mean; and it has no directions that bend down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import best_on_cpu
from .layout import AXES, CENTRE, Box, Context, Floats, Layout, Place, Synthesis, network_of, place_of
from .reference import SLOPE, context_inputs, laplace_bits, leaky, synthesis_inputs
from .subbands import joined

CONTEXT_ORDER = ("last_bias", "skip", "last", "second_bias", "level_bias", "first", "second")
SYNTHESIS_ORDER = ("last_bias", "skips", "last", "second_bias", "first_bias", "first", "second")
"""Parameters of one network in the order of its matrix; of the context model's biases of levels, those that it serves."""
SITES = 6000
"""That a matrix is made of, of each lattice."""
_BOXES, _LEAST_BOXES, _BOX = 64, 8, 512
"""Boxes of a lattice that so many sites are taken from, of one of its bands or where sites are fewer at least, and their own sites, about."""
_REACH = 0.3
"""Distance of differences, in units of a latent, or of an octave of its scale."""
_UNSURE = 0.3
"""How much larger diagonals are where sites are not all of a lattice, for each parameter a row."""
_ROWS = 2048
"""Rows of gradients that are multiplied at once."""

Matrix = NDArray[np.float64]


class Sampling(NamedTuple):
    """Which sites a curvature is made of.

    Attributes
    ----------
    random : numpy.random.Generator
        Draws them.
    sites : int
        How many of each level; half of them are chosen by how much they say.
    device : str
        Where their gradients are multiplied.
    """

    random: np.random.Generator
    sites: int = SITES
    device: str = "cpu"


class _Network(NamedTuple):
    """Both layers, and what goes around them."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    last_bias: Tensor
    skip: Tensor

    @classmethod
    def of(cls, *parameters: Floats) -> _Network:
        return cls(*(torch.from_numpy(np.asarray(p, np.float32)) for p in parameters))

    def layers(self, seen: Tensor, skipped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both hidden layers before they are bent, and the outputs."""
        first = seen @ self.first + self.first_bias
        second = leaky(first) @ self.second + self.second_bias
        return first, second, leaky(second) @ self.last + self.last_bias + skipped @ self.skip

    def gradients(self, seen: Tensor, skipped: Tensor, by_output: Tensor, level: int, levels: int) -> Tensor:
        """By all parameters, of sums of outputs, each times what is given; `level` of `levels` biases of the first layer are those."""
        first, second, _ = self.layers(seen, skipped)
        by_second = by_output @ self.last.T * _slope(second)
        by_first = by_second @ self.second.T * _slope(first)
        biases = by_first.new_zeros(len(seen), levels, by_first.shape[1])
        biases[:, level] = by_first
        parts = [
            by_output, _products(skipped, by_output), _products(leaky(second), by_output), by_second, biases.flatten(1),
            _products(seen, by_first), _products(leaky(first), by_second),
        ]  # fmt: skip
        return torch.cat(parts, 1)


class _Sites(NamedTuple):
    """Some sites: what the layers and the skip see of each, and roots of how its cost bends with its outputs (`O / 2`), shape (n, outputs, roots)."""

    seen: Tensor
    skipped: Tensor
    roots: Tensor


def context_curvature(latents: Sequence[Floats], context: Context, layout: Layout, least: float, own: int, sampling: Sampling) -> Matrix:
    """How the bits of latents bend with the parameters of one network of the context model.

    Parameters
    ----------
    latents : sequence of K ndarray of float32, shapes `layout.shapes`
    context : Context
    layout : Layout
    least : float
        Lower limit of log2 of the scale.
    own : int
        Number of the network.
    sampling : Sampling

    Returns
    -------
    ndarray of float64, shape (P, P)
        The parameters in `CONTEXT_ORDER`. Bits of all latents rise by ``c' M c``, about, with changes c.
    """
    served = [level for level in range(layout.levels) if network_of(layout.lattice[level], context.networks) == own]
    tensors: list[Tensor] = [torch.from_numpy(np.asarray(y)) for y in latents]
    found: Matrix | float = 0.0
    for number, level in enumerate(served):
        network, lattice = _Network.of(*context.of_level(level, layout.lattice[level])), layout.shapes[level]
        bands = layout.lattice.count(layout.lattice[level])
        boxes = list(_boxes(lattice, sampling, bands))
        seen = torch.cat([context_inputs(tensors, layout, level, box).flatten(0, AXES - 1) for box in boxes])
        symbols = torch.cat([tensors[level][_inside(box)].flatten() for box in boxes])
        roots = _bent(symbols.double(), network.layers(seen, seen)[2].double(), least).float()
        found = found + _matrix(network, _Sites(seen, seen, roots), math.prod(lattice), sampling, number, len(served), bands)
    return np.asarray(found)


def synthesis_curvature(
    latents: Sequence[Floats], synthesis: Synthesis, layout: Layout, weights: Floats | None, sampling: Sampling
) -> Matrix:
    """How the sum of squared errors bends with the parameters of the synthesis but gains and filters.

    Parameters
    ----------
    latents : sequence of K ndarray of float32, shapes `layout.shapes`
    synthesis : Synthesis
    layout : Layout
    weights : ndarray of float32, shape of the signal, or 1 along some axes, or None
        What squared errors count.
    sampling : Sampling

    Returns
    -------
    ndarray of float64, shape (P, P)
        The parameters in `SYNTHESIS_ORDER`, as of `context_curvature`.
    """
    whole = Synthesis(*(torch.from_numpy(np.asarray(p, np.float32)) for p in synthesis))  # type: ignore[arg-type]
    latents, layout = joined(latents, layout, best_on_cpu()), layout.channels
    tensors, origins = [torch.from_numpy(np.asarray(y)) for y in latents], [CENTRE] * layout.levels
    boxes = list(_boxes(layout.shape, sampling))
    pairs = [synthesis_inputs(tensors, origins, whole, layout, box) for box in boxes]
    seen, skipped = (torch.cat([pair[i].flatten(0, AXES - 1) for pair in pairs]) for i in range(2))
    counts = np.broadcast_to(np.float32(1) if weights is None else weights, layout.shape)
    roots = torch.from_numpy(np.concatenate([np.sqrt(counts[_inside(box)]).ravel() for box in boxes])).reshape(-1, 1, 1)
    s = synthesis
    network = _Network.of(
        s.first, s.first_bias, s.second, s.second_bias, s.last[:, None], np.reshape(s.last_bias, 1), s.skips[:, None]
    )
    return _matrix(network, _Sites(seen, skipped, roots), math.prod(layout.shape), sampling, 0, 1)


def _boxes(lattice: Place, sampling: Sampling, bands: int = 1) -> Iterator[Box]:
    """Boxes of a lattice, or of one of its bands, in which each site is as often as another; all of it where it has few."""
    most = max(_BOXES * sampling.sites // (SITES * bands), _LEAST_BOXES)
    present = sum(n > 1 for n in lattice)
    edge = max(2, round(_BOX ** (1 / max(present, 1))))
    counts = [-(-n // edge) for n in lattice]
    every = math.prod(counts)
    chosen = range(every) if every <= most else sampling.random.choice(every, most, replace=False)
    for number in chosen:
        start = [edge * int(i) for i in np.unravel_index(number, counts)]
        yield place_of(start), place_of(min(a + edge, n) for a, n in zip(start, lattice, strict=True))


def _inside(box: Box) -> tuple[slice, ...]:
    return tuple(itertools.starmap(slice, zip(*box, strict=True)))


def _chosen(known: _Sites, every: int, sampling: Sampling) -> _Sites:
    """Sites that stand for all of a lattice, half of them for what they say and half for being there."""
    count, given, wanted = len(known.seen), every / len(known.seen), sampling.sites
    if count <= wanted:
        return known._replace(roots=known.roots * math.sqrt(given))
    said = (known.roots.square().sum((1, 2)) * (1 + known.seen.square().sum(1))).double().numpy()
    likely = 0.5 * said / max(said.sum(), 1e-30) + 0.5 / count
    numbers = sampling.random.choice(count, wanted, p=likely / likely.sum())
    factor = torch.from_numpy(np.sqrt(given / (wanted * likely[numbers]))).float()
    seen, skipped, roots = (part[numbers] for part in known)
    return _Sites(seen, skipped, roots * factor[:, None, None])


def _bent(symbols: Tensor, outputs: Tensor, least: float) -> Tensor:
    """Roots of half of the bits' second derivatives by mean and scale, shape (n, 2, 2), without directions that bend down."""
    mean, scale = outputs.unbind(-1)

    def moved(a: int, b: int) -> Tensor:
        return laplace_bits(symbols, mean + a * _REACH, scale + b * _REACH, least)

    here = moved(0, 0)
    of_mean, of_scale = (moved(a, b) + moved(-a, -b) - 2 * here for a, b in ((1, 0), (0, 1)))
    of_both = (moved(1, 1) + moved(-1, -1) - moved(1, -1) - moved(-1, 1)) / 4
    second = torch.stack([of_mean, of_both, of_both, of_scale], -1).reshape(-1, 2, 2) / _REACH**2
    values, vectors = torch.linalg.eigh(second)
    return vectors * (values.clamp(min=0) / 2).sqrt()[:, None]


def _matrix(network: _Network, known: _Sites, every: int, sampling: Sampling, level: int, levels: int, bands: int = 1) -> Matrix:
    """Sum of products of gradients, every root a row, of some known sites that stand for all of a lattice, or of one of its bands.

    Bands share out the sites of a lattice: all of them for each would take a fifth of a fit.
    """
    sites, device = _chosen(known, every, sampling._replace(sites=max(sampling.sites // bands, 1))), sampling.device
    there, found, rows = _Network(*(p.to(device) for p in network)), np.zeros((0, 0)), 0
    for start in range(0, len(sites.seen), _ROWS):
        seen, skipped, roots = (part[start : start + _ROWS].to(device) for part in sites)
        for root in roots.unbind(-1):
            gradients = there.gradients(seen, skipped, root, level, levels)
            products, rows = _squared(gradients), rows + len(gradients)
            found = found + products if found.size else products.astype(np.float64)
    if len(sites.seen) < every:
        # Some rows say of so many parameters too surely what goes with what.
        found[np.diag_indices_from(found)] *= 1 + _UNSURE * len(found) / (bands * rows)
    return found


def _squared(rows: Tensor) -> Floats:
    """Sum of the products of every row with itself; on the CPU by NumPy, which does half of them, the others being the same."""
    if rows.device.type != "cpu":
        return (rows.T @ rows).cpu().numpy()
    own = rows.numpy()
    found: Floats = own.T @ own
    return found


def _slope(values: Tensor) -> Tensor:
    return torch.where(values > 0, 1.0, SLOPE).to(values.dtype)


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """Of every site, all products of both; shape (n, rows * columns)."""
    return (rows[:, :, None] * columns[:, None]).flatten(1)
