"""Streams with hostile contents under sound checksums, and what every reader must do with them."""

from __future__ import annotations

import io
import time
import tracemalloc
from dataclasses import replace

import inrcodec
from inrcodec import ContainerError
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec_formats.container import Container, Section, write_container

LARGEST_HEAP, LONGEST = 64 << 20, 5.0
"""Python heap, and seconds of the processor, that a hostile file of a few kilobytes may cost."""


def rebuilt(stream: bytes, *, shape: tuple[int, ...] | None = None, chunks: list[tuple[int, bytes]] | None = None, **sections: bytes | None) -> bytes:
    """The stream with other contents and fresh checksums; a section set to None is left out."""
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        kept = {tag: container.sections.read(tag) for tag in container.sections} | sections
        listed = [Section(tag, data) for tag, data in kept.items() if data is not None]
        old = [(int(n), container.read_chunk(i)) for i, n in enumerate(container.chunks.count)]
        header = container.header if shape is None else replace(container.header, shape=shape)
        out = io.BytesIO()
        write_container(out, header, listed, old if chunks is None else chunks)
    return out.getvalue()


def section(stream: bytes, tag: str) -> bytes:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        return container.sections.read(tag)


def cheap(data: bytes) -> list[ContainerError]:
    """What all readers raise; each answers in time and without memory to speak of."""
    found = []
    tracemalloc.start()
    try:
        for act in (
            inrcodec.info,
            lambda d: inrcodec.verify(d, deep=True),
            inrcodec.decode,
            lambda d: inrcodec.open(d)[0, 0, 0],
        ):
            began = time.process_time()
            try:
                act(data)
            except ContainerError as error:
                assert "\n" not in str(error) and "expected" in str(error)
                found.append(error)
            assert time.process_time() - began < LONGEST
        assert tracemalloc.get_traced_memory()[1] < LARGEST_HEAP
    finally:
        tracemalloc.stop()
    return found


def refused(data: bytes, words: str, readers: int = 4) -> None:
    """By so many of the four readers: `info` looks into chunks, but decodes no tile."""
    errors = cheap(data)
    assert len(errors) >= readers
    assert all(words in str(error) for error in errors), errors


def refused_or_harmless(data: bytes, sound: bytes) -> None:
    """Refused in one line, or samples of the sound stream's kind within the range that it names; in time either way."""
    good = inrcodec.decode(sound).samples  # first, so that nothing is left to be compiled
    began = time.process_time()
    try:
        with inrcodec.open(data) as image:
            found, low, high = image[...], image.blocks.low, image.blocks.high
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert found.shape == good.shape and found.dtype == good.dtype
        assert found.min() >= low and found.max() <= high
    assert time.process_time() - began < LONGEST
