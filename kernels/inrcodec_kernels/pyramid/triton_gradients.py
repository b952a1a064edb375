"""Gradients of a network that runs at all sites of a level, on CUDA devices, span by span.

Every site sums the gradients of the taps that saw it; hidden numbers and their gradients are multiplied for the
gradients of matrices. No sum depends on the order in which programs run.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..recorded import constant
from .layout import CENTRE, Place
from .triton_network import LEAST_EDGE, Net, network_kernel
from .triton_synthesis import pitches, shifts
from .triton_upsampling import on

TILE, FEWER = 64, 32
"""Sites of a program that runs the network, usually and where it sees further: with more, registers of its threads do not do."""
FEW = 32
"""Sites whose gradients of matrices are added at a time: with more, a multiprocessor has registers for fewer programs."""
WARPS = 4
SPAN = 1 << 21
"""Sites whose hidden numbers and gradients are held at a time: up to 200 numbers each."""
PROGRAMS = 384
"""Programs that sum gradients of matrices, about as many as there is room for; a constant, so that sums do not depend on the device."""
PRECISION = "tf32x3"
"""How matrices are multiplied: three products of 11 bits instead of one of 24."""
PART = 1024
"""Sites of a program that gathers."""


@triton.jit(do_not_specialize=["lefts", "rights", "begin", "size", "count", "span"])
def products_kernel(
    left, shift, right, products, lefts, rights, begin, size, count, span,
    A: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over every ``num_programs(0)``-th tile of all products of left and right numbers; behind the left ones there is a 1."""
    program = tl.program_id(0)
    row, column = tl.arange(0, A), tl.arange(0, B)
    away = tl.load(shift + row, mask=row < lefts, other=0)
    found = tl.zeros((A, B), tl.float32)
    for start in range(program * TILE, count, tl.num_programs(0) * TILE):
        index = start + tl.arange(0, TILE)
        some = index < count
        place = (begin + index)[:, None] + away[None, :]
        # What lies beyond the array is a tap of a site of the ring, which has no gradients.
        inside = some[:, None] & (row < lefts)[None, :] & (place >= 0) & (place < size)
        mine = tl.load(left + place, mask=inside, other=0.0)
        mine = tl.where((row == lefts)[None, :], 1.0, mine)
        others = tl.load(
            right + column[None, :] * span + index[:, None], mask=some[:, None] & (column < rights)[None, :], other=0.0
        )
        found += tl.dot(tl.trans(mine), others, input_precision=PRECISION)
    tl.store(products + program * (A * B) + row[:, None] * B + column[None, :], found)


@triton.jit(do_not_specialize=["begin", "end", "low", "high", "size", "span"])
def gather_kernel(by_inputs, gradients, number, shift, ends, begin, end, low, high, size, span, PART: tl.constexpr):
    """Add to sites `low` .. `high` of one channel what the taps on it have, at positions `begin` .. `end`."""
    channel = tl.program_id(1)
    site = low + tl.program_id(0) * PART + tl.arange(0, PART)
    inside = site < high
    where = gradients + channel * size + site
    total = tl.load(where, mask=inside, other=0.0)
    for i in range(tl.load(ends + channel), tl.load(ends + channel + 1)):
        position = site - tl.load(shift + i)
        seen = inside & (position >= begin) & (position < end)
        total += tl.load(by_inputs + (tl.load(number + i) * span + position - begin), mask=seen, other=0.0)
    tl.store(where, total, mask=inside)


def at_once(inputs: int, is_rate: bool) -> int:
    """Sites of a program, of so many inputs with those that pad them."""
    return TILE if inputs <= (32 if is_rate else 64) else FEWER


