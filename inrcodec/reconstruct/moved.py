"""Samples of a pyramid of still frames: frames are displaced when they are read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.axes import CHANNEL
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import IntegerContext, Synthesis
from inrcodec_kernels.warp import Field, seen, warp, warp_there

from ..payload import motion
from ..payload.pyramid import PyramidStream, networks_from_section
from ..payload.sections import needed
from .base import Chunks
from .pyramid import PyramidReconstruction, in_parts

IntArray = NDArray[np.int64]


class MovedPyramid(PyramidReconstruction):
    """See `base.Reconstruction`; what it inherits makes still frames.

    Parameters
    ----------
    stream : PyramidStream
        Of still frames.
    context : IntegerContext
    synthesis : Synthesis
    field : Field
    backend : Backend
    """

    def __init__(
        self, stream: PyramidStream, context: IntegerContext, synthesis: Synthesis, field: Field, backend: Backend
    ) -> None:
        super().__init__(stream, context, synthesis, backend)
        self.field = field
        self.shape = (len(field.nodes), *field.frame)

    @classmethod
    def of(cls, container: Container, backend: Backend) -> MovedPyramid:
        """Read the sections TREE, NETW and MOVE."""
        header = container.header
        if CHANNEL in header.axes:
            raise ContainerError("expected no motion between channels, found some; get a fresh copy of the file")
        tree, networks, move = needed(container, ("TREE", "NETW", motion.TAG))
        field = motion.unpack(move, header.coded_shape)
        stream = PyramidStream.from_section(tree, (len(field.nodes), *field.still), container.chunks.blocks)
        return cls(stream, *networks_from_section(networks, stream.layout), field, backend)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of the pyramid."""
        still = "x".join(map(str, self.field.still))
        largest = float(np.abs(self.field.nodes - self.field.nodes.mean((0, 2, 3), keepdims=True)).max()) / 8
        return super().details() | {"still_frames": still, "motion_spacing": 1 << self.field.shift, "largest_motion": largest}

    def box(self, start: IntArray, stop: IntArray, chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        if self._there:
            return self.box_there(start, stop, chunks, np.dtype(np.float32)).cpu().numpy()
        return in_parts(start, stop, lambda low, high: self._moved(low, high, chunks))

    def box_there(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> Tensor:
        """As `integers`, or `box` where the dtype is float32, left on the backend's device."""
        if not self._there:
            return super().box_there(start, stop, chunks, dtype)
        first, last = self._seen(start, stop)
        self.evaluated += math.prod((last - first).tolist())
        still = self._there.box(first, last, chunks, np.dtype(np.float32))
        moved = warp_there(still, (int(first[1]), int(first[2])), self.field, *_places(start, stop), self.backend)
        return moved if dtype == np.float32 else _stored(moved, self.low, self.high, dtype)

    def _moved(self, start: IntArray, stop: IntArray, chunks: Chunks) -> NDArray[np.float32]:
        """Samples of a box that is displaced at once."""
        first, last = self._seen(start, stop)
        still = in_parts(first, last, lambda low, high: self._samples(low, high, chunks))
        return warp(still, (int(first[1]), int(first[2])), self.field, *_places(start, stop), self.backend)

    def _seen(self, start: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
        first, last = seen(self.field, *_places(start, stop))
        return np.array(first), np.array(last)


def _places(start: IntArray, stop: IntArray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return tuple(start.tolist()), tuple(stop.tolist())


def _stored(samples: Tensor, low: int, high: int, dtype: np.dtype[Any]) -> Tensor:
    """Samples rounded, half to even, and clipped; float64 holds all limits of 32 bits."""
    return samples.double().round_().clamp_(low, high).to(torch.from_numpy(np.empty(0, dtype)).dtype)
