"""The descent of private networks in compiled loops: a thread takes a block from the first step to the last.

Weights, moments, curvature and a tile's activations of one block stay in the second-level cache; nothing is shared
between blocks. SOAP's matrices are stored in panels of 32 columns, zero beyond their extents, so that the same product
kernel serves them as the layers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ..backend import in_threads
from .cpu import (
    EXACT,
    SUMS,
    TILE,
    backward_tile,
    forward_tile_with_cosines,
    joined_weights,
    pack_network,
    pack_turned,
    product_kernels,
    residuals,
    split_weights,
)
from .plan import Plan, padded
from .reference import NOISE_STREAM, Note, Quantiser, Samples
from .soap import CURVATURE_DECAY, DECAY, EVERY, LEAST_SCALE, MOMENTUM

PANEL, SHIFT, MASK = 32, 5, 31
"""Columns of a panel of a matrix: column c is column ``c & MASK`` of panel ``c >> SHIFT``."""
WAVE = 8
"""Blocks that a thread fits between two notes of progress."""

Array = NDArray[Any]
_F = np.float32
_ZERO, _ONE = _F(0), _F(1)
_MOMENTUM, _DECAY, _CURVATURE_DECAY, _LEAST_SCALE = _F(MOMENTUM), _F(DECAY), _F(CURVATURE_DECAY), _F(LEAST_SCALE)
# Matrices of a layer, by their place in the state: curvature of both sides, their eigenvectors as columns and as rows,
# moments, and what a step needs in passing.
_LEFT, _RIGHT, _LEFT_BASIS, _RIGHT_BASIS, _LEFT_ROWS, _RIGHT_ROWS, _MEAN, _SQUARE = range(8)
_GRADIENT, _TURNED, _SCRATCH, _ROTATED, _WORK = range(8, 13)
_KINDS = 13

_first, _further = product_kernels(PANEL)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _times(out: Array, a: Array, b: Array, rows: int, inner: int, columns: int) -> None:
    """``out <- a b`` of matrices in panels; `out` is neither of the others."""
    for panel in range((columns + PANEL - 1) // PANEL):
        for r in range(0, rows, 2):
            target = out[panel, r * PANEL : (r + 2) * PANEL]
            for k in range(0, inner, 4):
                h = b[panel, k * PANEL : (k + 4) * PANEL]
                u = a[k >> SHIFT, r * PANEL + (k & MASK) :]
                v = u[PANEL:]
                if k == 0:
                    _first(target, h, (u[0], v[0], u[1], v[1], u[2], v[2], u[3], v[3], _ZERO, _ZERO))
                else:
                    _further(target, h, (u[0], v[0], u[1], v[1], u[2], v[2], u[3], v[3]))


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _flip(out: Array, a: Array, rows: int, columns: int) -> None:
    """``out <- a^T``"""
    for r in range(rows):
        for c in range(columns):
            out[r >> SHIFT, c * PANEL + (r & MASK)] = a[c >> SHIFT, r * PANEL + (c & MASK)]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _mix_in(known: Array, new: Array, part: Any, rows: int, columns: int) -> None:
    """``known <- known + part (new - known)``"""
    weight: Any = _F(part)
    for panel in range((columns + PANEL - 1) // PANEL):
        a, b = known[panel, : rows * PANEL], new[panel, : rows * PANEL]
        for p in range(len(a)):
            a[p] += weight * (b[p] - a[p])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _project(along: Array, a: Array, v: Array) -> None:
    """``along <- along + v a`` for four rows `a`."""
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    for p in range(PANEL):
        along[p] += v0 * a[p] + v1 * a[PANEL + p] + v2 * a[2 * PANEL + p] + v3 * a[3 * PANEL + p]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _take_off(a: Array, along: Array, v: Array) -> None:
    """``a <- a - v^T along`` for four rows `a`."""
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    for p in range(PANEL):
        a[p] -= v0 * along[p]
        a[PANEL + p] -= v1 * along[p]
        a[2 * PANEL + p] -= v2 * along[p]
        a[3 * PANEL + p] -= v3 * along[p]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _reflect(x: Array, reflectors: Array, k: int, size: int, along: Array) -> None:
    """Apply reflector k, a row of `reflectors` that is zero before k, to all columns of `x`."""
    for panel in range((size + PANEL - 1) // PANEL):
        along[:] = _ZERO
        for r in range(k & -4, size, 4):
            _project(along, x[panel, r * PANEL :], reflectors[r >> SHIFT, k * PANEL + (r & MASK) :])
        for r in range(k & -4, size, 4):
            _take_off(x[panel, r * PANEL :], along, reflectors[r >> SHIFT, k * PANEL + (r & MASK) :])


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _orthonormal(x: Array, reflectors: Array, size: int) -> None:
    """Replace the columns of `x` by the orthonormal ones of their QR decomposition; `reflectors` is zero.

    Householder's reflections give a whole basis also where columns depend on each other.
    """
    along = np.zeros(PANEL, _F)
    for k in range(size):
        square = _ZERO
        for r in range(k, size):
            value = x[k >> SHIFT, r * PANEL + (k & MASK)]
            reflectors[r >> SHIFT, k * PANEL + (r & MASK)] = value
            square += value * value
        norm, head = _F(math.sqrt(square)), x[k >> SHIFT, k * PANEL + (k & MASK)]
        moved = head + norm if head >= _ZERO else head - norm
        # Of length sqrt(2), so that a reflection is x - v (v x); a column of zeros needs none.
        scale = _F(1.0 / math.sqrt(norm * abs(moved))) if norm > _ZERO else _ZERO
        reflectors[k >> SHIFT, k * PANEL + (k & MASK)] = moved
        for r in range(k, size):
            reflectors[r >> SHIFT, k * PANEL + (r & MASK)] *= scale
        _reflect(x, reflectors, k, size, along)
    for r in range(size):
        for panel in range((size + PANEL - 1) // PANEL):
            x[panel, r * PANEL : (r + 1) * PANEL] = _ZERO
        x[r >> SHIFT, r * PANEL + (r & MASK)] = _ONE
    for k in range(size - 1, -1, -1):
        _reflect(x, reflectors, k, size, along)


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _eigenvectors(basis: Array, side: Array, size: int) -> None:
    """As `soap.eigenvectors`: columns, the greatest eigenvalue first."""
    matrix, trace = np.zeros((size, size), _F), 0.0
    for r in range(size):
        trace += side[r >> SHIFT, r * PANEL + (r & MASK)]
    scale = _F(max(trace / size, 1e-30))
    sound = trace < math.inf
    for r in range(size):
        for c in range(size):
            matrix[r, c] = side[c >> SHIFT, r * PANEL + (c & MASK)] / scale if sound else _ZERO
        matrix[r, r] += _F(1e-6)
    vectors = np.linalg.eigh(matrix)[1]
    for r in range(size):
        for c in range(size):
            basis[c >> SHIFT, r * PANEL + (c & MASK)] = vectors[r, size - 1 - c]


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _descending(values: Array) -> Array:
    """Order of values, the greatest first: by insertion, as they are nearly sorted already."""
    order = np.arange(len(values))
    for k in range(1, len(values)):
        at = k
        while at and values[order[at - 1]] < values[k]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = k
    return order


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _turn(state: Array, side: int, basis: int, basis_rows: int, size: int) -> Array:
    """Follow a side's eigenvectors by one step of orthogonal iteration, sorted; returns their order."""
    image, vectors, work, quotient = state[_SCRATCH], state[basis], state[_WORK], np.zeros(size, _F)
    _times(image, state[side], vectors, size, size, size)
    for r in range(size):
        for c in range(size):
            quotient[c] += vectors[c >> SHIFT, r * PANEL + (c & MASK)] * image[c >> SHIFT, r * PANEL + (c & MASK)]
    order = _descending(quotient)
    for c in range(size):
        for r in range(size):
            vectors[c >> SHIFT, r * PANEL + (c & MASK)] = image[order[c] >> SHIFT, r * PANEL + (order[c] & MASK)]
    work[:] = _ZERO
    _orthonormal(vectors, work, size)
    _flip(state[basis_rows], vectors, size, size)
    return order


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _turn_both(state: Array, rows: int, columns: int) -> None:
    """Turn both bases, and order the squares as their eigenvectors."""
    up = _turn(state, _LEFT, _LEFT_BASIS, _LEFT_ROWS, rows)
    across = _turn(state, _RIGHT, _RIGHT_BASIS, _RIGHT_ROWS, columns)
    square, kept = state[_SQUARE], state[_WORK]
    kept[:] = square
    for r in range(rows):
        for c in range(columns):
            square[c >> SHIFT, r * PANEL + (c & MASK)] = kept[across[c] >> SHIFT, up[r] * PANEL + (across[c] & MASK)]


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def _rotated(state: Array, of: int, rows: int, columns: int) -> None:
    """A matrix in the eigenbases of both sides."""
    _times(state[_SCRATCH], state[_LEFT_ROWS], state[of], rows, rows, columns)
    _times(state[_ROTATED], state[_SCRATCH], state[_RIGHT_BASIS], rows, columns, columns)


