"""The correction in compiled loops: the layers of a tile are products with shifted rows, slice by slice.

A tile is long along z and stored flat with a pitch of at least `BLOCK`, so that a tap is a shift; what the shifts make of the
rows' ends is never read. Only the hidden layers of one slice are held: its responses are added to the results of the
slices below it at once. Every sample is summed in the same order whatever the box, so boxes agree to the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from ..vectors import LANES, float32_limits, padded, product
from .reference import SLOPE, Parameters, without_mean

CHANNELS, RESPONSES, VECTORS = 4, 3, 3
"""Rows of a hidden layer, and of the last layer's responses, that are made together, and vectors of each."""
BLOCK = VECTORS * LANES
DEPTH, ROWS, COLUMNS = 64, 32, 64
"""Largest tile; the hidden layers of a slice of it stay in the second-level cache."""

Floats = NDArray[np.float32]
_hidden, _added = product(CHANNELS, VECTORS, "hidden", SLOPE), product(RESPONSES, VECTORS, "added")


class Layers(NamedTuple):
    """A network as the loops take it; channels are padded with zeros to a multiple of `CHANNELS`.

    Attributes
    ----------
    first : ndarray, shape (taps, W)
    middle : ndarray, shape (W, W)
        Channel in, channel out.
    last : ndarray, shape (W k_x, responses)
        Kernels of `k_x` taps for each of `k_z k_y` responses, padded with zeros to a multiple of `RESPONSES`.
    biases : ndarray, shape (2, W)
    """

    first: Floats
    middle: Floats
    last: Floats
    biases: Floats

    @classmethod
    def of(cls, parameters: Parameters) -> Layers:
        """Pad and turn the parameters; the first kernels lose their means."""
        first, last = without_mean(parameters.first).numpy(), parameters.last.numpy()
        count, (z, y, x) = len(first), first.shape[1:]
        width = padded(count, CHANNELS)
        taps = np.zeros((z * y * x, width), dtype=np.float32)
        taps[:, :count] = first.reshape(count, -1).T
        middle = np.zeros((width, width), dtype=np.float32)
        middle[:count, :count] = parameters.middle.numpy().T
        responses = np.zeros((width, x, padded(z * y, RESPONSES)), dtype=np.float32)
        responses[:count, :, : z * y] = last.reshape(count, z * y, x).transpose(0, 2, 1)
        biases = np.zeros((2, width), dtype=np.float32)
        biases[:, :count] = parameters.biases.numpy()
        return cls(taps, middle, responses.reshape(width * x, -1), biases)


def correction(samples: Floats, parameters: Parameters) -> Floats:
    """As `reference.correction`, of an array."""
    ring = [k - 1 for k in parameters.first.shape[1:]]
    out = np.empty((len(samples), *(n - 2 * r for n, r in zip(samples.shape[1:], ring, strict=True))), dtype=np.float32)
    restore(samples, parameters, 1.0, 0, 0, out, ring, added=False)
    return out


