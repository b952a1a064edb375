"""Coding the private networks of blocks, chunk by chunk, each chunk on its own.

For every block: its class, its mean as a difference to the block before, and, where it has a network, its scale and
bandwidths (differences too), its draw and its weights. A weight's expected size is known from its layer's statistics
and its block's scale; that, in half octaves, is the context that selects one of `CONTEXTS` magnitude tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import REFERENCE, Backend

from .entropy import ESCAPE, MagnitudeTable, read_escapes, read_signed, write_escapes, write_signed
from .lanes import LaneReader, LaneWriter, pack_lanes, unpack_lanes

IntArray = NDArray[np.int64]

CONTEXTS = 48
UNIT_CONTEXT = 6
"""Context of weights whose expected magnitude is about one step."""
WHOLE_CONTEXTS = 14
"""Contexts whose magnitudes are coded whole; each two further ones leave one more low bit uncoded by tables."""
DRAWS = 4
"""Random starts that a block can choose from."""
WEIGHTS_PER_BYTE = 256
"""Most weights for each byte of a chunk: so a decoder's work is bounded by the size of the file."""
LIMIT = 1 << 30
"""Means, scales and weights stay below this."""
_REACH = 64
"""Scales and bandwidths, in half octaves, lie within this."""


@dataclass(frozen=True)
class BlockNetworks:
    """Integers of some blocks, in file order.

    Attributes
    ----------
    kind : ndarray of int, shape (n,)
        Class of each block's network, from 1; 0 is a block that is its mean.
    mean : ndarray of int, shape (n,)
    scale : ndarray of int, shape (n,)
        Half octaves of the spread; 0 without a network.
    size : ndarray of int, shape (n,)
        Half octaves of the root of the number of samples: known from the tree, not coded.
    bandwidth : ndarray of int, shape (n, d)
        Half octaves of the first layer's frequencies; 0 without a network.
    draw : ndarray of int, shape (n,)
        Which random start.
    weights : list of ndarray of int
        Weights of each block that has a network, layer by layer, in raster order.
    """

    kind: IntArray
    mean: IntArray
    scale: IntArray
    bandwidth: IntArray
    draw: IntArray
    size: IntArray
    weights: list[IntArray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kind)

    def part(self, start: int, stop: int) -> BlockNetworks:
        """The blocks [start, stop)."""
        first, last = int((self.kind[:start] > 0).sum()), int((self.kind[:stop] > 0).sum())
        here = slice(start, stop)
        return BlockNetworks(
            self.kind[here],
            self.mean[here],
            self.scale[here],
            self.bandwidth[here],
            self.draw[here],
            self.size[here],
            self.weights[first:last],
        )

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return sum(w.nbytes for w in self.weights) + 64 * len(self.kind)


@dataclass(frozen=True)
class NetworkShapes:
    """Weights of each layer of each class: ``sizes[class][layer]``; class 0 has none."""

    ndim: int
    sizes: tuple[tuple[int, ...], ...]

    @cached_property
    def totals(self) -> IntArray:
        """Weights of a network of each class."""
        return np.array([sum(layers) for layers in self.sizes], dtype=np.int64)


@dataclass(frozen=True)
class NetworkStatistics:
    """Integer statistics of a stream's networks.

    Attributes
    ----------
    kinds : ndarray of uint8
        Relative frequency of each class.
    offsets : tuple of tuple of int
        Context of each class's layers at scale and size 0.
    mean, scale, bandwidth : MagnitudeTable
        Of differences.
    magnitudes : tuple of MagnitudeTable
        One per context.
    lanes : int
        Of the entropy coder of the chunks.
    """

    kinds: NDArray[np.uint8]
    offsets: tuple[tuple[int, ...], ...]
    mean: MagnitudeTable
    scale: MagnitudeTable
    bandwidth: MagnitudeTable
    magnitudes: tuple[MagnitudeTable, ...]
    lanes: int = 1

    def to_bytes(self) -> bytes:
        """Serialise; little endian."""
        offsets = np.array([o for layers in self.offsets for o in layers], dtype="<i2")
        tables = (self.mean, self.scale, self.bandwidth, *self.magnitudes)
        return pack_lanes(self.lanes) + self.kinds.tobytes() + offsets.tobytes() + b"".join(_packed(t) for t in tables)

    @classmethod
    def from_bytes(cls, data: bytes, shapes: NetworkShapes) -> NetworkStatistics:
        """Inverse of `to_bytes`.

        Raises
        ------
        ContainerError
            If the length or a value is impossible.
        """
        classes, layers = len(shapes.sizes), sum(len(s) for s in shapes.sizes)
        need = 1 + classes + 2 * layers + 4 * (3 + CONTEXTS)
        if len(data) != need:
            raise ContainerError(
                f"expected {need} bytes of statistics, found {len(data)}; get a fresh copy of the file"
            )
        lanes = unpack_lanes(data)
        kinds = np.frombuffer(data, np.uint8, classes, 1)
        if not kinds.any():
            raise ContainerError("expected frequencies above 0 in the statistics, found none; get a fresh copy")
        flat = iter(np.frombuffer(data, "<i2", layers, 1 + classes).tolist())
        offsets = tuple(tuple(next(flat) for _ in sizes) for sizes in shapes.sizes)
        at = 1 + classes + 2 * layers
        mean, scale, bandwidth, *magnitudes = (_unpacked(data[i : i + 4]) for i in range(at, need, 4))
        return cls(kinds, offsets, mean, scale, bandwidth, tuple(magnitudes), lanes)

    @cached_property
    def cost(self) -> NDArray[np.float32]:
        """Bits of a magnitude's upper part with its sign, shape (CONTEXTS, 256)."""
        return np.stack([t.cost for t in self.magnitudes])

    def contexts(self, shapes: NetworkShapes, kind: int, fineness: int) -> IntArray:
        """Context of each weight of a network that is quantised so many half octaves more finely than the coarsest."""
        layers = np.clip(np.array(self.offsets[kind]) + fineness, 0, CONTEXTS - 1)
        return np.repeat(layers, shapes.sizes[kind])


