"""The pyramid: integers on lattices of several resolutions, from which a small network makes samples.

The latents of one signal are its parameters, as are the weights of two tiny networks: the *synthesis*, which upsamples
all levels to the finest one and turns what it finds around a sample into the sample; and the *context model*, which
predicts every latent from those coded before it. See `inrcodec_kernels.pyramid` for both.

References
----------
Ladune et al. 2023, "COOL-CHIC: Coordinate-based Low Complexity Hierarchical Image Codec" (ICCV), arXiv:2212.05458.
Kim et al. 2024, "C3: High-performance and low-complexity neural compression from a single image or video" (CVPR),
arXiv:2312.02753.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.pyramid import CUBIC, Context, IntegerContext, Layout, Synthesis, check_context, network_of

AXES = 4
"""Kernels see every signal with so many axes."""
MOST_ABOVE = 2
"""Most lattices, from that of the signal on, without latents."""
Flags = tuple[bool, ...]

HIDDEN_PLACES, WEIGHT_PLACES = 5, 7
"""Binary places of the context model's hidden numbers and of its weights."""
SCALES_PER_OCTAVE, SCALE_OFFSET = 6, 30
"""Scale number j stands for ``2 ** ((j - SCALE_OFFSET) / SCALES_PER_OCTAVE)``."""
_OF_SCALE = np.array([1.0, SCALES_PER_OCTAVE], dtype=np.float32)
_FIRST_SCALE = np.array([0.0, SCALE_OFFSET], dtype=np.float32)

# Binary places of the parameters of shipped networks.
SHIPPED_PLACES: dict[str, int] = {
    "context.first": 7, "context.level_bias": 7, "context.second": 7, "context.second_bias": 7, "context.last": 7,
    "context.last_bias": 7, "context.skip": 8, "synthesis.gains": 14, "synthesis.filters": 9, "synthesis.first": 7,
    "synthesis.first_bias": 7, "synthesis.second": 7, "synthesis.second_bias": 7, "synthesis.last": 7,
    "synthesis.last_bias": 9, "synthesis.skips": 9,
}  # fmt: skip
# Most that an encoder stores parameters with: those of a context model are whole numbers in the end, but a synthesis of many bits a
# sample, whose channels are large numbers of steps, needs whatever a float has.
STORED_PLACES: dict[str, int] = {
    name: 20 if name.startswith("synthesis.") else places for name, places in SHIPPED_PLACES.items()
}

# Binary places that are worth their bits in a signal of `_MEASURED` samples.
_PLACES_WORTH: dict[str, int] = {
    "context.first": 5, "context.level_bias": 3, "context.second": 5, "context.second_bias": 5, "context.last": 6,
    "context.last_bias": 6, "context.skip": 8, "synthesis.gains": 12, "synthesis.filters": 9, "synthesis.first": 4,
    "synthesis.first_bias": 5, "synthesis.second": 7, "synthesis.second_bias": 6, "synthesis.last": 7,
    "synthesis.last_bias": 9, "synthesis.skips": 9,
}  # fmt: skip
_MEASURED, _FEWER = 1 << 18, 2
"""Samples, and how many places fewer the smallest signals have."""


class Precision(NamedTuple):
    """How fine the context model's whole numbers are, and how large.

    Attributes
    ----------
    input_places : int
        Binary places of its inputs and means, 3 or 4.
    hidden_bits : int
        Bits of the largest hidden number, 11 to 14.
    """

    input_places: int
    hidden_bits: int

    @property
    def places(self) -> dict[str, int]:
        """Binary places that each stored parameter may have: with them, all sums are whole numbers."""
        weight, hidden, both = WEIGHT_PLACES, HIDDEN_PLACES, WEIGHT_PLACES + HIDDEN_PLACES
        return {
            "first": weight, "level_bias": weight + self.input_places, "second": weight, "second_bias": both,
            "last": weight, "last_bias": both, "skip": weight + hidden - self.input_places,
        }  # fmt: skip


COARSE = Precision(3, 11)
"""That of streams which do not say it."""
FINE = tuple(Precision(4, bits) for bits in (14, 13, 12, 11))
"""Those that an encoder takes the first of whose sums are small enough: on coarse levels hidden numbers are large."""