def restore(
    samples: Floats,
    parameters: Parameters,
    unit: float,
    low: int,
    high: int,
    out: NDArray[Any],
    before: Sequence[int],
    added: bool = True,
) -> None:
    """As `reference.restore`, of arrays; the correction alone without `added`."""
    layers, kernel = Layers.of(parameters), tuple(parameters.first.shape[1:])
    limits = float32_limits(low, high)
    rounded = out.dtype.kind != "f"

    tiles = list(_tiles(out.shape))

    def work(number: int) -> None:
        image, *corner = tiles[number][:4]
        z, y, x = (slice(c, c + n) for c, n in zip(corner, tiles[number][4:], strict=True))
        place = tuple(c + b for c, b in zip(corner, before, strict=True))
        _tile(samples[image], place, out[image, z, y, x], kernel, layers, np.float32(unit), rounded, *limits, added)

    in_threads(work, range(len(tiles)))


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Image, corner and extents of tiles that cover (B, n_z, n_y, n_x), along an axis as nearly equal as can be."""
    batch, depth, rows, columns = shape
    if not math.prod(shape):
        return
    # Few rows are long ones: a signal of one axis is no box of 64 samples.
    wide = max(COLUMNS, ROWS * COLUMNS // min(rows, ROWS))
    cuts = [np.linspace(0, n, -(-n // e) + 1).astype(int).tolist() for n, e in ((depth, DEPTH), (rows, ROWS), (columns, wide))]
    for image, *spans in itertools.product(range(batch), *(list(itertools.pairwise(c)) for c in cuts)):
        yield (image, *(a for a, _ in spans), *(b - a for a, b in spans))


@njit(nogil=True, cache=True)
def _tile(samples, place, out, kernel, layers, unit, rounded, low, high, added):  # type: ignore[no-untyped-def]
    """Correct one tile; its first sample lies at `place` of the samples."""
    reach_z, reach_y, reach_x = kernel[0] - 1, kernel[1] - 1, kernel[2] - 1
    depth, rows, columns = out.shape
    pitch = max(columns + 2 * reach_x, BLOCK)
    flat = -(-(rows + reach_y) * pitch // BLOCK) * BLOCK
    guard = reach_y * pitch
    size = flat + guard + BLOCK
    width, responses = len(layers.middle), layers.last.shape[1]
    # Rings of slices: the samples that a hidden slice sees, and the results that its responses reach.
    inputs, sums = np.zeros(kernel[0] * size, np.float32), np.zeros((kernel[0] + responses) * size, np.float32)
    taps, places = np.empty(len(layers.first), np.int64), np.empty(responses, np.int64)
    for m in range(responses):
        places[m] = (kernel[0] + m) * size  # where the padding's go
    thin, thick = np.empty(width * BLOCK, np.float32), np.zeros(width * size, np.float32)
    thins, thicks = np.arange(width) * BLOCK, np.arange(width) * size
    shifted = np.empty(len(layers.last), np.int64)
    for k in range(len(shifted)):
        shifted[k] = thicks[k // kernel[2]] + k % kernel[2]
    for z in range(-reach_z, depth + reach_z):
        newest = (z + reach_z) % kernel[0] * size
        _read_slice(samples, place[0] + z, place[1] - reach_y, place[2] - reach_x, inputs, newest, pitch, flat + guard, unit)
        hidden = z - reach_z
        if hidden < -reach_z:
            continue
        for k in range(len(taps)):
            dz, dy, dx = k // (kernel[1] * kernel[2]), k // kernel[2] % kernel[1], k % kernel[2]
            taps[k] = (hidden + reach_z + dz) % kernel[0] * size + dy * pitch + dx
        for m in range(kernel[0] * kernel[1]):
            dz, dy = m // kernel[1], m % kernel[1]
            places[m] = (hidden + 2 * reach_z - dz) % kernel[0] * size + guard - dy * pitch
        started = (hidden + 2 * reach_z) % kernel[0] * size
        sums[started : started + size] = 0
        _hidden_slice(thick, thicks, thin, thins, inputs, taps, layers, flat)
        _add_responses(sums, places, thick, shifted, layers.last, layers.biases[0], flat)
        if hidden >= 0:
            finished = (hidden + reach_z) % kernel[0] * size + guard
            _write_slice(sums[finished:], samples[place[0] + hidden], place[1], place[2], out[hidden], pitch, unit, rounded, low, high, added)


@njit(nogil=True, cache=True)
def _read_slice(samples, z, y, x, inputs, at, pitch, size, unit):  # type: ignore[no-untyped-def]
    """Lines of `pitch` samples from (z, y, x) on, over the unit; beyond the box, the samples of its edge."""
    depth, rows, columns = samples.shape
    before, inside = max(0, -x), min(columns - x, pitch)
    for line in range(size // pitch):
        source = samples[min(max(z, 0), depth - 1), min(max(y + line, 0), rows - 1)]
        target = inputs[at + line * pitch : at + (line + 1) * pitch]
        target[:before] = source[0] / unit
        middle, wanted = target[before:inside], source[before + x : inside + x]
        for i in range(len(middle)):
            middle[i] = wanted[i] / unit
        target[inside:] = source[columns - 1] / unit


@njit(nogil=True, cache=True)
def _hidden_slice(thick, thicks, thin, thins, inputs, taps, layers, flat):  # type: ignore[no-untyped-def]
    first, second = layers.biases[0], layers.biases[1]
    width = len(layers.middle)
    for at in range(0, flat, BLOCK):
        for m in range(0, width, CHANNELS):
            _hidden(thin, thins, 0, layers.first, first, m, inputs, taps, at)
        for m in range(0, width, CHANNELS):
            _hidden(thick, thicks, at, layers.middle, second, m, thin, thins, 0)


@njit(nogil=True, cache=True)
def _add_responses(sums, places, thick, shifted, last, unused, flat):  # type: ignore[no-untyped-def]
    for at in range(0, flat, BLOCK):
        for m in range(0, last.shape[1], RESPONSES):
            _added(sums, places, at, last, unused, m, thick, shifted, at)


@njit(nogil=True, cache=True)
def _write_slice(sums, samples, y, x, out, pitch, unit, rounded, low, high, added):  # type: ignore[no-untyped-def]
    kept = np.float32(1 if added else 0)
    for row in range(len(out)):
        line, change = out[row], sums[row * pitch : row * pitch + out.shape[1]]
        before = samples[y + row, x : x + out.shape[1]]
        if rounded:
            for i in range(len(line)):
                line[i] = np.int32(min(max(np.rint(before[i] * kept + change[i] * unit), low), high))
        else:
            for i in range(len(line)):
                line[i] = before[i] * kept + change[i] * unit