@njit(nogil=True, fastmath=SUMS, error_model="numpy")
def soap_step(weight: Array, gradient: Array, state: Array, rows: int, columns: int, number: int, rate: float) -> None:
    """One step of `soap.Soap` for one matrix in raster order; `number` counts from 1, `state` starts as zeros."""
    g, turned, rotated, square, scratch = (
        state[_GRADIENT], state[_TURNED], state[_ROTATED], state[_SQUARE], state[_SCRATCH],
    )  # fmt: skip
    for r in range(rows):
        for c in range(columns):
            g[c >> SHIFT, r * PANEL + (c & MASK)] = gradient[r * columns + c]
    _flip(turned, g, rows, columns)
    part = 1.0 - _CURVATURE_DECAY if number > 1 else 1.0
    _times(scratch, g, turned, rows, columns, rows)
    _mix_in(state[_LEFT], scratch, part, rows, rows)
    _times(scratch, turned, g, columns, rows, columns)
    _mix_in(state[_RIGHT], scratch, part, columns, columns)
    if number == 1:
        _eigenvectors(state[_LEFT_BASIS], state[_LEFT], rows)
        _eigenvectors(state[_RIGHT_BASIS], state[_RIGHT], columns)
        _flip(state[_LEFT_ROWS], state[_LEFT_BASIS], rows, rows)
        _flip(state[_RIGHT_ROWS], state[_RIGHT_BASIS], columns, columns)
        return
    _mix_in(state[_MEAN], g, 1.0 - _MOMENTUM, rows, columns)
    _rotated(state, _GRADIENT, rows, columns)
    panels = (columns + PANEL - 1) // PANEL
    for panel in range(panels):
        s, v = square[panel, : rows * PANEL], rotated[panel, : rows * PANEL]
        for p in range(len(s)):
            s[p] += (_ONE - _DECAY) * (v[p] * v[p] - s[p])
    _rotated(state, _MEAN, rows, columns)
    seen_mean, seen_square = _F(1.0 - MOMENTUM ** (number - 1)), _F(1.0 - DECAY ** (number - 1))
    for panel in range(panels):
        s, v = square[panel, : rows * PANEL], rotated[panel, : rows * PANEL]
        for p in range(len(s)):
            v[p] = v[p] / seen_mean / max(np.sqrt(s[p] / seen_square), _LEAST_SCALE)
    _times(scratch, state[_LEFT_BASIS], rotated, rows, rows, columns)
    _times(rotated, scratch, state[_RIGHT_ROWS], rows, columns, columns)
    for r in range(rows):
        for c in range(columns):
            weight[r * columns + c] -= _F(rate) * rotated[c >> SHIFT, r * PANEL + (c & MASK)]
    if number % EVERY == 0:
        _turn_both(state, rows, columns)


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def _mix(x: Any) -> Any:
    """As `reference.mix`."""
    x = np.uint32(x)
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _stream(key: int, step: int) -> Any:
    return _mix(np.uint32(_mix(key)) + np.uint32(np.uint32(step) * np.uint32(0x9E3779B9)))


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _draw(
    hidden: Array, targets: Array, values: Array, box: Array, shift: Array, unit: Array, stream: int, first: int,
    count: int,
) -> None:  # fmt: skip
    """As `reference.draw` for the points `first` to `first + count` of one block: a tile's coordinates and targets."""
    volume: Any = 1
    for a in range(len(box)):
        volume *= box[a]
    for p in range(count):
        u = _mix(stream + np.uint32(np.uint32(first + p) * np.uint32(0x85EBCA77)))
        index: Any = np.int64((np.uint64(u) * np.uint64(volume)) >> np.uint64(32))
        targets[p] = values[index]
        for a in range(len(box) - 1, -1, -1):
            # Exact below 2^50, and far cheaper than a division of integers.
            outer = np.int64((index + 0.5) * (1.0 / box[a])) if a else 0
            hidden[a * TILE + p] = (_F(index - outer * box[a]) + shift[a]) * unit[a] - _ONE
            index = outer


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _add_noise(noisy: Array, weights: Array, noise: Array, plan: Array, stream: int) -> None:
    for layer in range(plan.shape[1] - 1):
        for i in range(plan[4, layer], plan[4, layer + 1]):
            u = _mix(stream + np.uint32(np.uint32(i) * np.uint32(0x85EBCA77)))
            uniform = _F(u >> np.uint32(8)) * _F(2.0**-24) - _F(0.5)
            noisy[i] = weights[i] + uniform * noise[layer]


