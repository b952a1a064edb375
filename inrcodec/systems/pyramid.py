"""The pyramid: latents on lattices of several resolutions, a context model and a synthesis, fitted together."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.container import Section
from inrcodec_kernels.backend import best_on_cpu, in_threads
from inrcodec_kernels.pyramid import Context, Synthesis

from ..coding.latents import LatentCoder, Place
from ..coding.parameters import QuantisedTensor
from ..fitting import pyramid, start
from ..fitting.goal import Goal
from ..fitting.rounding import curvatures, disturbances, refined
from ..models.pyramid import AXES, SCALE_OFFSET, SCALES_PER_OCTAVE, PyramidLayout, integer_context, stored_context
from ..payload.pyramid import PyramidStream, network_section, write_chunk
from .base import Draft, Task

_BITS_PER_PARAMETER = 7.5
CHUNK_BYTES = 2000
"""Tiles are put into chunks of at least so many bytes."""
CHUNK_TILES = 256
"""Most tiles of a chunk."""
_PASSES = (6, 4)
"""Passes of optimised rounding of a draft, at least, and for each octave of pressure more; none where the fit landed well."""
# Binary places that parameters are stored with.
_CONTEXT_PLACES = {"first": 6, "level_bias": 6, "second": 6, "second_bias": 6, "last": 6, "last_bias": 6, "skip": 7}
_SYNTHESIS_PLACES = {
    "gains": 14, "filters": 9, "first": 7, "first_bias": 7, "second": 7, "second_bias": 7, "last": 7, "last_bias": 9, "skips": 9,
}  # fmt: skip


class PyramidSystem:
    """See `base.System`; its step is the pressure on the rate, over that of the fit.

    Parameters
    ----------
    task : Task
    """

    name: ClassVar[str] = "pyramid"
    step_bounds: ClassVar[tuple[float, float]] = (1 / 64, 64.0)
    size_slope: ClassVar[float] = -0.3
    restorable: ClassVar[bool] = False

    def __init__(self, task: Task) -> None:
        self.task, self.options = task, task.options.pyramid
        self.backend = best_on_cpu("there are no GPU kernels for the pyramid") if task.backend.name == "triton" else task.backend
        self.choices: dict[str, object] = {}
        self.step = 1.0
        self.offset = start.typical_value(task.volume)

    def prepare(self, goal: Goal) -> None:
        """Fit latents and networks."""
        options, volume = self.options, self.task.volume
        halved = pyramid.choose_halvings(volume, options.levels)
        self.layout = PyramidLayout(volume.shape, halved, options.context, options.synthesis)
        if goal.bits is not None:
            goal = Goal(bits=max(goal.bits - _BITS_PER_PARAMETER * self.layout.parameters, goal.bits / 4))
        step = pyramid.first_step(volume, self.offset, self.layout, goal)
        self.fit = pyramid.PyramidFit(volume, self.offset, step, self.layout, self.task.options.seed, self.backend)
        steps = self.task.options.pyramid_steps
        self.task.timed("fit", lambda: self.fit.run(steps, goal, pyramid.Schedule(), self.task.note("fit")))
        self._round_networks()
        self._coder = LatentCoder(self.layout.kernel, self._integers, self.backend)
        self._curvature = curvatures(self.layout.kernel, self.fit.synthesis, self.backend)
        self._disturbed = disturbances(
            self.fit.rounded, self._stream.tiles, self._coder, self.fit.slopes, self.fit.bits, self.task.options.seed
        )
        self.choices.update(
            steps=steps,
            lattices=["x".join(map(str, lattice)) for lattice in self.layout.lattices],
        )  # fmt: skip

    def _round_networks(self) -> None:
        """Round both networks to what a stream holds, and go on with those."""
        self._context = {
            name: QuantisedTensor.of(value, -_CONTEXT_PLACES[name]) for name, value in stored_context(self.fit.context).items()
        }
        self._synthesis = {
            name: QuantisedTensor.of(value, -_SYNTHESIS_PLACES[name]) for name, value in self.fit.synthesis._asdict().items()
        }
        stored = {name: t.dequantised() for name, t in self._context.items()}
        self._integers = integer_context(stored)
        of_scale = np.array([1.0, 1 / SCALES_PER_OCTAVE], dtype=np.float32)
        plain = {**stored, "last": stored["last"] * of_scale, "skip": stored["skip"] * of_scale}
        plain["last_bias"] = (stored["last_bias"] - np.array([0, SCALE_OFFSET], dtype=np.float32)) * of_scale
        self.fit.set_networks(Context(**plain), Synthesis(**{n: t.dequantised() for n, t in self._synthesis.items()}))

    @property
    def blocks(self) -> int:
        """Number of tiles."""
        return self._stream.tiles.count

    @property
    def decoder_bytes(self) -> int:
        """Decoded tiles, channels of a part that is synthesised at once, and what their contexts hold."""
        return (256 << 20) + 4 * (1 << 22) * (self.layout.levels + 2) + 16 * self.options.tile_edge**3

    @property
    def rows(self) -> int:
        """Rows of the finest tiles."""
        return self.options.tile_edge

    @property
    def _stream(self) -> PyramidStream:
        step = float(np.float32(self.fit.step))
        return PyramidStream(self.layout, self.options.tile_edge, step, self.offset, self.task.low, self.task.high)

    def draft(self, step: float, pressure: float) -> Draft:
        """Change the latents a little for the pressure, and code them."""
        stream = self._stream
        least, more = _PASSES
        latents = refined(
            self.fit.rounded, pyramid.FAIR * step * max(pressure, 1e-3),
            least + round(more * abs(math.log2(step))) if step != 1 else 0,
            stream.tiles, self._coder, self.fit.slopes, self._curvature, self._disturbed, self.task.options.seed,
        )  # fmt: skip
        tiles = _coded(stream, latents, self._coder)
        sections = [
            Section("TREE", stream.tree_section()),
            Section("NETW", network_section(self._context, self._synthesis)),
        ]
        weights = self.layout.parameters + sum(int(np.count_nonzero(y)) for y in latents)
        return Draft(sections, _chunks(tiles), weights, None)


def _coded(
    stream: PyramidStream, latents: list[NDArray[np.int32]], coder: LatentCoder
) -> list[tuple[int, bytes]]:
    """Lanes and bytes of all tiles."""
    missing = AXES - stream.layout.ndim

    def read(level: int, low: Place, high: Place) -> NDArray[np.int32]:
        return latents[level][tuple(slice(a, b) for a, b in zip(low, high, strict=True))]

    def code(tile: int) -> tuple[int, bytes]:
        start, stop = stream.tiles.box(tile)
        low: Place = (0,) * missing + start  # type: ignore[assignment]
        high: Place = (1,) * missing + stop  # type: ignore[assignment]
        level = int(stream.tiles.level[tile])
        return coder.encode(np.ascontiguousarray(read(level, low, high)), level, low, read)

    return in_threads(code, range(stream.tiles.count))


def _chunks(tiles: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Put tiles into chunks."""
    found: list[tuple[int, bytes]] = []
    held: list[tuple[int, bytes]] = []
    for tile in tiles:
        held.append(tile)
        if sum(len(body) for _, body in held) >= CHUNK_BYTES or len(held) == CHUNK_TILES:
            found.append((len(held), write_chunk(held)))
            held = []
    return found + ([(len(held), write_chunk(held))] if held else [])
