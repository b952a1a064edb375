"""Streams of the method `pyramid` from random latents and networks, without a fit."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from inrcodec.coding.latents import LatentCoder, Place
from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.models.pyramid import AXES, FINE, SHIPPED_PLACES, PyramidLayout
from inrcodec.payload import motion, parted
from inrcodec.payload.pyramid import PyramidStream, network_section, networks_from_section, write_chunk
from inrcodec_formats.container import Section, write_container
from inrcodec_formats.container.header import Quality, StreamHeader
from inrcodec_formats.signal import Signal
from inrcodec_kernels.backend import Backend, choose
from inrcodec_kernels.pyramid import CUBIC
from inrcodec_kernels.warp import Field, nodes_of

SHAPES = {
    "x": ((37,), ((True,), (True,))),
    "yx": ((21, 18), ((True, True), (False, True), (True, False))),
    "zyx": ((11, 14, 13), ((False, True, True), (True, True, True), (True, True, True))),
    "tzyx": ((5, 6, 7, 9), ((False, False, True, True), (True, True, True, True))),
    "extents of 1": ((1, 9, 1, 12), ((True, True, False, True), (True, True, True, True))),
    "a sample": ((1, 1, 1), ()),
    "one level": ((6, 7, 5), ()),
    "nothing halved": ((5, 6, 4), ((False,) * 3, (False,) * 3)),
}
"""Shapes of signals, odd ones too, with the axes that each level halves."""
ABOVE: dict[str, tuple[tuple[int, ...], tuple[tuple[bool, ...], ...], tuple[tuple[bool, ...], ...]]] = {
    "no finest level": ((11, 13, 9), ((True,) * 3,) * 2, ((True,) * 3,)),
    "no finest of thick slices": ((5, 14, 15), ((True,) * 3,), ((False, True, True),)),
    "one coarse level": ((17, 18), (), ((True, True), (True, False))),
}
"""The same, with the axes that are halved before the first level."""

SPLIT = {"x": 1, "yx": 2, "zyx": 2, "tzyx": 1, "extents of 1": 2, "no finest level": 2, "no finest of thick slices": 1}
"""How many lattices of some of both are split into bands."""


def flags(ndim: int, levels: int) -> tuple[tuple[bool, ...], ...]:
    """All axes halved from level to level."""
    return ((True,) * ndim,) * (levels - 1)


def quantised(layout: PyramidLayout, seed: int, spread: float = 1.0) -> dict[str, QuantisedTensor]:
    """Random parameters in the precision that encoders store: scales near 1, a synthesis near the sum of all levels."""
    random = np.random.default_rng(seed)
    shapes = {f"context.{n}": s for n, s in layout.context_shapes.items()} | {
        f"synthesis.{n}": s for n, s in layout.synthesis_shapes.items()
    }
    values = {
        name: spread * (0.25 if len(shape) > 1 else 0.1) * random.standard_normal(shape)
        for name, shape in shapes.items()
    }
    values["context.last_bias"] += [0, 30]
    values["synthesis.skips"] += 1
    values["synthesis.gains"] += layout.gains
    values["synthesis.filters"] = CUBIC + 0.02 * spread * random.standard_normal(shapes["synthesis.filters"])
    return {name: QuantisedTensor.of(v, -SHIPPED_PLACES[name]) for name, v in values.items()}


def random_latents(layout: PyramidLayout, seed: int, largest: int = 3000) -> list[np.ndarray]:
    """Of every level, four axes; many zeros, a few very large."""
    random = np.random.default_rng(seed)
    found = []
    for shape in layout.kernel.shapes:
        values = np.rint(random.laplace(0, 1.2, shape)).astype(np.int32)
        rare = random.random(shape) < 0.01
        values[rare] = random.integers(-largest, largest + 1, int(rare.sum()))
        found.append(values)
    return found


@dataclass
class Made:
    """A stream with what is in it."""

    stream: PyramidStream
    parameters: dict[str, QuantisedTensor]
    latents: list[np.ndarray]
    tiles_per_chunk: int = 7
    dtype: str = "int16"
    field: Field | None = None

    @cached_property
    def network(self) -> bytes:
        return network_section(self.parameters, "")

    def coder(self, backend: Backend | None = None) -> LatentCoder:
        context, _ = networks_from_section(self.network, self.stream.layout, self.stream.precision)
        return LatentCoder(self.stream.layout.kernel, context, backend or choose("cpu"))

    def read(self, level: int, start: Place, stop: Place) -> np.ndarray:
        return self.latents[level][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]

    def box(self, tile: int) -> tuple[int, Place, Place]:
        """Level, first latent and end of a tile, with four axes."""
        start, stop = self.stream.tiles.box(tile)
        missing = AXES - len(start)
        return int(self.stream.tiles.level[tile]), (0,) * missing + start, (1,) * missing + stop  # type: ignore[return-value]

    @cached_property
    def tiles(self) -> list[tuple[int, bytes]]:
        """Lanes and bytes of all tiles."""
        coder, found = self.coder(), []
        for tile in range(self.stream.tiles.count):
            level, start, stop = self.box(tile)
            found.append(coder.encode(np.ascontiguousarray(self.read(level, start, stop)), level, start, self.read))
        return found

    @property
    def chunks(self) -> list[tuple[int, bytes]]:
        parts = [self.tiles[at : at + self.tiles_per_chunk] for at in range(0, len(self.tiles), self.tiles_per_chunk)]
        return [(len(part), write_chunk(part)) for part in parts]

    def blob(self, **others: Any) -> bytes:
        """The file; `tree`, `network`, `move` and `chunks` take the place of its own, and header fields by name."""
        move = None if self.field is None else motion.pack(self.field)
        contents = {"tree": self.stream.tree_section(), "network": self.network, "move": move, "chunks": None} | {
            name: others.pop(name) for name in ("tree", "network", "move", "chunks") if name in others
        }
        shape = self.stream.layout.shape if self.field is None else (len(self.field.nodes), *self.field.frame)
        signal = Signal.from_array(np.empty(shape, self.dtype))
        header = StreamHeader.from_signal(
            signal.header, method="pyramid", quality=Quality("ratio", 8.0), memory_bytes=0
        )
        sections = [
            Section(tag, contents[name])
            for tag, name in (("TREE", "tree"), ("NETW", "network"), (motion.TAG, "move"))
            if contents[name] is not None
        ]
        out = io.BytesIO()
        chunks = self.chunks if contents["chunks"] is None else contents["chunks"]
        write_container(out, replace(header, **others), sections, chunks)
        return out.getvalue()


def made(
    shape: tuple[int, ...],
    halved: tuple[tuple[bool, ...], ...],
    edge: int = 5,
    seed: int = 0,
    *,
    above: tuple[tuple[bool, ...], ...] = (),
    widths: tuple[int, int, int] = (8, 4, 8),
    networks: int = 1,
    apart: bool = False,
    wide: bool = False,
    split: int = 0,
    spread: float = 1.0,
    **others: Any,
) -> Made:
    """A stream of random contents."""
    layout = PyramidLayout(shape, halved, widths[0], widths[1:], above, networks, apart, wide, split)
    numbers = {"step": 3.5, "offset": -100, "low": -1000, "high": 1000, "precision": FINE[1]} | others
    return Made(PyramidStream(layout, edge, **numbers), quantised(layout, seed, spread), random_latents(layout, seed))


def made_split(name: str, edge: int = 5, **others: Any) -> Made:
    """A stream of `SPLIT`; contexts are wide where nothing lies above."""
    shape, halved, *above = ABOVE[name] if name in ABOVE else SHAPES[name]
    numbers = {"networks": min(2, len(halved) + 1), "apart": True, "wide": not above} | others
    return made(shape, halved, edge, above=above[0] if above else (), split=SPLIT[name], **numbers)


def random_field(
    frames: tuple[int, int, int], still: tuple[int, int], shift: int = 3, most: int = 40, seed: int = 0
) -> Field:
    """Displacements of up to `most` eighths."""
    count, h, w = frames
    shape = (count, 2, nodes_of(h, shift), nodes_of(w, shift))
    nodes = np.random.default_rng(seed).integers(-most, most + 1, shape, dtype=np.int32)
    return Field(nodes, shift, (h, w), still)


def made_moving(frames: tuple[int, int, int] = (5, 17, 22), still: tuple[int, int] = (20, 25), **others: Any) -> Made:
    """A stream of still frames and random displacements."""
    found = made((frames[0], *still), flags(3, 3), 8, **others)
    return replace(found, field=random_field(frames, still))


def made_parted(
    extents: tuple[int, ...] = (9, 6, 8), others: tuple[int, ...] = (11, 10), axis: int = 0, edge: int = 5, **numbers: Any
) -> list[Made]:
    """Pyramids of random contents, of different layouts and steps, for the parts of a signal cut across an axis."""
    found = []
    for seed, extent in enumerate(extents):
        shape = (*others[:axis], extent, *others[axis:])
        above = flags(len(shape), 2) if seed % 3 == 2 else ()
        widths = (8, 4, 8) if seed % 2 else (4, 8, 4)
        given: dict[str, Any] = {"step": 3.5 + seed, "offset": 40 * seed - 100} | numbers
        found.append(made(shape, flags(len(shape), 2 if above else 3), edge, seed, above=above, widths=widths, **given))
    return found


def parted_blob(parts: list[Made], axis: int = 0, **others: Any) -> bytes:
    """The file of a signal in parts; `part` and `chunks` take the place of its own, `sections` come besides, header fields by name."""
    rows = [parted.Part(p.stream.layout.shape[axis], p.stream.tiles.count, p.stream.tree_section(), p.network) for p in parts]
    shape = list(parts[0].stream.layout.shape)
    shape[axis] = sum(row.extent for row in rows)
    signal = Signal.from_array(np.empty(shape, parts[0].dtype))
    header = StreamHeader.from_signal(signal.header, method="pyramid", quality=Quality("ratio", 8.0), memory_bytes=0)
    section = Section(parted.TAG, others.pop("part", None) or parted.pack(axis, rows))
    sections, chunks = others.pop("sections", []), others.pop("chunks", None) or [c for p in parts for c in p.chunks]
    out = io.BytesIO()
    write_container(out, replace(header, **others), [section, *sections], chunks)
    return out.getvalue()
