"""Networks, tiles and latents that tests of the context model and of its coding share."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec_kernels.pyramid import context, context_coder, context_cpu
from inrcodec_kernels.pyramid.context import UNIT_BITS, IntegerContext, Tile, inputs

CODERS = [context_coder, context_cpu]
both = pytest.mark.parametrize("coder", CODERS, ids=["reference", "numba"])
AXES = {
    "tzyx": (True,) * 4,
    "zyx": (False, True, True, True),
    "yx": (False, False, True, True),
    "x": (False, False, False, True),
}
SHAPES = [
    ("zyx", (1, 5, 7, 6)),
    ("zyx", (1, 1, 2, 1)),
    ("zyx", (1, 9, 1, 30)),
    ("zyx", (1, 13, 12, 11)),
    ("tzyx", (3, 4, 5, 6)),
    ("tzyx", (5, 1, 1, 1)),
    ("yx", (1, 1, 33, 18)),
    ("x", (1, 1, 1, 41)),
    ("tx", (6, 1, 1, 9)),
    # Lines so long that layers 16 stages apart hold latents at the same place.
    ("tx", (3, 1, 1, 40)),
    ("tzyx", (2, 2, 3, 25)),
]


def axes_of(names: str) -> tuple[bool, ...]:
    return tuple(axis in names for axis in "tzyx")


PRECISIONS = [(3, 11), (4, 14), (4, 12)]
"""Bits of units and of hidden numbers: of streams of before, and of those of now."""
UNITS = [1 << bits for bits in UNIT_BITS]


def network(
    present: tuple[bool, ...],
    random: np.random.Generator,
    levels: int = 3,
    width: int = 24,
    precision: tuple[int, int] | None = None,
    wide: bool | None = None,
) -> IntegerContext:
    """Random weights, of a random precision and width of view if none is given; means and scales spread out, and both ends are met."""
    wide = bool(random.integers(2)) if wide is None else wide
    count = inputs(present, wide)
    unit_bits, bits = precision or PRECISIONS[int(random.integers(len(PRECISIONS)))]
    # Hidden numbers that may be larger have smaller weights: their sums stay as small.
    less = 1 << (bits - 11)

    def drawn(most: int, *shape: int) -> np.ndarray:
        return random.integers(-most, most + 1, shape)

    found = IntegerContext(
        drawn(40, count, width),
        drawn(3000, levels, width),
        drawn(60 // less, width, width),
        drawn(8000, width).astype(np.int32),
        drawn(60 // less, width, 2),
        np.array([300, 200_000]) + drawn(1000, 2),
        drawn(60, count, 2),
        (7, 7, 12 - unit_bits, 13),
        unit_bits,
        bits,
        wide,
    )
    context.check(found)
    return found


def tile_of(names: str, shape: tuple[int, ...], random: np.random.Generator, units: int, level: int = 1) -> Tile:
    """A tile at a random place of a lattice that is larger by up to 3 along each axis of the signal."""
    present = axes_of(names)
    room = random.integers(0, 4, 4) * present
    start = tuple(int(random.integers(0, r + 1)) for r in room)
    lattice = tuple(int(n + r) for n, r in zip(shape, room, strict=True))
    u, v = random.integers(-127 * units, 127 * units + 1, (2, *lattice)).astype(np.int16)
    return Tile(level, start, shape, present, u, v)


def latents_of(shape: tuple[int, ...], random: np.random.Generator, largest: int = 2000) -> np.ndarray:
    found = np.round(random.laplace(0, 2, shape)).astype(np.int32)
    rare = random.random(shape) < 0.1
    found[rare] = random.integers(-largest, largest + 1, int(rare.sum()))
    return found
