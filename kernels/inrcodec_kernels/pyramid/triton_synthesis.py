"""Samples of a pyramid on CUDA devices: upsampling axis by axis, then network, gains and rounding in one pass."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..recorded import constant
from ..siren.reference import LARGEST
from ..stored import INTEGERS, stored
from .layout import AXES, CENTRE, Box, Layout, Place, Synthesis, needed_of_all, place_of
from .reference import SLOPE
from .triton_upsampling import on, upsampled

TILE = 128
"""Samples of a program."""
WARPS = 4
"""A thread has one sample, with all that its network sees of it."""


class DeviceSynthesis(NamedTuple):
    """Parameters of a synthesis on a device, as its kernel reads them; n inputs padded to N, S2 to C, powers of two.

    Attributes
    ----------
    gains : Tensor, shape (K,)
    filters : Tensor, shape (A + K - 1, 4)
    first : Tensor, shape (S1, N)
    first_bias : Tensor, shape (S1,)
    second : Tensor, shape (S1, C)
    second_bias, last : Tensor, shape (C,)
    last_bias : Tensor, shape ()
    skip : Tensor, shape (N,)
        From the inputs: 0 but at the channels' centres.
    """

    gains: Tensor
    filters: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    last_bias: Tensor
    skip: Tensor

    @classmethod
    def of(cls, synthesis: Synthesis, layout: Layout, device: torch.device | str) -> DeviceSynthesis:
        """Copy to a device; `synthesis` holds arrays or tensors."""
        tensors = [torch.as_tensor(p).detach().to(device, torch.float32) for p in synthesis]
        gains, filters, first, first_bias, second, second_bias, last, last_bias, skips = tensors
        skip = torch.zeros(len(first), device=device).index_copy(0, centres(layout, first.device), skips)
        inputs, thick = triton.next_power_of_2(len(first)), triton.next_power_of_2(len(last))
        return cls(
            gains, filters, padded(first.T, inputs), first_bias.contiguous(), padded(second, thick),
            padded(second_bias, thick), padded(last, thick), last_bias.reshape(1), padded(skip, inputs),
        )  # fmt: skip


def padded(matrix: Tensor, columns: int) -> Tensor:
    """Contiguous, with so many columns, the last ones 0."""
    return torch.nn.functional.pad(matrix, (0, columns - matrix.shape[-1])).contiguous()


def filled(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """Contiguous, with so many rows and columns, the last ones 0."""
    return torch.nn.functional.pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])).contiguous()


def centres(layout: Layout, device: torch.device) -> Tensor:
    """Number of the input that is the centre of each channel."""
    return constant(tuple(layout.seen.index((channel, CENTRE)) for channel in range(layout.levels)), torch.int64, device)


def shifts(places: Sequence[tuple[int, Place]], extents: Sequence[int], length: int, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Distances of taps in an array of channels of some extents, padded with zeros to a length."""
    pitch, whole = pitches(extents), math.prod(extents)
    found = [channel * whole + int(np.dot(tap, pitch)) for channel, tap in places]
    return constant((*found, *[0] * (length - len(found))), dtype, device)


def pitches(extents: Sequence[int]) -> list[int]:
    """Distances between neighbours along each axis."""
    return [math.prod(extents[axis + 1 :]) for axis in range(AXES)]


_NUMBERS = ("low", "high", "count", "corner", "n_z", "n_y", "n_x", "pitch_t", "pitch_z", "pitch_y", "width")


