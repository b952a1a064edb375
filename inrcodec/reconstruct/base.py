"""What every system's reconstruction offers to the view of a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

from ..partition.octree import Octree
from ..partition.parted import PartedTiles
from ..partition.tiles import TilePyramid
from .restored import Restorer

T = TypeVar("T")

UNSOUND = "expected networks of finite values, found others; get a fresh copy of the file"


@contextmanager
def unsound_refused() -> Iterator[None]:
    """Blame the file for networks that are not finite."""
    try:
        yield
    except ValueError as error:
        raise ContainerError(UNSOUND) from error


@dataclass(frozen=True)
class Chunk(Generic[T]):
    """The decoded blocks [first, stop) of a stream, and which of them are wanted.

    Attributes
    ----------
    first, stop : int
    decoded : object
        What `Reconstruction.read_chunk` returned.
    wanted : ndarray of bool, shape (stop - first,)
    """

    first: int
    stop: int
    decoded: T
    wanted: NDArray[np.bool_]


@dataclass(frozen=True)
class BlockCosts:
    """Of the blocks of a chunk: estimated bits, whether each is a constant, and weights stored; shapes (n,)."""

    bits: NDArray[np.float64]
    constant: NDArray[np.bool_]
    weights: NDArray[np.int64]


Chunks = Callable[[NDArray[np.int64]], Iterable[Chunk[Any]]]
"""``chunks(leaves)``: the chunks that hold the given blocks, decoded."""


class CodedChunks(NamedTuple):
    """Chunks as they lie in a stream.

    Attributes
    ----------
    bodies : list of bytes
    first, stop : ndarray of int, shape (C,)
        Blocks [first, stop) of each.
    """

    bodies: list[bytes]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]


class DeviceBoxes(ABC):
    """Decodes boxes on a GPU, from compressed bytes to samples that stay there.

    Parameters
    ----------
    low, high : int
        Smallest and largest sample.
    backend : Backend
        ``"triton"``.
    """

    def __init__(self, low: int, high: int, backend: Backend) -> None:
        self.low, self.high, self.backend = low, high, backend

    @abstractmethod
    def leaves(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks that the box [start, stop) is made of."""

    @abstractmethod
    def samples(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], coded: CodedChunks, dtype: torch.dtype
    ) -> Tensor:
        """Samples of a box before correction: floats, or integers rounded and clipped; `coded` holds all its blocks.

        Raises
        ------
        ContainerError
            If a chunk cannot have been written by the encoder.
        """

    def integers(
        self,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        coded: CodedChunks,
        dtype: torch.dtype,
        restorer: Restorer | None,
    ) -> Tensor:
        """Samples of the box [start, stop), corrected, rounded and clipped; `coded` holds all blocks of it and its ring."""
        if restorer is None:
            return self.samples(start, stop, coded, dtype)
        first, last = restorer.ringed(start, stop)
        box = self.samples(first, last, coded, torch.float32)
        out = torch.empty(tuple((stop - start).tolist()), dtype=dtype, device=self.backend.device)
        restorer.write(box, (start - first).tolist(), out, self.low, self.high)
        return out


class Reconstruction(Protocol):
    """From the sections and chunks of a stream to samples.

    Attributes
    ----------
    tree : Octree, TilePyramid or PartedTiles
        Its leaves, or its tiles, are the blocks, in file order.
    step : float
        The quantisation step as an error of samples, in stored units: what a correction of the samples is measured in.
    low, high : int
        Smallest and largest sample.
    extents : tuple of int
        Samples along each axis that a slab across it should have.
    evaluated : int
        Samples and points evaluated so far.
    shared_weights : int
        Parameters stored once for all blocks.
    backend : Backend
        What evaluates; the one asked for, or another with the reason why.
    on_device : DeviceBoxes or None
        What decodes boxes on a GPU.
    """

    step: float
    low: int
    high: int
    extents: tuple[int, ...]
    shared_weights: int

    @property
    def evaluated(self) -> int: ...

    @property
    def backend(self) -> Backend: ...

    @property
    def tree(self) -> Octree | TilePyramid | PartedTiles: ...

    @property
    def on_device(self) -> DeviceBoxes | None: ...

    def read_chunk(self, data: bytes, first: int, stop: int) -> Any:
        """Decode the integers of the blocks [first, stop)."""
        ...

    def size_of(self, decoded: Any) -> int:
        """Bytes of memory that a decoded chunk takes."""
        ...

    def costs(self, decoded: Any, first: int, stop: int) -> BlockCosts:
        """Where a chunk's bits go."""
        ...

    def box(self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks) -> NDArray[np.float32]:
        """Samples of the box [start, stop), not rounded."""
        ...

    def integers(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Samples of the box [start, stop), rounded and clipped."""
        ...

    def box_there(
        self, start: NDArray[np.int64], stop: NDArray[np.int64], chunks: Chunks, dtype: np.dtype[Any]
    ) -> Tensor:
        """The same, or samples not rounded where the dtype is float32, left on the backend's device."""
        ...

    def grid(self, grids: list[NDArray[np.float64]], chunks: Chunks) -> NDArray[np.float32]:
        """Values on the grid of ascending positions along each axis, in voxel indices."""
        ...

    def points(self, points: NDArray[np.float64], chunks: Chunks) -> NDArray[np.float64]:
        """Values at points (n, d) in voxel indices."""
        ...

    def details(self) -> dict[str, object]:
        """What `inrcodec info` tells of this system."""
        ...


def rounded(samples: NDArray[np.float32], low: int, high: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Samples, which are overwritten, rounded and clipped to low..high."""
    np.rint(samples, out=samples)
    return np.clip(samples, low, high, out=samples).astype(dtype)
