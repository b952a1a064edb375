"""A lazy view of an ``.inrc`` stream: regions, scales and points, decoding only the blocks they touch."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_formats.axes import CHANNEL
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError, OptionError
from inrcodec_formats.signal import SignalHeader
from inrcodec_kernels.backend import Backend, in_threads

from .backends import backend_for
from .payload import restoration
from .payload.sections import KNOWN_SECTIONS, MAX_CHUNK_BLOCKS
from .reconstruct import Chunk, Restorer, reconstruction_of
from .reconstruct.base import CodedChunks, rounded

Source = str | os.PathLike[str] | bytes | BinaryIO

_CACHE_BYTES = 64 << 20
_DEVICE_SAMPLES = 1 << 28
"""Samples decoded at a time on a GPU."""
_TOGETHER = 16
"""Chunks decoded at a time."""


class Image:
    """An open ``.inrc`` stream that decodes what is asked for.

    Index order is slowest axis first, e.g. (z, y, x); for NIfTI that is nibabel's ``dataobj`` transposed.
    Points are in voxel indices with centres at integers. Channels are an axis like the others for regions; scales and
    points act on space and time alone.

    Parameters
    ----------
    source : path, bytes or binary file object
    backend : Backend, optional
        Where to compute; the fastest there is, unless said otherwise.

    Raises
    ------
    ContainerError
        If the stream is damaged, hostile or from an unknown version.

    Examples
    --------
    >>> image = inrcodec.open("ct.inrc")            # doctest: +SKIP
    >>> image[40:50, :, ::2].shape                  # doctest: +SKIP
    """

    def __init__(self, source: Source, backend: Backend | None = None) -> None:
        self._asked = backend or backend_for("auto")
        self.container = Container.open(source, known=None)
        try:
            if "CLIP" in self.container.sections:
                raise ContainerError("expected the stream of a volume, found a clip; open it with inrcodec.open")
            self.container.require_known(KNOWN_SECTIONS)
            self._read_sections()
        except BaseException:
            self.container.close()
            raise
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0

    def _read_sections(self) -> None:
        largest = int(self.container.chunks.count.max(initial=0))
        if largest > MAX_CHUNK_BLOCKS:
            raise ContainerError(f"expected at most {MAX_CHUNK_BLOCKS} blocks in a chunk, found {largest}; get a fresh copy")
        self.blocks = reconstruction_of(self.container, self._asked)
        self.restorer = self._read_restorer()
        self.header: SignalHeader = self.container.signal_header()
        limits = np.iinfo(self.header.dtype)
        low, high = self.blocks.low, self.blocks.high
        if low < limits.min or high > limits.max:
            raise ContainerError(
                f"expected samples that fit {self.header.dtype}, found a range of {low} to {high}; get a fresh copy"
            )

    @property
    def backend(self) -> Backend:
        """What decodes, and why not something faster."""
        return self.blocks.backend

    def _read_restorer(self) -> Restorer | None:
        if restoration.TAG not in self.container.sections:
            return None
        shape = self.container.header.coded_shape
        network, strength = restoration.unpack(self.container.sections.read(restoration.TAG), len(shape))
        return Restorer(network, strength * self.blocks.step, self.read_plain_box, shape, self.backend)

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

    @property
    def voxels_evaluated(self) -> int:
        """Samples and points for which networks were evaluated so far."""
        return self.blocks.evaluated

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
        dtype = np.dtype(self.header.dtype)
        if self._finished_there:
            return self._halved_where_too_large(start, stop)
        first, last = self._coded_place(start), self._coded_place(stop)
        if self.restorer is None:
            box = self.blocks.integers(first, last, self._chunks, dtype)
        else:
            box = self.restorer.integers(first, last, dtype, self.blocks.low, self.blocks.high)
        return self.header.order.signal_view(box)

    def _coded_place(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """A place of the signal, its axes as they are coded."""
        return place[list(self.header.order.sources)]

    @property
    def _finished_there(self) -> bool:
        """Whether samples are stored integers before they leave a device."""
        return self.blocks.on_device is not None or (self.backend.name == "triton" and self.restorer is None)

    def read_tensor(self, start: np.ndarray | None = None, stop: np.ndarray | None = None) -> torch.Tensor:
        """Decode the coded integers of a box, the whole signal unless said otherwise, and leave them on the device.

        Raises
        ------
        ContainerError
            If a chunk is damaged.
        torch.OutOfMemoryError
            If the device has not enough memory; ask for smaller boxes then.
        """
        first = np.zeros(self.ndim, dtype=np.int64) if start is None else np.asarray(start, dtype=np.int64)
        last = np.array(self.shape, dtype=np.int64) if stop is None else np.asarray(stop, dtype=np.int64)
        return self._coded_tensor(self._coded_place(first), self._coded_place(last)).permute(self.header.order.places)

    def _coded_tensor(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> torch.Tensor:
        boxes, dtype = self.blocks.on_device, np.dtype(self.header.dtype)
        if self.restorer is None and boxes is None and self.backend.name == "triton":
            return self.blocks.box_there(first, last, self._chunks, dtype)
        if boxes is None:
            back = list(self.header.order.places)
            box = self.read_box(first[back], last[back])
            return torch.from_numpy(self.header.order.coded_view(box)).to(self.backend.device)
        around = (first, last) if self.restorer is None else self.restorer.ringed(first, last)
        kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
        return boxes.integers(first, last, self._coded(boxes.leaves(*around)), kind, self.restorer)

    def read_plain_box(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples of a box, axes as they are coded, as the networks give them: not restored, rounded or clipped."""
        boxes = self.blocks.on_device
        if boxes is not None:
            samples = boxes.samples(start, stop, self._coded(boxes.leaves(start, stop)), torch.float32)
            return np.asarray(samples.cpu().numpy(), dtype=np.float32)
        return self.blocks.box(start, stop, self._chunks)

    def _halved_where_too_large(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> np.ndarray:
        """A box from the device, half by half where all of it does not fit the device's memory."""
        try:
            return self.read_tensor(start, stop).cpu().numpy()
        except torch.OutOfMemoryError:
            axis = int(np.argmax(stop - start))
            if stop[axis] - start[axis] < 2:
                raise
        middle = (start[axis] + stop[axis]) // 2
        before, after = stop.copy(), start.copy()
        before[axis] = after[axis] = middle
        halves = [self._halved_where_too_large(start, before), self._halved_where_too_large(after, stop)]
        return np.concatenate(halves, axis=axis)

    def _coded(self, leaves: NDArray[np.int64]) -> CodedChunks:
        """The chunks that hold blocks, as they lie in the stream."""
        chunks = self.container.chunks
        numbers = np.unique(np.searchsorted(chunks.first, leaves, side="right") - 1)
        first = np.asarray(chunks.first, dtype=np.int64)[numbers]
        bodies = [self.container.read_chunk(number) for number in numbers.tolist()]
        return CodedChunks(bodies, first, first + np.asarray(chunks.count, dtype=np.int64)[numbers])

    def slabs(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Decode consecutive pieces along axis 0, of [start, stop) or all, memory bounded by a row of the largest blocks."""
        end = np.array(self.shape)
        stop = self.shape[0] if stop is None else stop
        rows = self.header.order.to_signal(self.blocks.extents)[0]
        if self.blocks.on_device is not None:
            # A device wants much to do at once.
            rows *= max(1, _DEVICE_SAMPLES // (rows * math.prod(self.shape[1:])))
        edges = [start, *range((start // rows + 1) * rows, stop, rows), stop]
        for first, last in pairwise(edges):
            low, high = np.zeros_like(end), end.copy()
            low[0], high[0] = first, last
            yield self.read_box(low, high)

    def read(self, *, scale: float = 1.0) -> np.ndarray:
        """Decode the whole signal on a grid `scale` times as fine: the networks are continuous.

        Parameters
        ----------
        scale : float
            Samples per source sample along every axis but that of channels. An axis of n samples gets
            ``m = max(1, round(n * scale))``, placed as `resized` says.

        Returns
        -------
        ndarray
            Values of the source's dtype.
        """
        if not (math.isfinite(scale) and 0 < scale <= 64):
            raise OptionError(f"expected scale above 0 and at most 64, found {scale}")
        if scale == 1.0:
            return self[...]
        lengths = (n if a == CHANNEL else max(1, round(n * scale)) for a, n in zip(self.header.axes, self.shape, strict=True))
        return self.resized(tuple(lengths))

    def resized(self, shape: tuple[int, ...]) -> np.ndarray:
        """Decode the whole signal on a grid of that shape.

        Parameters
        ----------
        shape : tuple of int
            Sample i of an axis of n samples that gets m lies at ``(i + 0.5) n / m - 0.5`` voxels (centres of equal cells).
            Frequencies above the new grid's are not filtered out.

        Returns
        -------
        ndarray
            Values of the source's dtype.
        """
        order = self.header.order
        grids = list(order.to_coded([_resized_axis(n, m) for n, m in zip(self.shape, shape, strict=True)]))
        values = self.blocks.grid(grids, self._chunks)
        if self.restorer is not None:
            self.restorer.change_on_grid(grids, values)
        integers = order.signal_view(rounded(values, self.blocks.low, self.blocks.high, np.dtype(self.header.dtype)))
        return self.header.to_file_values(integers).astype(self.dtype, copy=False)

    def sample(self, points: np.ndarray) -> NDArray[np.float64]:
        """Evaluate the networks at any points, without rounding.

        Parameters
        ----------
        points : array_like of float, shape (n, d)
            Voxel indices, slowest axis first, centres at integers; from -0.5 up to n - 0.5 on each axis. Channels are no
            axis here.

        Returns
        -------
        ndarray of float64, shape (n,), or (n, C) for a signal of C channels
            In the source's stored units.
        """
        points = np.asarray(points, dtype=np.float64)
        extents = [n for axis, n in zip(self.header.axes, self.shape, strict=True) if axis != CHANNEL]
        if points.ndim != 2 or points.shape[1] != len(extents):
            raise OptionError(f"expected points of shape (n, {len(extents)}), found {points.shape}")
        if not np.all((points >= -0.5) & (points <= np.array(extents) - 0.5)):
            raise OptionError(f"expected points within -0.5 and {tuple(n - 0.5 for n in extents)}, found others")
        channels = self.shape[self.header.axes.index(CHANNEL)] if CHANNEL in self.header.axes else None
        coded = points if channels is None else _in_channels(points, channels)
        values = self.blocks.points(coded, self._chunks)
        if self.restorer is not None and len(coded):
            values += self.restorer.change_at(coded)
        values = np.clip(values, self.blocks.low, self.blocks.high) * (self.header.quantise_step or 1.0)
        return values if channels is None else values.reshape(channels, len(points)).T

    def close(self) -> None:
        """Close the source."""
        self.container.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, leaves: NDArray[np.int64]) -> Iterator[Chunk[Any]]:
        """The chunks that hold the given blocks."""
        chunks = self.container.chunks
        which = np.searchsorted(chunks.first, leaves, side="right") - 1
        numbers = np.unique(which).tolist()
        for at in range(0, len(numbers), _TOGETHER):
            part = numbers[at : at + _TOGETHER]
            for number, decoded in zip(part, self.decoded_chunks(part), strict=True):
                first = int(chunks.first[number])
                stop = first + int(chunks.count[number])
                wanted = np.zeros(stop - first, dtype=bool)
                wanted[leaves[which == number] - first] = True
                yield Chunk(first, stop, decoded, wanted)

    def decoded_chunk(self, number: int) -> Any:
        """The decoded integers of a chunk."""
        return self.decoded_chunks([number])[0]

    def decoded_chunks(self, numbers: list[int]) -> list[Any]:
        """The decoded integers of chunks, decoded in threads; the last ones used are kept."""
        found = {number: self._cache[number] for number in numbers if number in self._cache}
        missing = [number for number in numbers if number not in found]
        bodies, chunks = [self.container.read_chunk(number) for number in missing], self.container.chunks

        def decode(place: int) -> Any:
            first = int(chunks.first[missing[place]])
            return self.blocks.read_chunk(bodies[place], first, first + int(chunks.count[missing[place]]))

        found.update(zip(missing, in_threads(decode, range(len(missing))), strict=True))
        for number in numbers:
            self._keep(number, found[number])
        return [found[number] for number in numbers]

    def _keep(self, number: int, decoded: Any) -> None:
        if number in self._cache:
            self._cache.move_to_end(number)
            return
        self._cache[number] = decoded
        self._cached_bytes += self.blocks.size_of(decoded)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= self.blocks.size_of(dropped)


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


def _in_channels(points: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """Each point in every channel, (channels * n, 1 + d), channel by channel."""
    number = np.repeat(np.arange(channels, dtype=np.float64), len(points))
    return np.column_stack([number, np.tile(points, (channels, 1))])


def _resized_axis(extent: int, count: int) -> NDArray[np.float64]:
    """Positions, in voxel indices, of `count` samples over an axis."""
    return (np.arange(count) + 0.5) * extent / count - 0.5