@njit(nogil=True, fastmath=EXACT, error_model="numpy")
def _add_rate(gradient: Array, weights: Array, noise: Array, price: Array, start: Array, plan: Array) -> None:
    """Add the gradient of what the weights' bits cost."""
    for layer in range(plan.shape[1] - 1):
        factor = price[layer] / _F(math.log(2.0))
        if factor == _ZERO:
            continue
        for i in range(plan[4, layer], plan[4, layer + 1]):
            moved = weights[i] - start[i] if layer == 0 else weights[i]
            gradient[i] += factor * _F(np.sign(moved)) / (noise[layer] + abs(moved))


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def _fit(
    loss: Array, weights: Array, values: Array, start_of: Array, box: Array, shift: Array, unit: Array, key: Array,
    points: int, rates: Array, smoothing: Array, noise: Array, price: Array, start: Array, plan: Array, sizes: Array,
    state: Array, begin: int, end: int,
) -> None:  # fmt: skip
    hidden, cosines, slopes = np.zeros(sizes[0], _F), np.zeros(sizes[0], _F), np.zeros(sizes[0], _F)
    packed, turned, targets = np.zeros(sizes[1], _F), np.zeros(sizes[2], _F), np.zeros(TILE, _F)
    gradient, noisy = np.zeros(weights.shape[1], _F), np.zeros(weights.shape[1], _F)
    output, layers, quantised = plan[1, -1], plan.shape[1] - 1, len(noise) > 0
    for k in range(begin, end):
        state[:] = _ZERO
        smooth, mine, samples = _ONE, weights[k], values[start_of[k] :]
        for step in range(len(rates)):
            noisy[:] = mine
            if quantised:
                _add_noise(noisy, mine, noise[k], plan, _stream(key[k] ^ np.uint32(NOISE_STREAM), step))
            pack_network(packed, noisy, plan)
            pack_turned(turned, noisy, plan)
            gradient[:] = _ZERO
            error, stream = 0.0, _stream(key[k], step)
            for first in range(0, points, TILE):
                here = min(TILE, points - first)
                _draw(hidden, targets, samples, box[k], shift[k], unit[k], stream, first, here)
                forward_tile_with_cosines(hidden, cosines, packed, plan)
                error += residuals(slopes[output:], hidden[output:], targets, here, points)
                backward_tile(gradient, hidden, cosines, slopes, turned, plan)
            if quantised:
                _add_rate(gradient, mine, noise[k], price[k], start[k], plan)
            for layer in range(layers):
                at, stop = plan[4, layer], plan[4, layer + 1]
                n_in, n_out = plan[0, layer], plan[0, layer + 1]
                soap_step(mine[at:stop], gradient[at:stop], state[layer], n_in + 1, n_out, step + 1, rates[step])
            smooth += smoothing[step] * (_F(error / points) - smooth)
        loss[k] = smooth


