"""A second decoder, written from docs/container.md alone: whole streams of the method `sci`, and the section FILT.

It shares no code with the package, which only the tests at the end call, and it does not check every limit. Headings
are those of the page.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
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


def test_restoration_follows_the_page() -> None:
    stream = read_stream((GOLDEN / "restored.inrc").read_bytes())
    network = read_restoration(stream.sections["FILT"], len(stream.shape))
    with inrcodec.open(GOLDEN / "restored.inrc") as image:
        plain = image.read_plain_box(np.zeros(image.ndim, dtype=np.int64), np.array(image.shape)).astype(np.float64)
        step, low, high = image.blocks.step, image.blocks.low, image.blocks.high
    expected = np.load(GOLDEN / "restored.npz")["samples"]
    assert np.abs(rounded(plain, low, high) - expected).max() > 10
    assert np.abs(rounded(restored(plain, network, step), low, high) - expected).max() <= 1
