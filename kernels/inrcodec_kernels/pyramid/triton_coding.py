"""Tiles decoded on CUDA devices, all those of a level in one launch.

CODING.md has the mathematics; every number is the one that `context_coder` finds.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rans.triton import MOST_LANES, symbol_of, word
from .context import LARGEST, LIMIT, MOST_SCALE, SLOPE_SHIFT
from .context_tables import NEAR, NEAR_BITS, NEAR_FIRST
from .triton_context import WIDE, DeviceContext
from .triton_tiles import PLACES, DeviceTiles
from .triton_upsampling import clamped, on

TILE, FEWER = 128, 64
"""Latents whose contexts are found together, of up to 32 inputs, and of more: threads have no room for so many numbers of more latents."""
WARPS = 4
REGISTERS = 248
"""Most registers of a thread: left alone, the assembler moves some to memory for more programs than there are tiles."""
PART = 1024
"""Sites of a program that fills surroundings."""
NARROW = 11
"""Bits of hidden numbers up to which they are whole numbers of a float16."""

_LEAST = tl.constexpr(1 << 16)
_NEAR, _OF_WORD, _NEAR_BITS, _NEAR_FIRST = (tl.constexpr(n) for n in (NEAR, NEAR // 2, NEAR_BITS, NEAR_FIRST))
_ABOVE, _NARROW, _WIDE = (tl.constexpr(n) for n in (1 << NEAR_BITS, NARROW, WIDE))
_PLACES = tl.constexpr(PLACES)
_LARGEST, _LIMIT, _MOST_SCALE = (tl.constexpr(n) for n in (LARGEST, LIMIT, MOST_SCALE))
_LESS = tl.constexpr(0.5**SLOPE_SHIFT)


def decode_tiles(
    data: Tensor,
    begin: Tensor,
    size: Tensor,
    lanes: Tensor,
    tiles: DeviceTiles,
    level: int,
    network: DeviceContext,
    u: Tensor | None,
    v: Tensor | None,
    latents: Tensor,
) -> Tensor:
    """Decode tiles of one level into its lattice, all in one launch, without waiting for the device.

    Parameters
    ----------
    data : Tensor of uint8
    begin, size : Tensor of int64, shape (T,)
        Where in `data` each tile's bytes begin, and how many they are: none stands for zeros.
    lanes : Tensor of int32, shape (T,)
        1..32 of each tile.
    tiles : DeviceTiles
        They share no latents, and have an extent of 1 along absent axes.
    level : int
    network : DeviceContext
    u, v : Tensor of int16, shape of the lattice, or None
        What `parents` gave; None stands for zeros.
    latents : Tensor of int32, the lattice
        Contiguous; the tiles' latents are written here, those of failed tiles are undefined.

    Returns
    -------
    Tensor of bool, shape (T,)
        Tiles that the encoder cannot have written, for which the reference raises `CodedError`; and those of more lanes
        than 32 or less than 1.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit each other.
    """
    count = len(tiles.places)
    lattices = [each for each in (latents, u, v) if each is not None]
    fits = all(each.shape == tiles.lattice and each.is_contiguous() for each in lattices)
    if not fits or latents.dtype != torch.int32 or any(each.dtype != torch.int16 for each in lattices[1:]):
        raise ValueError(
            f"expected contiguous lattices of {tiles.lattice}, int32 and int16, found "
            f"{[(tuple(a.shape), a.dtype) for a in lattices]}; take those of the level"
        )
    if {len(begin), len(size), len(lanes)} != {count} or data.dtype != torch.uint8:
        raise ValueError(
            f"expected bytes, and numbers for {count} tiles, found {data.dtype}, {len(begin)}, {len(size)} and "
            f"{len(lanes)}; give those of each tile"
        )
    if not 0 <= level < len(network.level_bias):
        raise ValueError(f"expected a level below {len(network.level_bias)}, found {level}; take the stream's network")
    failed = torch.zeros(count, dtype=torch.uint8, device=data.device)
    if count:
        around = torch.zeros(tiles.surroundings, dtype=torch.int16, device=data.device)
        predicted = torch.empty(tiles.predicted, dtype=torch.int32, device=data.device)
        with on(latents):
            if u is not None:
                surround[(triton.cdiv(tiles.largest, PART), count)](
                    around, u, u if v is None else v, size, tiles.places, tiles.rooms, *tiles.lattice,
                    v is not None, *tiles.ring, PART, num_warps=WARPS,
                )  # fmt: skip
            decode[(count,)](
                data, begin, size, lanes, tiles.places, tiles.rooms, tiles.order, tiles.stages, latents, around, predicted, failed,
                *network.tensors, tiles.order.shape[1], *tiles.lattice[1:], level, network.first.shape[1], network.second.shape[1],
                network.unit_bits, network.hidden_bits, MOST_LANES, at_once(network.first.shape[1]), num_warps=WARPS, num_stages=1, maxnreg=REGISTERS,
            )  # fmt: skip
    return failed.view(torch.bool)


def at_once(inputs: int) -> int:
    """Latents whose contexts are found together."""
    return TILE if inputs <= 32 else FEWER


@triton.jit(do_not_specialize=["listed", "n_z", "n_y", "n_x", "level"])
def decode(
    data, begin, size, lanes, places, rooms, order, stages, latents, around, predicted, failed,
    taps, first, level_bias, second, second_bias, last, skip, last_bias, shifts, starts, first_symbol, near_symbols, reaches,
    listed, n_z, n_y, n_x, level,
    N: tl.constexpr, C: tl.constexpr, UNIT_BITS: tl.constexpr, BITS: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile, stage after stage: contexts of TILE latents at a time, then symbols of as many as there are lanes.

    Loops are bounded by the tile's extents, whatever its bytes are. What reads beyond the bytes gets zeros, and its
    positions then fail the check at the end.
    """
    tile = tl.program_id(0)
    lanes_here, bytes_here = tl.load(lanes + tile), tl.load(size + tile)
    source = (data + tl.load(begin + tile), bytes_here)
    places, rooms = places + tile * _PLACES, rooms + tile * 5
    order, stages = order + tl.load(rooms), stages + tl.load(rooms + 1)
    around, predicted = around + tl.load(rooms + 3), predicted + tl.load(rooms + 4)

    sensible = (lanes_here >= 1) & (lanes_here <= LANES)
    lanes_here = clamped(lanes_here, 1, LANES)
    lane = tl.arange(0, LANES)
    used = lane < lanes_here
    at, bit = tl.full((), 0, tl.int64) + 4 * lanes_here, tl.full((), 0, tl.int64)
    state = word(source, 4 * lane, used) | (word(source, 4 * lane + 2, used) << 16)
    wrong = tl.max((used & (state < _LEAST)).to(tl.int32), 0)

    # A tap's distance within the surroundings; 32 bits hold it, for a tile of 64^4 has fewer than 2^29 places there.
    tap, channel, number = tl.arange(0, N), tl.arange(0, C), tl.arange(0, TILE)
    shift = tl.zeros((N,), tl.int32)
    for axis in tl.static_range(5):
        shift += tl.load(taps + axis * N + tap) * tl.load(places + 8 + axis)
    of_first, of_second = tap[:, None] * C + channel[None, :], channel[:, None] * C + channel[None, :]
    first_parts = tl.load(first + of_first), tl.load(first + N * C + of_first)
    second_parts = tl.load(second + of_second), tl.load(second + C * C + of_second)
    others = level_bias + level * C, second_bias, last, last_bias, skip, shifts
    # A tile without bytes has no stages, and zeros.
    count = tl.where(bytes_here > 0, tl.load(rooms + 2), 0).to(tl.int32)
    for stage in range(0, count):
        stage_first, stage_stop = tl.load(stages + stage), tl.load(stages + stage + 1)
        # What the stage before stored is seen from here on.
        tl.debug_barrier()
        for start in range(stage_first, stage_stop, TILE):
            live = start + number < stage_stop
            place = tl.load(order + start + number, mask=live, other=0)
            # Threads side by side are to load latents side by side: see `synthesis_kernel`.
            near = tl.multiple_of(tl.max_contiguous(place[:, None] + shift[None, :], [TILE, 1]), [1, 1])
            seen = tl.load(around + near, mask=live[:, None], other=0)
            coded = _predicted(seen, first_parts, second_parts, others, N, C, UNIT_BITS, BITS)
            tl.store(predicted + start + number, coded, mask=live)
        tl.debug_barrier()
        # What does not depend on a state is loaded before its round, for a round waits for nothing but the one before:
        # predictions two rounds ahead, and what their tables say of the likeliest symbols, and where latents lie, one.
        live, soon = used & (stage_first + lane < stage_stop), used & (stage_first + lanes_here + lane < stage_stop)
        coded = tl.load(predicted + stage_first + lane, mask=live, other=0)
        coded_soon = tl.load(predicted + stage_first + lanes_here + lane, mask=soon, other=0)
        words = _near_of(near_symbols, coded & 0xFFFF, live)
        near = tl.load(order + stage_first + lane, mask=live, other=0)
        for start in range(stage_first, stage_stop, lanes_here):
            later = used & (start + 2 * lanes_here + lane < stage_stop)
            coded_later = tl.load(predicted + start + 2 * lanes_here + lane, mask=later, other=0)
            words_soon = _near_of(near_symbols, coded_soon & 0xFFFF, soon)
            near_soon = tl.load(order + start + lanes_here + lane, mask=soon, other=0)
            value, state, at, bit, outside = _latent(
                state, at, bit, coded, words, lane, live, source, (starts, first_symbol, first_symbol), reaches, LANES
            )
            wrong |= outside
            # In the place of what was predicted; in the lattice they would lie far from each other.
            tl.store(predicted + start + lane, value, mask=live)
            known = clamped(value, -_LARGEST, _LARGEST) << UNIT_BITS
            tl.store(around + near, known.to(tl.int16), mask=live)
            coded, words, near, live = coded_soon, words_soon, near_soon, soon
            coded_soon, soon = coded_later, later

    tl.debug_barrier()
    corner = (tl.load(places).to(tl.int64) * n_z + tl.load(places + 1)) * n_y + tl.load(places + 2)
    latents_here = latents + corner * n_x + tl.load(places + 3)
    total = tl.load(places + 4) * tl.load(places + 5) * tl.load(places + 6) * tl.load(places + 7)
    for start in range(0, total, TILE):
        live = start + number < total
        value = tl.load(predicted + start + number, mask=live & (bytes_here > 0), other=0)
        tl.store(latents_here + tl.load(order + listed + start + number, mask=live, other=0), value, mask=live)

    wrong |= tl.max((used & (state != _LEAST)).to(tl.int32), 0) | (at + (bit + 7) // 8 != bytes_here).to(tl.int32)
    wrong = tl.where(bytes_here > 0, wrong, 0) | (sensible == 0).to(tl.int32)
    tl.store(failed + tile, wrong.to(tl.uint8))


@triton.jit(do_not_specialize=["n_t", "n_z", "n_y", "n_x"])
def surround(
    around, u, v, size, places, rooms, n_t, n_z, n_y, n_x,
    HAS_V: tl.constexpr, RING_T: tl.constexpr, RING_Z: tl.constexpr, RING_Y: tl.constexpr, RING_X: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """U and V of a tile's surroundings; beyond the lattice, those of the nearest site."""
    tile = tl.program_id(1)
    places = places + tile * _PLACES
    around = around + tl.load(rooms + tile * 5 + 3)
    r_t, r_z = tl.load(places + 4) + 2 * RING_T, tl.load(places + 5) + 2 * RING_Z
    r_y, r_x = tl.load(places + 6) + 2 * RING_Y, tl.load(places + 7) + 2 * RING_X
    index = tl.program_id(0) * PART + tl.arange(0, PART)
    mask = (index < r_t * r_z * r_y * r_x) & (tl.load(size + tile) > 0)
    line = index // r_x
    plane = line // r_y
    x, y, z, t = index % r_x, line % r_y, plane % r_z, plane // r_z
    here = around + t * tl.load(places + 8) + z * tl.load(places + 9) + y * tl.load(places + 10) + x * tl.load(places + 11)
    whole = tl.load(places + 12)
    t = clamped(tl.load(places) + t - RING_T, 0, n_t - 1)
    z = clamped(tl.load(places + 1) + z - RING_Z, 0, n_z - 1)
    y = clamped(tl.load(places + 2) + y - RING_Y, 0, n_y - 1)
    x = clamped(tl.load(places + 3) + x - RING_X, 0, n_x - 1)
    site = ((t * n_z + z) * n_y + y) * n_x + x
    tl.store(here + whole, tl.load(u + site, mask=mask, other=0), mask=mask)
    if HAS_V:
        tl.store(here + 2 * whole, tl.load(v + site, mask=mask, other=0), mask=mask)


@triton.jit
def _predicted(
    seen, first_parts, second_parts, others, N: tl.constexpr, C: tl.constexpr, UNIT_BITS: tl.constexpr, BITS: tl.constexpr
):
    """Centres and tables, in one number.

    Products of whole numbers of up to 11 bits are exact, whatever multiplies them, and so are their sums: below 2^24.
    """
    level_bias, second_bias, last, last_bias, skip, shifts = others
    first_high, first_low = first_parts
    second_high, second_low = second_parts
    tap, channel, inputs, direct = tl.arange(0, N), tl.arange(0, C), seen.to(tl.float16), seen.to(tl.float32)
    mean = tl.sum(tl.load(skip + tap)[None, :] * direct, 1) + tl.load(last_bias)
    scale = tl.sum(tl.load(skip + N + tap)[None, :] * direct, 1) + tl.load(last_bias + 1)
    hidden = tl.dot(inputs, first_low, 128.0 * tl.dot(inputs, first_high)) + tl.load(level_bias + channel)[None, :]
    hidden = _requantised(hidden, tl.load(shifts), BITS)
    hidden = _multiplied(hidden, second_high, second_low, BITS) + tl.load(second_bias + channel)[None, :]
    hidden = _requantised(hidden, tl.load(shifts + 1), BITS)
    mean += tl.sum(tl.load(last + channel)[None, :] * hidden, 1)
    scale += tl.sum(tl.load(last + C + channel)[None, :] * hidden, 1)
    mean = tl.floor(mean * tl.load(shifts + 2)).to(tl.int32)
    scale = tl.floor(scale * tl.load(shifts + 3)).to(tl.int32)
    units: tl.constexpr = 1 << UNIT_BITS
    mean, scale = clamped(mean, -units * _LARGEST, units * _LARGEST), clamped(scale, 0, _MOST_SCALE)
    middle = (mean + units // 2) >> UNIT_BITS
    return (middle << 16) + units * (scale - middle) + mean + units // 2


@triton.jit
def _multiplied(values, high, low, BITS: tl.constexpr):
    """Hidden numbers times weights in two parts; numbers of many bits are parted likewise, and weights have few bits then."""
    if BITS <= _NARROW:
        whole = values.to(tl.float16)
        return tl.dot(whole, low, 128.0 * tl.dot(whole, high))
    many = tl.floor((values + 64) * (1 / 128))
    above, below = many.to(tl.float16), (values - 128 * many).to(tl.float16)
    found = tl.dot(below, high, tl.dot(above, low, 128.0 * tl.dot(above, high))) if BITS < _WIDE else tl.dot(above, low)
    return tl.dot(below, low, 128.0 * found)


@triton.jit
def _requantised(total, shift, BITS: tl.constexpr):
    found, largest = tl.floor(total * tl.where(total < 0, shift * _LESS, shift)), (1 << BITS) - 1.0
    return tl.minimum(tl.maximum(found, -largest), largest)


@triton.jit
def _near_of(near, table, live):
    """What tables say of the likeliest symbols, for `_near_symbol_of`."""
    row = near + 2 * table
    return tl.load(row, mask=live, other=0), tl.load(row + 1, mask=live, other=0)


@triton.jit
def _near_symbol_of(state, words, live):
    """Of the starts that `_near_of` gave, how many do not exceed each slot; states before they take a word; and whose symbol is none of those."""
    low, high = words
    slot = (state & 0xFFFF).to(tl.int32)
    count, start, stop = tl.zeros_like(slot), tl.zeros_like(slot), tl.zeros_like(slot) + _ABOVE
    for half in tl.static_range(2):
        packed = low if half == 0 else high
        for k in tl.static_range(_OF_WORD):
            here = (packed >> (_NEAR_BITS * k)).to(tl.int32) & (_ABOVE - 1)
            before = here <= slot
            count += before.to(tl.int32)
            start = tl.where(before, here, start)
            stop = tl.where(before, stop, tl.minimum(stop, here))
    other = live & ((count == 0) | (count == _NEAR))
    after = (stop - start).to(tl.uint32) * (state >> 16) + (slot - start).to(tl.uint32)
    return count, tl.where(live & (other == 0), after, state), other


@triton.jit
def _latent(
    state, at, bit, coded, words, lane, live, source, tables, reaches, LANES: tl.constexpr
):  # fmt: skip
    """Latents of the live lanes, states, the next word and plain bit, and whether one is too large.

    Most symbols are among the likeliest: the rest is looked at only where there is any.
    """
    middle = coded >> 16
    count, state, other = _near_symbol_of(state, words, live)
    value = middle + (count - 1 + _NEAR_FIRST)
    reach, escaped = tl.zeros_like(middle), lane < 0
    if tl.max(other.to(tl.int32), 0) > 0:
        symbol, state = symbol_of(state, coded & 0xFFFF, other, tables)
        reach = tl.load(reaches + (coded & 0xFFFF), mask=other, other=0)
        value = tl.where(other, middle + symbol - reach, value)
        escaped = other & (symbol > 2 * reach)
    wrong = tl.full((), 0, tl.int32)
    short = live & (state < _LEAST)
    words = tl.sum(short.to(tl.int32), 0)
    if words > 0:
        taken = tl.cumsum(short.to(tl.int32), 0)
        state = tl.where(short, (state << 16) | word(source, at + 2 * (taken - 1), short), state)
        at += 2 * words

    left = tl.sum(escaped.to(tl.int32), 0)
    while left > 0:
        # The escapes of a round, one lane after the other.
        turn = tl.min(tl.where(escaped, lane, LANES), 0)
        mine = lane == turn
        own = tl.sum(tl.where(mine, middle, 0), 0)
        magnitude, below, bit = _escape(source, bit)
        magnitude += tl.sum(tl.where(mine, reach, 0), 0) + 1
        found_here = tl.where(below, own - magnitude, own + magnitude)
        outside = (found_here >= _LIMIT) | (found_here <= -_LIMIT)
        wrong |= outside.to(tl.int32)
        value = tl.where(mine, tl.where(outside, 0, found_here).to(tl.int32), value)
        escaped = escaped & (lane != turn)
        left -= 1
    return value, state, at, bit, wrong


@triton.jit
def _escape(source, bit):
    """An escape's number, whether it stands for one below the centre, and the next plain bit."""
    data, size = source
    # A sign, 5 bits of length, up to 31 of the number, and up to 7 of the byte where they begin.
    window = tl.full((), 0, tl.int64)
    for k in tl.static_range(6):
        byte = size - 1 - (bit >> 3) - k
        window |= tl.load(data + byte, mask=byte >= 0, other=0).to(tl.int64) << (8 * k)
    window = window >> (bit & 7)
    length = (window >> 1) & 31
    number = (window >> 6) & ((tl.full((), 1, tl.int64) << length) - 1)
    return number, (window & 1) > 0, bit + 6 + length
