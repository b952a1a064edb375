"""Loss and gradients of the network in compiled loops, for its fit: one pass forward and one back over each tile.

A tile is held flat, as in `cpu.py`, but with all its slices. Where a line's end is no sample, the gradient of the result is
zero; shifts then bring zeros there wherever a gradient is made of it, so nothing has to be masked.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ..backend import in_threads
from ..vectors import dots, padded, product
from .cpu import BLOCK, CHANNELS, VECTORS, Floats, Layers, _add_responses, _hidden
from .reference import SLOPE, Parameters

COLUMNS = 3
"""Columns of a gradient that are made together, for `CHANNELS` rows."""
SPAN = 80 * BLOCK
"""Positions that go all the way back at a time: their hidden layers stay in the second-level cache."""

_gated, _dots = product(CHANNELS, VECTORS, "gated", SLOPE), dots(CHANNELS, COLUMNS)


def loss_and_gradients(samples: Floats, wanted: Floats, parameters: Parameters) -> tuple[float, list[Floats]]:
    """As `reference.loss_and_gradients`, of arrays; gradients in the order of the parameters."""
    layers, kernel = Layers.of(parameters), tuple(parameters.first.shape[1:])
    count, taps = len(parameters.first), int(np.prod(kernel))
    scale = np.float32(2 / max(1, wanted.size))

    def work(tile: int) -> tuple[float, Floats, Floats, Floats]:
        first, middle, last = (_zeros(layers, columns) for columns in (taps + 1, len(layers.middle) + 1, taps))
        squares = _tile(samples[tile], wanted[tile], kernel, layers, _turned(layers, kernel), scale, first, middle, last)
        return squares, first, middle, last

    squares, *parts = (sum(part) for part in zip(*in_threads(work, range(len(samples))), strict=True))
    first, middle, last = (part[:count] for part in parts)
    kernels = first[:, :taps] - first[:, :taps].mean(axis=1, keepdims=True)
    biases = np.stack([first[:, taps], middle[:, len(layers.middle)]])
    shape = (count, *kernel)
    gradients = [kernels.reshape(shape), biases, middle[:, :count], last[:, :taps].reshape(shape)]
    return float(squares) / wanted.size, [np.ascontiguousarray(g) for g in gradients]


def _zeros(layers: Layers, columns: int) -> Floats:
    return np.zeros((len(layers.middle), padded(columns, COLUMNS)), dtype=np.float32)


def _turned(layers: Layers, kernel: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Matrices that carry gradients back: kernels of the last layer (taps, W), and the middle one, channel out, channel in."""
    z, y, x = kernel
    last = layers.last.reshape(-1, x, layers.last.shape[1])[:, :, : z * y]
    return np.ascontiguousarray(last.transpose(2, 1, 0).reshape(z * y * x, -1)), np.ascontiguousarray(layers.middle.T)


