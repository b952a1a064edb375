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

from .block_bits import draw_partition
from .coding.readouts import band_counts, read_chunk
from .image import Image, Source
from .reports import DecodeReport, InfoReport, VerifyReport
from .stream import KNOWN_SECTIONS

Progress = Callable[[str, float, str], None]

MEMORY_LIMIT = 8 << 30
"""Largest signal, in bytes, that `decode` returns as an array; larger ones are decoded to a file."""


def decode_signal(source: Source, progress: Progress) -> Signal:
    """Decode a whole stream into memory."""
    with Image(source) as image:
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


def decode_file(source: Source, target: str | os.PathLike[str], progress: Progress) -> DecodeReport:
    """Decode a stream into a file, slab by slab."""
    began = time.perf_counter()
    with Image(source) as image:
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
            backend="torch on the CPU",
            backend_reason="this version has no GPU kernels",
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
        constant, weights = _count_weights(image)
        target = container.header.quality
        tree, layout = image.stream.tree, image.stream.layout
        levels = {
            "x".join(map(str, layout.cells[v])): int((tree.level == v).sum()) for v in np.unique(tree.level).tolist()
        }
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
            blocks=tree.count,
            constant_blocks=constant,
            chunks=len(container.chunks),
            weights=weights,
            parts=container.parts(),
            details={
                "quantise_step": header.quantise_step,
                "root": layout.root,
                "coordinates": layout.coordinates,
                "blocks_by_size": levels,
                "readout_step": image.stream.step,
                "bits_per_weight": 8 * container.size / max(weights, 1),
                "decoder_memory_bytes": container.header.memory_bytes,
            },
            picture=None if picture is None else os.fspath(picture),
        )
        if picture is not None:
            draw_partition(image, report, picture)
        return report


def _count_weights(image: Image) -> tuple[int, int]:
    """Blocks whose readout is a constant, and stored weights (shared segments included when stored)."""
    constant = weights = 0
    geometry = image.stream.geometry
    chunks = image.container.chunks
    for chunk in range(len(chunks)):
        first = int(chunks.first[chunk])
        data = image.container.read_chunk(chunk)
        for level, values in read_chunk(
            data, geometry, image.statistics, first, first + int(chunks.count[chunk])
        ).items():
            bands = geometry.bands[level]
            kept = band_counts(bands, values)
            sizes = np.cumsum([len(m) for m in bands.members])
            constant += int((kept == 0).sum())
            weights += int(sizes[kept].sum())
    if "NETW" in image.container.sections:
        weights += sum(p.numel() for p in image.model.parameters.values())
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