def new_state(neurons: list[int]) -> NDArray[np.float32]:
    """SOAP's matrices of all layers, zero."""
    largest = max(neurons) + 1
    return np.zeros((len(neurons) - 1, _KINDS, -(-largest >> SHIFT), padded(largest) * PANEL), _F)


def fit(
    weights: list[Tensor],
    samples: Samples,
    points: int,
    rates: NDArray[np.float32],
    note: Note,
    quantiser: Quantiser | None = None,
) -> NDArray[np.float64]:
    """As `siren.fit`. Threads share out the blocks, a wave of them at a time so that progress can be told between."""
    neurons = [samples.box.shape[1], *(w.shape[-1] for w in weights)]
    plan, count = Plan.of(neurons, TILE), len(samples.begin)
    joined, loss = joined_weights(weights), np.ones(count)
    smoothing = np.maximum(0.05, 1 / np.arange(1, len(rates) + 1)).astype(_F)
    none = np.zeros((0, 1), _F)
    noise, price, start = (none, none, none) if quantiser is None else quantiser
    noise, price, start = (np.ascontiguousarray(a, dtype=_F) for a in (noise, price, start))
    box = np.ascontiguousarray(samples.box, dtype=np.int64)

    def work(part: int) -> None:
        _fit(
            loss, joined, samples.values, samples.begin, box, samples.shift, samples.unit, samples.key, points, rates,
            smoothing, noise, price, start, plan.table, plan.sizes, new_state(neurons), part, min(part + WAVE, count),
        )  # fmt: skip

    wave = WAVE * torch.get_num_threads()
    for first in range(0, count, wave):
        stop = min(first + wave, count)
        in_threads(work, range(first, stop, WAVE))
        note(stop / count, float(loss[:stop].mean()))
    for weight, found in zip(weights, split_weights(joined, weights), strict=True):
        weight.copy_(found)
    return loss
