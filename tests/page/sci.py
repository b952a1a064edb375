"""A second decoder, written from docs/container.md alone: streams of the method `sci`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import NamedTuple

import numpy as np

from .motion import displaced, motion_of
from .restoration import read_restoration, restored
from .stream import (
    MODULO,
    Bytes,
    Chunk,
    Index,
    Lanes,
    RangeDecoder,
    Stream,
    Table,
    left_sides,
    proportional,
    read_frame,
    rounded,
)

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


# ---- A stream as a whole


def read_blocks(stream: Stream) -> tuple[Tree, list[list[Block]]]:
    """The blocks of each chunk."""
    tree = read_tree(stream.sections["TREE"], motion_of(stream)[1])
    statistics = read_statistics(stream.sections["STAT"], tree.classes)
    return tree, [read_chunk(chunk, tree, statistics) for chunk in stream.chunks]


def decoded(stream: Stream, tree: Tree, blocks: list[Block]) -> np.ndarray:
    assert len(blocks) == len(tree.leaves)
    motion, shape = motion_of(stream)
    values = blended(tree, blocks, shape)
    if motion:
        values = displaced(values, motion, stream.shape)
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
