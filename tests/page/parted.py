"""A second decoder, written from docs/container.md alone: the section PART of the method `pyramid`."""

from __future__ import annotations

from dataclasses import replace

from .stream import Bytes, Stream

# ---- PART of the pyramid


def read_parts(stream: Stream) -> tuple[int, list[Stream]]:
    """The axis that is cut, and the parts as streams of their own."""
    assert not {"TREE", "NETW", "MOVE"} & set(stream.sections)
    fields = Bytes(stream.sections["PART"])
    version, axis, count = fields.fields("BBH")
    assert version == 0 and count >= 2 and axis >= stream.channels
    rows = [fields.fields("IIII") for _ in range(count)]
    parts, chunks = [], list(stream.chunks)
    for extent, tiles, of_tree, of_network in rows:
        sections = {"TREE": fields.take(of_tree), "NETW": fields.take(of_network)}
        shape = (*stream.shape[:axis], extent, *stream.shape[axis + 1 :])
        held = []
        while sum(chunk.blocks for chunk in held) < tiles:
            held.append(chunks.pop(0))
        assert sum(chunk.blocks for chunk in held) == tiles
        parts.append(replace(stream, shape=shape, sections=sections, chunks=held))
    assert not fields.rest() and not chunks and sum(row[0] for row in rows) == stream.shape[axis]
    return axis, parts
