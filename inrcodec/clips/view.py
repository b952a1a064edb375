"""A lazy view of a clip: frames by number and by time, whole or smaller, group by group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError, OptionError
from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.streams import OtherStream
from inrcodec_kernels.backend import Backend

from ..backends import backend_for
from ..image import Image, Source
from .stream import CLIP, CLIP_SECTIONS, Part, last_duration, parts_of, read_header, read_others, split

Planes = tuple[np.ndarray, ...]
"""The planes of a frame, (height, width) each, or of several, (frames, height, width)."""


class Clip:
    """An open ``.inrc`` stream of a clip that decodes what is asked for, a group of frames at a time.

    Parameters
    ----------
    source : path, bytes or binary file object
    backend : Backend, optional
        Where to compute; the fastest there is, unless said otherwise.

    Attributes
    ----------
    header : ClipHeader
        Everything about the clip but its frames.
    parts : tuple of Part
        Which planes are coded together; they are in order.

    Raises
    ------
    ContainerError
        If the stream is damaged, hostile, from an unknown version or no clip.

    Examples
    --------
    >>> with inrcodec.open("clip.inrc") as clip:        # doctest: +SKIP
    ...     luma, *chroma = clip.at(12.5)
    ...     for planes in clip.frames(100, 200):
    ...         show(planes)
    """

    def __init__(self, source: Source, backend: Backend | None = None) -> None:
        self.backend = backend or backend_for("auto")
        self._held: tuple[int, list[bytes]] | None = None
        self.container = Container.open(source, known=None)
        try:
            if CLIP not in self.container.sections:
                raise ContainerError("expected the stream of a clip, found another; open it as an Image")
            self.container.require_known(CLIP_SECTIONS)
            self.header: ClipHeader = read_header(self.container)
            self.parts = parts_of(self.header)
        except BaseException:
            self.container.close()
            raise

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the first plane."""
        return self.header.frames, self.header.height, self.header.width

    def __len__(self) -> int:
        return self.header.frames

    @property
    def groups(self) -> tuple[range, ...]:
        """The frames of each group."""
        chunks = self.container.chunks
        pairs = zip(chunks.first.tolist(), chunks.count.tolist(), strict=True)
        return tuple(range(first, first + count) for first, count in pairs)

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the source so far."""
        return self.container.bytes_read

    def others(self) -> tuple[OtherStream, ...]:
        """Audio and data streams, as the source had them."""
        return read_others(self.container)

    def __iter__(self) -> Iterator[Planes]:
        return self.frames()

    def frames(self, start: int = 0, stop: int | None = None, *, scale: float = 1.0) -> Iterator[Planes]:
        """Decode frames one after the other; each group is decoded when its first frame is wanted.

        Parameters
        ----------
        start, stop : int
            First frame, and the one behind the last.
        scale : float
            See `read`.

        Yields
        ------
        tuple of ndarray
            The planes of a frame, as the source had them.
        """
        for planes in self.pieces(start, stop, scale=scale):
            yield from zip(*planes, strict=True)

    def at(self, seconds: float | Fraction) -> Planes:
        """The frame on show at a time, in seconds on the clip's own clock, see ``header.times``.

        Raises
        ------
        OptionError
            If the clip has no frame yet, or none any more, at that time.
        """
        return next(self.frames(number := self.frame_at(seconds), number + 1))

    def frame_at(self, seconds: float | Fraction) -> int:
        """Number of the frame on show at a time; see `at`."""
        first, end = (tick * self.header.time_base for tick in self._ticks)
        if not first <= seconds < end:
            raise OptionError(
                f"expected a time from {float(first):g} to below {float(end):g} s, found {float(seconds):g}"
            )
        tick = Fraction(seconds) / self.header.time_base
        return int(np.searchsorted(self.header.times, int(tick // 1), side="right")) - 1

    @property
    def _ticks(self) -> tuple[int, int]:
        """When the first frame begins and the last one ends, in units of the time base."""
        times = self.header.times
        return int(times[0]), int(times[-1]) + last_duration(self.header)

    def read(self, start: int = 0, stop: int | None = None, *, scale: float = 1.0) -> Planes:
        """Decode frames into one array a plane.

        Parameters
        ----------
        start, stop : int
            First frame, and the one behind the last.
        scale : float
            Samples per source sample along height and width; see `inrcodec.image.Image.read`.

        Returns
        -------
        tuple of ndarray, shape (frames, height, width) each
        """
        return tuple(np.concatenate(pieces) for pieces in zip(*self.pieces(start, stop, scale=scale), strict=True))

    def pieces(self, start: int = 0, stop: int | None = None, *, scale: float = 1.0) -> Iterator[Planes]:
        """Decode group by group: all planes of the wanted frames of each."""
        stop = len(self) if stop is None else stop
        header = self.part(start, stop, scale=scale)
        for number, group in enumerate(self.groups):
            first, last = max(start, group.start), min(stop, group.stop)
            if first < last:
                yield self._decoded(number, first - group.start, last - group.start, header)

    def part(self, start: int = 0, stop: int | None = None, *, scale: float = 1.0) -> ClipHeader:
        """The header of a clip of frames [start, stop), its height and width scaled."""
        stop = len(self) if stop is None else stop
        if not 0 <= start < stop <= len(self):
            raise OptionError(f"expected frames within 0 to {len(self)}, found {start} to {stop}")
        if not 0 < scale <= 64:
            raise OptionError(f"expected scale above 0 and at most 64, found {scale}")
        height, width = (max(1, round(n * scale)) for n in self.shape[1:])
        times, whole = self.header.times, stop == len(self)
        last = self.header.last_duration if whole else int(times[stop] - times[stop - 1])
        return replace(self.header, height=height, width=width, times=times[start:stop], last_duration=last)

    @contextmanager
    def image(self, group: int, part: int) -> Iterator[Image]:
        """The stream of a part of a group's planes, open; see `parts`.

        Raises
        ------
        ContainerError
            If it is damaged or is not what the clip's header says.
        """
        frames = self.groups[group]
        try:
            with Image(self._streams(group)[part], self.backend) as image:
                self._check(image, self.parts[part], len(frames))
                yield image
        except ContainerError as error:
            name = self.parts[part].name
            raise ContainerError(f"frames {frames.start + 1} to {frames.stop}, {name}: {error}") from error

    def _streams(self, group: int) -> list[bytes]:
        """The streams of a group; those of the last group asked for are kept."""
        if self._held is None or self._held[0] != group:
            self._held = group, split(self.container.read_chunk(group), len(self.parts))
        return self._held[1]

    def _check(self, image: Image, part: Part, frames: int) -> None:
        front, header = image.container.header, self.header
        found = front.axes, front.shape, front.dtype, front.method
        wanted = part.axes, part.shape(header, frames), header.dtype.name, self.container.header.method
        if found != wanted:
            raise ContainerError(f"expected a stream of {wanted}, found {found}; get a fresh copy of the file")

    def _decoded(self, group: int, start: int, stop: int, header: ClipHeader) -> Planes:
        """Frames [start, stop) of a group, in the height and width of a header."""
        planes: list[np.ndarray] = []
        for number, part in enumerate(self.parts):
            with self.image(group, number) as image:
                wanted = part.shape(header, image.shape[0])
                if image.shape == wanted:
                    samples = np.concatenate(list(image.slabs(start, stop)))
                else:
                    samples = image.resized(wanted)[start:stop]
            planes += part.parted(samples)
        return tuple(planes)

    def close(self) -> None:
        """Close the source."""
        self.container.close()

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def holds_clip(source: Source) -> bool:
    """Whether a stream is a clip's; a file object stays where it is, and must be able to seek.

    Raises
    ------
    ContainerError
        If it is no stream of this version.
    """
    stream: Any = source if hasattr(source, "seek") else None
    place = None if stream is None else stream.tell()
    with Container.open(source, known=None) as container:
        found = CLIP in container.sections
    if stream is not None:
        stream.seek(place)
    return found
