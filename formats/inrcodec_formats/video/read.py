"""`ClipReader`: any clip that FFmpeg reads, or a folder of numbered PNG files, frame by frame."""

from __future__ import annotations

import bisect
import os
from array import array
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ContainerError, FormatError
from .folder import FolderSource, is_folder_of_frames
from .header import MAX_FRAMES, ClipHeader
from .planes import Planes, frame_planes, has_alpha, planar_twin
from .source import FileSource, Tally
from .streams import OtherStream
from .tags import Tags, read_tags

CLIP_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".y4m",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wmv",
    ".flv",
    ".mxf",
)
"""Suffixes of files that are read as clips."""


def is_clip(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path names a clip: by its suffix, or as a folder of numbered PNG files."""
    path = Path(path)
    return path.suffix.lower() in CLIP_SUFFIXES or is_folder_of_frames(path)


def probe(path: str | os.PathLike[str]) -> ClipHeader:
    """Read a clip's header; see `ClipReader`."""
    with ClipReader(path) as reader:
        return reader.header


class ClipReader:
    """A clip, decoded once when it is opened and again whenever its frames are asked for.

    Only decoding tells how many frames a clip has, when each is shown and whether all are sound, so the reader begins with that.
    No frame is kept.

    Parameters
    ----------
    path : str or os.PathLike
        A file that FFmpeg reads, or a folder of PNG files with consecutive numbers in their names.

    Attributes
    ----------
    header : ClipHeader
    notes : tuple of str
        Lines to show to the user: what is not carried, what was assumed. `others` adds to them.

    Raises
    ------
    FileNotFoundError, PermissionError
        As `open` raises them.
    FormatError
        If the file is no clip, is damaged (with the number of frames that could be read), has no frames, changes its size or pixel
        format on the way, or holds a pixel format without planes here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self._name = path.name
        self._source = FolderSource(path) if path.is_dir() else FileSource(path)
        self._tally = Tally()
        scan = _Scan(self._name, self._source)
        for frame in self._source.decode(self._tally, complete=True):
            scan.add(frame)
        self.header = scan.header()
        self.notes: tuple[str, ...] = (*self._source.notes, *scan.notes(), *self._tally.notes())
        self._keys = sorted(self._tally.keys) if scan.times_are_the_files else []

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; every pass closes the file by itself."""

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Planes]:
        """Yield the planes of the frames `start` to `stop`, exactly those, from the nearest key frame on.

        Yields
        ------
        tuple of ndarray
            Shapes ``header.plane_shapes``, dtype ``header.dtype``.

        Raises
        ------
        FormatError
            If the file is no longer what it was when the reader was opened.
        """
        start, stop, _ = slice(start, stop).indices(self.header.frames)
        count = 0
        for frame in islice(self._from(start), max(0, stop - start)):
            if not self._is(frame, start + count):
                break
            yield frame_planes(frame)
            count += 1
        if count < stop - start:
            raise FormatError(
                f"{self._name}: expected {stop - start} frames from {start} on, found {count}; it changed since it was opened"
            )

    def others(self) -> tuple[OtherStream, ...]:
        """Read audio, subtitles and data, to be written again verbatim; what cannot be is added to `notes`."""
        streams, notes = self._source.others()
        self.notes = tuple(dict.fromkeys((*self.notes, *notes)))
        return streams

    def _is(self, frame: Any, number: int) -> bool:
        same_size = (frame.width, frame.height) == (self.header.width, self.header.height)
        return same_size and (not self._keys or frame.pts == self.header.times[number])

    def _from(self, start: int) -> Iterator[Any]:
        wanted = int(self.header.times[start]) if start < self.header.frames else 0
        at = bisect.bisect_right(self._keys, (wanted, wanted)) - 1
        if start and at > 0:
            frames = self._source.decode(Tally(), from_key=self._keys[at])
            # Frames before the key frame that follow it in the file lack what they refer to; they are never wanted here.
            first = next((frame for frame in frames if frame.pts is not None and frame.pts >= wanted), None)
            if first is not None and first.pts == wanted:
                return chain([first], frames)
        return islice(self._source.decode(Tally()), start, None)


class _Scan:
    """Collects a header from the frames of the first pass."""

    def __init__(self, name: str, source: FileSource | FolderSource) -> None:
        self._name = name
        self._source = source
        self._times = array("q")
        self._mended = 0
        self._interlaced = 0
        self._shape: tuple[int, int, str] | None = None
        self._tags: Tags
        self._last_duration = 0

    @property
    def times_are_the_files(self) -> bool:
        """Whether every frame came with a usable time."""
        return not self._mended

    def add(self, frame: Any) -> None:
        shape = (frame.width, frame.height, frame.format.name)
        if self._shape is None:
            self._tags = read_tags(frame, self._source.field_order, self._source.sample_aspect)
            self._shape = shape
        if shape != self._shape:
            raise FormatError(
                f"{self._name}: expected frames of {_words(self._shape)} throughout, found {_words(shape)} at frame {len(self._times)}; split the clip there"
            )
        if len(self._times) == MAX_FRAMES:
            raise FormatError(f"{self._name}: expected at most {MAX_FRAMES} frames, found more; cut the clip")
        self._times.append(self._time(frame))
        self._interlaced += frame.interlaced_frame
        self._last_duration = max(0, frame.duration or 0)

    def header(self) -> ClipHeader:
        if self._shape is None:
            raise FormatError(f"{self._name}: expected frames, found none; 0 frames could be read, get a fresh copy")
        width, height, stored = self._shape
        twin = planar_twin(stored)
        if twin is None:
            raise FormatError(
                f"{self._name}: expected planar YUV, RGB or gray of 8 to 16 bits, found {stored}; convert the clip first"
            )
        try:
            return ClipHeader(
                width=width,
                height=height,
                pixel_format=twin,
                time_base=self._source.time_base,
                times=np.array(self._times),
                last_duration=self._last_duration,
                colour=self._tags.colour,
                sample_aspect=self._tags.sample_aspect,
                display_matrix=self._tags.display_matrix,
                field_order=self._tags.field_order,
                source_format=self._source.source_format,
                codec=self._source.codec,
            )
        except ContainerError as error:
            raise FormatError(f"{self._name}: {error}") from error

    def notes(self) -> Iterator[str]:
        if self._shape and has_alpha(self._shape[2]):
            yield f"dropped: the transparency of {self._shape[2]}"
        if self._mended:
            yield f"assumed: times of {self._mended} frames, which the file lacks or has out of order"
        if 0 < self._interlaced < len(self._times):
            yield f"assumed: one field order for all frames; {self._interlaced} of {len(self._times)} are interlaced"
        yield from self._source.doubts(self._times, self._last_duration)

    def _time(self, frame: Any) -> int:
        last = self._times[-1] if self._times else None
        if frame.pts is not None and (last is None or frame.pts > last):
            return int(frame.pts)
        self._mended += 1
        if last is None:
            return 0
        # Frames closer than the container's unit come with equal times: the next unit is nearer than a whole step.
        return last + (self._source.step if frame.pts is None else 1)


def _words(shape: tuple[int, int, str]) -> str:
    width, height, pixel_format = shape
    return f"{width}x{height} {pixel_format}"