@triton.jit(do_not_specialize=_NUMBERS)
def synthesis_kernel(
    channels, shift, first, first_bias, second, second_bias, last, last_bias, skip, out, unsound, step, offset, low,
    high, count, corner, n_z, n_y, n_x, pitch_t, pitch_z, pitch_y, width,
    N: tl.constexpr, C: tl.constexpr, TILE: tl.constexpr, SLOPE: tl.constexpr, LARGEST: tl.constexpr,
    INTEGER: tl.constexpr,
):  # fmt: skip
    """TILE samples of a box. A thread has all inputs and hidden numbers of its samples: nothing is exchanged.

    One hidden number of the first layer is made at a time, and is at once part of all those of the second.
    """
    index = tl.program_id(0) * TILE + tl.arange(0, TILE)
    mask = index < count
    line = index // n_x
    plane = line // n_y
    place = (plane // n_z).to(tl.int64) * pitch_t + (plane % n_z).to(tl.int64) * pitch_z
    place += corner + (line % n_y) * pitch_y + index % n_x

    tap, channel = tl.arange(0, N), tl.arange(0, C)
    # Loads are shared out so that threads side by side read along the axis whose places lie side by side; where there is
    # none, some compilers take the last axis and some the first. Along taps every sum would go through all threads: so it
    # is said that samples do lie so, but at no multiple of anything, and one number is loaded at a time wherever they lie.
    away = tl.multiple_of(tl.max_contiguous(place[:, None] + tl.load(shift + tap)[None, :], [TILE, 1]), [1, 1])
    seen = tl.load(channels + away, mask=mask[:, None], other=0.0)
    hidden = tl.zeros((TILE, C), dtype=tl.float32) + tl.load(second_bias + channel)[None, :]
    for c in range(width):
        one = tl.sum(tl.load(first + c * N + tap)[None, :] * seen, 1) + tl.load(first_bias + c)
        one = tl.maximum(one, SLOPE * one)
        hidden += tl.load(second + c * C + channel)[None, :] * one[:, None]
    hidden = tl.maximum(hidden, SLOPE * hidden)
    value = tl.sum(tl.load(last + channel)[None, :] * hidden, 1) + tl.load(last_bias)
    value += tl.sum(tl.load(skip + tap)[None, :] * seen, 1)
    value = value * step + offset
    # Rounded and clipped, what is no number would look like one.
    wild = tl.max(tl.where((tl.abs(value) < LARGEST) | ~mask, 0, 1))
    tl.store(unsound, 1, mask=wild != 0)
    if INTEGER:
        tl.store(out + index, stored(value, low, high).to(out.dtype.element_ty), mask=mask)
    else:
        tl.store(out + index, value, mask=mask)


def channels_of(
    latents: Sequence[Tensor], origins: Sequence[Place], gains: Tensor, filters: Tensor, layout: Layout, box: Box
) -> tuple[Tensor, list[Tensor]]:
    """Upsample what a box depends on.

    Returns
    -------
    Tensor, shape (K, box with a ring)
        All channels on the signal's lattice; beyond it c_0 is 0 if it lies there, the others repeat its edge.
    list of A + K - 1 Tensor
        For every coarser lattice, the finest first, the channels of the levels from there on.
    """
    whole, absent, boxes, around = layout.whole, len(layout.above), needed_of_all(layout, *box), layout.synthesis_reach
    window = (
        place_of(a - r for a, r in zip(box[0], around, strict=True)),
        place_of(b + r for b, r in zip(box[1], around, strict=True)),
    )
    extents = [b - a for a, b in zip(*window, strict=True)]
    found = gains.new_empty(layout.levels, *extents)
    sources: list[Tensor] = []
    for j in reversed(range(1, whole.levels)):
        there = [upsampled(sources[0], j, filters[j], whole, boxes[j + 1][0], boxes[j])] if sources else []
        if (k := j - absent) >= 0:
            there.insert(0, (cut(latents[k], origins[k], boxes[j]) * gains[k])[None])
        sources.insert(0, torch.cat(there).contiguous())
    if not absent:
        found[0].zero_()
        inside = tuple(slice(a - w, b - w) for a, b, w in zip(*boxes[0], window[0], strict=True))
        torch.mul(cut(latents[0], origins[0], boxes[0]), gains[0], out=found[0][inside])
    if sources:
        found[0 if absent else 1 :] = upsampled(sources[0], 0, filters[0], whole, boxes[1][0], window)
    return found, sources


def cut(latents: Tensor, origin: Place, box: Box) -> Tensor:
    """The part of an array of latents that a box is."""
    return latents[tuple(slice(a - o, b - o) for a, b, o in zip(*box, origin, strict=True))]


def synthesise_box(
    latents: Sequence[Tensor],
    origins: Sequence[Place],
    synthesis: DeviceSynthesis,
    layout: Layout,
    box: Box,
    dtype: torch.dtype = torch.float32,
    step: float = 1.0,
    offset: float = 0.0,
    limits: tuple[int, int] = (0, 0),
    unsound: Tensor | None = None,
) -> Tensor:
    """Samples of a box, ``offset + step * out``, on the device of the latents.

    Parameters
    ----------
    latents : sequence of K Tensor of float32 or int32
        Of every level a part that holds what `needed` says.
    origins : sequence of K tuples of 4 int
        Index, in its lattice, of each tensor's first latent.
    synthesis : DeviceSynthesis
    layout : Layout
    box : (start, stop)
    dtype : torch.dtype
        float32; or one of up to 32 bits of integers, which get samples rounded half to even.
    step, offset : float
    limits : tuple of 2 int
        Integers are clipped to these.
    unsound : Tensor, shape (1,), int32, or None
        Set to 1 where a sample is not finite or not below `siren.LARGEST`, before it is clipped; left alone otherwise.

    Returns
    -------
    Tensor of `dtype`, shape ``stop - start``

    Raises
    ------
    ValueError
        If the dtype is another, or if the box, with what taps see around it, has 2^31 samples or more.
    """
    if dtype not in (torch.float32, *INTEGERS):
        raise ValueError(f"expected samples of float32 or up to 32-bit integers, found {dtype}; convert them later")
    shape = [b - a for a, b in zip(*box, strict=True)]
    count = math.prod(shape)
    if math.prod(n + 2 * r for n, r in zip(shape, layout.synthesis_reach, strict=True)) >= 1 << 31:
        raise ValueError(f"expected fewer than 2^31 samples with a ring, found a box of {shape}; take several boxes")
    channels, _ = channels_of(latents, origins, synthesis.gains, synthesis.filters, layout, box)
    extents, out = channels.shape[1:], torch.empty(shape, dtype=dtype, device=channels.device)
    pitch, inputs = pitches(extents), synthesis.first.shape[1]
    if unsound is None:
        unsound = torch.empty(1, dtype=torch.int32, device=out.device)
    shift = shifts(layout.seen, extents, inputs, channels.device)
    with on(out):
        synthesis_kernel[(triton.cdiv(count, TILE),)](
            channels, shift, *synthesis[2:], out, unsound, float(step), float(offset), *map(int, limits), count,
            int(np.dot(layout.synthesis_reach, pitch)), *shape[1:], *pitch[:3], len(synthesis.first),
            inputs, synthesis.second.shape[1], TILE, SLOPE, LARGEST, dtype in INTEGERS, num_warps=WARPS,
        )  # fmt: skip
    return out
