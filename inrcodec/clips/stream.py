"""What the file of a clip holds: its two sections, and bodies of chunks, one chunk a group of frames.

Byte layout: ``docs/container.md``. A chunk's blocks are its frames, so that the container's index finds the group of any frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from inrcodec_formats.container import Container, Section
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.streams import OtherStream

from .groups import most_frames
from .others import pack_streams, unpack_streams

CLIP, OTHER = "CLIP", "OTHR"
CLIP_SECTIONS = frozenset({CLIP, OTHER})
AXES = "tyx"

_COPY = "get a fresh copy of the file"


def sections(header: ClipHeader, others: tuple[OtherStream, ...]) -> list[Section]:
    """The sections of a clip: what it is, and its audio and data streams where there are some."""
    found = [Section(CLIP, header.to_bytes())]
    return found + ([Section(OTHER, pack_streams(others), critical=False)] if others else [])


def read_header(container: Container) -> ClipHeader:
    """The clip's header, after comparing it with the container's.

    Raises
    ------
    ContainerError
        If they disagree, or groups are longer than any encoder makes them.
    """
    front = container.header
    header = ClipHeader.from_bytes(container.sections.read(CLIP))
    found = front.axes, front.shape, front.dtype
    wanted = AXES, (header.frames, header.height, header.width), header.dtype.name
    if found != wanted:
        raise ContainerError(f"expected a clip of {wanted}, found a header of {found}; {_COPY}")
    if container.chunks.blocks != header.frames:
        raise ContainerError(f"expected {header.frames} frames in all groups, found {container.chunks.blocks}; {_COPY}")
    longest, most = int(container.chunks.count.max()), most_frames(header.height * header.width)
    if longest > most:
        raise ContainerError(f"expected groups of at most {most} frames of this size, found one of {longest}; {_COPY}")
    return header


def read_others(container: Container) -> tuple[OtherStream, ...]:
    """The audio and data streams that the file carries."""
    return unpack_streams(container.sections.read(OTHER)) if OTHER in container.sections else ()


def join(streams: list[bytes]) -> bytes:
    """The body of a group's chunk: lengths of all streams but the last, and the streams."""
    return struct.pack(f"<{len(streams) - 1}I", *map(len, streams[:-1])) + b"".join(streams)


def split(body: bytes, count: int) -> list[bytes]:
    """The streams of a group.

    Raises
    ------
    ContainerError
        If the lengths claim more than there is.
    """
    head = struct.Struct(f"<{count - 1}I")
    if len(body) < head.size:
        raise ContainerError(f"expected a group of {count} streams, found {len(body)} bytes; {_COPY}")
    edges = list(accumulate(head.unpack_from(body), initial=head.size))
    if edges[-1] > len(body):
        raise ContainerError(f"expected streams of {edges[-1]} bytes within a group, found {len(body)}; {_COPY}")
    return [body[a:b] for a, b in pairwise([*edges, len(body)])]


@dataclass(frozen=True)
class Part:
    """Planes of a clip that are coded together: one, or several of the same size as channels.

    Attributes
    ----------
    name : str
        E.g. ``"UV"``.
    planes : tuple of int
    """

    name: str
    planes: tuple[int, ...]

    @property
    def alone(self) -> bool:
        """Whether it is one plane: of several, which are coded as channels, nothing is displaced."""
        return len(self.planes) == 1

    @property
    def axes(self) -> str:
        """Of the stream: with channels where there are several planes."""
        return AXES if self.alone else AXES + "c"

    def shape(self, header: ClipHeader, frames: int) -> tuple[int, ...]:
        """Of the stream of so many frames."""
        shape = (frames, *header.plane_shapes[self.planes[0]])
        return shape if len(self.planes) == 1 else (*shape, len(self.planes))

    def joined(self, planes: tuple[np.ndarray, ...]) -> np.ndarray:
        """The samples of the stream, from all planes of a group."""
        if len(self.planes) == 1:
            return planes[self.planes[0]]
        return np.stack([planes[plane] for plane in self.planes], axis=-1)

    def parted(self, samples: np.ndarray) -> tuple[np.ndarray, ...]:
        """The inverse of `joined`: this part's planes."""
        return (samples,) if len(self.planes) == 1 else tuple(np.moveaxis(samples, -1, 0))


def parts_of(header: ClipHeader) -> tuple[Part, ...]:
    """How the planes of a clip are coded: luma by itself, both planes of chroma together, and the three of RGB together."""
    names = plane_names(header)
    together: dict[str, tuple[tuple[int, ...], ...]] = {"Y": ((0,),), "YUV": ((0,), (1, 2)), "GBR": ((0, 1, 2),)}
    return tuple(Part("".join(names[plane] for plane in planes), planes) for planes in together["".join(names)])


def plane_names(header: ClipHeader) -> tuple[str, ...]:
    """What the planes are called: Y, U, V; of FFmpeg's planar RGB G, B, R."""
    if len(header.plane_shapes) == 1:
        return ("Y",)
    return ("G", "B", "R") if header.pixel_format.startswith("gbr") else ("Y", "U", "V")


def frame_seconds(header: ClipHeader) -> float:
    """Mean time from one frame to the next."""
    if header.frames < 2:
        return float(last_duration(header) * header.time_base)
    return float(int(header.times[-1] - header.times[0]) * header.time_base / (header.frames - 1))


def last_duration(header: ClipHeader) -> int:
    """How long the last frame is shown, in units of the time base; as long as the one before where that is not known."""
    if header.last_duration or header.frames < 2:
        return max(1, header.last_duration)
    return int(header.times[-1] - header.times[-2])
