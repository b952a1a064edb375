"""The TINC payload sections, TREE, NETW and STAT: what they hold, packed and unpacked. Byte layout: docs/container.md."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property

import torch

from inrcodec_formats.errors import ContainerError

from ..coding.parameters import QuantisedTensor, read_parameters, write_parameters
from ..coding.readouts import ReadoutGeometry
from ..coding.splits import write_flags
from ..models.tinc import TincLayout, TincModel, parameter_shapes
from ..partition.octree import Octree, cell_pyramid
from .sections import MAX_CELLS, MAX_STEP, check_extents, read_tree

_ROOTS = ("separable", "dense")
_COORDINATES = ("local", "global")
_FIXED = struct.Struct("<BBHBfiii")
MAX_EDGE, MAX_LEAF_LEVELS, MAX_FEATURES, MAX_LAYERS = 32, 5, 8192, 8
MAX_BASIS = 1 << 27
"""Most numbers that a decoder will hold for one leaf: its dense basis, or 64 times its samples."""
MAX_PARAMETERS = 1 << 26
"""Most parameters of the shared segments."""


@dataclass(frozen=True)
class TincStream:
    """What the sections say, besides the statistics.

    Attributes
    ----------
    layout : TincLayout
    tree : Octree
    step : float
        Quantisation step of the whitened readouts (a float32 value).
    offset : int
        Taken off the samples before fitting.
    low, high : int
        Smallest and largest sample: decoded values are clipped to them.
    """

    layout: TincLayout
    tree: Octree
    step: float
    offset: int
    low: int
    high: int

    @cached_property
    def geometry(self) -> ReadoutGeometry:
        """What the readout coder needs."""
        return ReadoutGeometry.of(self.layout.cells, self.layout.lattice, self.tree.level)

    def tree_section(self) -> bytes:
        """Pack the layout, the step and the split flags."""
        layout = self.layout
        kind = _ROOTS.index(layout.root) | _COORDINATES.index(layout.coordinates) << 1
        packed = bytes(layout.cells[-1]) + bytes(layout.axis_weights)
        packed += _FIXED.pack(
            kind, layout.top, layout.features, len(layout.hidden), self.step, self.offset, self.low, self.high
        )
        packed += struct.pack(f"<{len(layout.hidden)}H", *layout.hidden) + bytes([len(layout.segments)])
        packed += b"".join(struct.pack("<BH", *segment) for segment in layout.segments)
        return packed + write_flags(self.tree.split_flags())

    @classmethod
    def from_section(cls, data: bytes, shape: tuple[int, ...], leaves: int) -> TincStream:
        """Unpack; `leaves` is the number of blocks that the container's index counts.

        Raises
        ------
        ContainerError
            If a value is out of its limits or the tree does not have that many leaves.
        """
        check_extents(shape)
        try:
            layout, numbers, flags = _unpack_layout(data, shape)
        except struct.error as error:
            raise ContainerError("expected a complete TREE section, found a short one; get a fresh copy") from error
        _check_layout(layout)
        tree = read_tree(flags, shape, layout.cells, layout.top, leaves)
        return cls(layout, tree, *numbers)


def network_section(parameters: dict[str, QuantisedTensor]) -> bytes:
    """Pack the parameters of the shared segments."""
    return write_parameters(list(parameters.values()))


def model_from_section(data: bytes | None, layout: TincLayout) -> TincModel:
    """Network with the stored parameters; without a section, a separable root's initial ones."""
    shapes = parameter_shapes(layout)
    if data is None:
        if shapes:
            raise ContainerError("expected a NETW section for this network, found none; get a fresh copy of the file")
        return TincModel.initial(layout)
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > min(512 * (len(data) + 16), MAX_PARAMETERS):
        raise ContainerError(
            f"expected a NETW section for {count} parameters, found {len(data)} bytes; get a fresh copy"
        )
    tensors = read_parameters(data, list(shapes.values()))
    return TincModel(layout, dequantised(dict(zip(shapes, tensors, strict=True))))


def dequantised(parameters: dict[str, QuantisedTensor]) -> dict[str, torch.Tensor]:
    """Parameters as the network takes them."""
    return {name: torch.from_numpy(tensor.dequantised()) for name, tensor in parameters.items()}


def _unpack_layout(data: bytes, shape: tuple[int, ...]) -> tuple[TincLayout, tuple[float, int, int, int], bytes]:
    ndim = len(shape)
    finest, weights = tuple(data[:ndim]), tuple(data[ndim : 2 * ndim])
    at = 2 * ndim
    kind, top, features, hidden_count, step, offset, low, high = _FIXED.unpack_from(data, at)
    at += _FIXED.size
    if kind > 3 or any(not 1 <= e <= MAX_EDGE for e in finest) or len(weights) != ndim or 0 in weights:
        raise ContainerError(
            "expected a known kind of tree, found impossible values in TREE; get a fresh copy of the file"
        )
    if hidden_count > MAX_LAYERS:
        raise ContainerError(
            f"expected at most {MAX_LAYERS} layers, found {hidden_count}; get a fresh copy of the file"
        )
    hidden = struct.unpack_from(f"<{hidden_count}H", data, at)
    at += 2 * hidden_count
    (segment_count,) = struct.unpack_from("<B", data, at)
    at += 1
    if segment_count > MAX_LEAF_LEVELS:
        raise ContainerError(f"expected at most {MAX_LEAF_LEVELS} segments, found {segment_count}; get a fresh copy")
    segments = tuple(struct.unpack_from("<BH", data, at + 3 * i) for i in range(segment_count))
    at += 3 * segment_count
    layout = TincLayout(
        shape=shape,
        cells=cell_pyramid(shape, finest),
        top=top,
        features=features,
        root=_ROOTS[kind & 1],
        coordinates=_COORDINATES[kind >> 1],
        hidden=hidden,
        segments=segments,
        axis_weights=weights,
    )
    if not 0 < step <= MAX_STEP or low > high:
        raise ContainerError("expected a positive step and an ordered range, found others in TREE; get a fresh copy")
    return layout, (step, offset, low, high), data[at:]


def _check_layout(layout: TincLayout) -> None:
    depth = len(layout.cells) - 1
    widths = [*layout.hidden, *(width for _, width in layout.segments)]
    sound = (
        2 <= layout.features <= MAX_FEATURES
        and len(layout.segments) <= layout.top <= depth < layout.top + MAX_LEAF_LEVELS
        and all(1 <= width <= MAX_FEATURES for width in widths)
        and all(1 <= layers <= MAX_LAYERS for layers, _ in layout.segments)
        and (layout.root == "separable") == (not layout.hidden)
        and (layout.root == "dense" or (layout.coordinates == "local" and not layout.segments))
        and math.prod(layout.grid(depth)) <= MAX_CELLS
    )
    if not sound or _working_size(layout) > MAX_BASIS:
        raise ContainerError(
            "expected network sizes within their limits, found others in TREE; get a fresh copy of the file"
        )


def _working_size(layout: TincLayout) -> int:
    """Numbers that a decoder must hold for one leaf of the largest size: its samples, or its dense basis."""
    samples = math.prod(layout.cells[layout.top])
    return samples * (64 if layout.root == "separable" else min(layout.features, layout.final_width + 1))
