"""Upsampling along one axis on CUDA devices, its adjoint, and the gradients of its taps."""

# Annotations of kernels are directions to Triton's compiler; its tensors have no static types.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import AXES, Box, Layout

BLOCK = 1024
"""Numbers of a program."""
PROGRAMS = 512
"""Programs that sum gradients of taps, and of networks; a constant, so that sums do not depend on the device."""


@triton.jit
def clamped(index, least, most):
    """The index nearest to one, of those from least to most."""
    return tl.minimum(tl.maximum(index, least), most)


@triton.jit
def _places(program, columns, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows and columns of a program's part of an array, and what is left of a column within its place on the axis."""
    blocks = tl.cdiv(columns, COLUMNS)
    row = (program // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    return row, column, column // inner, column % inner


@triton.jit(do_not_specialize=["rows", "count", "stored", "inner", "first", "origin", "fine", "coarse"])
def upsample_kernel(
    source, out, taps, rows, count, stored, inner, first, origin, fine, coarse,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HALVED: tl.constexpr,
):  # fmt: skip
    """Samples `first` .. of an axis of `fine`, from `stored` ones that begin at `origin`; beyond the axis, its edge."""
    row, column, place, rest = _places(tl.program_id(0), count * inner, inner, ROWS, COLUMNS)
    mask = (row < rows)[:, None] & (column < count * inner)[None, :]
    line = source + (row * (stored * inner))[:, None]
    place = clamped(first + place, 0, fine - 1)
    if HALVED:
        odd = place & 1
        value = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for tap in tl.static_range(4):
            index = clamped(place // 2 - 2 + odd + tap, 0, coarse - 1) - origin
            weight = tl.where(odd == 1, tl.load(taps + 3 - tap), tl.load(taps + tap))
            value += weight[None, :] * tl.load(line + (index * inner + rest)[None, :], mask=mask, other=0.0)
    else:
        value = tl.load(line + ((place - origin) * inner + rest)[None, :], mask=mask, other=0.0)
    tl.store(out + (row * (count * inner))[:, None] + column[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["rows", "fine", "coarse", "inner"])
def adjoint_kernel(
    gradient, out, taps, rows, fine, coarse, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """What the samples of a whole axis give to those that they were made of: each sums what saw it."""
    row, column, place, rest = _places(tl.program_id(0), coarse * inner, inner, ROWS, COLUMNS)
    mask = (row < rows)[:, None] & (column < coarse * inner)[None, :]
    line = gradient + (row * (fine * inner))[:, None]
    value = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for which in tl.static_range(5):
        # Taps beyond the axis see its ends: 2 places before the first one, 2 behind the last.
        if which == 0:
            seen = place
            here = place >= 0
        elif which < 3:
            seen = place - which
            here = place == 0
        else:
            seen = place + which - 2
            here = place == coarse - 1
        for tap in tl.static_range(4):
            for odd in tl.static_range(2):
                sample = 2 * (seen + 2 - tap - odd) + odd
                some = mask & (here & (sample >= 0) & (sample < fine))[None, :]
                weight = tl.load(taps + (3 - tap if odd else tap))
                value += weight * tl.load(line + (sample * inner + rest)[None, :], mask=some, other=0.0)
    tl.store(out + (row * (coarse * inner))[:, None] + column[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["rows", "fine", "coarse", "inner", "tiles"])
def taps_kernel(
    source, gradient, partial, rows, fine, coarse, inner, tiles, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Gradients by the 4 taps, summed over every ``num_programs(0)``-th part of the samples."""
    which = tl.arange(0, 4)
    found = tl.zeros((4,), dtype=tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row, column, place, rest = _places(tile, fine * inner, inner, ROWS, COLUMNS)
        mask = (row < rows)[:, None] & (column < fine * inner)[None, :]
        given = tl.load(gradient + (row * (fine * inner))[:, None] + column[None, :], mask=mask, other=0.0)
        odd = place & 1
        for tap in tl.static_range(4):
            # The odd sample's taps are in the other order.
            index = clamped(place // 2 - 2 + odd + tl.where(odd == 1, 3 - tap, tap), 0, coarse - 1)
            value = tl.load(
                source + (row * (coarse * inner))[:, None] + (index * inner + rest)[None, :], mask=mask, other=0.0
            )
            total = tl.sum(tl.sum(given * value, 1), 0).to(tl.float64)
            found += tl.where(which == tap, total, 0.0)
    tl.store(partial + tl.program_id(0) * 4 + which, found)


def on(tensor: Tensor) -> AbstractContextManager[object]:
    """The device of a tensor as the one that kernels are launched on."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def _split(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """Elements before and behind an axis."""
    return math.prod(shape[:axis]), math.prod(shape[axis + 1 :])


def _tile(columns: int) -> dict[str, int]:
    wide = min(BLOCK, triton.next_power_of_2(columns))
    return {"ROWS": BLOCK // wide, "COLUMNS": wide}


def _tiles(rows: int, columns: int) -> int:
    tile = _tile(columns)
    return int(triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"]))


def _along(
    source: Tensor, axis: int, taps: Tensor | None, span: tuple[int, int], origin: int, extents: tuple[int, int]
) -> Tensor:
    """Samples ``span[0] .. span[1]`` along an axis; `extents` are those of the finer and the coarser lattice."""
    count = span[1] - span[0]
    shape = list(source.shape)
    shape[axis] = count
    out = source.new_empty(shape)
    rows, inner = _split(shape, axis)
    with on(out):
        upsample_kernel[(_tiles(rows, count * inner),)](
            source, out, source if taps is None else taps, rows, count, source.shape[axis], inner,
            span[0], origin, *extents, **_tile(count * inner), HALVED=taps is not None,
        )  # fmt: skip
    return out


def upsampled(source: Tensor, level: int, taps: Tensor, layout: Layout, start: Sequence[int], box: Box) -> Tensor:
    """Channels of one level, on the next finer one.

    Parameters
    ----------
    source : Tensor of float32, shape (C, n_t, n_z, n_y, n_x)
        Contiguous; what the box depends on, of level ``level + 1``, from `start` on.
    level : int
        The finer level.
    taps : Tensor of float32, shape (4,)
    layout : Layout
    start : sequence of 4 int
    box : (start, stop)
        On the finer level. Places beyond the lattice get what is at its edge.

    Returns
    -------
    Tensor, shape (C, ``stop - start``)
    """
    for axis in range(AXES):
        span, halved = (box[0][axis], box[1][axis]), layout.steps[level][axis]
        stored = (start[axis], start[axis] + source.shape[1 + axis])
        if halved or stored != span:
            extents = layout.shapes[level][axis], layout.shapes[level + 1][axis]
            source = _along(source, 1 + axis, taps if halved else None, span, start[axis], extents)
    return source


def downsampled(
    gradient: Tensor, level: int, taps: Tensor, layout: Layout, source: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The adjoint of `upsampled` of whole lattices, and the gradients of its taps if it is told the source.

    Parameters
    ----------
    gradient : Tensor of float32, shape (C, `layout.shapes[level]`)
        Contiguous.
    level, taps, layout
        As for `upsampled`.
    source : Tensor, shape (C, `layout.shapes[level + 1]`), optional

    Returns
    -------
    Tensor, shape (C, `layout.shapes[level + 1]`)
    Tensor of float64, shape (4,), or None
    """
    axes = [axis for axis in range(AXES) if layout.steps[level][axis]]
    extents = list(zip(layout.shapes[level], layout.shapes[level + 1], strict=True))
    sources = []
    of_taps = None if source is None else torch.zeros(4, dtype=torch.float64, device=gradient.device)
    for axis in axes if source is not None else ():
        assert source is not None
        sources.append(source)
        source = _along(source, 1 + axis, taps, (0, extents[axis][0]), 0, extents[axis])
    for axis in reversed(axes):
        if of_taps is not None:
            of_taps += _by_taps(sources.pop(), gradient, 1 + axis)
        gradient = _adjoint(gradient, 1 + axis, taps, extents[axis])
    return gradient, of_taps


def _adjoint(gradient: Tensor, axis: int, taps: Tensor, extents: tuple[int, int]) -> Tensor:
    fine, coarse = extents
    shape = list(gradient.shape)
    shape[axis] = coarse
    out = gradient.new_empty(shape)
    rows, inner = _split(shape, axis)
    with on(out):
        adjoint_kernel[(_tiles(rows, coarse * inner),)](
            gradient, out, taps, rows, fine, coarse, inner, **_tile(coarse * inner)
        )
    return out


def _by_taps(source: Tensor, gradient: Tensor, axis: int) -> Tensor:
    rows, inner = _split(source.shape, axis)
    fine = gradient.shape[axis]
    tiles = _tiles(rows, fine * inner)
    partial = torch.empty(min(PROGRAMS, tiles), 4, dtype=torch.float64, device=source.device)
    with on(source):
        taps_kernel[(len(partial),)](
            source, gradient, partial, rows, fine, source.shape[axis], inner, tiles, **_tile(fine * inner)
        )
    return partial.sum(0)