@dataclass(frozen=True)
class PyramidLayout:
    """Everything that fixes the shapes of a pyramid.

    Attributes
    ----------
    shape : tuple of int
        Extents of the signal.
    halved : tuple of tuple of bool
        For each lattice with latents but the finest: the axes along which it has half of the one below it.
    context : int
        Width of the context model's hidden layers.
    synthesis : tuple of int
        Widths of the synthesis's hidden layers.
    above : tuple of tuple of bool
        For each lattice between the signal and the finest one with latents: the axes along which it, or that one, has half of what is above it.
    networks : int
        Of the context model, 1 to the number of resolutions: the first ones serve a lattice each, the last one all coarser ones too.
    apart : bool
        Whether the synthesis sees samples as far from each other as latents of the finest level are; else, as in older streams, neighbours.
    wide : bool
        Whether the context model sees further than the nearest latents, twice as many inputs in a volume, and the synthesis further in its finest channel.
    split : int
        Of the lattices with latents so many, the finest, are split into bands, each a level (`inrcodec_kernels.pyramid.subbands`).
    """

    shape: tuple[int, ...]
    halved: tuple[Flags, ...]
    context: int = 24
    synthesis: tuple[int, int] = (16, 16)
    above: tuple[Flags, ...] = ()
    networks: int = 1
    apart: bool = False
    wide: bool = False
    split: int = 0

    @property
    def ndim(self) -> int:
        """Number of axes of the signal."""
        return len(self.shape)

    @property
    def resolutions(self) -> int:
        """Number of lattices with latents, and of the synthesis's channels."""
        return len(self.halved) + 1

    @property
    def levels(self) -> int:
        """Number of levels: lattices, or bands of those that are split."""
        return self.kernel.levels

    @cached_property
    def kernel(self) -> Layout:
        """The layout as the kernels take it: four axes."""
        missing = AXES - self.ndim
        above, halved = (tuple((False,) * missing + flags for flags in steps) for steps in (self.above, self.halved))
        distances = self._distances[0] if self.apart else (1,) * self.ndim
        return Layout((1,) * missing + self.shape, halved, above, (1,) * missing + distances, self.wide, self.split)  # type: ignore[arg-type]

    @property
    def coarser(self) -> PyramidLayout:
        """That of the signal at half its resolution, with all lattices that are left there."""
        shape = self.kernel.whole.shapes[1][AXES - self.ndim :]
        if self.above:
            return replace(self, shape=shape, above=self.above[1:])
        return replace(self, shape=shape, halved=self.halved[1:], networks=max(self.networks - 1, 1), split=max(self.split - 1, 0))

    @property
    def without_finest(self) -> PyramidLayout:
        """That of the same signal where one lattice less holds latents."""
        networks, split = min(self.networks, self.resolutions - 1), min(self.split, self.resolutions - 2)
        return replace(self, halved=self.halved[1:], above=self.above + self.halved[:1], networks=networks, split=split)

    @property
    def lattices(self) -> tuple[tuple[int, ...], ...]:
        """Extents of every level's lattice, the finest first."""
        return tuple(shape[AXES - self.ndim :] for shape in self.kernel.shapes)

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Samples from one latent of a level to the next along each axis."""
        return self.kernel.of_levels(self._distances)

    @property
    def _distances(self) -> list[tuple[int, ...]]:
        """The same of every lattice with latents."""
        found = [(1,) * self.ndim]
        for flags in self.above + self.halved:
            found.append(tuple(s * 2 if half else s for s, half in zip(found[-1], flags, strict=True)))
        return found[len(self.above) :]

    @property
    def gains(self) -> NDArray[np.float32]:
        """What a latent of each lattice is worth at first: coarser ones less, as many samples profit."""
        return np.sqrt(1 / np.prod(self._distances, axis=1)).astype(np.float32)

    @property
    def latents(self) -> int:
        """Latents of all levels."""
        return sum(math.prod(lattice) for lattice in self.lattices)

    @property
    def context_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the context model's parameters, in stream order."""
        g, n, h = self.networks, self.kernel.context_inputs, self.context
        return {
            "first": (g, n, h), "level_bias": (self.levels, h), "second": (g, h, h), "second_bias": (g, h),
            "last": (g, h, 2), "last_bias": (g, 2), "skip": (g, n, 2),
        }  # fmt: skip

    @property
    def synthesis_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the synthesis's parameters, in stream order."""
        n, (s1, s2) = self.kernel.synthesis_inputs, self.synthesis
        return {
            "gains": (self.resolutions,), "filters": (len(self.above) + self.resolutions - 1, 4), "first": (n, s1), "first_bias": (s1,),
            "second": (s1, s2), "second_bias": (s2,), "last": (s2,), "last_bias": (), "skips": (self.resolutions,),
        }  # fmt: skip

    @property
    def parameters(self) -> int:
        """Number of parameters of both networks."""
        shapes = [*self.context_shapes.values(), *self.synthesis_shapes.values()]
        return sum(math.prod(shape) for shape in shapes)


def initial_networks(layout: PyramidLayout, seed: int) -> tuple[Context, Synthesis]:
    """Draw both networks' first parameters.

    Parameters
    ----------
    layout : PyramidLayout
    seed : int

    Returns
    -------
    context : Context
        Predicts a mean near 0 and a scale near 1.
    synthesis : Synthesis
        Nearly linear: the sum of the upsampled levels. Coarser latents are worth less each, as many samples profit.
    """
    draw = np.random.default_rng(seed)
    # All networks of the context model begin as one.
    parts = {name: _drawn(shape if name == "level_bias" else shape[1:], draw) for name, shape in layout.context_shapes.items()}
    parts.update({name: np.zeros_like(parts[name]) for name in ("skip", "level_bias")}, last=np.float32(0.1) * parts["last"])
    parts = {name: p if name == "level_bias" else np.repeat(p[None], layout.networks, 0) for name, p in parts.items()}
    shapes = layout.synthesis_shapes
    whole = {name: _drawn(shape, draw) for name, shape in shapes.items()}
    whole.update(
        gains=layout.gains,
        filters=np.tile(np.array(CUBIC, dtype=np.float32), (shapes["filters"][0], 1)),
        last=np.float32(0.05) * draw.standard_normal(shapes["last"], dtype=np.float32),
        skips=np.ones(layout.resolutions, dtype=np.float32),
    )
    return Context(**parts), Synthesis(**whole)


