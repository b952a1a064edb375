"""A lazy view of an ``.inrc`` stream: regions, scales and points, decoding only the blocks they touch."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError, OptionError
from inrcodec_formats.signal import SignalHeader
from inrcodec_formats.zstd import decompress_bounded

from .coding.readouts import Coefficients, ReadoutStatistics, read_chunk
from .partition.blocks import batches, scatter
from .stream import KNOWN_SECTIONS, MAX_CHUNK_BLOCKS, TincStream, model_from_section

Source = str | os.PathLike[str] | bytes | BinaryIO

_CACHE_BYTES = 64 << 20
_STATISTICS_LIMIT = 1 << 20


class Image:
    """An open ``.inrc`` stream that decodes what is asked for.

    Index order is slowest axis first, e.g. (z, y, x); for NIfTI that is nibabel's ``dataobj`` transposed.
    Points are in voxel indices with centres at integers.

    Parameters
    ----------
    source : path, bytes or binary file object

    Raises
    ------
    ContainerError
        If the stream is damaged, hostile or from an unknown version.

    Examples
    --------
    >>> image = inrcodec.open("ct.inrc")            # doctest: +SKIP
    >>> image[40:50, :, ::2].shape                  # doctest: +SKIP
    """

    def __init__(self, source: Source) -> None:
        self.container = Container.open(source, known=KNOWN_SECTIONS)
        try:
            self._read_sections()
        except BaseException:
            self.container.close()
            raise
        self._cache: OrderedDict[int, Coefficients] = OrderedDict()
        self._cached_bytes = 0
        self.voxels_evaluated = 0

    def _read_sections(self) -> None:
        sections = self.container.sections
        for tag in ("TREE", "STAT"):
            if tag not in sections:
                raise ContainerError(f"expected a section {tag}, found none; get a fresh copy of the file")
        if self.container.header.method != "tinc":
            raise ContainerError(
                f"expected the method tinc, found {self.container.header.method!r}; get a newer inrcodec"
            )
        shape, chunks = self.container.header.shape, self.container.chunks
        largest = int(chunks.count.max(initial=0))
        if largest > MAX_CHUNK_BLOCKS:
            raise ContainerError(f"expected at most {MAX_CHUNK_BLOCKS} blocks in a chunk, found {largest}; get a fresh copy")
        self.stream = TincStream.from_section(sections.read("TREE"), shape, chunks.blocks)
        network = sections.read("NETW") if "NETW" in sections else None
        self.model = model_from_section(network, self.stream.layout)
        packed = decompress_bounded(sections.read("STAT"), _STATISTICS_LIMIT)
        self.statistics = ReadoutStatistics.from_bytes(packed, self.stream.geometry.bands)
        self.header: SignalHeader = self.container.signal_header()
        limits = np.iinfo(self.header.dtype)
        if self.stream.low < limits.min or self.stream.high > limits.max:
            raise ContainerError(
                f"expected samples that fit {self.header.dtype}, found a range of {self.stream.low} to {self.stream.high}; get a fresh copy"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents, slowest axis first."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype:
        """dtype of what indexing returns: that of the source's values, in native byte order."""
        return np.dtype(self.header.file_dtype).newbyteorder("=")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the source so far, index and shared sections included."""
        return self.container.bytes_read

    def __getitem__(self, key: object) -> np.ndarray:
        """Decode a region: integers, slices with any step, and an ellipsis."""
        picks = _normalised_key(key, self.shape)
        start = np.array([min(p) if len(p) else 0 for p in picks])
        stop = np.array([max(p) + 1 if len(p) else 0 for p in picks])
        if any(len(p) == 0 for p in picks):
            values = np.empty(tuple(len(p) for p in picks), dtype=self.header.dtype)
        else:
            box = self.read_box(start, stop)
            values = box[np.ix_(*(np.asarray(p) - s for p, s in zip(picks, start, strict=True)))]
        whole = self.header.to_file_values(values).astype(self.dtype, copy=False)
        return whole.reshape([len(p) for p in picks if not isinstance(p, _Single)])

    def read_box(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Decode the coded integers of the box [start, stop), shape ``stop - start``."""
        start, stop = np.asarray(start, dtype=np.int64), np.asarray(stop, dtype=np.int64)
        box = np.empty(tuple((stop - start).tolist()), dtype=self.header.dtype)
        for level, leaves, values in self._by_level(self.stream.tree.overlapping(start, stop)):
            self._fill(box, start, stop, level, leaves, values)
        return box

    def slabs(self) -> Iterator[np.ndarray]:
        """Decode the whole signal in consecutive pieces along axis 0, memory bounded by a row of the largest blocks."""
        step = self.stream.layout.cells[self.stream.layout.top][0]
        end = np.array(self.shape)
        for first in range(0, self.shape[0], step):
            start, stop = np.zeros_like(end), end.copy()
            start[0], stop[0] = first, min(first + step, self.shape[0])
            yield self.read_box(start, stop)

    def read(self, *, scale: float = 1.0) -> np.ndarray:
        """Decode the whole signal on a grid `scale` times as fine: the networks are continuous.

        Parameters
        ----------
        scale : float
            Samples per source sample along every axis. An axis of n samples gets ``m = max(1, round(n * scale))``;
            sample i lies at ``(i + 0.5) n / m - 0.5`` voxels (centres of equal cells). Frequencies above the
            new grid's are not filtered out.

        Returns
        -------
        ndarray
            Values of the source's dtype.
        """
        if not (math.isfinite(scale) and 0 < scale <= 64):
            raise OptionError(f"expected scale above 0 and at most 64, found {scale}")
        if scale == 1.0:
            return self[...]
        grids = [_scaled_axis(n, scale) for n in self.shape]
        out = np.empty([len(g) for g in grids], dtype=self.header.dtype)
        for level, leaves, values in self._leaf_readouts(np.arange(self.stream.tree.count)):
            self._evaluate_on_grid(level, leaves, values, grids, out)
        return self.header.to_file_values(out).astype(self.dtype, copy=False)

    def sample(self, points: np.ndarray) -> NDArray[np.float64]:
        """Evaluate the networks at any points, without rounding.

        Parameters
        ----------
        points : array_like of float, shape (n, d)
            Voxel indices, slowest axis first, centres at integers; from -0.5 up to n - 0.5 on each axis.

        Returns
        -------
        ndarray of float64, shape (n,)
            In the source's stored units.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.ndim:
            raise OptionError(f"expected points of shape (n, {self.ndim}), found {points.shape}")
        if not np.all((points >= -0.5) & (points <= np.array(self.shape) - 0.5)):
            raise OptionError(f"expected points within -0.5 and {tuple(n - 0.5 for n in self.shape)}, found others")
        owner = self._owner(points)
        result = np.empty(len(points))
        for level, leaves, values in self._leaf_readouts(np.unique(owner)):
            for leaf, readout in zip(leaves.tolist(), values.T, strict=True):
                here = np.flatnonzero(owner == leaf)
                local = self._local(points[here], leaf, level)
                network = self.model.readout(level, self.stream.tree.index[leaf : leaf + 1])
                result[here] = network.evaluate(local, self._coefficients(readout[:, None]))[0].numpy()
                self.voxels_evaluated += len(here)
        clipped = np.clip(result + self.stream.offset, self.stream.low, self.stream.high)
        return clipped * (self.header.quantise_step or 1.0)

    def close(self) -> None:
        """Close the source."""
        self.container.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leaf_readouts(self, leaves: np.ndarray) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
        """Quantised readouts of the given leaves, chunk by chunk: (level, leaf numbers, values (W, n))."""
        chunks = self.container.chunks
        which = np.searchsorted(chunks.first, leaves, side="right") - 1
        for chunk in np.unique(which).tolist():
            first = int(chunks.first[chunk])
            stop = first + int(chunks.count[chunk])
            decoded = self._chunk(chunk, first, stop)
            wanted = np.zeros(stop - first, dtype=bool)
            wanted[leaves[which == chunk] - first] = True
            for level, values in decoded.items():
                members = np.flatnonzero(self.stream.tree.level[first:stop] == level)
                keep = wanted[members]
                if keep.any():
                    yield level, first + members[keep], values[:, keep]

    def _by_level(self, leaves: np.ndarray) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
        """The same, the chunks' leaves joined: a few large products are much faster than many small ones."""
        parts: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int32]]]] = {}
        for level, members, values in self._leaf_readouts(leaves):
            parts.setdefault(level, []).append((members, values))
        for level, pieces in parts.items():
            yield level, np.concatenate([m for m, _ in pieces]), np.concatenate([v for _, v in pieces], axis=1)

    def _chunk(self, chunk: int, first: int, stop: int) -> Coefficients:
        if chunk in self._cache:
            self._cache.move_to_end(chunk)
            return self._cache[chunk]
        decoded = read_chunk(self.container.read_chunk(chunk), self.stream.geometry, self.statistics, first, stop)
        self._cache[chunk] = decoded
        self._cached_bytes += sum(v.nbytes for v in decoded.values())
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= sum(v.nbytes for v in dropped.values())
        return decoded

    def _fill(
        self, box: np.ndarray, start: np.ndarray, stop: np.ndarray, level: int, leaves: np.ndarray, values: np.ndarray
    ) -> None:
        """Write leaves of one level into the box; of those that it cuts, only the part inside is evaluated."""
        tree, cell = self.stream.tree, np.asarray(self.stream.layout.cells[level])
        origin = tree.origin[leaves]
        low, high = np.maximum(start - origin, 0), np.minimum(stop - origin, cell)
        windows, group = np.unique(np.concatenate([low, high], axis=1), axis=0, return_inverse=True)
        for number, bounds in enumerate(windows):
            here = np.flatnonzero(group.ravel() == number)
            window = tuple(slice(int(a), int(b)) for a, b in zip(*np.split(bounds, 2), strict=True))
            part = self._reconstruct(level, tree.index[leaves[here]], values[:, here], window)
            extent = tuple(w.stop - w.start for w in window)
            scatter(box, start, origin[here] + [w.start for w in window], extent, part)
            self.voxels_evaluated += part.size

    def _reconstruct(
        self, level: int, index: np.ndarray, values: NDArray[np.int32], window: tuple[slice, ...]
    ) -> np.ndarray:
        """Coded integers of a window of blocks, shape (n, samples of the window)."""
        cell = self.stream.layout.cells[level]
        out = np.empty((len(index), math.prod(w.stop - w.start for w in window)), dtype=self.header.dtype)
        each = math.prod(cell) * (1 if self.model.layout.shared else len(values))
        for part in batches(len(index), each):
            coefficients = torch.from_numpy(values[:, part].T.astype(np.float32) * np.float32(self.stream.step))
            samples = self.model.readout(level, index[part]).reconstruct(coefficients, window)
            out[part] = self._to_integers(samples.numpy())
        return out

    def _to_integers(self, samples: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(samples + np.float32(self.stream.offset)), self.stream.low, self.stream.high)

    def _coefficients(self, values: NDArray[np.int32]) -> torch.Tensor:
        """Whitened readouts of leaves, shape (n, W), float64, from their integers (W, n)."""
        return torch.from_numpy(values.T.astype(np.float64) * self.stream.step)

    def _local(self, points: np.ndarray, leaf: int, level: int) -> torch.Tensor:
        cell = np.asarray(self.stream.layout.cells[level])
        local = 2 * (points - self.stream.tree.origin[leaf] + 0.5) / cell - 1
        return torch.from_numpy(local.astype(np.float32))

    def _owner(self, points: np.ndarray) -> NDArray[np.int64]:
        """Number of the leaf that holds each point."""
        nearest = np.clip(np.floor(points + 0.5).astype(np.int64), 0, np.array(self.shape) - 1)
        tree = self.stream.tree
        owner = np.full(len(points), -1, dtype=np.int64)
        for level in range(tree.top, tree.depth + 1):
            here = np.flatnonzero(tree.level == level)
            number = np.ravel_multi_index(tuple(tree.index[here].T), tree.grid(level))
            order = np.argsort(number)
            wanted = np.ravel_multi_index(tuple((nearest // np.asarray(tree.cells[level])).T), tree.grid(level))
            place = np.minimum(np.searchsorted(number, wanted, sorter=order), max(len(here) - 1, 0))
            if len(here):
                found = number[order[place]] == wanted
                owner[found] = here[order[place[found]]]
        return owner

    def _evaluate_on_grid(
        self, level: int, leaves: np.ndarray, values: np.ndarray, grids: list[np.ndarray], out: np.ndarray
    ) -> None:
        """Fill `out` where the leaves' cells cover it; leaves whose points fall alike share their features."""
        cell = np.asarray(self.stream.layout.cells[level])
        groups: dict[tuple[bytes, ...], list[int]] = {}
        spans = []
        for i, origin in enumerate(self.stream.tree.origin[leaves]):
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
            groups.setdefault(key if self.model.layout.shared else (*key, bytes(str(i), "ascii")), []).append(i)
        for key, members in groups.items():
            axes = [torch.from_numpy(np.frombuffer(part).copy()) for part in key[: self.ndim]]
            if any(len(axis) == 0 for axis in axes):
                continue
            network = self.model.readout(level, self.stream.tree.index[leaves[members]])
            grid = network.evaluate_grid(axes, self._coefficients(values[:, members]))
            evaluated = self._to_integers(grid.numpy())
            self.voxels_evaluated += evaluated.size
            for i, block in zip(members, evaluated, strict=True):
                place = tuple(slice(a, b) for a, b in spans[i])
                out[place] = block


class _Single(list[int]):
    """Positions of an axis indexed by one integer: the axis disappears from the result."""


def _normalised_key(key: object, shape: tuple[int, ...]) -> list[list[int]]:
    """Positions picked along each axis."""
    parts = list(key) if isinstance(key, tuple) else [key]
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1 or len(parts) - len(dots) > len(shape):
        raise IndexError(f"expected at most {len(shape)} indices and one ellipsis, found {len(parts)}")
    at = dots[0] if dots else len(parts)
    fill = [slice(None)] * (len(shape) - len(parts) + len(dots))
    parts = parts[:at] + fill + parts[at + 1 :]
    picks: list[list[int]] = []
    for part, extent in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            picks.append(list(range(*part.indices(extent))))
        elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
            if not -extent <= part < extent:
                raise IndexError(f"expected an index from {-extent} to {extent - 1}, found {part}")
            picks.append(_Single([int(part) % extent]))
        else:
            raise IndexError(f"expected integers, slices and an ellipsis, found {part!r}")
    return picks


def _scaled_axis(extent: int, scale: float) -> NDArray[np.float64]:
    """Positions, in voxel indices, of the samples of a rescaled axis."""
    count = max(1, round(extent * scale))
    return (np.arange(count) + 0.5) * extent / count - 0.5
