"""The part of a signal that matters most, and what an error outside counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import OptionError

EMPHASIS = 8.0
"""How many times a squared error inside counts, over one outside, where nothing else is asked for."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a signal whose errors count more than those elsewhere.

    Attributes
    ----------
    inside : ndarray, or tuple of slice
        A mask of the signal's last axes, anything but 0 being inside, or a slice for each of them: of two axes it serves
        every frame, slice or channel.
    emphasis : float
        How many times a squared error inside counts, over one outside; 1 is no difference, infinity leaves the outside
        to chance.

    Raises
    ------
    OptionError
        If the mask is empty, has negative values or nothing inside, or the emphasis is below 1.
    """

    inside: Any
    emphasis: float = EMPHASIS

    def __post_init__(self) -> None:
        if not _is_emphasis(self.emphasis):
            raise OptionError(f"expected an emphasis from 1 (none) on, found {self.emphasis!r}; 8 is the usual one")
        given = self.inside if isinstance(self.inside, (tuple, list)) else ()
        slices = bool(given) and all(isinstance(part, slice) for part in given)
        object.__setattr__(self, "inside", tuple(given) if slices else _checked_mask(self.inside))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        masks = [part for part in (self.inside, other.inside) if isinstance(part, np.ndarray)]
        same = np.array_equal(masks[0], masks[1]) if len(masks) == 2 else not masks and self.inside == other.inside
        return bool(same) and self.emphasis == other.emphasis

    __hash__ = None  # type: ignore[assignment]

    @property
    def outside(self) -> float:
        """What a squared error outside counts, over one inside."""
        return 1 / self.emphasis

    def weight(self, share: NDArray[np.floating]) -> NDArray[np.float32]:
        """What squared errors of blocks count of which a share lies inside."""
        return (self.outside + (1 - self.outside) * share).astype(np.float32)

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """What of a signal is inside: a view that repeats the mask along the leading axes.

        Raises
        ------
        OptionError
            If the mask does not fit the shape, or the slices leave nothing of it.
        """
        return np.broadcast_to(self._of_last_axes(shape), shape)

    def weights(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """What squared errors of a signal count, 1 inside; of extent 1 along axes on which they repeat."""
        mask = self._of_last_axes(shape)
        found = np.where(mask, np.float32(1), np.float32(self.outside))
        return found.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)

    def cropped(self, shape: tuple[int, ...], box: tuple[slice, ...]) -> Region | None:
        """The region of a part of a signal, or None if it has no share in it."""
        mask = self._of_last_axes(shape)
        part = mask[box[len(shape) - mask.ndim :]]
        return Region(part, self.emphasis) if part.any() else None

    def bounds(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The smallest box of a signal's last axes, as many as the mask has, with everything inside."""
        mask = self._of_last_axes(shape)
        along = ([other for other in range(mask.ndim) if other != axis] for axis in range(mask.ndim))
        held = [np.flatnonzero(mask.any(axis=tuple(others))) for others in along]
        return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in held)

    def resampled(self, shape: tuple[int, ...], smaller: tuple[int, ...]) -> Region:
        """The region of a signal whose samples stand for several of this one's, like chroma of half the size.

        Parameters
        ----------
        shape : tuple of int
            Of the signal that this is a region of.
        smaller : tuple of int
            Extents, each that of `shape` over 1, 2, 4 or 8, rounded up. What stands for any sample inside is inside.

        Raises
        ------
        OptionError
            If an extent is none of these, or as for `mask`.
        """
        mask = self._of_last_axes(shape)
        for axis in range(mask.ndim):
            n, m = mask.shape[axis], smaller[axis - mask.ndim]
            factor = next((f for f in (1, 2, 4, 8) if -(-n // f) == m), 0)
            if not factor:
                raise OptionError(f"expected {n} samples over 1, 2, 4 or 8 along an axis of a plane, found {m}; give its mask")
            mask = np.logical_or.reduceat(mask, np.arange(0, n, factor), axis)
        return Region(mask, self.emphasis)

    def _of_last_axes(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        if isinstance(self.inside, np.ndarray):
            last = shape[max(0, len(shape) - self.inside.ndim) :]
            if self.inside.shape != last:
                raise OptionError(
                    f"expected a mask of shape {last}, the signal's last axes, found {self.inside.shape}; give one of its size"
                )
            return self.inside
        if len(self.inside) > len(shape):
            raise OptionError(f"expected at most {len(shape)} slices for a region, one an axis, found {len(self.inside)}")
        mask = np.zeros(shape[len(shape) - len(self.inside) :], dtype=np.bool_)
        mask[self.inside] = True
        if not mask.any():
            raise OptionError(f"expected a region with samples of a signal of shape {shape} inside, found none; check its slices")
        return mask

    def to_dict(self) -> dict[str, Any]:
        """Return mask or slices, and emphasis."""
        return {"inside": self.inside, "emphasis": self.emphasis}

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> Region:
        """Inverse of `to_dict`."""
        return cls(**choices)


def sample_inside(inside: NDArray[np.bool_]) -> tuple[int, ...]:
    """A place inside, about in the middle: of the planes that hold any, the middle one, and so on along each axis."""
    place: list[int] = []
    while inside.ndim:
        held = np.flatnonzero(inside.any(axis=tuple(range(1, inside.ndim))))
        place.append(int(held[len(held) // 2]))
        inside = inside[place[-1]]
    return tuple(place)


def box_around(place: Sequence[int], extent: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """A box of some extents within a signal, a place as near to its middle as can be."""
    starts = [min(max(p - e // 2, 0), n - e) for p, e, n in zip(place, extent, shape, strict=True)]
    return tuple(slice(start, start + e) for start, e in zip(starts, extent, strict=True))


def _is_emphasis(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(value >= 1)


def _checked_mask(mask: Any) -> NDArray[np.bool_]:
    """A mask as bool."""
    values = np.asarray(mask)
    if values.dtype.kind not in "biuf":
        raise OptionError(f"expected a region as a mask of numbers or as slices, found {type(mask).__name__}; give one of these")
    if values.size == 0 or values.ndim == 0:
        raise OptionError(f"expected a mask with samples for a region, found one of shape {values.shape}")
    if values.dtype.kind in "if" and not values.min() >= 0:
        raise OptionError(f"expected a mask of 0 outside and 1 inside, found {values.min()}; leave out what is below 0")
    found: NDArray[np.bool_] = values if values.dtype == np.bool_ else values != 0
    if not found.any():
        raise OptionError("expected a mask with samples inside, found zeros only; mark what matters, or leave the region out")
    return found
