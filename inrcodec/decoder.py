"""From an ``.inrc`` stream back to samples, and to the file they came from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from inrcodec_formats import registry
from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.signal import Signal
from inrcodec_kernels.backend import Backend

from .block_bits import draw_partition
from .image import Image, Source
from .payload.sections import KNOWN_SECTIONS
from .reports import DecodeReport, InfoReport, VerifyReport

Progress = Callable[[str, float, str], None]

MEMORY_LIMIT = 8 << 30
"""Largest signal, in bytes, that `decode` returns as an array; larger ones are decoded to a file."""


def decode_signal(source: Source, backend: Backend, progress: Progress) -> Signal:
    """Decode a whole stream into memory."""
    with Image(source, backend) as image:
        if image.header.raw_bytes > MEMORY_LIMIT:
            raise ContainerError(
                f"expected at most {MEMORY_LIMIT >> 30} GiB of samples in memory, found {image.header.raw_bytes >> 30} GiB; "
                "decode to a file, or read regions with open()"
            )
        samples = np.empty(image.shape, dtype=image.header.dtype)
        at = 0
        for slab in _reported(image, progress):
            samples[at : at + len(slab)] = slab
            at += len(slab)
        return Signal(planes=(samples,), header=image.header)


def decode_file(
    source: Source, target: str | os.PathLike[str], backend: Backend, progress: Progress
) -> DecodeReport:
    """Decode a stream into a file, slab by slab."""
    began = time.perf_counter()
    with Image(source, backend) as image:
        registry.writer_for(target, image.header)
        registry.write(target, image.header, _reported(image, progress))
        seconds = time.perf_counter() - began
        return DecodeReport(
            bytes=image.container.size,
            bytes_read=image.bytes_read,
            voxels=image.header.voxels,
            seconds=seconds,
            mvoxels_per_second=image.header.voxels / seconds / 1e6,
            output=os.fspath(target),
            backend=image.backend.title,
            backend_reason=image.backend.reason,
        )


def _reported(image: Image, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    progress("decode", 0.0, "")
    for slab in image.slabs():
        done += len(slab)
        yield slab
        progress("decode", done / image.shape[0], "")


def stream_info(source: Source, picture: str | os.PathLike[str] | None = None) -> InfoReport:
    """Tell what a stream holds; decodes the integers of the readouts, and voxels for a picture only."""
    with Image(source) as image:
        header, container = image.header, image.container
        constant, weights = count_weights(image)
        target = container.header.quality
        report = InfoReport(
            path=os.fspath(source) if isinstance(source, (str, os.PathLike)) else None,
            bytes=container.size,
            shape=header.shape,
            axes=header.axes,
            dtype=header.dtype,
            file_dtype=header.file_dtype,
            spacing=header.spacing,
            units=header.units,
            source_format=header.source_format,
            method=container.header.method,
            target={target.kind: target.value},
            ratio=header.raw_bytes / container.size,
            bits_per_voxel=8 * container.size / header.voxels,
            blocks=image.blocks.tree.count,
            constant_blocks=constant,
            chunks=len(container.chunks),
            weights=weights,
            parts=container.parts(),
            details={
                "quantise_step": header.quantise_step,
                **image.blocks.details(),
                "bits_per_weight": 8 * container.size / max(weights, 1),
                "decoder_memory_bytes": container.header.memory_bytes,
            },
            picture=None if picture is None else os.fspath(picture),
        )
        if picture is not None:
            draw_partition(image, report, picture)
        return report


def count_weights(image: Image) -> tuple[int, int]:
    """Blocks that are a constant, and stored weights (shared ones included)."""
    constant, weights = 0, image.blocks.shared_weights
    chunks = image.container.chunks
    for number in range(len(chunks)):
        first = int(chunks.first[number])
        costs = image.blocks.costs(image.decoded_chunk(number), first, first + int(chunks.count[number]))
        constant += int(costs.constant.sum())
        weights += int(costs.weights.sum())
    return constant, weights


def verify_stream(source: Source, deep: bool, progress: Progress) -> VerifyReport:
    """Check every checksum; with `deep`, decode everything too."""
    began = time.perf_counter()
    with Container.open(source, known=KNOWN_SECTIONS) as container:
        container.verify()
        size, sections, chunks = container.size, len(container.sections), len(container.chunks)
    if deep:
        with Image(source) as image:
            for _ in _reported(image, progress):
                pass
    return VerifyReport(
        ok=True,
        bytes=size,
        sections_checked=sections,
        chunks_checked=chunks,
        deep=deep,
        seconds=time.perf_counter() - began,
    )
