"""The letters of a signal's axes, and the order in which methods code them: channels first, the others as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .errors import SignalError

LETTERS = "tzyxc"
CHANNEL = "c"
MAX_AXES = 4

T = TypeVar("T")


def check_axes(axes: str, ndim: int) -> None:
    """Refuse axes that a signal cannot have.

    Raises
    ------
    SignalError
        If there are not 1 to 4 of them, one for each dimension, with distinct letters; or channels and nothing else.
    """
    if ndim > MAX_AXES:
        raise SignalError(
            f"expected 1 to {MAX_AXES} axes, channels among them, found {ndim}; "
            "code each time point, or each channel, by itself"
        )
    if len(axes) != ndim or len(set(axes)) != ndim or not set(axes) <= set(LETTERS):
        raise SignalError(f"expected {ndim} distinct axes out of '{LETTERS}', found {axes!r}; name each dimension once")
    if axes == CHANNEL:
        raise SignalError("expected an axis of space or time beside the channels, found none; name it x")


@dataclass(frozen=True)
class AxisOrder:
    """How a signal's axes are permuted to be coded.

    Kernels and methods treat their first axis as the slowest. Channels repeat the same structures, so they go there;
    where they are already, and where there are none, nothing moves.

    Attributes
    ----------
    sources : tuple of int
        For each coded axis, the signal's axis that it is.
    """

    sources: tuple[int, ...]

    @classmethod
    def of(cls, axes: str) -> AxisOrder:
        """The order of a signal with these axes."""
        return cls(tuple(sorted(range(len(axes)), key=lambda axis: axes[axis] != CHANNEL)))

    @property
    def moves(self) -> bool:
        """Whether any axis changes its place."""
        return self.sources != tuple(range(len(self.sources)))

    @property
    def places(self) -> tuple[int, ...]:
        """For each axis of the signal, the coded axis that it becomes: the inverse of `sources`."""
        return tuple(sorted(range(len(self.sources)), key=lambda axis: self.sources[axis]))

    def to_coded(self, values: Sequence[T]) -> tuple[T, ...]:
        """Reorder one value per axis (extents, a position) of the signal."""
        return tuple(values[axis] for axis in self.sources)

    def to_signal(self, values: Sequence[T]) -> tuple[T, ...]:
        """The inverse of `to_coded`."""
        return tuple(values[axis] for axis in self.places)

    def coded_view(self, samples: np.ndarray) -> np.ndarray:
        """Samples with their axes as they are coded; no copy."""
        return samples.transpose(self.sources)

    def signal_view(self, samples: np.ndarray) -> np.ndarray:
        """The inverse of `coded_view`."""
        return samples.transpose(self.places)
