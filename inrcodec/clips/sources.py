"""What can be encoded as a clip: a file that FFmpeg reads, or a signal that was decoded from one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, TypeGuard

import numpy as np

from inrcodec_formats.errors import SignalError
from inrcodec_formats.signal import Signal
from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.read import ClipReader, is_clip
from inrcodec_formats.video.streams import OtherStream

Planes = tuple[np.ndarray, ...]
ClipSource: TypeAlias = Signal | str | os.PathLike[str]


class SignalFrames:
    """The frames of a signal of several planes, with what `ClipReader` offers.

    Parameters
    ----------
    signal : Signal
        Planes of shape (frames, height, width); its source header is that of a clip.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, signal: Signal) -> None:
        self.planes, self.header = signal.planes, ClipHeader.from_bytes(signal.header.source_header)
        wanted = [(self.header.frames, *shape) for shape in self.header.plane_shapes]
        found = [plane.shape for plane in self.planes]
        if found != wanted or any(plane.dtype != self.header.dtype for plane in self.planes):
            raise SignalError(f"expected planes {wanted} of {self.header.dtype}, found {found}; decode the clip again")

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Planes]:
        """The planes of each frame."""
        yield from zip(*(plane[start:stop] for plane in self.planes), strict=True)

    def others(self) -> tuple[OtherStream, ...]:
        """None: a signal has no sound."""
        return ()

    def __enter__(self) -> SignalFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""


def is_clip_source(source: object) -> TypeGuard[ClipSource]:
    """Whether a source is coded as a clip: a clip's file, or a signal of several planes."""
    if isinstance(source, Signal):
        return len(source.planes) > 1
    return isinstance(source, (str, os.PathLike)) and is_clip(Path(source))


def opened(source: ClipSource) -> SignalFrames | ClipReader:
    """The frames of a source, to be used in a ``with`` block."""
    return SignalFrames(source) if isinstance(source, Signal) else ClipReader(source)
