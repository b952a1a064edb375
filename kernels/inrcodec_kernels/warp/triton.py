"""The warp on CUDA devices: a thread has a sample, and reads its 36 neighbours through the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import BEFORE, TAPS, WEIGHTS, Field, Place

BLOCK, WARPS = 128, 4


@triton.jit
def moved(nodes, count_x, shift, y, x, mask):  # type: ignore[no-untyped-def]
    """Displacement of samples along one axis, in sixteenths."""
    size = 1 << shift
    fy, fx, at = y & (size - 1), x & (size - 1), nodes + (y >> shift) * count_x + (x >> shift)
    above = (size - fx) * tl.load(at, mask=mask, other=0) + fx * tl.load(at + 1, mask=mask, other=0)
    at += count_x
    below = (size - fx) * tl.load(at, mask=mask, other=0) + fx * tl.load(at + 1, mask=mask, other=0)
    return ((size - fy) * above + fy * below + (1 << (2 * shift - 2))) >> (2 * shift - 1)


@triton.jit
def clamped(index, extent, origin):  # type: ignore[no-untyped-def]
    """Index in a part, from `origin` on, of the nearest sample of a still frame."""
    return tl.minimum(tl.maximum(index, 0), extent - 1) - origin


@triton.jit
def warp_kernel(  # type: ignore[no-untyped-def]
    still, nodes, weights, out, origin_y, origin_x, still_y, still_x, part_y, part_x, count_y, count_x, shift,
    first_y, first_x, size_y, size_x, BLOCK: tl.constexpr, BEFORE: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Samples of a box; axis 1 of the grid counts its frames."""
    site, frame = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    # An extent of 1 comes as a constant, which has no `to`.
    pixels = tl.full((), 1, tl.int64) * size_y * size_x
    mask = site < pixels
    y, x = (site // size_x).to(tl.int32) + first_y, (site % size_x).to(tl.int32) + first_x
    own = nodes + frame * 2 * count_y * count_x
    place_y = 16 * y + moved(own, count_x, shift, y, x, mask)
    place_x = 16 * x + moved(own + count_y * count_x, count_x, shift, y, x, mask)
    of_y, of_x = weights + (place_y & 15) * TAPS, weights + (place_x & 15) * TAPS
    source, top, left = still + frame * part_y * part_x, (place_y >> 4) - BEFORE, (place_x >> 4) - BEFORE
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for i in range(TAPS):
        row, line = clamped(top + i, still_y, origin_y).to(tl.int64) * part_x, tl.zeros((BLOCK,), dtype=tl.float32)
        for j in range(TAPS):
            seen = tl.load(source + row + clamped(left + j, still_x, origin_x), mask=mask, other=0.0)
            line += tl.load(of_x + j) * seen
        total += tl.load(of_y + i) * line
    tl.store(out + frame * pixels + site, total, mask=mask)


def warp(still: Tensor, origin: tuple[int, int], field: Field, start: Place, stop: Place) -> Tensor:
    """As `inrcodec_kernels.warp.warp`, of a tensor on a device, where the result stays."""
    shape = tuple(b - a for a, b in zip(start, stop, strict=True))
    out = torch.empty(shape, dtype=torch.float32, device=still.device)
    own = np.ascontiguousarray(field.nodes[start[0] : stop[0]], dtype=np.int32)
    nodes, weights = (torch.from_numpy(a).to(still.device) for a in (own, WEIGHTS))
    grid = (triton.cdiv(shape[1] * shape[2], BLOCK), shape[0])
    with torch.cuda.device_of(out):
        warp_kernel[grid](
            still.contiguous(), nodes, weights, out, *origin, *field.still, *still.shape[1:], *nodes.shape[2:], field.shift,
            *start[1:], *shape[1:], BLOCK, BEFORE, TAPS, num_warps=WARPS,
        )  # fmt: skip
    return out


def compile_cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Typical specialisations: name, kernel, signature, constants, warps."""
    numbers = (
        "origin_y", "origin_x", "still_y", "still_x", "part_y", "part_x", "count_y", "count_x", "shift", "first_y", "first_x",
        "size_y", "size_x",
    )  # fmt: skip
    kinds = {"still": "*fp32", "nodes": "*i32", "weights": "*fp32", "out": "*fp32"} | dict.fromkeys(numbers, "i32")
    return [("warp", warp_kernel, kinds, {"BLOCK": BLOCK, "BEFORE": BEFORE, "TAPS": TAPS}, WARPS)]
