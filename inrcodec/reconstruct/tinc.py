"""Samples of a TINC stream: leaves whose readouts are evaluated on the features they share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_formats.container import Container
from inrcodec_formats.zstd import decompress_bounded
from inrcodec_kernels.backend import Backend, best_on_cpu
from inrcodec_kernels.chains import suited

from ..coding.readouts import Coefficients, ReadoutCoder, ReadoutStatistics, band_counts, leaf_bits
from ..models.tinc import TincLayout, TincModel
from ..partition.blocks import batches, scatter
from ..payload.sections import STATISTICS_LIMIT, needed
from ..payload.tinc import TincStream, model_from_section
from .base import BlockCosts, Chunks, rounded, unsound_refused
from .device import TincBoxes

Leaves = tuple[int, NDArray[np.int64], NDArray[np.int32]]
"""Level, leaf numbers and quantised readouts (W, n)."""


class TincReconstruction:
    """See `base.Reconstruction`.

    Parameters
    ----------
    stream : TincStream
    model : TincModel
    statistics : ReadoutStatistics
    backend : Backend
    """

    def __init__(
        self, stream: TincStream, model: TincModel, statistics: ReadoutStatistics, backend: Backend
    ) -> None:
        self.stream, self.model, self.statistics = stream, model, statistics
        self.backend, self._networks = _backends(backend, stream.layout)
        self.coder = ReadoutCoder(stream.geometry, statistics, self.backend)
        self.tree, self.layout = stream.tree, stream.layout
        self.step, self.low, self.high = stream.step, stream.low, stream.high
        self.extents = self.layout.cells[self.layout.top]
        self.evaluated = 0
        self.shared_weights = sum(p.numel() for p in model.parameters.values())

    @classmethod
    def of(cls, container: Container, shape: tuple[int, ...], backend: Backend) -> TincReconstruction:
        """Read the sections TREE, NETW and STAT of a signal of a shape."""
        tree, packed = needed(container, ("TREE", "STAT"))
        stream = TincStream.from_section(tree, shape, container.chunks.blocks)
        network = container.sections.read("NETW") if "NETW" in container.sections else None
        model = model_from_section(network, stream.layout)
        statistics = decompress_bounded(packed, STATISTICS_LIMIT)
        return cls(stream, model, ReadoutStatistics.from_bytes(statistics, stream.geometry.bands), backend)

    def read_chunk(self, data: bytes, first: int, stop: int) -> Coefficients:
        """Decode the readouts of the leaves [first, stop)."""
        return self.coder.read(data, first, stop)

    def size_of(self, decoded: Coefficients) -> int:
        """Bytes that decoded readouts take."""
        return sum(values.nbytes for values in decoded.values())

    def costs(self, decoded: Coefficients, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        geometry = self.stream.geometry
        level_of = geometry.level[first:stop]
        constant, weights = np.empty(len(level_of), dtype=bool), np.empty(len(level_of), dtype=np.int64)
        for level, values in decoded.items():
            bands, here = geometry.bands[level], level_of == level
            kept = band_counts(bands, values)
            constant[here] = kept == 0
            weights[here] = np.cumsum([len(m) for m in bands.members])[kept]
        return BlockCosts(leaf_bits(geometry, decoded, self.statistics, first, stop), constant, weights)

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of TINC."""
        tree, layout = self.tree, self.layout
        levels = np.unique(tree.level).tolist()
        return {
            "root": layout.root,
            "coordinates": layout.coordinates,
            "blocks_by_size": {"x".join(map(str, layout.cells[v])): int((tree.level == v).sum()) for v in levels},
            "readout_step": self.step,
        }

    def box(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        box: NDArray[np.float32] = self._written(start, stop, chunks, np.dtype(np.float32))
        return box

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        if self._synthesises:
            return self._written(start, stop, chunks, dtype)
        return rounded(self.box(start, stop, chunks), self.low, self.high, dtype)

    def box_there(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> torch.Tensor:
        """The same, or samples not rounded where the dtype is float32, as a tensor on the backend's device; see `on_device`."""
        box = self.box(start, stop, chunks) if dtype == np.float32 else self.integers(start, stop, chunks, dtype)
        return torch.from_numpy(box).to(self.backend.device)

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on a grid of positions."""
        out = np.empty([len(g) for g in grids], dtype=np.float32)
        for level, leaves, values in self._readouts(self._held(grids), chunks):
            self._evaluate_on_grid(level, leaves, values, grids, out)
        return out

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d)."""
        owner = self.tree.owner(points)
        result = np.empty(len(points))
        for level, leaves, values in self._readouts(np.unique(owner), chunks):
            for leaf, readout in zip(leaves.tolist(), values.T, strict=True):
                here = np.flatnonzero(owner == leaf)
                with unsound_refused():
                    network = self.model.readout(level, self.tree.index[leaf : leaf + 1])
                local = self._local(points[here], leaf, level)
                result[here] = network.evaluate(local, self._coefficients(readout[:, None]))[0].numpy()
                self.evaluated += len(here)
        return result + self.stream.offset

    def _held(self, grids: list[NDArray[np.float64]]) -> NDArray[np.int64]:
        """Leaves in whose cells a grid may have points."""
        start = np.array([math.floor(g[0] + 0.5) for g in grids])
        return self.tree.overlapping(start, np.array([math.floor(g[-1] + 0.5) + 1 for g in grids]))

    def _readouts(self, leaves: NDArray[np.int64], chunks: Chunks) -> Iterator[Leaves]:
        """Quantised readouts of the given leaves, chunk by chunk."""
        for chunk in chunks(leaves):
            for level, values in chunk.decoded.items():
                members = np.flatnonzero(self.tree.level[chunk.first : chunk.stop] == level)
                keep = chunk.wanted[members]
                if keep.any():
                    # Leaf by leaf, as the coder left them: no coefficient is moved across the array.
                    yield level, chunk.first + members[keep], values if keep.all() else values.T[keep].T

    def _by_level(self, leaves: NDArray[np.int64], chunks: Chunks) -> Iterator[Leaves]:
        """The same, the chunks' leaves joined: a few large products are much faster than many small ones."""
        parts: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int32]]]] = {}
        for level, members, values in self._readouts(leaves, chunks):
            parts.setdefault(level, []).append((members, values))
        for level, pieces in parts.items():
            yield level, np.concatenate([m for m, _ in pieces]), np.concatenate([v.T for _, v in pieces]).T

    @cached_property
    def on_device(self) -> TincBoxes | None:
        """What decodes boxes on a GPU, if that is the backend."""
        if self.backend.name != "triton":
            return None
        return TincBoxes(self.stream, self.model, self.coder, self.backend, self._count)

    def _count(self, samples: int) -> None:
        self.evaluated += samples

    @property
    def _synthesises(self) -> bool:
        """Whether a compiled backend writes leaves straight into the box, of any dtype."""
        return self._networks.name == "numba"

    def _written(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """A box that all its leaves were written into."""
        box = np.empty(tuple((stop - start).tolist()), dtype=dtype)
        target = torch.from_numpy(box)
        for level, leaves, values in self._by_level(self.tree.overlapping(start, stop), chunks):
            if self._synthesises:
                self._synthesise(target, start, stop, level, leaves, values)
            else:
                self._fill(box, start, stop, level, leaves, values)
        return box

    def _synthesise(
        self,
        box: torch.Tensor,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        level: int,
        leaves: NDArray[np.int64],
        values: NDArray[np.int32],
    ) -> None:
        """Write leaves of one level into the box; of those that it cuts, only the part inside is evaluated."""
        origin, stream, backend = self.tree.origin[leaves], self.stream, self._networks
        corner, coefficients = torch.from_numpy(origin - start), torch.from_numpy(values.T)
        with unsound_refused():
            readout = self.model.leaves(level, self.tree.index[leaves], backend)
            readout.synthesise(box, corner, coefficients, self.step, stream.offset, self.low, self.high, backend)
        inside = np.minimum(stop, origin + self.layout.cells[level]) - np.maximum(start, origin)
        self.evaluated += int(inside.prod(axis=1).sum())

    def _fill(
        self, box: np.ndarray, start: np.ndarray, stop: np.ndarray, level: int, leaves: np.ndarray, values: np.ndarray
    ) -> None:
        """Write leaves of one level into the box; of those that it cuts, only the part inside is evaluated."""
        cell = np.asarray(self.layout.cells[level])
        origin = self.tree.origin[leaves]
        low, high = np.maximum(start - origin, 0), np.minimum(stop - origin, cell)
        windows, group = np.unique(np.concatenate([low, high], axis=1), axis=0, return_inverse=True)
        for number, bounds in enumerate(windows):
            here = np.flatnonzero(group.ravel() == number)
            window = tuple(slice(int(a), int(b)) for a, b in zip(*np.split(bounds, 2), strict=True))
            part = self._reconstruct(level, self.tree.index[leaves[here]], values[:, here], window)
            extent = tuple(w.stop - w.start for w in window)
            scatter(box, start, origin[here] + [w.start for w in window], extent, part)
            self.evaluated += part.size

    def _reconstruct(
        self, level: int, index: np.ndarray, values: NDArray[np.int32], window: tuple[slice, ...]
    ) -> NDArray[np.float32]:
        """Samples of a window of blocks, shape (n, samples of the window)."""
        out = np.empty((len(index), math.prod(w.stop - w.start for w in window)), dtype=np.float32)
        each = math.prod(self.layout.cells[level]) * (1 if self.layout.shared else len(values))
        for part in batches(len(index), each):
            coefficients = torch.from_numpy(values[:, part].T.astype(np.float32) * np.float32(self.step))
            with unsound_refused():
                samples = self.model.readout(level, index[part]).reconstruct(coefficients, window)
            out[part] = samples.numpy() + np.float32(self.stream.offset)
        return out

    def _coefficients(self, values: NDArray[np.int32]) -> torch.Tensor:
        """Whitened readouts of leaves, shape (n, W), float64, from their integers (W, n)."""
        return torch.from_numpy(values.T.astype(np.float64) * self.step)

    def _local(self, points: np.ndarray, leaf: int, level: int) -> torch.Tensor:
        cell = np.asarray(self.layout.cells[level])
        local = 2 * (points - self.tree.origin[leaf] + 0.5) / cell - 1
        return torch.from_numpy(local.astype(np.float32))

    def _evaluate_on_grid(
        self, level: int, leaves: np.ndarray, values: np.ndarray, grids: list[np.ndarray], out: np.ndarray
    ) -> None:
        """Fill `out` where the leaves' cells cover it; leaves whose points fall alike share their features."""
        cell = np.asarray(self.layout.cells[level])
        groups: dict[tuple[bytes, ...], list[int]] = {}
        spans = []
        for i, origin in enumerate(self.tree.origin[leaves]):
            span = [
                (int(np.searchsorted(g, o - 0.5)), int(np.searchsorted(g, o + e - 0.5)))
                for g, o, e in zip(grids, origin, cell, strict=True)
            ]
            spans.append(span)
            local = [
                np.round(2 * (g[a:b] - o + 0.5) / e - 1, 9)
                for g, (a, b), o, e in zip(grids, span, origin, cell, strict=True)
            ]
            key = tuple(axis.tobytes() for axis in local)
            groups.setdefault(key if self.layout.shared else (*key, bytes(str(i), "ascii")), []).append(i)
        for key, members in groups.items():
            axes = [torch.from_numpy(np.frombuffer(part).copy()) for part in key[: out.ndim]]
            if any(len(axis) == 0 for axis in axes):
                continue
            with unsound_refused():
                network = self.model.readout(level, self.tree.index[leaves[members]])
            evaluated = network.evaluate_grid(axes, self._coefficients(values[:, members])).numpy() + self.stream.offset
            self.evaluated += evaluated.size
            for i, block in zip(members, evaluated, strict=True):
                out[tuple(slice(a, b) for a, b in spans[i])] = block


def _backends(backend: Backend, layout: TincLayout) -> tuple[Backend, Backend]:
    """What decodes, and what evaluates networks: these may be too large for devices, or for compiled loops."""
    if layout.root == "separable":
        return backend, backend
    networks = suited(backend, layout.ndim, layout.widths)
    return (backend if networks.name == backend.name else best_on_cpu(networks.reason)), networks