def _packed(table: MagnitudeTable) -> bytes:
    return table.nonzero.to_bytes(2, "little") + bytes((table.beyond, table.decay))


def _unpacked(data: bytes) -> MagnitudeTable:
    table = MagnitudeTable(int.from_bytes(data[:2], "little"), data[2], data[3])
    if 0 in (table.nonzero, table.beyond, table.decay):
        raise ContainerError("expected probabilities above 0 in the statistics, found 0; get a fresh copy of the file")
    return table


def _low_bits(context: IntArray) -> IntArray:
    """Low bits of a magnitude that are as good as random, and stored as they are."""
    return np.maximum(context - WHOLE_CONTEXTS, 0) // 2


def _differences(values: IntArray) -> IntArray:
    """Each value less the one before, column by column; the first less 0."""
    return np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))


def write_networks(
    shapes: NetworkShapes, statistics: NetworkStatistics, blocks: BlockNetworks, backend: Backend = REFERENCE
) -> bytes:
    """Code the blocks of a chunk."""
    writer = LaneWriter(statistics.lanes, backend)
    writer.symbols(blocks.kind, statistics.kinds)
    _write_differences(writer, blocks.mean, statistics.mean)
    live = np.flatnonzero(blocks.kind)
    if len(live):
        _write_differences(writer, blocks.scale[live], statistics.scale)
        _write_differences(writer, blocks.bandwidth[live], statistics.bandwidth)
        writer.digits(blocks.draw[live], int(math.log2(DRAWS)))
        _write_weights(writer, np.concatenate(blocks.weights), _contexts(shapes, statistics, blocks), statistics)
    return writer.finish(_least_bytes(shapes, blocks.kind))


def read_networks(
    data: bytes,
    shapes: NetworkShapes,
    statistics: NetworkStatistics,
    size: IntArray,
    backend: Backend = REFERENCE,
) -> BlockNetworks:
    """Inverse of `write_networks`; `size` is that of `BlockNetworks`.

    Raises
    ------
    ContainerError
        If the bytes cannot have been written by it.
    """
    reader, count = LaneReader(data, statistics.lanes, backend), len(size)
    kind = reader.symbols(count, statistics.kinds).astype(np.int64)
    total = int(shapes.totals[kind].sum())
    if total > WEIGHTS_PER_BYTE * len(data):
        raise ContainerError(
            f"expected at most {WEIGHTS_PER_BYTE} weights a byte, found {total} in {len(data)}; get a fresh copy"
        )
    mean = _read_differences(reader, (count,), statistics.mean, LIMIT)
    live = np.flatnonzero(kind)
    scale, draw = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    bandwidth = np.zeros((count, shapes.ndim), dtype=np.int64)
    blocks = BlockNetworks(kind, mean, scale, bandwidth, draw, size)
    if len(live):
        scale[live] = _read_differences(reader, (len(live),), statistics.scale, _REACH)
        bandwidth[live] = _read_differences(reader, (len(live), shapes.ndim), statistics.bandwidth, _REACH)
        draw[live] = reader.digits(len(live), int(math.log2(DRAWS)))
        weights = _read_weights(reader, _contexts(shapes, statistics, blocks), statistics)
        blocks.weights.extend(np.split(weights, np.cumsum(shapes.totals[kind[live]])[:-1]))
    reader.finish(_least_bytes(shapes, kind))
    return blocks


