"""What kernels are made for: precisions, limits, and the constants of a class of networks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import triton

PRECISIONS = {"fp32": "ieee", "tf32": "tf32", "fp16": "fp16"}
"""How hidden layers are multiplied; sums are float32, and so are the first and the last layer and all sines."""
FRACTION_BITS = 20
"""Samples and shares are summed as integers of 2^-20: such sums do not depend on their order."""

TILES = 8  # tiles of a program, so that weights are read and dequantised once for as many
PROGRAMS = 1024  # programs that fill any device; a constant, so that sums do not depend on the device
CHUNK = 256  # parameters at once in Adam's update
SAMPLES = 1024  # samples of a program of `finish`
MOST_PARTS = 65535  # of a block, as CUDA's grids want

WIDEST, DEEPEST, AXES = 64, 6, (2, 4)
"""Neurons of a layer, sine layers, and axes that the kernels are made for."""


def lacking(axes: int, widths: Sequence[int]) -> str:
    """Why a class has no kernels; empty if it has."""
    if not AXES[0] <= axes <= AXES[1]:
        return f"expected {AXES[0]} to {AXES[1]} axes, found {axes}"
    if not 1 <= len(widths) <= DEEPEST or not all(2 <= width <= WIDEST for width in widths):
        return f"expected 1 to {DEEPEST} sine layers of 2 to {WIDEST} neurons, found {tuple(widths)}"
    return ""


def layout_of(axes: int, widths: Sequence[int], constant: bool = False) -> dict[str, Any]:
    """The constants of a class, as kernels take them; of no layer at all if that is meant."""
    if reason := lacking(axes, (2,) if constant else widths):
        raise ValueError(f"{reason}; use another backend")
    if constant:
        return {"WIDTHS": (axes,), "PADS": (axes,), "OFFSETS": (0, 0), "DEPTH": 0}
    every = (axes, *widths, 1)
    sizes = [(a + 1) * b for a, b in itertools.pairwise(every)]
    return {
        "WIDTHS": every,
        "PADS": (axes, *(max(16, triton.next_power_of_2(width)) for width in widths), 1),
        "OFFSETS": (0, *itertools.accumulate(sizes)),
        "DEPTH": len(widths),
    }


def program_of(layout: Mapping[str, Any], *, training: bool) -> dict[str, int]:
    """Points of a tile and warps: as many as registers hold without spilling, by ptxas' count (see README.md)."""
    widest = max(layout["PADS"])
    if training:
        return {"TILE": 16, "num_warps": widest // 8}
    return {"TILE": 32 if widest == 64 else 64, "num_warps": 8 if widest == 64 else 4}


def precision_of(name: str) -> str:
    """What `tl.dot` calls a precision."""
    if name not in PRECISIONS:
        raise ValueError(f"expected a precision of {', '.join(PRECISIONS)}, found {name!r}; choose one of these")
    return PRECISIONS[name]
