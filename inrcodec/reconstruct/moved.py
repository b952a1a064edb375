"""Samples of a clip of which still frames are coded: frames are displaced when they are read."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.axes import CHANNEL
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.warp import Field, seen, warp, warp_there

from ..partition.octree import Octree
from ..partition.parted import PartedTiles
from ..partition.tiles import TilePyramid
from ..payload import motion
from .base import BlockCosts, Chunks, CodedChunks, DeviceBoxes, Reconstruction, rounded
from .between import at_points, on_grid
from .pieces import in_parts

IntArray = NDArray[np.int64]


class Moved:
    """See `base.Reconstruction`.

    Parameters
    ----------
    still : Reconstruction
        Of still frames, by whatever method.
    field : Field
    """

    def __init__(self, still: Reconstruction, field: Field) -> None:
        self.still, self.field = still, field
        self.shape = (len(field.nodes), *field.frame)
        self.step, self.low, self.high, self.extents = still.step, still.low, still.high, still.extents
        self.shared_weights = still.shared_weights

    @property
    def tree(self) -> Octree | TilePyramid | PartedTiles:
        """Blocks of the still frames."""
        return self.still.tree

    @property
    def backend(self) -> Backend:
        """Where still frames are made, frames are."""
        return self.still.backend

    @property
    def evaluated(self) -> int:
        """Samples of still frames."""
        return self.still.evaluated

    @cached_property
    def on_device(self) -> DeviceBoxes | None:
        """What decodes boxes on a GPU, where still frames are decoded there."""
        there = self.still.on_device
        return None if there is None else MovedBoxes(there, self.field)

    def read_chunk(self, data: bytes, first: int, stop: int) -> Any:
        """Decode the integers of the blocks [first, stop)."""
        return self.still.read_chunk(data, first, stop)

    def size_of(self, decoded: Any) -> int:
        """Bytes that a chunk takes."""
        return self.still.size_of(decoded)

    def costs(self, decoded: Any, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        return self.still.costs(decoded, first, stop)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of the method, and of motion."""
        still = "x".join(map(str, self.field.still))
        largest = float(np.abs(self.field.nodes - self.field.nodes.mean((0, 2, 3), keepdims=True)).max()) / 8
        return self.still.details() | {"still_frames": still, "motion_spacing": 1 << self.field.shift, "largest_motion": largest}

    def box(self, start: IntArray, stop: IntArray, chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        if self.backend.name == "triton":
            return self.box_there(start, stop, chunks, np.dtype(np.float32)).cpu().numpy()
        return in_parts(start, stop, lambda low, high: self._moved(low, high, chunks))

    def integers(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        if self.backend.name == "triton":
            return self.box_there(start, stop, chunks, dtype).cpu().numpy()
        return rounded(self.box(start, stop, chunks), self.low, self.high, dtype)

    def box_there(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> Tensor:
        """As `integers`, or `box` where the dtype is float32, left on the backend's device."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        if self.backend.name != "triton":
            return _stored(torch.from_numpy(self.box(start, stop, chunks)), self.low, self.high, kind)
        first, last = _seen(self.field, start, stop)
        still = self.still.box_there(first, last, chunks, np.dtype(np.float32))
        return _stored(_displaced(still, first, self.field, start, stop, self.backend), self.low, self.high, kind)

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions, linear between samples."""
        return on_grid(lambda start, stop: self.box(start, stop, chunks), self.shape, grids)

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d), linear between samples."""
        return at_points(lambda start, stop: self.box(start, stop, chunks), self.shape, points)

    def _moved(self, start: IntArray, stop: IntArray, chunks: Chunks) -> NDArray[np.float32]:
        """Samples of a box that is displaced at once."""
        first, last = _seen(self.field, start, stop)
        still = self.still.box(first, last, chunks)
        return warp(still, (int(first[1]), int(first[2])), self.field, *_places(start, stop), self.backend)


class MovedBoxes(DeviceBoxes):
    """See `base.DeviceBoxes`.

    Parameters
    ----------
    still : DeviceBoxes
        Of still frames.
    field : Field
    """

    def __init__(self, still: DeviceBoxes, field: Field) -> None:
        super().__init__(still.low, still.high, still.backend)
        self.still, self.field = still, field

    def leaves(self, start: IntArray, stop: IntArray) -> IntArray:
        """Those that still frames are made of."""
        return self.still.leaves(*_seen(self.field, start, stop))

    def samples(self, start: IntArray, stop: IntArray, coded: CodedChunks, dtype: torch.dtype) -> Tensor:
        """Samples of a box before correction."""
        first, last = _seen(self.field, start, stop)
        still = self.still.samples(first, last, coded, torch.float32)
        return _stored(_displaced(still, first, self.field, start, stop, self.backend), self.low, self.high, dtype)


def field_of(container: Container) -> Field | None:
    """Read the section MOVE, where there is one."""
    if motion.TAG not in container.sections:
        return None
    if CHANNEL in container.header.axes:
        raise ContainerError("expected no motion between channels, found some; get a fresh copy of the file")
    return motion.unpack(container.sections.read(motion.TAG), container.header.coded_shape)


def _displaced(still: Tensor, first: IntArray, field: Field, start: IntArray, stop: IntArray, backend: Backend) -> Tensor:
    """Samples of a box of frames on a device, from the part of the still frames that begins at `first`."""
    return warp_there(still, (int(first[1]), int(first[2])), field, *_places(start, stop), backend)


def _seen(field: Field, start: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
    """The part of the still frames that a box takes."""
    first, last = seen(field, *_places(start, stop))
    return np.array(first), np.array(last)


def _places(start: IntArray, stop: IntArray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return tuple(start.tolist()), tuple(stop.tolist())


def _stored(samples: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Floats as they are; integers rounded, half to even, and clipped: float64 holds all limits of 32 bits."""
    return samples if dtype == torch.float32 else samples.double().round_().clamp_(low, high).to(dtype)