def _least_bytes(shapes: NetworkShapes, kind: IntArray) -> int:
    """Size of a chunk by its weights alone."""
    return -(-int(shapes.totals[kind].sum()) // WEIGHTS_PER_BYTE)


def _contexts(shapes: NetworkShapes, statistics: NetworkStatistics, blocks: BlockNetworks) -> IntArray:
    live = np.flatnonzero(blocks.kind)
    parts = [statistics.contexts(shapes, int(blocks.kind[k]), int(blocks.scale[k] + blocks.size[k])) for k in live]
    return np.concatenate(parts)


def _write_differences(writer: LaneWriter, values: IntArray, table: MagnitudeTable) -> None:
    differences = _differences(values).ravel()
    write_signed(writer, differences, np.zeros(len(differences), dtype=np.int64), [table])


def _read_differences(reader: LaneReader, shape: tuple[int, ...], table: MagnitudeTable, limit: int) -> IntArray:
    differences = read_signed(reader, np.zeros(math.prod(shape), dtype=np.int64), [table])
    values = np.cumsum(differences.reshape(shape), axis=0)
    if np.any(np.abs(values) > limit):
        raise ContainerError(f"expected numbers of at most {limit}, found larger ones; get a fresh copy of the file")
    return values


def _write_weights(writer: LaneWriter, values: IntArray, context: IntArray, statistics: NetworkStatistics) -> None:
    """Upper parts by context, then low bits, signs and escapes in the order of the weights."""
    magnitude, low = np.abs(values), _low_bits(context)
    upper = magnitude >> low
    excess = writer.magnitudes(upper, context, statistics.magnitudes)
    for bits in np.unique(low[low > 0]).tolist():
        writer.digits(magnitude[low == bits] & ((1 << bits) - 1), bits)
    writer.digits((values[magnitude > 0] < 0).astype(np.int32), 1)
    write_escapes(writer, excess)


def _read_weights(reader: LaneReader, context: IntArray, statistics: NetworkStatistics) -> IntArray:
    low = _low_bits(context)
    upper, escaped = reader.magnitudes(context, statistics.magnitudes)
    rest = np.zeros(len(upper), dtype=np.int64)
    for bits in np.unique(low[low > 0]).tolist():
        rest[low == bits] = reader.digits(int((low == bits).sum()), bits)
    # Whether a magnitude is zero does not depend on its escape, so signs can stand before them.
    nonzero = (upper > 0) | (rest > 0)
    signs = np.where(reader.digits(int(nonzero.sum()), 1) > 0, -1, 1)
    upper[escaped] += read_escapes(reader, int(escaped.sum()))
    if np.any(upper >= LIMIT >> np.maximum(low, 0)):
        raise ContainerError("expected weights of at most 30 bits, found larger ones; get a fresh copy of the file")
    values = (upper << low) | rest
    values[nonzero] *= signs
    return values


def fit_statistics(shapes: NetworkShapes, blocks: BlockNetworks, offsets: Sequence[Sequence[int]]) -> NetworkStatistics:
    """Measure the statistics of quantised networks; `offsets` says what context each layer has at scale and size 0."""
    frequency = np.bincount(blocks.kind, minlength=len(shapes.sizes)).astype(np.float64)
    kinds = np.round(255 * frequency / max(frequency.max(), 1))
    kinds[frequency > 0] = np.maximum(kinds[frequency > 0], 1)
    live = blocks.kind > 0
    partial = NetworkStatistics(
        kinds.astype(np.uint8),
        tuple(tuple(o) for o in offsets),
        _table(_differences(blocks.mean)),
        _table(_differences(blocks.scale[live])),
        _table(_differences(blocks.bandwidth[live])),
        (),
    )
    if not blocks.weights:
        magnitudes = tuple(MagnitudeTable.fit(0, 0, 0, 0) for _ in range(CONTEXTS))
    else:
        values, context = np.concatenate(blocks.weights), _contexts(shapes, partial, blocks)
        upper = np.abs(values) >> _low_bits(context)
        magnitudes = tuple(_table(upper[context == c]) for c in range(CONTEXTS))
    return NetworkStatistics(partial.kinds, partial.offsets, partial.mean, partial.scale, partial.bandwidth, magnitudes)


def _table(values: IntArray) -> MagnitudeTable:
    n = np.minimum(np.abs(values), ESCAPE).ravel()
    return MagnitudeTable.fit((n == 0).sum(), (n == 1).sum(), (n > 1).sum(), np.maximum(n - 2, 0).sum())


def block_bits(shapes: NetworkShapes, statistics: NetworkStatistics, blocks: BlockNetworks) -> NDArray[np.float64]:
    """Estimated bits of each block of a chunk, shape (n,)."""
    weights = statistics.kinds.astype(np.float64)
    bits = -np.log2(np.maximum(weights, 0.01) / weights.sum())[blocks.kind]
    bits += statistics.mean.cost[np.minimum(np.abs(_differences(blocks.mean)), ESCAPE)]
    live = np.flatnonzero(blocks.kind)
    if not len(live):
        return bits
    bits[live] += statistics.scale.cost[np.minimum(np.abs(_differences(blocks.scale[live])), ESCAPE)]
    bands = np.minimum(np.abs(_differences(blocks.bandwidth[live])), ESCAPE)
    bits[live] += statistics.bandwidth.cost[bands].sum(axis=1) + math.log2(DRAWS)
    for k, values in zip(live, blocks.weights, strict=True):
        context = statistics.contexts(shapes, int(blocks.kind[k]), int(blocks.scale[k] + blocks.size[k]))
        low = _low_bits(context)
        bits[k] += float((statistics.cost[context, np.minimum(np.abs(values) >> low, ESCAPE)] + low).sum())
    return bits