def stored_places(samples: int) -> dict[str, int]:
    """Binary places to store each parameter with: what its rounding costs grows with the samples, what a place costs does not."""
    more = max(round(math.log2(samples / _MEASURED) / 2), -_FEWER)
    return {name: min(places + more, STORED_PLACES[name]) for name, places in _PLACES_WORTH.items()}


def _drawn(shape: tuple[int, ...], draw: np.random.Generator) -> NDArray[np.float32]:
    """Weights of a variance that keeps activations of order 1; biases are 0."""
    if len(shape) < 2 or not shape[0]:
        return np.zeros(shape, dtype=np.float32)
    return np.float32(math.sqrt(1.6 / shape[0])) * draw.standard_normal(shape, dtype=np.float32)


def joined(context: Context, synthesis: Synthesis) -> dict[str, NDArray[np.float32]]:
    """Parameters of both networks as a stream holds them: the scale in sixths of an octave from the smallest one on."""
    found = {f"context.{name}": values for name, values in context._asdict().items()}
    for name in ("last", "skip"):
        found[f"context.{name}"] = found[f"context.{name}"] * _OF_SCALE
    found["context.last_bias"] = context.last_bias * _OF_SCALE + _FIRST_SCALE
    return found | {f"synthesis.{name}": values for name, values in synthesis._asdict().items()}


def parted(parameters: Mapping[str, NDArray[np.float32]]) -> tuple[Context, Synthesis]:
    """Inverse of `joined`."""
    of = {kind: {n.removeprefix(kind): v for n, v in parameters.items() if n.startswith(kind)} for kind in ("context.", "synthesis.")}
    plain = of["context."]
    plain.update({name: plain[name] / _OF_SCALE for name in ("last", "skip")})
    plain["last_bias"] = (plain["last_bias"] - _FIRST_SCALE) / _OF_SCALE
    return Context(**plain), Synthesis(**of["synthesis."])


def checked_contexts(
    stored: Mapping[str, NDArray[np.float32]], precision: Precision, wide: bool = False, lattices: Sequence[int] | None = None
) -> tuple[IntegerContext, ...]:
    """As `integer_contexts`.

    Raises
    ------
    ValueError
        If sums of one of the networks might be too large for float32.
    """
    found = integer_contexts(stored, precision, wide, lattices)
    for network in distinct(found):
        check_context(network)
    return found


def distinct(contexts: Sequence[IntegerContext]) -> list[IntegerContext]:
    """The networks of all levels, each once, that of the finest level first."""
    return list({id(network): network for network in contexts}.values())


def integer_contexts(
    stored: Mapping[str, NDArray[np.float32]], precision: Precision, wide: bool = False, lattices: Sequence[int] | None = None
) -> tuple[IntegerContext, ...]:
    """The context model's networks in whole numbers: that of every level, the finest first.

    Parameters
    ----------
    stored : mapping of str to ndarray
        As `joined` gives them, without ``context.``, rounded to multiples of ``2 ** -precision.places[name]``.
    precision : Precision
    wide : bool
        As the layout has it.
    lattices : sequence of K int, optional
        To which lattice each level belongs; otherwise each is one.

    Returns
    -------
    tuple of K IntegerContext
        Levels that share a network have the same object.

    Notes
    -----
    Shifts cut off; so biases carry half of what is cut.
    """
    places, inputs = precision.places, precision.input_places
    whole = {name: np.rint(values.astype(np.float64) * 2.0 ** places[name]).astype(np.int64) for name, values in stored.items()}
    shifts = (places["level_bias"] - HIDDEN_PLACES, WEIGHT_PLACES, places["last_bias"] - inputs, places["last_bias"])
    half = [1 << shift >> 1 for shift in shifts]
    whole["level_bias"] += half[0]
    whole["second_bias"] += half[1]
    whole["last_bias"] += np.array(half[2:])
    count, biases = len(whole["first"]), whole.pop("level_bias")
    number = np.array([network_of(lattice, count) for lattice in lattices or range(len(biases))])
    found = []
    for own in range(count):
        # Biases of levels that others serve would count in the largest sums.
        parts = {name: values[own] for name, values in whole.items()} | {"level_bias": np.where((number == own)[:, None], biases, 0)}
        found.append(IntegerContext(**parts, shifts=shifts, unit_bits=inputs, hidden_bits=precision.hidden_bits, wide=wide))
    return tuple(found[own] for own in number)
