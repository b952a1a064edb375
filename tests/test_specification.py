"""A second decoder, written from docs/container.md alone: streams of the methods `sci` and `pyramid`, and the section FILT.

It shares no code with the package, which only the tests at the end call, and it does not check every limit. Headings
are those of the page.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache, cached_property
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import pytest
import zstandard

import inrcodec
from golden.make import stored_integers
from inrcodec.options import SciOptions
from pyramid_streams import SHAPES, made
from samples import scan

GOLDEN = Path(__file__).parent / "golden"
MODULO = 2**64
Index = tuple[int, ...]


class Bytes:
    """Fields read one behind the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def fields(self, form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def text(self) -> str:
        return self.take(self.take(1)[0]).decode()

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise AssertionError("varint beyond 64 bits")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


# ---- Layout: prefix, header record, directory, footer


class Chunk(NamedTuple):
    first_block: int
    blocks: int
    body: bytes


@dataclass
class Stream:
    dtype: str
    shape: Index
    method: str
    sections: dict[str, bytes]
    chunks: list[Chunk]


def checked(data: bytes, crc: int) -> bytes:
    assert google_crc32c.value(data) == crc
    return data


def read_stream(data: bytes) -> Stream:
    parts = Bytes(data)
    magic, major, minor, must, _may, length = parts.fields("8sBBBBH")
    assert (magic, major, minor, must) == (b"\x89INRC\r\n\x1a", 0, 2, 0)
    record = parts.take(length)
    checked(data[: 14 + length], *parts.fields("I"))
    dtype, shape, method = read_record(Bytes(record))

    *lengths, end, crc = struct.unpack("<IIQ4sI", data[-24:])
    checked(data[-24:-4], crc)
    assert end == b"CRNI" and lengths[2] == len(data)
    directory = Bytes(checked(data[-24 - lengths[0] : -24], lengths[1]))
    section_count, a, b, chunk_count = directory.fields("BBBI")
    rows = [directory.fields("4sBII") for _ in range(section_count)]
    sections = {tag.decode(): checked(parts.take(size), crc) for tag, _flags, size, crc in rows}
    chunks: list[Chunk] = []
    first = 0
    for _ in range(chunk_count):
        blocks, size = (int.from_bytes(directory.take(width), "little") for width in (a, b))
        chunks.append(Chunk(first, blocks, checked(parts.take(size), *directory.fields("I"))))
        first += blocks
    assert not directory.rest() and parts.at + lengths[0] + 24 == len(data)
    return Stream(dtype, shape, method, sections, chunks)


def read_record(record: Bytes) -> tuple[str, Index, str]:
    flags, dtype = record.fields("BB")
    axes = record.text()
    shape = tuple(record.varint() for _ in axes)
    record.fields(f"{len(axes)}{'f' if flags & 1 else 'd'}")
    _units, _file_dtype = record.text(), record.text()
    if flags & 2:
        record.fields("d")
    _source, method = record.text(), record.text()
    record.fields("Bd")
    record.varint()
    assert not record.rest()
    return ("uint8", "int8", "uint16", "int16")[dtype], shape, method


def read_frame(data: bytes, limit: int = 2**20) -> Bytes:
    """A zstd frame that declares its content size."""
    assert zstandard.frame_content_size(data) <= limit
    return Bytes(zstandard.ZstdDecompressor().decompress(data))


# ---- Range coder


class RangeDecoder:
    def __init__(self, data: bytes) -> None:
        self.words = Bytes(data + bytes(-len(data) % 4))
        self.low, self.range = 0, MODULO - 1
        self.point = self.next_word() << 32 | self.next_word()

    def next_word(self) -> int:
        """Big endian; zeros behind the end."""
        return int.from_bytes(self.words.take(4), "big") if self.words.at < len(self.words.data) else 0

    def symbol(self, left: Sequence[int]) -> int:
        if len(left) == 2:  # an alphabet of one symbol takes no bits
            return 0
        scale = self.range >> 24
        q = (self.point - self.low) % MODULO // scale
        assert q < 2**24
        k = bisect_right(left, q) - 1
        self.low = (self.low + scale * left[k]) % MODULO
        self.range = scale * (left[k + 1] - left[k])
        if self.range < 2**32:
            self.low = (self.low << 32) % MODULO
            self.range <<= 32
            self.point = (self.point << 32) % MODULO | self.next_word()
        return k

    def digit(self, bits: int) -> int:
        return self.symbol(range(0, 2**24 + 1, 2 ** (24 - bits)))

    def escape(self, magnitude: int) -> int:
        """The magnitude, with its excess behind 255."""
        if magnitude < 255:
            return magnitude
        bits = self.digit(5)
        lower = self.digit(min(bits, 16))
        return 255 + (self.digit(max(bits - 16, 0)) << 16 | lower)

    def signs(self, magnitudes: Iterable[int]) -> list[int]:
        return [-1 if m and self.digit(1) else 1 for m in magnitudes]

    def signed(self, count: int, table: Table) -> list[int]:
        """Signed integers of one table: magnitudes, signs, escapes."""
        magnitudes = [self.symbol(table.left) for _ in range(count)]
        signs = self.signs(magnitudes)
        return [sign * self.escape(m) for sign, m in zip(signs, magnitudes, strict=True)]


def left_sides(weights: Sequence[int]) -> list[int]:
    """left[0..n] of a symbol with integer weights."""
    n, total = len(weights), sum(weights)
    sums = list(accumulate((w / total for w in weights), initial=0.0))
    s = (2**24 - n) / sums[-1]
    return [math.floor(sums[k] * s) + k for k in range(n)] + [2**24]


@dataclass
class Table:
    """Magnitude table."""

    nonzero: int
    beyond: int
    decay: int

    @cached_property
    def left(self) -> list[int]:
        assert self.nonzero and self.beyond and self.decay
        weights = [(65536 - self.nonzero) << 24, (self.nonzero * (256 - self.beyond)) << 16]
        rest = (self.nonzero * self.beyond) << 16
        for _ in range(2, 255):
            tail = (rest * self.decay) >> 8
            weights.append(max(rest - tail, 1))
            rest = tail
        return left_sides([*weights, max(rest, 1)])

    @cached_property
    def frequencies(self) -> list[int]:
        """Of a chunk's symbols, the escape last."""
        assert self.nonzero and self.beyond and self.decay
        found, rest = [65536 - self.nonzero], self.nonzero
        for n in range(1, 255):
            f = rest * (256 - (self.beyond if n == 1 else self.decay)) >> 8
            if not 1 <= f <= rest - 1:
                break
            found.append(f)
            rest -= f
        return [*found, rest]


# ---- Lanes


class Lanes:
    def __init__(self, data: bytes, k: int) -> None:
        assert k <= 5
        self.words = Bytes(data)
        self.states = list(self.words.fields(f"{2**k}I"))
        assert min(self.states) >= 2**16
        self.bits = (byte >> i & 1 for byte in reversed(data) for i in range(8))
        self.taken = 0

    def stage(self, frequencies: Sequence[Sequence[int]]) -> list[int]:
        """A symbol for each distribution."""
        return [self.symbol(i % len(self.states), f) for i, f in enumerate(frequencies)]

    def symbol(self, lane: int, frequencies: Sequence[int]) -> int:
        assert sum(frequencies) == 2**16
        left = [0, *accumulate(frequencies)]
        state = self.states[lane]
        slot = state % 2**16
        s = max(s for s in range(len(frequencies)) if left[s] <= slot < left[s + 1])
        state = frequencies[s] * (state >> 16) + slot - left[s]
        if state < 2**16:
            state = state << 16 | self.words.fields("H")[0]
        self.states[lane] = state
        return s

    def digit(self, bits: int) -> int:
        self.taken += bits
        return sum(next(self.bits) << i for i in range(bits))

    def signs(self, magnitudes: Iterable[int]) -> list[int]:
        return [-1 if m and self.digit(1) else 1 for m in magnitudes]

    def excess(self, symbol: int, table: Table) -> int:
        """The magnitude that a symbol stands for."""
        return symbol + (self.digit(self.digit(5)) if symbol == len(table.frequencies) - 1 else 0)

    def signed(self, tables: Sequence[Table]) -> list[int]:
        symbols = self.stage([table.frequencies for table in tables])
        signs = self.signs(symbols)
        return [sign * self.excess(s, table) for sign, s, table in zip(signs, symbols, tables, strict=True)]

    def check_end(self, least: int = 0) -> None:
        assert set(self.states) == {2**16}
        assert max(self.words.at + -(-self.taken // 8), least) == len(self.words.data)


def proportional(weights: Sequence[int]) -> list[int]:
    """Frequencies of integer weights."""
    total, m = sum(weights), sum(w > 0 for w in weights)
    found = [1 + (2**16 - m) * w // total if w else 0 for w in weights]
    found[weights.index(max(weights))] += 2**16 - sum(found)
    return found


# ---- TREE of SCI; levels and split flags as in TREE of TINC


class Layout(NamedTuple):
    """A class of networks: widths of its sine layers, exponents of these and of the output."""

    widths: Index
    exponents: Index

    def shapes(self, d: int) -> list[tuple[int, int]]:
        """Rows (inputs and bias) and columns of each layer's matrix."""
        sizes = (d, *self.widths, 1)
        return [(inputs + 1, outputs) for inputs, outputs in pairwise(sizes)]


class Leaf(NamedTuple):
    origin: Index
    extent: Index


@dataclass
class Tree:
    seed: int
    step: float
    offset: int
    low: int
    high: int
    halo: int
    classes: list[Layout]
    leaves: list[Leaf]


def read_tree(body: bytes, shape: Index) -> Tree:
    fields = Bytes(body)
    deepest = fields.fields(f"{len(shape)}H")
    version, shallowest, seed, step, offset, low, high, halo, count = fields.fields("BBIfiiiBB")
    assert version == 0
    classes = [Layout((), ())]
    for _ in range(count):
        (layers,) = fields.fields("B")
        widths = fields.fields(f"{layers}H")
        classes.append(Layout(widths, fields.fields(f"{layers + 1}b")))
    levels = cell_extents(deepest, shape)
    leaves = read_leaves(RangeDecoder(fields.rest()), shape, levels, shallowest)
    return Tree(seed, step, offset, low, high, halo, classes, leaves)


def cell_extents(deepest: Index, shape: Index) -> list[Index]:
    """Extents of a cell on each level, from level 0."""
    levels = [deepest]
    while any(e < n for e, n in zip(levels[0], shape, strict=True)):
        levels.insert(0, tuple(2 * e if e < n else e for e, n in zip(levels[0], shape, strict=True)))
    return levels


def children(cell: Index, parent: Index, child: Index, shape: Index) -> list[Index]:
    """Cells of the next level in a cell that begin within the signal, in raster order."""
    ranges = [range(c * (p // e), (c + 1) * (p // e)) for c, p, e in zip(cell, parent, child, strict=True)]
    return [c for c in product(*ranges) if all(i * e < n for i, e, n in zip(c, child, shape, strict=True))]


def read_leaves(coder: RangeDecoder, shape: Index, levels: list[Index], shallowest: int) -> list[Leaf]:
    split = [set(cells_of(shape, extent)) for extent in levels[:shallowest]]
    present = cells_of(shape, levels[shallowest])
    for parent, child in zip(levels[shallowest:], levels[shallowest + 1 :], strict=False):
        c = coder.digit(8)
        left = left_sides((256 - c, c))
        flags = [c == 255 if c in (0, 255) else coder.symbol(left) == 1 for _ in present]
        split.append({cell for cell, flag in zip(present, flags, strict=True) if flag})
        present = sorted(kid for cell in split[-1] for kid in children(cell, parent, child, shape))
    split.append(set())  # on the deepest level
    return depth_first((0,) * len(shape), 0, shape, levels, split)


def cells_of(shape: Index, extent: Index) -> list[Index]:
    return list(product(*(range(-(-n // e)) for n, e in zip(shape, extent, strict=True))))


def depth_first(cell: Index, level: int, shape: Index, levels: list[Index], split: list[set[Index]]) -> list[Leaf]:
    extent = levels[level]
    if cell not in split[level]:
        return [Leaf(tuple(c * e for c, e in zip(cell, extent, strict=True)), extent)]
    kids = children(cell, extent, levels[level + 1], shape)
    return [leaf for kid in kids for leaf in depth_first(kid, level + 1, shape, levels, split)]


# ---- STAT of SCI


@dataclass
class Statistics:
    lanes: int
    """Their binary logarithm."""
    frequencies: Index
    context_offsets: list[Index]
    """Of each class, for each layer."""
    means: Table
    scales: Table
    bandwidths: Table
    weights: list[Table]


def read_statistics(body: bytes, classes: list[Layout]) -> Statistics:
    fields = read_frame(body)
    (lanes,) = fields.fields("B")
    frequencies = fields.fields(f"{len(classes)}B")
    offsets = [fields.fields(f"{len(layout.exponents)}h") for layout in classes]
    tables = [Table(*fields.fields("HBB")) for _ in range(3 + 48)]
    assert not fields.rest()
    return Statistics(lanes, frequencies, offsets, *tables[:3], tables[3:])


# ---- Chunk of SCI


@dataclass
class Block:
    """What a chunk says of one block; `kind` is its class, and without a network the last four stay as they are."""

    number: int
    leaf: Leaf
    kind: int
    mean: int
    scale: int
    bandwidths: Index
    draw: int
    weights: list[np.ndarray]

    @property
    def size(self) -> int:
        return math.prod(self.leaf.extent).bit_length() - 1


def read_chunk(chunk: Chunk, tree: Tree, statistics: Statistics) -> list[Block]:
    coder = Lanes(chunk.body, statistics.lanes)
    kinds = coder.stage([proportional(statistics.frequencies)] * chunk.blocks)
    means = accumulate(coder.signed([statistics.means] * chunk.blocks))
    numbers = range(chunk.first_block, chunk.first_block + chunk.blocks)
    flat = (0,) * len(tree.leaves[0].origin)
    blocks = [
        Block(i, tree.leaves[i], kind, mean, 0, flat, 0, [])
        for i, kind, mean in zip(numbers, kinds, means, strict=True)
    ]
    networks = [block for block in blocks if block.kind]
    read_spectra(coder, networks, statistics)
    read_weights(coder, networks, tree, statistics)
    coder.check_end(-(-sum(layer.size for block in blocks for layer in block.weights) // 256))
    return blocks


def read_spectra(coder: Lanes, blocks: list[Block], statistics: Statistics) -> None:
    """Scales, bandwidths and draws."""
    if not blocks:
        return
    shape = (len(blocks), len(blocks[0].bandwidths))
    scales = accumulate(coder.signed([statistics.scales] * len(blocks)))
    differences = np.reshape(coder.signed([statistics.bandwidths] * math.prod(shape)), shape)
    for block, scale, bandwidths in zip(blocks, scales, differences.cumsum(axis=0).tolist(), strict=True):
        block.scale, block.bandwidths, block.draw = scale, tuple(bandwidths), coder.digit(2)


def read_weights(coder: Lanes, blocks: list[Block], tree: Tree, statistics: Statistics) -> None:
    layers = [layer for block in blocks for layer in layers_of(block, tree, statistics)]
    contexts = [context for _, shape, context in layers for _ in range(math.prod(shape))]
    low_bits = [max(c - 14, 0) // 2 for c in contexts]
    tables = [statistics.weights[context] for context in contexts]
    upper, lower = coder.stage([table.frequencies for table in tables]), [0] * len(contexts)
    for i in sorted(range(len(contexts)), key=lambda i: low_bits[i]):
        lower[i] = coder.digit(low_bits[i])
    signs = coder.signs(u or w for u, w in zip(upper, lower, strict=True))
    upper = [coder.excess(u, table) for u, table in zip(upper, tables, strict=True)]
    numbers = zip(signs, upper, lower, low_bits, strict=True)
    values = iter([sign * (u << bits | w) for sign, u, w, bits in numbers])
    for block, (rows, columns), _ in layers:
        block.weights.append(np.array([[next(values) for _ in range(columns)] for _ in range(rows)]))


def layers_of(block: Block, tree: Tree, statistics: Statistics) -> list[tuple[Block, tuple[int, int], int]]:
    """The block with the shape and the context of each of its layers."""
    shapes = tree.classes[block.kind].shapes(len(block.bandwidths))
    offsets = statistics.context_offsets[block.kind]
    contexts = [min(max(offset + block.scale + block.size, 0), 47) for offset in offsets]
    return [(block, shape, context) for shape, context in zip(shapes, contexts, strict=True)]


# ---- Networks of SCI


def half_octaves(e: int) -> float:
    return math.ldexp(1.4142135623730951 if e % 2 else 1.0, e >> 1)


def drawn(tree: Tree, block: Block, shape: tuple[int, int]) -> np.ndarray:
    """What the draw adds to the weights of the first layer."""
    key = tree.seed << 32 | (4 * block.number + block.draw)
    numbers = [uniform(key, i) for i in range(math.prod(shape))]
    factors = [math.sqrt(3) * half_octaves(b) for b in block.bandwidths] + [math.pi]
    return np.reshape(numbers, shape) * np.array(factors)[:, None]


def uniform(key: int, i: int) -> float:
    x = (key * 0x2545F4914F6CDD1D + i + 1) % MODULO
    x = x * 0x9E3779B97F4A7C15 % MODULO
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % MODULO
    x = (x ^ x >> 27) * 0x94D049BB133111EB % MODULO
    x ^= x >> 31
    return (x >> 40) / 2**23 - 1


def matrices(tree: Tree, block: Block) -> list[np.ndarray]:
    exponents = tree.classes[block.kind].exponents
    layers = [
        integers * (tree.step * half_octaves(-(exponent + block.scale + block.size)))
        for integers, exponent in zip(block.weights, exponents, strict=True)
    ]
    layers[0] += drawn(tree, block, layers[0].shape)
    return layers


def block_values(tree: Tree, block: Block, positions: list[np.ndarray]) -> np.ndarray:
    """Values at the positions of a box, given axis by axis."""
    shape = tuple(map(len, positions))
    if not block.kind:
        return np.full(shape, float(block.mean))
    axes = zip(positions, block.leaf.origin, block.leaf.extent, strict=True)
    x = np.meshgrid(*(2 * (p - o + 0.5) / e - 1 for p, o, e in axes), indexing="ij")
    h = np.stack([axis.ravel() for axis in x], axis=1)
    *sines, last = matrices(tree, block)
    for layer in sines:
        h = np.sin(h @ layer[:-1] + layer[-1])
    return block.mean + half_octaves(block.scale) * (h @ last[:-1] + last[-1]).reshape(shape)


# ---- Blending


def ramp(p: np.ndarray, o: int, e: int, halo: int) -> np.ndarray:
    inside = np.minimum(p - (o - 0.5), o + e - 0.5 - p)
    return np.clip(inside / (2 * halo) + 0.5, 0, 1) if halo else (inside > 0).astype(float)


def blended(tree: Tree, blocks: list[Block], shape: Index) -> np.ndarray:
    total, weights = np.zeros(shape), np.zeros(shape)
    for block in blocks:
        axes = list(zip(block.leaf.origin, block.leaf.extent, shape, strict=True))
        positions = [np.arange(max(o - tree.halo, 0), min(o + e + tree.halo, n)) for o, e, n in axes]
        ramps = [ramp(p, o, e, tree.halo) for p, (o, e, _) in zip(positions, axes, strict=True)]
        weight = math.prod(np.ix_(*ramps))
        box = np.ix_(*positions)
        total[box] += weight * block_values(tree, block, positions)
        weights[box] += weight
    return total / weights + tree.offset


def rounded(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(values), low, high)


# ---- FILT: restoration


class Restoration(NamedTuple):
    strength: float
    first: np.ndarray
    biases: np.ndarray
    middle: np.ndarray
    last: np.ndarray


def read_tensor(coder: RangeDecoder, shape: Index) -> np.ndarray:
    """A tensor as in NETW."""
    e = coder.digit(5) - 24
    table = Table(coder.digit(16), coder.digit(8), coder.digit(8))
    return np.reshape(coder.signed(math.prod(shape), table), shape) * 2.0**e


def read_restoration(body: bytes, d: int) -> Restoration:
    fields = Bytes(body)
    version, channels, strength = fields.fields("BBf")
    assert version == 0
    taps = (1,) * (d - 3) + (3,) * min(d, 3)  # further axes in front have one tap
    coder = RangeDecoder(fields.rest())
    shapes = ((channels, *taps), (2, channels), (channels, channels), (channels, *taps))
    return Restoration(strength, *(read_tensor(coder, shape) for shape in shapes))


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, x / 10)


def correlation(s: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Without padding."""
    kept = [n - taps + 1 for n, taps in zip(s.shape, kernel.shape, strict=True)]
    windows = ((i, tuple(slice(j, j + n) for j, n in zip(i, kept, strict=True))) for i in np.ndindex(kernel.shape))
    return sum(kernel[i] * s[window] for i, window in windows)


def restored(s: np.ndarray, network: Restoration, step: float) -> np.ndarray:
    u = max(network.strength * step, 2.0**-32) / 3
    padded = np.pad(s / u, [(taps - 1, taps - 1) for taps in network.first[0].shape], mode="edge")
    h = [
        leaky(correlation(padded, kernel - kernel.mean()) + bias)
        for kernel, bias in zip(network.first, network.biases[0], strict=True)
    ]
    g = leaky(np.tensordot(network.middle, h, 1) + network.biases[1].reshape(-1, *[1] * s.ndim))
    return s + u * sum(correlation(part, kernel) for part, kernel in zip(g, network.last, strict=True))


# ---- TREE of the pyramid


@dataclass
class Pyramid:
    """Everything with four axes; lattices from level 0 on."""

    width: int
    synthesis: tuple[int, int]
    edge: int
    step: float
    offset: int
    low: int
    high: int
    halved: list[tuple[bool, ...]]
    lattices: list[Index]

    @property
    def present(self) -> list[int]:
        return [a for a in range(4) if self.lattices[0][a] > 1]

    @cached_property
    def tiles(self) -> list[tuple[int, Index, Index]]:
        """Level, first latent and end of each."""
        found = []
        for level in reversed(range(len(self.lattices))):
            lattice = self.lattices[level]
            for start in product(*(range(0, n, self.edge) for n in lattice)):
                found.append((level, start, tuple(min(a + self.edge, n) for a, n in zip(start, lattice, strict=True))))
        return found


def read_pyramid(body: bytes, shape: Index) -> Pyramid:
    fields = Bytes(body)
    version, levels, width, s1, s2, edge, step, offset, low, high = fields.fields("BBBBBBfiii")
    assert version == 0
    missing = 4 - len(shape)
    halved = [
        (False,) * missing + tuple(bool(b >> a & 1) for a in range(len(shape))) for b in fields.fields(f"{levels - 1}B")
    ]
    assert not fields.rest()
    lattices = [(1,) * missing + shape]
    for axes in halved:
        lattices.append(tuple(-(-n // 2) if half else n for n, half in zip(lattices[-1], axes, strict=True)))
    return Pyramid(width, (s1, s2), edge + 1, step, offset, low, high, halved, lattices)


def unit(axis: int, step: int) -> Index:
    return tuple(step if a == axis else 0 for a in range(4))


def block_taps(present: list[int]) -> list[Index]:
    """{-1, 0, 1}^3 over (z, y, x) in raster order, without absent axes."""
    return list(product((0,), *((-1, 0, 1) if a in present else (0,) for a in (1, 2, 3))))


def own_taps(present: list[int]) -> list[Index]:
    before = [tap for tap in block_taps(present) if tap < (0, 0, 0, 0)]
    if 0 not in present:
        return before
    around = [(-1, 0, 0, 0)] + [(-1, *unit(a, s)[1:]) for a in (1, 2, 3) if a in present for s in (-1, 1)]
    return around + before


def cross_taps(present: list[int]) -> list[Index]:
    return [(0, 0, 0, 0)] + [unit(a, s) for a in present for s in (-1, 1)]


def near_taps(present: list[int]) -> list[Index]:
    return block_taps(present) + ([(-1, 0, 0, 0), (1, 0, 0, 0)] if 0 in present else [])


# ---- NETW of the pyramid


LEAST = {"first": -7, "level bias": -10, "second": -7, "second bias": -12, "last": -7, "last bias": -12, "skip": -9}


def read_networks(body: bytes, tree: Pyramid) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The context model in integers, and the synthesis."""
    fields = Bytes(body)
    assert fields.take(4) == bytes(4), "named networks are not read here"
    k, h, (s1, s2) = len(tree.lattices), tree.width, tree.synthesis
    n = len(own_taps(tree.present)) + len(cross_taps(tree.present)) + 1
    m = len(near_taps(tree.present)) * min(k, 2) + max(k - 2, 0)
    shapes = [(n, h), (k, h), (h, h), (h,), (h, 2), (2,), (n, 2)]
    coder = RangeDecoder(fields.rest())
    context = {
        name: read_tensor(coder, shape) * 2.0**-e for (name, e), shape in zip(LEAST.items(), shapes, strict=True)
    }
    assert all((values == np.rint(values)).all() for values in context.values())
    context = {name: values.astype(np.int64) for name, values in context.items()}
    context["level bias"] += 16
    context["second bias"] += 64
    context["last bias"] += np.array([256, 2048])
    names = ("gains", "filters", "first", "first bias", "second", "second bias", "last", "last bias", "skips")
    further = [(k,), (k - 1, 4), (m, s1), (s1,), (s1, s2), (s2,), (s2,), (1,), (k,)]
    return context, {name: read_tensor(coder, shape) for name, shape in zip(names, further, strict=True)}


# ---- Context model


def interpolated(coarse: np.ndarray, halved: Sequence[bool], lattice: Index, unit: int) -> np.ndarray:
    """U of the clipped latents (unit 8), or V of a U (unit 1)."""
    total, h = coarse, sum(halved)
    for axis in range(4):
        if halved[axis]:
            i = np.arange(lattice[axis])
            other = np.clip(np.where(i % 2, i // 2 + 1, i // 2 - 1), 0, coarse.shape[axis] - 1)
            total = 3 * np.take(total, i // 2, axis) + np.take(total, other, axis)
    return (unit * total + 4**h // 2) // 4**h


def half_linear(total: np.ndarray, shift: int) -> np.ndarray:
    return np.clip(np.where(total >= 0, total >> shift, total >> (shift + 3)), -2047, 2047)


def prediction(x: list[int], level: int, w: dict[str, np.ndarray]) -> tuple[int, int]:
    """Mean in eighths, number of the scale."""
    h = half_linear(x @ w["first"] + w["level bias"][level], 5)
    h = half_linear(h @ w["second"] + w["second bias"], 7)
    mean, scale = (h @ w["last"] + x @ w["skip"] + w["last bias"]).tolist()
    return min(max(mean >> 9, -1016), 1016), min(max(scale >> 12, 0), 63)


@cache
def laplace(j: int, q: int) -> tuple[int, list[int]]:
    """R_j and the frequencies of the table (j, q)."""
    with localcontext(prec=50):
        b = Decimal(2) ** (Decimal(j) / 6 - 5)
        ratio = int(((-1 / (8 * b)).exp() * 2**48).to_integral_value())
        reach = min(126, 2 + math.ceil(8 * b - Decimal("1e-30")))
    powers = [2**48]
    while len(powers) <= 8 * (reach + 1):
        powers.append(powers[-1] * ratio // 2**48)

    def below(n: int) -> int:
        return 2**32 - (powers[n] >> 17) if n >= 0 else powers[-n] >> 17

    weights = [below(8 * (i - reach) + 4 - q) - below(8 * (i - reach) - 4 - q) for i in range(2 * reach + 1)]
    return reach, proportional([max(w, 1) for w in [*weights, 2**32 - sum(weights)]])


# ---- Chunk of the pyramid


def read_bodies(chunk: Chunk) -> list[tuple[int, bytes]]:
    """The binary logarithm of the lanes, and the bytes, of each tile."""
    fields = Bytes(chunk.body)
    heads = []
    for _ in range(chunk.blocks):
        length = fields.varint()
        heads.append((fields.take(1)[0] if length else 0, length))
    bodies = [(k, fields.take(length)) for k, length in heads]
    assert not fields.rest()
    return bodies


@dataclass
class Contexts:
    """What is known before a tile is decoded."""

    tree: Pyramid
    network: dict[str, np.ndarray]
    level: int
    u: np.ndarray
    v: np.ndarray

    def inputs(self, place: Index, start: Index, tile: np.ndarray) -> list[int]:
        """Of the latent at a place of the tile that begins at `start`."""
        own = [tuple(p + t for p, t in zip(place, tap, strict=True)) for tap in own_taps(self.tree.present)]
        inside = [all(0 <= p < n for p, n in zip(at, tile.shape, strict=True)) for at in own]
        found = [8 * min(max(int(tile[at]), -127), 127) if here else 0 for at, here in zip(own, inside, strict=True)]
        here = [p + s for p, s in zip(place, start, strict=True)]
        for tap in cross_taps(self.tree.present):
            near = (min(max(p + t, 0), n - 1) for p, t, n in zip(here, tap, self.u.shape, strict=True))
            found.append(int(self.u[tuple(near)]))
        return [*found, int(self.v[tuple(here)])]


def read_tile(k: int, body: bytes, start: Index, stop: Index, contexts: Contexts) -> np.ndarray:
    tile = np.zeros([b - a for a, b in zip(start, stop, strict=True)], dtype=np.int64)
    if not body:
        return tile
    coder, stages = Lanes(body, k), {}
    for place in product(*map(range, tile.shape)):
        stages.setdefault(sum(p * w for p, w in zip(place, (8, 4, 2, 1), strict=True)), []).append(place)
    for w in sorted(stages):
        known = tile.copy()
        for i, place in enumerate(stages[w]):
            mean, j = prediction(contexts.inputs(place, start, known), contexts.level, contexts.network)
            c = (mean + 4) >> 3
            reach, frequencies = laplace(j, mean - 8 * c)
            difference = coder.symbol(i % len(coder.states), frequencies) - reach
            if difference > reach:
                sign = -1 if coder.digit(1) else 1
                difference = sign * (reach + 1 + coder.digit(coder.digit(5)))
            tile[place] = c + difference
    assert np.abs(tile).max() < 2**20
    coder.check_end()
    return tile


def read_latents(stream: Stream, tree: Pyramid, network: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Of every level; and all of them tile by tile."""
    bodies = iter([body for chunk in stream.chunks for body in read_bodies(chunk)])
    latents = [np.zeros(lattice, dtype=np.int64) for lattice in tree.lattices]
    u, listed, level_before = [np.zeros_like(y) for y in latents], [], -1
    for level, start, stop in tree.tiles:
        if level != level_before:
            level_before, v = level, np.zeros_like(latents[level])
            if level + 1 < len(latents):
                halved, lattice = tree.halved[level], tree.lattices[level]
                u[level] = interpolated(np.clip(latents[level + 1], -127, 127), halved, lattice, 8)
                v = interpolated(u[level + 1], halved, lattice, 1)
        tile = read_tile(*next(bodies), start, stop, Contexts(tree, network, level, u[level], v))
        latents[level][tuple(map(slice, start, stop))] = tile
        listed += tile.ravel().tolist()
    assert next(bodies, None) is None
    return latents, listed


# ---- Synthesis of the pyramid


def upsampled(a: np.ndarray, f: np.ndarray, halved: Sequence[bool], lattice: Index) -> np.ndarray:
    for axis in range(4):
        if halved[axis]:
            i, last = np.arange(lattice[axis]), a.shape[axis] - 1
            filters = np.where(i % 2 == 1, f[::-1, None], f[:, None])
            taken = [np.take(a, np.clip(i // 2 - 2 + i % 2 + tap, 0, last), axis) for tap in range(4)]
            form = [-1 if b == axis else 1 for b in range(4)]
            a = sum(weights.reshape(form) * part for weights, part in zip(filters, taken, strict=True))
    return a


def synthesised(latents: list[np.ndarray], tree: Pyramid, w: dict[str, np.ndarray]) -> np.ndarray:
    channels = []
    for k, y in enumerate(latents):
        c = w["gains"][k] * y
        for step in reversed(range(k)):
            c = upsampled(c, w["filters"][step], tree.halved[step], tree.lattices[step])
        channels.append(c)
    shape, x = tree.lattices[0], []
    for k, c in enumerate(channels[:2]):
        padded = np.pad(c, 1, mode="edge") if k else np.pad(c, 1)
        for tap in near_taps(tree.present):
            x.append(padded[tuple(slice(1 + t, 1 + t + n) for t, n in zip(tap, shape, strict=True))])
    x = np.stack([*x, *channels[2:]], axis=-1)
    for layer in ("first", "second"):
        v = x @ w[layer] + w[f"{layer} bias"]
        x = np.maximum(v, v / 8)
    return tree.offset + tree.step * (x @ w["last"] + w["last bias"][0] + np.tensordot(w["skips"], channels, 1))


# ---- A stream as a whole


def read_blocks(stream: Stream) -> tuple[Tree, list[list[Block]]]:
    """The blocks of each chunk."""
    tree = read_tree(stream.sections["TREE"], stream.shape)
    statistics = read_statistics(stream.sections["STAT"], tree.classes)
    return tree, [read_chunk(chunk, tree, statistics) for chunk in stream.chunks]


def decoded(stream: Stream, tree: Tree, blocks: list[Block]) -> np.ndarray:
    assert len(blocks) == len(tree.leaves)
    values = blended(tree, blocks, stream.shape)
    if "FILT" in stream.sections:
        values = restored(values, read_restoration(stream.sections["FILT"], len(stream.shape)), tree.step)
    return rounded(values, tree.low, tree.high)


def integers_of(blocks: list[Block]) -> list[int]:
    """All that was entropy coded of a chunk, in the order of the golden files."""
    parts = (
        [block.kind for block in blocks],
        [block.mean for block in blocks],
        [block.scale for block in blocks],
        [number for block in blocks for number in block.bandwidths],
        [block.draw for block in blocks],
        [number for block in blocks for layer in block.weights for number in layer.ravel().tolist()],
    )
    return [number for part in parts for number in part]


# ---- The tests


def half_flat(shape: Index, dtype: str = "int16") -> np.ndarray:
    """A signal whose blocks are partly constants."""
    signal = scan(shape, dtype)
    signal[..., : shape[-1] // 2] = 77
    return signal


def check(blob: bytes, integers: np.ndarray, samples: np.ndarray) -> None:
    stream = read_stream(blob)
    tree, chunks = read_blocks(stream)
    assert [number for blocks in chunks for number in integers_of(blocks)] == integers.tolist()
    difference = np.abs(decoded(stream, tree, [block for blocks in chunks for block in blocks]) - samples)
    assert stream.dtype == samples.dtype
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size // 1000


@pytest.mark.parametrize("name", ["sci", "sci_series"])
def test_golden_sci_streams_decode_by_the_page(name: str) -> None:
    expected = np.load(GOLDEN / f"{name}.npz")
    check((GOLDEN / f"{name}.inrc").read_bytes(), expected["integers"], expected["samples"])


SEVERAL_CLASSES = (half_flat((20, 30, 36)), {"ratio": 8, "seed": 5, "sci": SciOptions(blocks=60, halo=2, layers=2)})
SHARP_PLANE = (half_flat((50, 70), "uint16"), {"bits_per_voxel": 6, "sci": SciOptions(blocks=40, halo=0, layers=1)})


@pytest.mark.parametrize(("signal", "choices"), [SEVERAL_CLASSES, SHARP_PLANE], ids=["several_classes", "sharp_plane"])
def test_fresh_sci_streams_decode_by_the_page(signal: np.ndarray, choices: dict[str, object]) -> None:
    """What the golden streams lack: constant blocks, several classes, levels above *T*, restoration."""
    blob = inrcodec.encode(signal, method="sci", effort=1, **choices)
    stream = read_stream(blob)
    tree, chunks = read_blocks(stream)
    assert signal.ndim == 2 or "FILT" in stream.sections, "the plane is too small for one to be worth its bytes"
    assert len(tree.leaves) > 2 ** len(signal.shape)
    assert {0, 1} <= {block.kind for blocks in chunks for block in blocks}
    with inrcodec.open(blob) as image:
        check(blob, stored_integers(image), image[...])


def check_pyramid(blob: bytes, integers: np.ndarray, samples: np.ndarray) -> None:
    stream = read_stream(blob)
    assert stream.method == "pyramid" and stream.dtype == samples.dtype
    tree = read_pyramid(stream.sections["TREE"], stream.shape)
    context, synthesis = read_networks(stream.sections["NETW"], tree)
    latents, listed = read_latents(stream, tree, context)
    assert listed == integers.tolist()
    values = rounded(synthesised(latents, tree, synthesis), tree.low, tree.high).reshape(samples.shape)
    difference = np.abs(values - samples)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size // 1000


@pytest.mark.parametrize("name", ["pyramid", "pyramid_series"])
def test_golden_pyramid_streams_decode_by_the_page(name: str) -> None:
    expected = np.load(GOLDEN / f"{name}.npz")
    check_pyramid((GOLDEN / f"{name}.inrc").read_bytes(), expected["integers"], expected["samples"])


@pytest.mark.parametrize("name", list(SHAPES))
def test_random_pyramid_streams_decode_by_the_page(name: str) -> None:
    """What the golden streams lack: escapes, other numbers of axes, one level, axes of one sample."""
    blob = made(*SHAPES[name], edge=4, spread=0.6).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


def test_restoration_follows_the_page() -> None:
    stream = read_stream((GOLDEN / "restored.inrc").read_bytes())
    network = read_restoration(stream.sections["FILT"], len(stream.shape))
    with inrcodec.open(GOLDEN / "restored.inrc") as image:
        plain = image.read_plain_box(np.zeros(image.ndim, dtype=np.int64), np.array(image.shape)).astype(np.float64)
        step, low, high = image.blocks.step, image.blocks.low, image.blocks.high
    expected = np.load(GOLDEN / "restored.npz")["samples"]
    assert np.abs(rounded(plain, low, high) - expected).max() > 10
    assert np.abs(rounded(restored(plain, network, step), low, high) - expected).max() <= 1
