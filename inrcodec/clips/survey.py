"""What is found out about a clip before it is coded: where groups begin, where their frames move, and what their parts hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np

from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.streams import OtherStream
from inrcodec_kernels.backend import best_on_cpu

from ..fitting.displacements import Found
from ..fitting.spread import Spread
from ..region import Region
from .groups import CutFinder, group_starts
from .stream import Part

Progress = Callable[[str, float, str], None]
Planes = tuple[np.ndarray, ...]


class Frames(Protocol):
    """A clip that can be read several times; what `inrcodec_formats.video.read.ClipReader` is.

    Attributes
    ----------
    header : ClipHeader
    notes : tuple of str
        What the user should know of the source.
    """

    @property
    def header(self) -> ClipHeader: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Planes]:
        """The planes of each frame."""
        ...

    def others(self) -> tuple[OtherStream, ...]:
        """Audio and data streams."""
        ...


def look(source: Frames, most_samples: int, progress: Progress) -> tuple[list[int], float]:
    """Where groups of at most so many samples begin, and the range of all samples."""
    header = source.header
    finder, low, high = CutFinder(2.0**header.bit_depth - 1), math.inf, -math.inf
    for number, planes in enumerate(source.frames()):
        finder.add(planes[0])
        low = min(low, *(int(plane.min()) for plane in planes))
        high = max(high, *(int(plane.max()) for plane in planes))
        progress("read", number / header.frames, f"frame {number + 1} of {header.frames}")
    # A constant clip has no range of its own; see `metrics.own_range`.
    return group_starts(header.frames, finder.cuts(), header.height * header.width, most_samples), (high - low) or 1.0


def groups(source: Frames, starts: list[int]) -> Iterator[Planes]:
    """The planes of each group, (frames, height, width); one group is held at a time."""
    header, frames = source.header, source.frames()
    for first, stop in pairwise([*starts, header.frames]):
        group = tuple(np.empty((stop - first, *shape), header.dtype) for shape in header.plane_shapes)
        for place in range(stop - first):
            for stack, plane in zip(group, next(frames), strict=True):
                stack[place] = plane
        yield group


class Survey:
    """Measures the parts of a clip's groups.

    Parameters
    ----------
    parts : list of Part
        In the order of coding.
    wish : bool or "auto"
        Whether frames of parts of one plane may be displaced.
    regions : dict of tuple to Region
        Where only errors inside are shared: the region of planes of each size.

    Attributes
    ----------
    spreads : list of Spread
        Of every stream, group by group in the order of coding.
    motion : list of Found or None
        Of every group.
    """

    def __init__(self, parts: list[Part], wish: bool | str, regions: dict[tuple[int, ...], Region]) -> None:
        self._parts, self._wish, self._regions = parts, wish, regions
        self.spreads: list[Spread] = []
        self.motion: list[Found | None] = []

    def add(self, group: Planes) -> None:
        """Measure the next group."""
        self.motion.append(None)
        self.spreads += [self._spread([group[plane] for plane in part.planes], part) for part in self._parts]

    def _spread(self, planes: list[np.ndarray], part: Part) -> Spread:
        """Of a part; of what lies around the region where there is one."""
        found = Found.of(planes[0], self._wish, best_on_cpu()) if part.alone else None
        self.motion[-1] = found or self.motion[-1]
        if (region := self._regions.get(planes[0].shape[1:])) is not None:
            return Spread.of(np.stack([plane[:, *region.bounds(plane.shape)] for plane in planes]))
        return Spread.of(np.stack(planes)) if found is None else found.spread
