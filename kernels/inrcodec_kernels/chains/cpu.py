"""Chains of sine layers in compiled loops, on the tiles of points that `siren.cpu` describes.

Inputs of a layer are rows: the activations of the layer before, and behind them, where the layer reads it, the point.
Behind the last activations lie the targets, so that moments and derivatives by activations are products like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ..backend import in_threads
from ..siren.cpu import (
    SUMS,
    TILE,
    _add_products,
    _affine,
    _pack,
    _scale_rows,
    joined_weights,
    sines,
    sines_and_cosines,
    split_weights,
)
from ..siren.plan import padded
from ..vectors import float32_limits
from .reference import joined

AXES = 4
PARTS = 16
"""Ranges of chains that threads take: a few for each, so that none waits long for the others."""

Array = NDArray[Any]
_F = np.float32
_ZERO, _WIDE_ZERO, _WIDE_ONE = _F(0), np.float64(0), np.float64(1)


@dataclass(frozen=True)
class Plan:
    """Where the layers of a class of chains lie in the flat arrays of a thread.

    Attributes
    ----------
    table : ndarray of int64, shape (6, layers + 1)
        Of each layer: activations that it reads; rows that it reads, the point's included; first number of these rows;
        first packed weight; first packed weight of the transposed layer; first weight in raster order. The last column
        has the chain's activations, these and the targets, and the ends.
    sizes : ndarray of int64, shape (3,)
        Numbers in all rows, packed weights, packed transposed weights.
    """

    table: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, layers: Sequence[Tensor], axes: int, targets: int = 0) -> Plan:
        """Plan for layers (m, n_in + 1, n_out) and so many targets."""
        hidden = [0, *(layer.shape[-1] for layer in layers)]
        inputs = [*(layer.shape[-2] - 1 for layer in layers), hidden[-1] + targets]
        joined(layers, axes)
        rows = _begins([padded(n) * TILE for n in inputs])
        forward = _begins([_packed(n_in, n_out) for n_in, n_out in zip(inputs, hidden[1:], strict=False)])
        turned = _begins([_packed(n_out, n_in) for n_in, n_out in itertools.pairwise(hidden)])
        weights = _begins([(n_in + 1) * n_out for n_in, n_out in zip(inputs, hidden[1:], strict=False)])
        table = np.array([hidden, inputs, rows[:-1], forward, turned, weights], dtype=np.int64)
        return cls(table, np.array([rows[-1], forward[-1], turned[-1]], dtype=np.int64))


def _begins(lengths: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _packed(n_in: int, n_out: int) -> int:
    return (n_out + 1) // 2 * (2 + 2 * padded(n_in))


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _pack_chain(packed: Array, weights: Array, plan: Array) -> None:
    for layer in range(plan.shape[1] - 1):
        n_out = plan[0, layer + 1]
        _pack(packed[plan[3, layer] :], weights[plan[5, layer] :], plan[1, layer], n_out, n_out, 1, True)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _pack_turned(packed: Array, weights: Array, plan: Array) -> None:
    for layer in range(1, plan.shape[1] - 1):
        n_out = plan[0, layer + 1]
        _pack(packed[plan[4, layer] :], weights[plan[5, layer] :], n_out, plan[0, layer], 1, n_out, False)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _fill(hidden: Array, points: Array, plan: Array, start: int, count: int) -> None:
    """Coordinates of a tile, as the first rows."""
    for a in range(points.shape[1]):
        for p in range(count):
            hidden[a * TILE + p] = points[start + p, a]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _forward(hidden: Array, cosines: Array, packed: Array, plan: Array, axes: int, derived: bool) -> None:
    """All layers at a tile's points, whose coordinates are the first rows; with the sines' derivatives if wanted."""
    for layer in range(plan.shape[1] - 1):
        n_out, at = plan[0, layer + 1], plan[2, layer + 1]
        out = hidden[at : at + 2 * ((n_out + 1) // 2) * TILE]
        _affine(out, hidden[plan[2, layer] :], packed[plan[3, layer] :], plan[1, layer], n_out)
        if derived:
            sines_and_cosines(out[: n_out * TILE], cosines[at : at + n_out * TILE])
        else:
            sines(out[: n_out * TILE])
        if layer + 2 < plan.shape[1] and plan[1, layer + 1] > n_out:
            hidden[at + n_out * TILE : at + (n_out + axes) * TILE] = hidden[: axes * TILE]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _widen(wide: Array, hidden: Array, targets: Array, start: int, count: int) -> None:
    """The rows 1, activations and targets of a tile in float64; zero beyond the last point."""
    neurons, wanted = len(hidden) // TILE, len(targets)
    wide[:] = _WIDE_ZERO
    wide[:count] = _WIDE_ONE
    for i in range(neurons):
        for p in range(count):
            wide[(i + 1) * TILE + p] = hidden[i * TILE + p]
    for i in range(wanted):
        for p in range(count):
            wide[(i + 1 + neurons) * TILE + p] = targets[i, start + p]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _correlations(h: Array, g: Array) -> Any:
    """Sums over points of the products of four rows with two, in float64."""
    s0, s1, s2, s3 = _WIDE_ZERO, _WIDE_ZERO, _WIDE_ZERO, _WIDE_ZERO
    s4, s5, s6, s7 = _WIDE_ZERO, _WIDE_ZERO, _WIDE_ZERO, _WIDE_ZERO
    for p in range(TILE):
        g0, g1 = g[p], g[TILE + p]
        h0, h1, h2, h3 = h[p], h[TILE + p], h[2 * TILE + p], h[3 * TILE + p]
        s0 += h0 * g0
        s1 += h0 * g1
        s2 += h1 * g0
        s3 += h1 * g1
        s4 += h2 * g0
        s5 += h2 * g1
        s6 += h3 * g0
        s7 += h3 * g1
    return s0, s1, s2, s3, s4, s5, s6, s7


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _add_moments(sums: Array, wide: Array, features: int) -> None:
    """Add a tile's products of rows: of the features with each other (the upper triangle), and with the targets."""
    for i in range(0, features, 4):
        h = wide[i * TILE : (i + 4) * TILE]
        for j in range(i, sums.shape[1] - 1, 2):
            found = _correlations(h, wide[j * TILE : (j + 2) * TILE])
            for k in range(4):
                sums[i + k, j] += found[2 * k]
                sums[i + k, j + 1] += found[2 * k + 1]


@njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _moments(
    gram: Array, products: Array, weights: Array, points: Array, targets: Array, plan: Array, sizes: Array, begin: int,
    end: int,
) -> None:  # fmt: skip
    hidden, cosines, packed = np.zeros(sizes[0], _F), np.zeros(0, _F), np.zeros(sizes[1], _F)
    count, features, wanted, last = len(points), gram.shape[1], targets.shape[1], plan[2, -1]
    columns = (features + wanted + 1) // 2 * 2
    wide, sums = np.zeros((columns + 4) * TILE), np.zeros((features + 3, columns + 1))
    for k in range(begin, end):
        _pack_chain(packed, weights[k], plan)
        sums[:] = _WIDE_ZERO
        for start in range(0, count, TILE):
            here = min(TILE, count - start)
            _fill(hidden, points, plan, start, here)
            _forward(hidden, cosines, packed, plan, points.shape[1], False)
            _widen(wide, hidden[last : last + (features - 1) * TILE], targets[k], start, here)
            _add_moments(sums, wide, features)
        for i in range(features):
            for j in range(i, features):
                gram[k, i, j] = gram[k, j, i] = sums[i, j]
            for j in range(wanted):
                products[k, j, i] = sums[i, features + j]


def moments(layers: Sequence[Tensor], points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As `chains.moments`, without derivatives."""
    x, y = _numbers(points), _numbers(targets)
    plan, joined_ = Plan.of(layers, x.shape[1], y.shape[1]), joined_weights(layers)
    features = layers[-1].shape[-1] + 1
    gram = np.empty((len(joined_), features, features))
    products = np.empty((len(joined_), y.shape[1], features))

    def work(begin: int, end: int) -> None:
        _moments(gram, products, joined_, x, y, plan.table, plan.sizes, begin, end)

    _in_parts(work, len(joined_))
    return torch.from_numpy(gram), torch.from_numpy(products)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _backward(gradient: Array, hidden: Array, cosines: Array, slopes: Array, turned: Array, plan: Array) -> None:
    """Add a tile's part of all gradients; the last rows of `slopes` hold the derivatives by the last phases."""
    for layer in range(plan.shape[1] - 2, -1, -1):
        n_h, n_out, source, at = plan[0, layer], plan[0, layer + 1], plan[2, layer], plan[2, layer + 1]
        _add_products(gradient[plan[5, layer] :], hidden[source:], slopes[at:], plan[1, layer], n_out)
        if layer:
            _affine(slopes[source:at], slopes[at:], turned[plan[4, layer] :], n_out, n_h)
            _scale_rows(slopes[source : source + n_h * TILE], cosines[source : source + n_h * TILE])


@njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _pullback(
    gradients: Array, weights: Array, points: Array, targets: Array, head: Array, plan: Array, sizes: Array,
    begin: int, end: int,
) -> None:  # fmt: skip
    hidden, cosines, slopes = np.zeros(sizes[0], _F), np.zeros(sizes[0], _F), np.zeros(sizes[0], _F)
    packed, turned = np.zeros(sizes[1], _F), np.zeros(sizes[2], _F)
    count, neurons, inputs, last = len(points), plan[0, -1], plan[1, -1], plan[2, -1]
    final = np.zeros((neurons + 1) // 2 * (2 + 2 * ((inputs + 3) // 4 * 4)), _F)
    for k in range(begin, end):
        _pack_chain(packed, weights[k], plan)
        _pack_turned(turned, weights[k], plan)
        _pack(final, head[k], inputs, neurons, neurons, 1, True)
        gradients[k] = _ZERO
        for start in range(0, count, TILE):
            here = min(TILE, count - start)
            _fill(hidden, points, plan, start, here)
            _forward(hidden, cosines, packed, plan, points.shape[1], True)
            for i in range(inputs - neurons):
                for p in range(here):
                    hidden[last + (neurons + i) * TILE + p] = targets[k, i, start + p]
            _affine(slopes[last:], hidden[last:], final, inputs, neurons)
            _scale_rows(slopes[last : last + neurons * TILE], cosines[last : last + neurons * TILE])
            for i in range(neurons):
                slopes[last + i * TILE + here : last + (i + 1) * TILE] = _ZERO
            _backward(gradients[k], hidden, cosines, slopes, turned, plan)


def pullback(layers: Sequence[Tensor], points: Tensor, targets: Tensor, head: Tensor) -> list[Tensor]:
    """As `reference.pullback`."""
    x, y, final = _numbers(points), _numbers(targets), _numbers(head).reshape(len(head), -1)
    plan, weights = Plan.of(layers, x.shape[1], y.shape[1]), joined_weights(layers)
    gradients = np.empty_like(weights)

    def work(begin: int, end: int) -> None:
        _pullback(gradients, weights, x, y, final, plan.table, plan.sizes, begin, end)

    _in_parts(work, len(weights))
    return split_weights(gradients, layers)


@njit(nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")
def _store(box: Array, corner: Array, cell: Array, values: Array, offset: float, rounded: bool, low: float, high: float) -> None:
    """Put a leaf's samples, in raster order, where they lie in a box of four axes."""
    first, stop = np.empty(AXES, np.int64), np.empty(AXES, np.int64)
    for a in range(AXES):
        first[a], stop[a] = max(0, -corner[a]), min(cell[a], box.shape[a] - corner[a])
    for i in range(first[0], stop[0]):
        for j in range(first[1], stop[1]):
            for k in range(first[2], stop[2]):
                at = ((i * cell[1] + j) * cell[2] + k) * cell[3]
                row = box[corner[0] + i, corner[1] + j, corner[2] + k]
                for m in range(first[3], stop[3]):
                    value = values[at + m] + offset
                    if rounded:
                        value = min(max(value, low), high)
                        row[corner[3] + m] = np.rint(value)
                    else:
                        row[corner[3] + m] = value


@njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _write(
    box: Array, corner: Array, cell: Array, weights: Array, points: Array, readouts: Array, plan: Array, sizes: Array,
    offset: float, rounded: bool, low: float, high: float, begin: int, end: int,
) -> None:  # fmt: skip
    hidden, cosines, packed = np.zeros(sizes[0], _F), np.zeros(0, _F), np.zeros(sizes[1], _F)
    count, neurons, last = len(points), plan[0, -1], plan[2, -1]
    final = np.zeros(2 + 2 * ((neurons + 3) // 4 * 4), _F)
    values = np.zeros((count + TILE - 1) // TILE * TILE + TILE, _F)
    for k in range(begin, end):
        _pack_chain(packed, weights[k], plan)
        _pack(final, readouts[k], neurons, 1, 1, 1, True)
        for start in range(0, count, TILE):
            _fill(hidden, points, plan, start, min(TILE, count - start))
            _forward(hidden, cosines, packed, plan, points.shape[1], False)
            _affine(values[start : start + 2 * TILE], hidden[last:], final, neurons, 1)
        _store(box, corner[k], cell, values, offset, rounded, low, high)


def write(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], layers: Sequence[Tensor], points: Tensor, readouts: Tensor,
    offset: float, low: int, high: int,
) -> None:  # fmt: skip
    """As `chains.write`."""
    x, plan, weights = _numbers(points), Plan.of(layers, points.shape[1]), joined_weights(layers)
    final = np.ascontiguousarray(np.roll(readouts.numpy(), -1, axis=1), dtype=_F)
    place, form = _place(out, corner, cell), _form(out, offset, low, high)

    def work(begin: int, end: int) -> None:
        _write(*place, weights, x, final, plan.table, plan.sizes, *form, begin, end)

    _in_parts(work, len(weights))


@njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _mix(
    box: Array, corner: Array, cell: Array, tiles: Array, coefficients: Array, offset: float, rounded: bool, low: float,
    high: float, begin: int, end: int,
) -> None:  # fmt: skip
    """Leaves two by two, as two outputs of a layer that reads the basis."""
    width, count = coefficients.shape[1], len(tiles)
    packed, pair = np.zeros(2 + 2 * ((width + 3) // 4 * 4), _F), np.zeros((width + 1) * 2, _F)
    samples, values = np.zeros(2 * TILE, _F), np.zeros((2, count * TILE), _F)
    for k in range(begin, end, 2):
        for j in range(2):
            for i in range(width):
                pair[2 * i + j] = coefficients[k + j, i] if k + j < end else _ZERO
        _pack(packed, pair, width, 2, 2, 1, False)
        for tile in range(count):
            _affine(samples, tiles[tile], packed, width, 2)
            values[0, tile * TILE : (tile + 1) * TILE] = samples[:TILE]
            values[1, tile * TILE : (tile + 1) * TILE] = samples[TILE:]
        for j in range(min(2, end - k)):
            _store(box, corner[k + j], cell, values[j], offset, rounded, low, high)


def mix(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], basis: Tensor, coefficients: Tensor, offset: float, low: int,
    high: int,
) -> None:  # fmt: skip
    """As `chains.mix`."""
    tiles = _tiles(_numbers(basis))
    place, form, values = _place(out, corner, cell), _form(out, offset, low, high), _numbers(coefficients)

    def work(begin: int, end: int) -> None:
        _mix(*place, tiles, values, *form, begin, end)

    _in_parts(work, len(values))


def _tiles(basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tiles of points with a row for each column of a basis (N, W), shape (tiles, padded W * TILE)."""
    count, width = basis.shape
    tiles = np.zeros((-(-count // TILE), padded(width), TILE), dtype=_F)
    full = np.zeros((len(tiles) * TILE, width), dtype=_F)
    full[:count] = basis
    tiles[:, :width] = full.reshape(len(tiles), TILE, width).transpose(0, 2, 1)
    return tiles.reshape(len(tiles), -1)


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=_F)


def _place(out: Tensor, corner: Tensor, cell: tuple[int, ...]) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """The box, the leaves' corners and their extents with leading axes of one sample."""
    missing = AXES - out.ndim
    box = out.numpy()[(None,) * missing]
    corners = np.ascontiguousarray(np.pad(corner.numpy(), ((0, 0), (missing, 0))), dtype=np.int64)
    return box, corners, np.array([1] * missing + list(cell), dtype=np.int64)


def _form(out: Tensor, offset: float, low: int, high: int) -> tuple[Any, bool, Any, Any]:
    """Offset, whether samples are integers, and their limits."""
    least, most = float32_limits(low, high)
    return _F(offset), not out.is_floating_point(), least, most


def _in_parts(work: Any, count: int) -> None:
    bounds = np.linspace(0, count, min(PARTS, count) + 1).astype(int).tolist()
    in_threads(lambda part: work(bounds[part], bounds[part + 1]), range(len(bounds) - 1))
