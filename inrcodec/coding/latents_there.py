"""Tiles of a pyramid decoded on a CUDA device, all those of a level at once; their latents stay there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.pyramid import Box, IntegerContext, Layout, context_ring, device_pyramid
from inrcodec_kernels.rans import CodedError

from .lanes import impossible
from .latents import Place, parents_around, place_of

Coded = tuple[int, NDArray[np.uint8]]
"""Lanes and bytes of a tile."""
ReadThere = Callable[[int, Place, Place], Tensor]
"""``read(level, start, stop)``: the latents [start, stop) of a level."""


class DeviceLatentCoder:
    """Decodes tiles of a pyramid whose coarser levels are on the device.

    Parameters
    ----------
    layout : Layout
    context : sequence of K IntegerContext
        As `LatentCoder` takes it.
    device : str
    """

    def __init__(self, layout: Layout, context: Sequence[IntegerContext], device: str) -> None:
        self.layout, self.device = layout, device
        self._kernels = device_pyramid()
        self._present = [n > 1 for n in layout.shape]
        # Levels share networks.
        there = {id(network): self._kernels.DeviceContext.of(network, self._present, device) for network in context}
        self._context = [there[id(network)] for network in context]
        self._ring = context_ring(self._present, context[0].wide)

    def decode(self, coded: Sequence[Coded], level: int, boxes: Sequence[Box], read: ReadThere) -> list[Tensor]:
        """Latents of some tiles of a level, decoded in one launch.

        Parameters
        ----------
        coded : sequence of (lanes, bytes)
            Of each tile; no bytes stand for zeros.
        level : int
        boxes : sequence of (start, stop)
            The tiles.
        read : callable
            Of coarser levels.

        Returns
        -------
        list of Tensor of int32

        Raises
        ------
        ContainerError
            If the bytes of a tile cannot have been written by the encoder.
        """
        full = [i for i, (_, body) in enumerate(coded) if len(body)]
        found = dict(zip(full, self._launched([coded[i] for i in full], level, [boxes[i] for i in full], read), strict=True))
        return [found[i] if i in found else self._empty(_extents(*box)).zero_() for i, box in enumerate(boxes)]

    def _launched(self, coded: Sequence[Coded], level: int, boxes: Sequence[Box], read: ReadThere) -> list[Tensor]:
        """As `decode`, of tiles that all have bytes."""
        if not boxes:
            return []
        u, v, (origin, end) = self._around(level, boxes, read)
        moved = [(_extents(origin, start), _extents(origin, stop)) for start, stop in boxes]
        latents = self._empty(_extents(origin, end))
        starts, shapes = [start for start, _ in moved], [_extents(*box) for box in boxes]
        tiles = self._kernels.DeviceTiles.of(starts, shapes, tuple(latents.shape), self._ring, self.device)
        failed = self._kernels.decode_tiles(*self._uploaded(coded), tiles, level, self._context[level], u, v, latents)
        if bool(failed.any()):
            raise impossible(CodedError())
        parts = [latents[tuple(map(slice, start, stop))] for start, stop in moved]
        # Copies, where parts that are kept would keep much more.
        return parts if 2 * sum(part.numel() for part in parts) >= latents.numel() else [part.clone() for part in parts]

    def _around(self, level: int, boxes: Sequence[Box], read: ReadThere) -> tuple[Tensor | None, Tensor | None, Box]:
        """U and V of a window, and the window: it holds all tiles and, where the lattice goes on, a ring around them."""
        start = place_of(min(axis) for axis in zip(*(a for a, _ in boxes), strict=True))
        stop = place_of(max(axis) for axis in zip(*(b for _, b in boxes), strict=True))
        if level + 1 == self.layout.levels:
            return None, None, (start, stop)
        u, v, origin = parents_around(self._kernels.parents, self.layout, self._context[level].units, level, start, stop, read)
        return u, v, (origin, place_of(a + n for a, n in zip(origin, u.shape, strict=True)))

    def _uploaded(self, coded: Sequence[Coded]) -> list[Tensor]:
        """Bytes of all tiles, where each one's begin, how many they are, and its lanes."""
        size = np.array([len(body) for _, body in coded], dtype=np.int64)
        lanes = np.array([lanes for lanes, _ in coded], dtype=np.int32)
        arrays = np.concatenate([body for _, body in coded]), np.cumsum(size) - size, size, lanes
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def _empty(self, shape: Place) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=self.device)


def _extents(start: Place, stop: Place) -> Place:
    return place_of(b - a for a, b in zip(start, stop, strict=True))