def differentiated(
    inputs: Tensor, target: Tensor, net: Net, places: Sequence[tuple[int, Place]], ring: Place, least: float | None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Net]:
    """Run a network at all sites of a level.

    Parameters
    ----------
    inputs : Tensor, shape (channels, extents with a ring)
    target : Tensor, shape (extents,)
        Latents, or samples.
    net : Net
    places : sequence of (channel, offset)
        Of every input.
    ring : tuple of 4 int
        What the inputs have around the target along each axis.
    least : float or None
        For a rate; without, it is a distortion.
    weights : Tensor, shape (extents,) or 1 along some axes, optional
        Of the squared errors of a distortion.

    Returns
    -------
    total : Tensor of float64, shape ()
        Bits, or squared errors.
    gradients : Tensor, shape of the inputs
    by_net : Net of float64
        Gradients by the network.

    Raises
    ------
    ValueError
        If all channels have 2^31 sites or more, with the ring.
    """
    extents, size = inputs.shape[1:], math.prod(inputs.shape[1:])
    if inputs.numel() + SPAN >= 1 << 31:
        raise ValueError(f"expected fewer than 2^31 sites with a ring, found {tuple(inputs.shape)}; fit on the CPU")
    span, is_rate = min(SPAN, triton.next_power_of_2(size)), least is not None
    packed, (width, thick), outs = net.packed(), net.second.shape, len(net.last_bias)
    shift = shifts(places, extents, len(packed[0]), inputs.device, torch.int32)
    number, distance, ends = _taps_by_channel(places, len(inputs), extents, own=is_rate)
    lists = [constant(tuple(a), torch.int32, inputs.device) for a in (number, distance, ends)]
    reach, gradients = max(map(abs, distance), default=0), torch.zeros_like(inputs)
    by_inputs, hidden = inputs.new_empty(len(places) + 1, span), inputs.new_empty(2 * (width + thick) + outs, span)
    layers, after_inputs, after_layers = hidden[: width + thick], hidden[width + thick : -thick], hidden[-outs - thick :]
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    counted = target if weights is None else weights.expand(target.shape)
    by_first, by_second = (
        inputs.new_zeros(rows + 1, columns, dtype=torch.float64)
        for rows, columns in ((len(places), width + outs), (width + thick, outs + thick))
    )
    rows = torch.arange(width + thick, dtype=torch.int32, device=inputs.device) * span
    tile = at_once(len(packed[0]), is_rate)
    for begin in range(0, size, span):
        end = min(size, begin + span)
        count, low, high = end - begin, max(0, begin - reach), min(size, end + reach)
        totals = torch.empty(triton.cdiv(count, tile), dtype=torch.float64, device=inputs.device)
        with on(inputs):
            network_kernel[(len(totals),)](
                inputs, shift, target, counted, *packed, by_inputs, hidden, totals, begin, end, len(places),
                *extents, *ring, *counted.stride(), width, thick, 0.0 if least is None else float(least), span,
                *packed[0].shape, packed[2].shape[1], is_rate, weights is not None, tile, PRECISION, num_warps=WARPS,
            )  # fmt: skip
            gather_kernel[(triton.cdiv(high - low, PART), len(inputs))](
                by_inputs, gradients, *lists, begin, end, low, high, size, span, PART
            )
        total += totals.sum()
        _add_products(by_first, inputs, shift, after_inputs, begin, count)
        _add_products(by_second, layers, rows, after_layers, 0, count)
    by_net = Net(
        by_first[:-1, :width], by_first[-1, :width], by_second[:width, outs:], by_second[-1, outs:],
        by_second[width:-1, :outs], by_first[-1, width:], by_first[:-1, width:],
    )  # fmt: skip
    return total, gradients, by_net


def _add_products(sums: Tensor, left: Tensor, shift: Tensor, right: Tensor, begin: int, count: int) -> None:
    """Add gradients of matrices that have the same inputs, side by side, and in the last row of their biases.

    They are those of what went in, `left`, times those of what came out, `right`.
    """
    (rows, columns), span = sums.shape, right.shape[1]
    edges = [max(LEAST_EDGE, triton.next_power_of_2(n)) for n in (rows, columns)]
    programs = min(PROGRAMS, triton.cdiv(count, FEW))
    products = right.new_empty(programs, *edges)
    # Fetched ahead, numbers would go to shared memory as they lie, those of 32 sites into one and the same bank.
    with on(right):
        products_kernel[(programs,)](
            left, shift, right, products, rows - 1, columns, begin, left.numel(), count, span, *edges, FEW, PRECISION,
            num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    sums += products.sum(0, dtype=torch.float64)[:rows, :columns]


def _taps_by_channel(
    places: Sequence[tuple[int, Place]], channels: int, extents: Sequence[int], own: bool
) -> tuple[list[int], list[int], list[int]]:
    """Numbers and distances of the inputs on each channel, one channel after the other, and where each begins."""
    pitch, every = pitches(extents), list(places) + [(0, CENTRE)] * own
    number = sorted(range(len(every)), key=lambda i: every[i][0])
    ends = [sum(channel < c for channel, _ in every) for c in range(channels + 1)]
    return number, [int(np.dot(every[i][1], pitch)) for i in number], ends
