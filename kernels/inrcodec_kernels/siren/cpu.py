"""Sine networks in compiled loops: tiles of points whose activations stay in the cache.

A tile holds `TILE` points, one row for each neuron, so that the inner loops run over points and a weight is one number
for all of them. Rows of a layer are padded to fours: padding holds zeros, and its weights are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ..backend import in_threads
from .plan import Plan
from .reference import LARGEST, UNSOUND, Blocks, Networks

TILE = 128
"""Points evaluated together: a row is 512 bytes, and a network of 60 neurons fills the first-level cache."""
MOST_AXES = 4

# Sums may be reordered and contracted, but NaN and infinity keep their meaning: they tell hostile weights.
SUMS = {"contract", "reassoc", "nsz"}
# Reductions by pi must not be reordered.
EXACT = {"contract", "nsz"}

Array = NDArray[Any]
_F = np.float32
_ROUND = _F(3 * 2.0**22)
"""Added and taken off again, it rounds to the nearest whole number, whose parity is the last bit in between."""
_PER_PI = _F(1 / np.pi)
_PI_HIGH = _F(3.140625)
_PI_LOW = _F(np.pi - 3.140625)
_EDGE = _F(1.6)
"""Arguments so large that the reduction fails are cut to this: the sine stays below 1.001."""
# Minimax on [-pi/2, pi/2]: 5e-9 in the sine, 3e-10 in the cosine; the rest of the error is rounding.
_S3, _S5, _S7, _S9 = _F(-0.16666657), _F(8.33301542e-3), _F(-1.98064789e-4), _F(2.59975167e-6)
_C2, _C4, _C6 = _F(-0.499999995), _F(4.16666405e-2), _F(-1.38884006e-3)
_C8, _C10 = _F(2.47617299e-5), _F(-2.60742190e-7)
_ONE, _ZERO = _F(1), _F(0)
_LARGEST = _F(LARGEST)


def product_kernels(length: int) -> tuple[Any, Any]:
    """Compiled ``a <- b + W h`` and ``a <- a + W h`` for two rows `a` and four rows `h` of a fixed length.

    With the length a constant, rows are at constant distances: the compiler sees that they do not overlap, and keeps
    eight weights in registers. Eight multiply-adds for six loads and two stores.
    """

    @njit(nogil=True, fastmath=SUMS, error_model="numpy")
    def first(a: Array, h: Array, w: Any) -> None:
        w0, w1, w2, w3, w4, w5, w6, w7, b0, b1 = w
        for p in range(length):
            h0, h1, h2, h3 = h[p], h[length + p], h[2 * length + p], h[3 * length + p]
            a[p] = b0 + w0 * h0 + w2 * h1 + w4 * h2 + w6 * h3
            a[length + p] = b1 + w1 * h0 + w3 * h1 + w5 * h2 + w7 * h3

    @njit(nogil=True, fastmath=SUMS, error_model="numpy")
    def further(a: Array, h: Array, w: Any) -> None:
        w0, w1, w2, w3, w4, w5, w6, w7 = w
        for p in range(length):
            h0, h1, h2, h3 = h[p], h[length + p], h[2 * length + p], h[3 * length + p]
            a[p] += w0 * h0 + w2 * h1 + w4 * h2 + w6 * h3
            a[length + p] += w1 * h0 + w3 * h1 + w5 * h2 + w7 * h3

    return first, further


_first, _further = product_kernels(TILE)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _pack(packed: Array, weight: Array, n_in: int, n_out: int, in_stride: int, out_stride: int, has_bias: bool) -> None:
    """Order weights as `_affine` reads them: for each pair of outputs its biases, then its weights of every input."""
    pairs, inputs = (n_out + 1) // 2, (n_in + 3) // 4 * 4
    row = 2 + 2 * inputs
    for j in range(2 * pairs):
        at = j // 2 * row + j % 2
        packed[at] = weight[n_in * in_stride + j * out_stride] if has_bias and j < n_out else _ZERO
        for i in range(inputs):
            inside = i < n_in and j < n_out
            packed[at + 2 + 2 * i] = weight[i * in_stride + j * out_stride] if inside else _ZERO


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _affine(out: Array, source: Array, packed: Array, n_in: int, n_out: int) -> None:
    """``out <- W source + b``, rows of points."""
    row = 2 + (n_in + 3) // 4 * 8
    for pair in range((n_out + 1) // 2):
        a = out[2 * pair * TILE : (2 * pair + 2) * TILE]
        w = packed[pair * row : (pair + 1) * row]
        _first(a, source[: 4 * TILE], (w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[0], w[1]))
        for i in range(4, n_in, 4):
            v = w[2 + 2 * i : 10 + 2 * i]
            _further(a, source[i * TILE : (i + 4) * TILE], (v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]))


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def _reduced(x: Any) -> Any:
    """`x` less a whole number of pi, within [-pi/2, pi/2], and the sign bit that goes with it. NaN stays NaN."""
    shifted = x * _PER_PI + _ROUND
    whole = shifted - _ROUND
    r = (x - whole * _PI_HIGH) - whole * _PI_LOW
    r = _EDGE if r > _EDGE else r
    r = -_EDGE if r < -_EDGE else r
    return r, _F(shifted).view(np.int32) << 31


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def sines(rows: Array) -> None:
    """Replace every number by its sine."""
    for p in range(len(rows)):
        r, sign = _reduced(rows[p])
        u = r * r
        sine = r + r * u * (_S3 + u * (_S5 + u * (_S7 + u * _S9)))
        rows[p] = np.int32(_F(sine).view(np.int32) ^ sign).view(_F)


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def sines_and_cosines(rows: Array, cosines: Array) -> None:
    """Replace every number by its sine, and store its cosine beside it."""
    for p in range(len(rows)):
        r, sign = _reduced(rows[p])
        u = r * r
        sine = r + r * u * (_S3 + u * (_S5 + u * (_S7 + u * _S9)))
        cosine = _ONE + u * (_C2 + u * (_C4 + u * (_C6 + u * (_C8 + u * _C10))))
        rows[p] = np.int32(_F(sine).view(np.int32) ^ sign).view(_F)
        cosines[p] = np.int32(_F(cosine).view(np.int32) ^ sign).view(_F)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def pack_network(packed: Array, weights: Array, plan: Array) -> None:
    """Pack all layers for the forward operation."""
    for layer in range(plan.shape[1] - 1):
        n_in, n_out = plan[0, layer], plan[0, layer + 1]
        _pack(packed[plan[2, layer] :], weights[plan[4, layer] :], n_in, n_out, n_out, 1, True)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def pack_turned(packed: Array, weights: Array, plan: Array) -> None:
    """Pack all layers but the first, transposed, for the way back."""
    for layer in range(1, plan.shape[1] - 1):
        n_in, n_out = plan[0, layer], plan[0, layer + 1]
        _pack(packed[plan[3, layer] :], weights[plan[4, layer] :], n_out, n_in, 1, n_out, False)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def forward_tile(hidden: Array, packed: Array, plan: Array) -> None:
    """Evaluate the tile's points, whose coordinates are the first rows; the output is the row of the last layer."""
    layers = plan.shape[1] - 1
    for layer in range(layers):
        n_out = plan[0, layer + 1]
        out = hidden[plan[1, layer + 1] : plan[1, layer + 1] + 2 * ((n_out + 1) // 2) * TILE]
        _affine(out, hidden[plan[1, layer] :], packed[plan[2, layer] :], plan[0, layer], n_out)
        if layer + 1 < layers:
            sines(out[: n_out * TILE])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def forward_tile_with_cosines(hidden: Array, cosines: Array, packed: Array, plan: Array) -> None:
    """As `forward_tile`, with the sines' derivatives for the way back."""
    layers = plan.shape[1] - 1
    for layer in range(layers):
        n_out, at = plan[0, layer + 1], plan[1, layer + 1]
        out = hidden[at : at + 2 * ((n_out + 1) // 2) * TILE]
        _affine(out, hidden[plan[1, layer] :], packed[plan[2, layer] :], plan[0, layer], n_out)
        if layer + 1 < layers:
            sines_and_cosines(out[: n_out * TILE], cosines[at : at + n_out * TILE])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _correlations(h: Array, g: Array) -> Any:
    """Sums over points of the products of four rows with two."""
    s0, s1, s2, s3, s4, s5, s6, s7 = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
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
def _sum(row: Array) -> Any:
    total = _ZERO
    for p in range(TILE):
        total += row[p]
    return total


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _add_products(gradient: Array, source: Array, slopes: Array, n_in: int, n_out: int) -> None:
    """Add a tile's part of a layer's gradient, raster order, the biases last."""
    for i in range(0, n_in, 4):
        h = source[i * TILE : (i + 4) * TILE]
        for j in range(0, n_out, 2):
            found = _correlations(h, slopes[j * TILE : (j + 2) * TILE])
            for k in range(min(4, n_in - i)):
                gradient[(i + k) * n_out + j] += found[2 * k]
                if j + 1 < n_out:
                    gradient[(i + k) * n_out + j + 1] += found[2 * k + 1]
    for j in range(n_out):
        gradient[n_in * n_out + j] += _sum(slopes[j * TILE : (j + 1) * TILE])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _scale_rows(rows: Array, factors: Array) -> None:
    for p in range(len(rows)):
        rows[p] *= factors[p]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def backward_tile(gradient: Array, hidden: Array, cosines: Array, slopes: Array, turned: Array, plan: Array) -> None:
    """Add a tile's part of all gradients; the last row of `slopes` holds the derivative by the output."""
    for layer in range(plan.shape[1] - 2, -1, -1):
        n_in, n_out, source, at = plan[0, layer], plan[0, layer + 1], plan[1, layer], plan[1, layer + 1]
        _add_products(gradient[plan[4, layer] :], hidden[source:], slopes[at:], n_in, n_out)
        if layer:
            _affine(slopes[source:at], slopes[at:], turned[plan[3, layer] :], n_out, n_in)
            _scale_rows(slopes[source : source + n_in * TILE], cosines[source : source + n_in * TILE])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def residuals(slopes: Array, output: Array, targets: Array, count: int, points: int) -> float:
    """Sum of squared errors of the first `count` points of a tile, and the loss's derivatives by the outputs."""
    factor = _F(2.0) / _F(points)
    total = _ZERO
    for p in range(TILE):
        e = output[p] - targets[p] if p < count else _ZERO
        slopes[p] = factor * e
        total += e * e
    return float(total)


@njit(nogil=True, cache=True, fastmath=SUMS, error_model="numpy")
def _losses_and_gradients(
    errors: Array, gradients: Array, weights: Array, points: Array, targets: Array, plan: Array, sizes: Array,
    begin: int, end: int,
) -> None:  # fmt: skip
    hidden, cosines, slopes = np.zeros(sizes[0], _F), np.zeros(sizes[0], _F), np.zeros(sizes[0], _F)
    packed, turned, wanted = np.zeros(sizes[1], _F), np.zeros(sizes[2], _F), np.zeros(TILE, _F)
    output, count, axes = plan[1, -1], points.shape[1], points.shape[2]
    for k in range(begin, end):
        pack_network(packed, weights[k], plan)
        pack_turned(turned, weights[k], plan)
        gradients[k] = _ZERO
        error = 0.0
        for start in range(0, count, TILE):
            here = min(TILE, count - start)
            for p in range(here):
                wanted[p] = targets[k, start + p]
                for a in range(axes):
                    hidden[a * TILE + p] = points[k, start + p, a]
            forward_tile_with_cosines(hidden, cosines, packed, plan)
            error += residuals(slopes[output:], hidden[output:], wanted, here, count)
            backward_tile(gradients[k], hidden, cosines, slopes, turned, plan)
        errors[k] = error / count


def loss_and_gradients(weights: Sequence[Tensor], points: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
    """As `siren.loss_and_gradients`."""
    joined = joined_weights(weights)
    plan = Plan.of([points.shape[-1], *(w.shape[-1] for w in weights)], TILE)
    count = len(joined)
    x = np.ascontiguousarray(points.numpy(), dtype=_F)
    t = np.ascontiguousarray(targets.numpy(), dtype=_F)
    errors, gradients = np.empty(count, _F), np.empty_like(joined)

    def work(part: int) -> None:
        _losses_and_gradients(errors, gradients, joined, x, t, plan.table, plan.sizes, part, min(part + 8, count))

    in_threads(work, range(0, count, 8))
    return torch.from_numpy(errors), split_weights(gradients, weights)


def joined_weights(weights: Sequence[Tensor]) -> NDArray[np.float32]:
    """All layers of each network in one row, shape (n, P)."""
    return np.ascontiguousarray(torch.cat([w.detach().flatten(1) for w in weights], dim=1).numpy(), dtype=_F)


def split_weights(joined: NDArray[np.float32], like: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of `joined_weights`, in the shapes of `like`."""
    parts = torch.from_numpy(joined).split([w[0].numel() for w in like], dim=1)
    return [part.reshape(w.shape) for part, w in zip(parts, like, strict=True)]


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _axis(coordinate: Array, ramp: Array, low: int, high: int, extent: int, halo: int) -> None:
    """Block coordinates and blending weights of the samples [low, high) along one axis."""
    for i in range(low, high):
        coordinate[i - low] = (2.0 * i + 1.0) / extent - 1.0
        depth = min(i + 0.5, extent - 0.5 - i)
        ramp[i - low] = min(max(depth / (2.0 * halo) + 0.5, 0.0), 1.0) if halo else 1.0


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _dequantise(weights: Array, quantised: Array, steps: Array, start: Array, plan: Array) -> None:
    layers = plan.shape[1] - 1
    for layer in range(layers):
        for i in range(plan[4, layer], plan[4, layer + 1]):
            weights[i] = _F(quantised[i]) * steps[layer]
    for i in range(plan[4, 1]):
        weights[i] += start[i]


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _fill_tile(
    hidden: Array, ramps: Array, places: Array, counter: Array, axes: Array, window: Array, strides: Array, at: int,
    ndim: int, count: int,
) -> None:  # fmt: skip
    """Coordinates, blending weights and places of the next points in raster order; `counter` goes on from call to call."""
    z, y, x, w = counter[0], counter[1], counter[2], counter[3]
    first = MOST_AXES - ndim
    for p in range(count):
        for a in range(ndim):
            i = x if first + a == 2 else (w if first + a == 3 else (y if first + a == 1 else z))
            hidden[a * TILE + p] = axes[0, first + a, i]
        ramps[p] = axes[1, 0, z] * axes[1, 1, y] * axes[1, 2, x] * axes[1, 3, w]
        places[p] = at + z * strides[0] + y * strides[1] + x * strides[2] + w
        w += 1
        if w == window[3]:
            w, x = 0, x + 1
            if x == window[2]:
                x, y = 0, y + 1
                if y == window[1]:
                    y, z = 0, z + 1
    counter[0], counter[1], counter[2], counter[3] = z, y, x, w


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _add_tile(
    total: Array, share: Array, values: Array, ramps: Array, places: Array, scale: float, mean: float, count: int
) -> bool:
    """Blend a tile's values into the box; whether all are finite."""
    sound = True
    for p in range(count):
        sound &= abs(values[p]) < _LARGEST
        total[places[p]] += ramps[p] * (values[p] * scale + mean)
        share[places[p]] += ramps[p]
    return sound


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def _accumulate(
    total: Array, share: Array, shape: Array, origin: Array, extent: Array, scale: Array, mean: Array,
    quantised: Array, steps: Array, start: Array, plan: Array, sizes: Array, halo: int, row: int, stop: int,
) -> bool:  # fmt: skip
    """Add all blocks to the part [row, stop) of the box's axis `shape[4]`."""
    ndim, constant = sizes[3], plan.shape[1] < 2
    hidden, packed, weights = np.zeros(sizes[0], _F), np.zeros(sizes[1], _F), np.zeros(plan[4, -1], _F)
    axes = np.zeros((2, MOST_AXES, shape[:MOST_AXES].max()), _F)
    ramps, places, counter = np.zeros(TILE, _F), np.zeros(TILE, np.int64), np.zeros(MOST_AXES, np.int64)
    low, window, strides = np.zeros(MOST_AXES, np.int64), np.zeros(MOST_AXES, np.int64), np.ones(MOST_AXES, np.int64)
    for a in range(MOST_AXES - 2, -1, -1):
        strides[a] = strides[a + 1] * shape[a + 1]
    output = hidden[plan[1, -1] : plan[1, -1] + TILE]
    sound = True
    for k in range(len(origin)):
        at, count = 0, 1
        for a in range(MOST_AXES):
            begin, end = (row, stop) if a == shape[MOST_AXES] else (0, shape[a])
            reach = halo if a >= MOST_AXES - ndim else 0
            low[a] = max(-reach, begin - origin[k, a])
            window[a] = max(0, min(extent[k, a] + reach, end - origin[k, a]) - low[a])
            at += (origin[k, a] + low[a]) * strides[a]
            count *= window[a]
        if count == 0:
            continue
        for a in range(MOST_AXES):
            reach = halo if a >= MOST_AXES - ndim else 0
            _axis(axes[0, a], axes[1, a], low[a], low[a] + window[a], extent[k, a], reach)
        if not constant:
            _dequantise(weights, quantised[k], steps[k], start[k], plan)
            pack_network(packed, weights, plan)
        counter[:] = 0
        for done in range(0, count, TILE):
            here = min(TILE, count - done)
            _fill_tile(hidden, ramps, places, counter, axes, window, strides, at, ndim, here)
            if constant:
                output[:] = _ZERO
            else:
                forward_tile(hidden, packed, plan)
            sound &= _add_tile(total, share, output, ramps, places, scale[k], mean[k], here)
    return sound


def accumulate(
    total: NDArray[np.float32], share: NDArray[np.float32], blocks: Blocks, networks: Networks, halo: int
) -> None:
    """As `siren.accumulate`.

    Threads take slabs of the box, not blocks: no two write to the same sample, and the blocks around a sample are
    added in their order whatever the number of threads.
    """
    ndim, count = total.ndim, len(blocks.origin)
    if ndim > MOST_AXES:
        raise ValueError(f"expected at most {MOST_AXES} axes, found {ndim}; use the reference")
    lead = MOST_AXES - ndim
    shape = np.array([1] * lead + list(total.shape) + [0], dtype=np.int64)
    axis = lead + int(np.argmax(total.shape))
    shape[MOST_AXES] = axis
    origin, extent = np.zeros((count, MOST_AXES), np.int64), np.ones((count, MOST_AXES), np.int64)
    origin[:, lead:], extent[:, lead:] = blocks.origin, blocks.extent
    plan = Plan.of([ndim, *networks.widths, 1] if networks.widths else [ndim], TILE)
    scale, mean, steps, start = (
        np.ascontiguousarray(a, dtype=_F) for a in (blocks.scale, blocks.mean, networks.steps, networks.start)
    )
    quantised = np.ascontiguousarray(networks.quantised, dtype=np.int32)
    bounds = np.linspace(0, shape[axis], min(2 * torch.get_num_threads(), int(shape[axis])) + 1).astype(int)
    sums = total.reshape(-1), share.reshape(-1)

    def work(part: int) -> bool:
        ends = int(bounds[part]), int(bounds[part + 1])
        where = shape, origin, extent, scale, mean
        return bool(_accumulate(*sums, *where, quantised, steps, start, plan.table, plan.sizes, halo, *ends))

    if not all(in_threads(work, range(len(bounds) - 1))):
        raise ValueError(UNSOUND)
