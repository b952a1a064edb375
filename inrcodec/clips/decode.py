"""From the stream of a clip back to frames, to the file they came from, and to what can be told of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from inrcodec_formats.errors import ContainerError
from inrcodec_formats.signal import Signal, SignalHeader
from inrcodec_formats.video.write import write_clip
from inrcodec_kernels.backend import Backend

from ..block_bits import draw_partition
from ..decoder import MEMORY_LIMIT, count_weights
from ..image import Source
from ..reports import DecodeReport, InfoReport, VerifyReport
from .stream import OTHER, frame_seconds, plane_names
from .view import Clip, Planes, holds_clip

__all__ = ["clip_info", "decode_clip", "decode_clip_file", "holds_clip", "verify_clip"]

Progress = Callable[[str, float, str], None]
Codec = Literal["h264", "hevc", "ffv1"]


def decode_clip(source: Source, backend: Backend, progress: Progress) -> Signal:
    """Decode a whole clip into memory: a signal of one to three planes, whose source header is the clip's."""
    with Clip(source, backend) as clip:
        header = clip.header
        shapes = [(header.frames, *shape) for shape in header.plane_shapes]
        wanted = sum(int(np.prod(shape)) for shape in shapes) * header.dtype.itemsize
        if wanted > MEMORY_LIMIT:
            raise ContainerError(
                f"expected at most {MEMORY_LIMIT >> 30} GiB of frames in memory, found {wanted >> 30} GiB; "
                "decode to a file, or read frames with open()"
            )
        planes = tuple(np.empty(shape, header.dtype) for shape in shapes)
        for number, frame in enumerate(_reported(clip, progress)):
            for stack, plane in zip(planes, frame, strict=True):
                stack[number] = plane
        return Signal(planes, signal_header(clip))


def signal_header(clip: Clip) -> SignalHeader:
    """The header of the first plane of a clip, with the clip's own header in it."""
    return clip.container.header.to_signal(clip.header.to_bytes())


def decode_clip_file(
    source: Source, target: str | os.PathLike[str], backend: Backend, progress: Progress, *, codec: Codec | None = None
) -> DecodeReport:
    """Decode a clip into a file; one group is held at a time."""
    with Clip(source, backend) as clip:
        return write_frames(clip, target, progress, codec=codec)


def write_frames(
    clip: Clip,
    target: str | os.PathLike[str],
    progress: Progress,
    *,
    start: int = 0,
    stop: int | None = None,
    scale: float = 1.0,
    codec: Codec | None = None,
) -> DecodeReport:
    """Write frames [start, stop) of an open clip, or all, into a file; audio and data streams with all of them only."""
    began, stop = time.perf_counter(), len(clip) if stop is None else stop
    header, whole = clip.part(start, stop, scale=scale), (start, stop) == (0, len(clip))
    frames = _reported(clip, progress, start, stop, scale)
    notes = write_clip(target, header, frames, codec=codec, others=clip.others() if whole else ())
    if not whole and OTHER in clip.container.sections:
        notes = (*notes, "dropped: audio and data streams, which a part of the frames is written without")
    seconds = time.perf_counter() - began
    samples = header.frames * sum(height * width for height, width in header.plane_shapes)
    return DecodeReport(
        bytes=clip.container.size,
        bytes_read=clip.bytes_read,
        voxels=samples,
        seconds=seconds,
        mvoxels_per_second=samples / seconds / 1e6,
        output=os.fspath(target),
        backend=clip.backend.title,
        backend_reason=clip.backend.reason,
        notes=notes,
    )


def _reported(
    clip: Clip, progress: Progress, start: int = 0, stop: int | None = None, scale: float = 1.0
) -> Iterator[Planes]:
    count = (len(clip) if stop is None else stop) - start
    progress("decode", 0.0, "")
    for done, planes in enumerate(clip.frames(start, stop, scale=scale), 1):
        yield planes
        progress("decode", done / count, f"frame {done} of {count}")


def clip_info(source: Source, picture: str | os.PathLike[str] | None = None) -> InfoReport:
    """Tell what the stream of a clip holds; decodes the integers of the readouts, and samples for a picture only."""
    with Clip(source) as clip:
        report = _told(clip, source)
        if picture is not None:
            _draw(clip, report, picture)
        return report


def _told(clip: Clip, source: Source) -> InfoReport:
    header, container, front = clip.header, clip.container, clip.container.header
    blocks, constant, weights = _counts(clip)
    samples = len(clip) * sum(height * width for height, width in header.plane_shapes)
    raw = samples * header.dtype.itemsize
    return InfoReport(
        path=os.fspath(source) if isinstance(source, (str, os.PathLike)) else None,
        bytes=container.size,
        shape=front.shape,
        axes=front.axes,
        dtype=front.dtype,
        file_dtype=front.file_dtype,
        spacing=front.spacing,
        units=front.units,
        source_format=front.source_format,
        method=front.method,
        target={front.quality.kind: front.quality.value},
        ratio=raw / container.size,
        bits_per_voxel=8 * container.size / samples,
        blocks=blocks,
        constant_blocks=constant,
        chunks=len(container.chunks),
        weights=weights,
        parts=container.parts(),
        details=_details(clip),
    )


def _draw(clip: Clip, report: InfoReport, picture: str | os.PathLike[str]) -> None:
    """Draw the blocks of the group in the middle, of its first planes: luma, or all three of RGB."""
    number = next(number for number, group in enumerate(clip.groups) if len(clip) // 2 in group)
    frames = clip.groups[number]
    with clip.image(number, 0) as image:
        draw_partition(image, report, picture, f"{clip.parts[0].name} of frames {frames.start + 1} to {frames.stop}")


def _details(clip: Clip) -> dict[str, object]:
    header = clip.header
    return {
        "pixel_format": header.pixel_format,
        "planes": dict(zip(plane_names(header), header.plane_shapes, strict=True)),
        "frames_per_second": 1 / frame_seconds(header),
        "first_frames": [group.start for group in clip.groups],
        "other_streams": [other.codec for other in clip.others()],
        "decoder_memory_bytes": clip.container.header.memory_bytes,
    }


def _counts(clip: Clip) -> tuple[int, int, int]:
    """Blocks, blocks of one value and weights, of all groups."""
    blocks = constant = weights = 0
    for group in range(len(clip.groups)):
        for part in range(len(clip.parts)):
            with clip.image(group, part) as image:
                found = count_weights(image)
                blocks, constant, weights = blocks + image.blocks.tree.count, constant + found[0], weights + found[1]
    return blocks, constant, weights


def verify_clip(source: Source, deep: bool, progress: Progress) -> VerifyReport:
    """Check every checksum, those of the groups' own streams included; with `deep`, decode everything too."""
    began = time.perf_counter()
    with Clip(source) as clip:
        container = clip.container
        container.verify()
        clip.others()
        sections, chunks = len(container.sections), len(container.chunks)
        for group in range(len(clip.groups)):
            for part in range(len(clip.parts)):
                with clip.image(group, part) as image:
                    image.container.verify()
                    sections += len(image.container.sections)
                    chunks += len(image.container.chunks)
        if deep:
            for _ in _reported(clip, progress):
                pass
        return VerifyReport(
            ok=True,
            bytes=container.size,
            sections_checked=sections,
            chunks_checked=chunks,
            deep=deep,
            seconds=time.perf_counter() - began,
        )
