"""Samples of a pyramid stream on a CUDA device: compressed bytes go up, and samples stay until they are fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import IntegerContext, Synthesis, device_pyramid, joined_box, needed

from ..payload.pyramid import PyramidStream
from .base import UNSOUND, Chunks
from .latents import DeviceLatents

IntArray = NDArray[np.int64]

_SAMPLES = 1 << 25
"""Samples in whole tiles of the finest level that are made at a time, each of which takes some 110 bytes: 128 tiles of 64^3 keep a device busy."""


class PyramidBoxes:
    """Decodes boxes of a pyramid: one launch decodes a level's tiles, some upsample the levels, one makes and rounds samples.

    Parameters
    ----------
    stream : PyramidStream
    context : sequence of K IntegerContext
        The network of every level.
    synthesis : Synthesis
    backend : Backend
        ``"triton"``.
    """

    def __init__(self, stream: PyramidStream, context: Sequence[IntegerContext], synthesis: Synthesis, backend: Backend) -> None:
        self.stream, self.latents, self.device = stream, DeviceLatents(stream, context, backend), backend.device
        self._layout, self._kernels = stream.layout.kernel, device_pyramid()
        self._backend, self._channels = backend, self._layout.channels
        self._synthesis = self._kernels.DeviceSynthesis.of(synthesis, self._channels, backend.device)

    def box(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: np.dtype[Any]) -> Tensor:
        """Samples of the box [start, stop), on the device; integers rounded and clipped.

        Raises
        ------
        ContainerError
            If the bytes of a tile cannot have been written by the encoder, or samples are not finite.
        """
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        parts = list(_parts(start, stop, self.stream))
        if len(parts) == 1:
            return self._samples(start, stop, chunks, kind)
        out = torch.empty(tuple((stop - start).tolist()), dtype=kind, device=self.device)
        for low, high in parts:
            out[tuple(map(slice, low - start, high - start))] = self._samples(low, high, chunks, kind)
        return out

    def _samples(self, start: IntArray, stop: IntArray, chunks: Chunks, dtype: torch.dtype) -> Tensor:
        """Samples of a box that is evaluated at once."""
        stream, box = self.stream, (self.latents.full(start), self.latents.full(stop, 1))
        seen = needed(self._layout, *box)
        self.latents.decode(seen[0], chunks)
        latents = [self.latents.read(level, *part) for level, part in enumerate(seen)]
        unsound = torch.zeros(1, dtype=torch.int32, device=self.device)
        lattices, origins = joined_box(latents, [a for a, _ in seen], self._layout, *box, self._backend)
        samples: Tensor = self._kernels.synthesise_box(
            lattices, origins, self._synthesis, self._channels, box,
            dtype, stream.step, int(stream.offsets(int(start[0]), int(stop[0])).item()), (stream.low, stream.high), unsound,
        )  # fmt: skip
        if int(unsound):
            raise ContainerError(UNSOUND)
        return samples.reshape(tuple((stop - start).tolist()))


def extents_there(stream: PyramidStream) -> tuple[int, ...]:
    """Along each axis, the thickness of a slab across it that keeps a device busy."""
    total, axes = math.prod(stream.layout.shape), zip(stream.layout.shape, stream.tiles.reach, strict=True)
    return tuple(reach * max(1, _SAMPLES * extent // (reach * total)) for extent, reach in axes)


def _parts(start: IntArray, stop: IntArray, stream: PyramidStream) -> Iterator[tuple[IntArray, IntArray]]:
    """Cut a box into channels that have an offset each, and those between tiles until parts are small."""
    if not stream.further_offsets:
        yield from _halves(start, stop, stream)
        return
    for channel in range(int(start[0]), int(stop[0])):
        first, last = start.copy(), stop.copy()
        first[0], last[0] = channel, channel + 1
        yield from _halves(first, last, stream)


def _halves(start: IntArray, stop: IntArray, stream: PyramidStream) -> Iterator[tuple[IntArray, IntArray]]:
    """Halve a box between tiles until each part has few samples, or is one tile thick."""
    reach = np.array(stream.tiles.reach)
    first, last = start // reach, -(-stop // reach)
    tiles = last - first
    axis = int(np.argmax(tiles))
    samples = math.prod(tiles.tolist()) * math.prod(np.minimum(reach, stream.layout.shape).tolist())
    if samples <= _SAMPLES or tiles[axis] == 1:
        yield start, stop
        return
    before, after = stop.copy(), start.copy()
    before[axis] = after[axis] = (first[axis] + tiles[axis] // 2) * reach[axis]
    yield from _halves(start, before, stream)
    yield from _halves(after, stop, stream)
