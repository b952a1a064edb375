"""Samples of an SCI stream: private networks, blended where blocks overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.zstd import decompress_bounded
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.siren import LARGEST, BlendedBox, Blocks, Format, suited

from ..coding.networks import BlockNetworks, NetworkStatistics, block_bits, read_networks
from ..models.sci import forward, half_octaves
from ..partition.blocks import blend_ramp
from ..payload.sci import SciStream
from ..payload.sections import STATISTICS_LIMIT, needed
from .base import UNSOUND, BlockCosts, Chunk, Chunks, unsound_refused

_BATCH = 1 << 21
"""Activations of a layer at a time."""

Axes = tuple[NDArray[np.float32], ...]


@dataclass
class _Alike:
    """Blocks of one class and size whose points fall alike: evaluated together."""

    axes: Axes
    leaves: list[int] = field(default_factory=list)
    places: list[tuple[slice, ...]] = field(default_factory=list)


class SciReconstruction:
    """See `base.Reconstruction`.

    Parameters
    ----------
    stream : SciStream
    statistics : NetworkStatistics
    backend : Backend
        The attribute of this name may be one of the CPU instead, and say why: devices have no kernels for some classes.
    """

    on_device: ClassVar[None] = None

    def __init__(self, stream: SciStream, statistics: NetworkStatistics, backend: Backend) -> None:
        self.stream, self.statistics = stream, statistics
        self.backend = suited(backend, stream.ndim, stream.classes)
        self.tree, self.step, self.low, self.high = stream.tree, stream.step, stream.low, stream.high
        self.extents = self.tree.cells[self.tree.top]
        self.evaluated = 0
        self.shared_weights = 0

    @classmethod
    def of(cls, container: Container, shape: tuple[int, ...], backend: Backend) -> SciReconstruction:
        """Read the sections TREE and STAT of a signal of a shape."""
        tree, packed = needed(container, ("TREE", "STAT"))
        stream = SciStream.from_section(tree, shape, container.chunks.blocks)
        statistics = decompress_bounded(packed, STATISTICS_LIMIT)
        return cls(stream, NetworkStatistics.from_bytes(statistics, stream.shapes), backend)

    def read_chunk(self, data: bytes, first: int, stop: int) -> BlockNetworks:
        """Decode the networks of the blocks [first, stop)."""
        size = self.stream.sizes[self.tree.level[first:stop]]
        return read_networks(data, self.stream.shapes, self.statistics, size, self.backend)

    def size_of(self, decoded: BlockNetworks) -> int:
        """Bytes that decoded networks take."""
        return decoded.nbytes

    def costs(self, decoded: BlockNetworks, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        weights = 1 + self.stream.shapes.totals[decoded.kind]
        return BlockCosts(block_bits(self.stream.shapes, self.statistics, decoded), decoded.kind == 0, weights)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of SCI."""
        tree = self.tree
        levels = np.unique(tree.level).tolist()
        return {
            "blocks_by_size": {"x".join(map(str, tree.cells[v])): int((tree.level == v).sum()) for v in levels},
            "network_classes": ["-".join(map(str, widths)) for widths in self.stream.classes[1:]],
            "weight_step": self.step,
            "halo": self.stream.halo,
        }

    def box(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        return self.box_there(start, stop, chunks, np.dtype(np.float32)).cpu().numpy()

    def box_there(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> Tensor:
        """Samples of the box [start, stop), left on the backend's device; integers rounded and clipped."""
        box = self._blended(start, stop, chunks, Format(self.stream.offset, dtype, self.low, self.high))
        with unsound_refused():
            return box.finish_there()

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        return self.box_there(start, stop, chunks, dtype).cpu().numpy()

    def _blended(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, form: Format
    ) -> BlendedBox:
        """A box with all its blocks."""
        halo = self.stream.halo
        box = BlendedBox(tuple((stop - start).tolist()), halo, self.backend, form)
        for chunk in chunks(self.tree.overlapping(start - halo, stop + halo)):
            wanted = chunk.first + np.flatnonzero(chunk.wanted)
            kinds = chunk.decoded.kind[wanted - chunk.first]
            for kind in np.unique(kinds).tolist():
                self._add_blocks(box, chunk, kind, wanted[kinds == kind], start, stop)
        return box

    def _add_blocks(
        self,
        box: BlendedBox,
        chunk: Chunk[BlockNetworks],
        kind: int,
        leaves: NDArray[np.int64],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> None:
        decoded, place, halo = chunk.decoded, leaves - chunk.first, self.stream.halo
        origin, extent = self.tree.origin[leaves], self.tree.extent[leaves]
        scale, mean = half_octaves(decoded.scale[place]).astype(np.float32), decoded.mean[place].astype(np.float32)
        if kind:
            inside = np.minimum(origin + extent + halo, stop) - np.maximum(origin - halo, start)
            self.evaluated += int(np.maximum(inside, 0).prod(axis=1).sum())
        with unsound_refused():
            box.add(
                Blocks(origin - start, extent, scale, mean), self.stream.networks(kind, leaves, decoded, chunk.first)
            )

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions: the blocks' values, weighted by how far inside the block a point lies."""
        if all(np.array_equal(g, np.arange(g[0], g[0] + len(g))) and g[0] == int(g[0]) for g in grids):
            start = np.array([int(g[0]) for g in grids])
            return self.box(start, start + np.array([len(g) for g in grids]), chunks)
        total = np.zeros([len(g) for g in grids], dtype=np.float32)
        share = np.zeros_like(total)
        reach = self.stream.halo + 0.5
        leaves = self.tree.overlapping(
            np.array([math.floor(g[0] - reach) for g in grids]), np.array([math.ceil(g[-1] + reach) + 1 for g in grids])
        )
        for chunk in chunks(leaves):
            for kind, alike in self._alike(chunk, grids):
                self._add(chunk, kind, alike, total, share)
        total /= np.maximum(share, np.float32(1e-6))
        total += np.float32(self.stream.offset)
        return total

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d)."""
        total, share = np.zeros(len(points)), np.zeros(len(points))
        reach = self.stream.halo + 0.5
        if not len(points):
            return total
        # The last position of the signal belongs to the last blocks, also where these are cut sharply.
        points = np.minimum(points, np.nextafter(np.array(self.tree.shape) - 0.5, 0.0))
        around = self.tree.overlapping(
            np.floor(points.min(axis=0) - reach).astype(np.int64),
            np.ceil(points.max(axis=0) + reach).astype(np.int64) + 1,
        )
        for chunk in chunks(around):
            for leaf in (chunk.first + np.flatnonzero(chunk.wanted)).tolist():
                origin, extent = self.tree.origin[leaf], self.tree.extent[leaf]
                weight = np.ones(len(points))
                for axis in range(points.shape[1]):
                    weight *= blend_ramp(points[:, axis], int(origin[axis]), int(extent[axis]), self.stream.halo)
                here = np.flatnonzero(weight)
                if not len(here):
                    continue
                local = (2 * (points[here] - origin + 0.5) / extent - 1).astype(np.float32)
                total[here] += weight[here] * self._values(chunk, [leaf], local)[0]
                share[here] += weight[here]
        return total / share + self.stream.offset

    def _alike(self, chunk: Chunk[BlockNetworks], grids: list[NDArray[np.float64]]) -> Iterator[tuple[int, _Alike]]:
        """The wanted blocks of a chunk that reach the grid, those evaluated at the same local coordinates together."""
        groups: dict[tuple[object, ...], _Alike] = {}
        halo = self.stream.halo
        for leaf in (chunk.first + np.flatnonzero(chunk.wanted)).tolist():
            origin, extent = self.tree.origin[leaf].tolist(), self.tree.extent[leaf].tolist()
            spans = [
                (int(np.searchsorted(g, o - 0.5 - halo)), int(np.searchsorted(g, o + e - 0.5 + halo)))
                for g, o, e in zip(grids, origin, extent, strict=True)
            ]
            if any(a == b for a, b in spans):
                continue
            axes = tuple(
                np.round(2 * (g[a:b] - o + 0.5) / e - 1, 9).astype(np.float32)
                for g, (a, b), o, e in zip(grids, spans, origin, extent, strict=True)
            )
            kind = int(chunk.decoded.kind[leaf - chunk.first])
            key = (kind, int(self.tree.level[leaf]), *(axis.tobytes() for axis in axes))
            group = groups.setdefault(key, _Alike(axes))
            group.leaves.append(leaf)
            group.places.append(tuple(slice(a, b) for a, b in spans))
        for group in groups.values():
            yield int(chunk.decoded.kind[group.leaves[0] - chunk.first]), group

    def _add(
        self,
        chunk: Chunk[BlockNetworks],
        kind: int,
        alike: _Alike,
        total: NDArray[np.float32],
        share: NDArray[np.float32],
    ) -> None:
        extent = self.tree.extent[alike.leaves[0]]
        weight = np.ones((1,) * total.ndim, dtype=np.float32)
        for axis, (positions, edge) in enumerate(zip(alike.axes, extent.tolist(), strict=True)):
            ramp = np.ones(len(positions))
            if self.stream.halo:
                # Sharp blocks were cut by exact positions; these, rounded, might put a point on the wrong side.
                ramp = blend_ramp((positions + 1) * edge / 2 - 0.5, 0, edge, self.stream.halo)
            weight = weight * ramp.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(total.ndim)])
        if kind:
            mesh = np.stack(np.meshgrid(*alike.axes, indexing="ij"), -1).reshape(-1, total.ndim)
            values = self._values(chunk, alike.leaves, mesh).reshape(-1, *weight.shape)
        else:
            means = chunk.decoded.mean[np.array(alike.leaves) - chunk.first].astype(np.float32)
            values = np.broadcast_to(means.reshape(-1, *(1,) * total.ndim), (len(means), *weight.shape))
        for place, block in zip(alike.places, values, strict=True):
            total[place] += weight * block
            share[place] += weight

    def _values(
        self, chunk: Chunk[BlockNetworks], leaves: list[int], points: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Values (n, N) of blocks of one class at the same block coordinates (N, d), the offset left out."""
        place = np.array(leaves) - chunk.first
        mean = chunk.decoded.mean[place].astype(np.float32)[:, None]
        self.evaluated += len(leaves) * len(points)
        kind = int(chunk.decoded.kind[place[0]])
        if kind == 0:
            return np.broadcast_to(mean, (len(leaves), len(points)))
        weights = [torch.from_numpy(w) for w in self.stream.weights(kind, np.array(leaves), chunk.decoded, chunk.first)]
        batch = max(1, _BATCH // (len(leaves) * max(self.stream.classes[kind])))
        with torch.no_grad():
            coordinates = torch.from_numpy(points)[None]
            parts = [forward(weights, coordinates[:, at : at + batch]) for at in range(0, len(points), batch)]
        scale = half_octaves(chunk.decoded.scale[place]).astype(np.float32)[:, None]
        return _finite(torch.cat(parts, dim=1).numpy()) * scale + mean


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Refuse what only hostile weights can give: NaN is no sample, and no clipping removes it."""
    if not np.all(np.abs(values) < LARGEST):
        raise ContainerError(UNSOUND)
    return values
