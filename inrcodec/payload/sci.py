"""The SCI payload sections, TREE and STAT: what they hold, packed and unpacked. Byte layout: docs/container.md."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.siren import Networks, dequantised

from ..coding.networks import BlockNetworks, NetworkShapes
from ..coding.splits import write_flags
from ..models.sci import MAX_WIDTH, Widths, first_layers, half_octaves, weight_shapes
from ..partition.octree import MAX_BLOCK, MAX_DEPTH, MAX_EDGE, Octree, cell_pyramid, grid_of
from .sections import MAX_CELLS, MAX_STEP, check_extents, read_tree

_FIXED = struct.Struct("<BBIfiiiB")
MAX_HALO, MAX_CLASSES, MAX_LAYERS = 8, 64, 8


@dataclass(frozen=True)
class SciStream:
    """What the section TREE says.

    Attributes
    ----------
    tree : Octree
    classes : tuple of tuple of int
        Widths of the sine layers of each class of networks; class 0 is a constant and has none.
    exponents : tuple of tuple of int
        Half octaves by which each class's layers, the output included, are quantised more finely.
    seed : int
        Of the first layers' random numbers, 32 bits.
    step : float
        Quantisation step, as an error of a block's samples taken together.
    offset : int
        Taken off the samples.
    low, high : int
        Smallest and largest sample.
    halo : int
        Samples by which blocks overlap their neighbours.
    """

    tree: Octree
    classes: tuple[Widths, ...]
    exponents: tuple[tuple[int, ...], ...]
    seed: int
    step: float
    offset: int
    low: int
    high: int
    halo: int

    @property
    def ndim(self) -> int:
        """Number of coordinate axes."""
        return len(self.tree.shape)

    @cached_property
    def shapes(self) -> NetworkShapes:
        """What the coder needs."""
        sizes = [tuple(math.prod(s) for s in weight_shapes(self.ndim, w)) if w else () for w in self.classes]
        return NetworkShapes(self.ndim, tuple(sizes))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Half octaves of the root of the samples in a cell of each level."""
        return np.array([math.prod(cell).bit_length() - 1 for cell in self.tree.cells])

    def steps(self, kind: int, level: NDArray[np.int64], scale: NDArray[np.int64]) -> NDArray[np.float64]:
        """Step of each layer's weights of blocks of one class, shape (n, layers).

        An error of one step in a weight is on average an error of `step` in the samples of the block taken together,
        whatever the block's scale and size.
        """
        finer = np.array(self.exponents[kind])[None] + (scale + self.sizes[level])[:, None]
        return self.step * half_octaves(-finer)

    def starts(
        self, kind: int, leaves: NDArray[np.int64], bandwidth: NDArray[np.int64], draw: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """First layers that the stored ones are differences to, shape (n, d + 1, width)."""
        key = np.uint64(self.seed) << np.uint64(32) | (leaves * 4 + draw).astype(np.uint64)
        return first_layers(bandwidth, self.classes[kind][0], key)

    def networks(self, kind: int, leaves: NDArray[np.int64], blocks: BlockNetworks, first: int) -> Networks:
        """Quantised networks of blocks of one class; `first` is the chunk's first leaf."""
        if not kind:
            return _constants(len(leaves))
        place = leaves - first
        rank = np.cumsum(blocks.kind > 0) - 1
        quantised = np.stack([blocks.weights[r] for r in rank[place]]).astype(np.int32)
        # Hostile steps may exceed float32; what they give is refused where it shows.
        with np.errstate(over="ignore"):
            steps = self.steps(kind, self.tree.level[leaves], blocks.scale[place]).astype(np.float32)
        start = self.starts(kind, leaves, blocks.bandwidth[place], blocks.draw[place]).reshape(len(leaves), -1)
        return Networks(self.classes[kind], quantised, steps, start)

    def weights(
        self, kind: int, leaves: NDArray[np.int64], blocks: BlockNetworks, first: int
    ) -> list[NDArray[np.float32]]:
        """Weights of blocks of one class, layer by layer, shapes (n, n_in + 1, n_out)."""
        return dequantised(self.networks(kind, leaves, blocks, first), self.ndim)

    def tree_section(self) -> bytes:
        """Pack everything but the statistics."""
        tree = self.tree
        packed = struct.pack(f"<{self.ndim}H", *tree.cells[-1])
        packed += _FIXED.pack(0, tree.top, self.seed, self.step, self.offset, self.low, self.high, self.halo)
        packed += bytes([len(self.classes) - 1])
        for widths, exponents in zip(self.classes[1:], self.exponents[1:], strict=True):
            packed += struct.pack(f"<B{len(widths)}H{len(exponents)}b", len(widths), *widths, *exponents)
        return packed + write_flags(tree.split_flags())

    @classmethod
    def from_section(cls, data: bytes, shape: tuple[int, ...], leaves: int) -> SciStream:
        """Unpack; `leaves` is the number of blocks that the container's index counts.

        Raises
        ------
        ContainerError
            If a value is out of its limits or the tree does not have that many leaves.
        """
        check_extents(shape)
        try:
            return cls._unpacked(data, shape, leaves)
        except (struct.error, IndexError) as error:
            raise ContainerError("expected a complete TREE section, found a short one; get a fresh copy") from error

    @classmethod
    def _unpacked(cls, data: bytes, shape: tuple[int, ...], leaves: int) -> SciStream:
        finest = struct.unpack_from(f"<{len(shape)}H", data)
        at = 2 * len(shape)
        version, top, seed, step, offset, low, high, halo = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        if version or any(not 1 <= e <= MAX_EDGE for e in finest):
            raise ContainerError(
                "expected a known kind of tree, found impossible values in TREE; get a fresh copy of the file"
            )
        if not 0 < step <= MAX_STEP or low > high or halo > MAX_HALO:
            raise ContainerError(
                "expected a positive step and an ordered range, found others in TREE; get a fresh copy"
            )
        count, at = data[at], at + 1
        if count >= MAX_CLASSES:
            raise ContainerError(
                f"expected fewer than {MAX_CLASSES} classes, found {count}; get a fresh copy of the file"
            )
        classes: list[Widths] = [()]
        exponents: list[tuple[int, ...]] = [()]
        for _ in range(count):
            layers = data[at]
            if not 1 <= layers <= MAX_LAYERS:
                raise ContainerError(f"expected 1 to {MAX_LAYERS} layers, found {layers}; get a fresh copy of the file")
            numbers = struct.unpack_from(f"<{layers}H{layers + 1}b", data, at + 1)
            classes.append(numbers[:layers])
            exponents.append(numbers[layers:])
            at += 2 + 3 * layers
        if any(not 1 <= width <= MAX_WIDTH for widths in classes for width in widths):
            raise ContainerError(f"expected widths of 1 to {MAX_WIDTH}, found others; get a fresh copy of the file")
        tree = _tree(data[at:], shape, finest, top, leaves)
        return cls(tree, tuple(classes), tuple(exponents), seed, step, offset, low, high, halo)


def _constants(count: int) -> Networks:
    none = np.zeros((count, 0), dtype=np.float32)
    return Networks((), none.astype(np.int32), none, none)


def _tree(flags: bytes, shape: tuple[int, ...], finest: tuple[int, ...], top: int, leaves: int) -> Octree:
    cells = cell_pyramid(shape, finest)
    if top >= len(cells) or len(cells) - top > MAX_DEPTH or math.prod(grid_of(shape, finest)) > MAX_CELLS:
        raise ContainerError("expected a tree within its limits, found another in TREE; get a fresh copy of the file")
    if math.prod(cells[top]) > MAX_BLOCK:
        raise ContainerError(
            f"expected blocks of at most 2**24 samples, found {math.prod(cells[top])}; get a fresh copy"
        )
    return read_tree(flags, shape, cells, top, leaves)