@njit(nogil=True, cache=True)
def _tile(samples, wanted, kernel, layers, turned, scale, first, middle, last):  # type: ignore[no-untyped-def]
    """Add a tile's gradients to `first`, `middle` and `last`; returns its sum of squared errors."""
    pitch = max(samples.shape[2], BLOCK)
    plane = samples.shape[1] * pitch
    width, responses = len(layers.middle), kernel[0] * kernel[1]
    shifts = np.empty(len(layers.first), np.int64)
    for k in range(len(shifts)):
        shifts[k] = k // (kernel[1] * kernel[2]) * plane + k // kernel[2] % kernel[1] * pitch + k % kernel[2]
    reach = shifts[-1]
    flat = -(-(samples.shape[0] * plane - reach) // BLOCK) * BLOCK
    size = flat + reach + BLOCK
    # The last row of inputs and of the first hidden layer is one everywhere: gradients of biases are products too.
    inputs, thin = np.zeros(2 * size, np.float32), np.zeros((width + 1) * size, np.float32)
    inputs[size:], thin[width * size :] = 1, 1
    thick, sums = np.zeros(width * size, np.float32), np.zeros((1 + layers.last.shape[1]) * size, np.float32)
    rows, places = np.arange(width) * size, np.empty(layers.last.shape[1], np.int64)
    for z in range(samples.shape[0]):
        for y in range(samples.shape[1]):
            at = z * plane + y * pitch
            inputs[at : at + samples.shape[2]] = samples[z, y]
    shifted = np.empty(len(layers.last), np.int64)
    for k in range(len(shifted)):
        shifted[k] = rows[k // kernel[2]] + k % kernel[2]
    for m in range(len(places)):
        places[m] = reach - shifts[m * kernel[2]] if m < responses else (1 + m) * size
    _forward(thick, thin, rows, inputs, shifts, layers, flat)
    _add_responses(sums, places, thick, shifted, layers.last, layers.biases[0], flat)
    errors = np.zeros(size, np.float32)
    squares = _errors(errors[reach:], sums[reach:], wanted, plane, pitch, scale)
    seen, unused = reach - shifts, layers.biases[0]
    of_last, of_middle, of_first = _columns(seen), _columns(np.append(rows, width * size)), _columns(np.append(shifts, size))
    for begin in range(0, flat, SPAN):
        span = min(SPAN, flat - begin)
        _add_dots(last, thick, rows, errors, of_last, begin, span)
        _back(thick, rows, turned[0], unused, errors, seen, begin, span)
        _add_dots(middle, thick, rows, thin, of_middle, begin, span)
        _back(thin, rows, turned[1], unused, thick, rows, begin, span)
        _add_dots(first, thin, rows, inputs, of_first, begin, span)
    return squares


@njit(nogil=True, cache=True)
def _forward(thick, thin, rows, inputs, shifts, layers, flat):  # type: ignore[no-untyped-def]
    first, second = layers.biases[0], layers.biases[1]
    for at in range(0, flat, BLOCK):
        for m in range(0, len(rows), CHANNELS):
            _hidden(thin, rows, at, layers.first, first, m, inputs, shifts, at)
        for m in range(0, len(rows), CHANNELS):
            _hidden(thick, rows, at, layers.middle, second, m, thin, rows, at)


@njit(nogil=True, cache=True)
def _errors(errors, found, wanted, plane, pitch, scale):  # type: ignore[no-untyped-def]
    """Write the gradient of the mean square at every sample; returns the sum of squares."""
    squares = 0.0
    for z in range(wanted.shape[0]):
        for y in range(wanted.shape[1]):
            at = z * plane + y * pitch
            for x in range(wanted.shape[2]):
                error = found[at + x] - wanted[z, y, x]
                errors[at + x] = scale * error
                squares += np.float64(error) * np.float64(error)
    return squares


@njit(nogil=True, cache=True)
def _columns(rows):  # type: ignore[no-untyped-def]
    """Rows, the last one repeated up to a multiple of `COLUMNS`."""
    padded = np.full(-(-len(rows) // COLUMNS) * COLUMNS, rows[-1])
    padded[: len(rows)] = rows
    return padded


@njit(nogil=True, cache=True)
def _add_dots(out, left, lefts, right, rights, begin, span):  # type: ignore[no-untyped-def]
    for i in range(0, len(lefts), CHANNELS):
        for j in range(0, len(rights), COLUMNS):
            _dots(out, left, lefts, i, right, rights, j, begin, span)


@njit(nogil=True, cache=True)
def _back(hidden, rows, matrix, unused, gradient, seen, begin, span):  # type: ignore[no-untyped-def]
    """Put the gradient of a hidden layer, before its leaky ReLU, in the place of its results."""
    for at in range(begin, begin + span, BLOCK):
        for m in range(0, len(rows), CHANNELS):
            _gated(hidden, rows, at, matrix, unused, m, gradient, seen, at)
