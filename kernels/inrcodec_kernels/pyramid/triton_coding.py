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
from .triton_context import DeviceContext
from .triton_tiles import DeviceTiles
from .triton_upsampling import clamped, on

TILE = 128
"""Latents whose contexts are found together: one a thread."""
WARPS = 4
REGISTERS = 184
"""Most registers of a thread: left alone, the assembler moves some to memory for more programs than there are tiles."""

_LEAST = tl.constexpr(1 << 16)
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
        around = torch.empty(tiles.surroundings, dtype=torch.int16, device=data.device)
        predicted = torch.empty(tiles.predicted, dtype=torch.int32, device=data.device)
        with on(latents):
            decode[(count,)](
                data, begin, size, lanes, tiles.places, tiles.rooms, tiles.order, tiles.stages,
                latents, latents if u is None else u, latents if v is None else v, around, predicted, failed, *network.tensors,
                tiles.order.shape[1], *tiles.lattice, level, len(network.first),
                u is not None, v is not None, network.first.shape[1], network.second.shape[1], network.unit_bits, network.hidden_bits, MOST_LANES, TILE,
                num_warps=WARPS, maxnreg=REGISTERS,
            )  # fmt: skip
    return failed.view(torch.bool)


@triton.jit
def decode(
    data, begin, size, lanes, places, rooms, order, stages, latents, u, v, around, predicted, failed,
    taps, first, level_bias, second, second_bias, last, skip, last_bias, shifts, starts, first_symbol, centre,
    listed, n_t, n_z, n_y, n_x, level, width,
    HAS_U: tl.constexpr, HAS_V: tl.constexpr, N: tl.constexpr, C: tl.constexpr, UNIT_BITS: tl.constexpr,
    BITS: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile, stage after stage: contexts of TILE latents at a time, then symbols of as many as there are lanes.

    Loops are bounded by the tile's extents, whatever its bytes are. What reads beyond the bytes gets zeros, and its
    positions then fail the check at the end.
    """
    tile = tl.program_id(0)
    lanes_here, bytes_here = tl.load(lanes + tile), tl.load(size + tile)
    source = (data + tl.load(begin + tile), bytes_here)
    places, rooms = places + tile * 8, rooms + tile * 5
    m_t, m_z, m_y, m_x = tl.load(places + 4), tl.load(places + 5), tl.load(places + 6), tl.load(places + 7)
    order, stages = order + tl.load(rooms), stages + tl.load(rooms + 1)
    around, predicted = around + tl.load(rooms + 3), predicted + tl.load(rooms + 4)
    corner = (tl.load(places).to(tl.int64) * n_z + tl.load(places + 1)) * n_y + tl.load(places + 2)
    latents_here = latents + corner * n_x + tl.load(places + 3)
    # A tile without bytes has zeros.
    if bytes_here == 0:
        for start in range(0, m_t * m_z * m_y * m_x, TILE):
            number = start + tl.arange(0, TILE)
            inside = number < m_t * m_z * m_y * m_x
            away = tl.load(order + listed + number, mask=inside, other=0)
            tl.store(latents_here + away, tl.zeros((TILE,), tl.int32), mask=inside)
    else:
        _surround(around, u, v, places, (n_t, n_z, n_y, n_x), HAS_U, HAS_V, TILE)

    sensible = (lanes_here >= 1) & (lanes_here <= LANES)
    lanes_here = clamped(lanes_here, 1, LANES)
    lane = tl.arange(0, LANES)
    used = lane < lanes_here
    at, bit = tl.full((), 0, tl.int64) + 4 * lanes_here, tl.full((), 0, tl.int64)
    state = word(source, 4 * lane, used) | (word(source, 4 * lane + 2, used) << 16)
    wrong = tl.max((used & (state < _LEAST)).to(tl.int32), 0)

    layers = (first, level_bias + level * width, second, second_bias, last, skip, last_bias, shifts, width)
    # A tap's distance within the surroundings; 32 bits hold it, for a tile of 64^4 has 2^26 of them.
    tap = tl.arange(0, N)
    shift = (tl.load(taps + tap) * (m_z + 2) + tl.load(taps + N + tap)) * (m_y + 2) + tl.load(taps + 2 * N + tap)
    shift = shift * (m_x + 2) + tl.load(taps + 3 * N + tap)
    shift += tl.load(taps + 4 * N + tap) * ((m_t + 2) * (m_z + 2) * (m_y + 2) * (m_x + 2))
    count = tl.where(bytes_here > 0, tl.load(rooms + 2), 0).to(tl.int32)
    for stage in range(0, count):
        stage_first, stage_stop = tl.load(stages + stage), tl.load(stages + stage + 1)
        # What the stage before stored is seen from here on.
        tl.debug_barrier()
        for start in range(stage_first, stage_stop, TILE):
            number = start + tl.arange(0, TILE)
            live = number < stage_stop
            place = tl.load(order + number, mask=live, other=0)
            # A thread is to have a latent with all its taps: see `synthesis_kernel`.
            near = tl.multiple_of(tl.max_contiguous(place[:, None] + shift[None, :], [TILE, 1]), [1, 1])
            seen = tl.load(around + near, mask=live[:, None], other=0).to(tl.float32)
            tl.store(predicted + number, _predicted(seen, layers, N, C, UNIT_BITS, BITS, TILE), mask=live)
        tl.debug_barrier()
        # What does not depend on a state is loaded before its round, for a round waits for nothing but the one before:
        # predictions two rounds ahead, and the intervals that they name, and where latents lie, one.
        number = stage_first + lane
        live = used & (number < stage_stop)
        coded = tl.load(predicted + number, mask=live, other=0)
        interval = _interval(centre, coded, live)
        away, near = _places_of(order, listed, number, live)
        soon = used & (number + lanes_here < stage_stop)
        coded_soon = tl.load(predicted + number + lanes_here, mask=soon, other=0)
        for start in range(stage_first, stage_stop, lanes_here):
            number = start + lane
            later = used & (number + 2 * lanes_here < stage_stop)
            coded_later = tl.load(predicted + number + 2 * lanes_here, mask=later, other=0)
            interval_soon = _interval(centre, coded_soon, soon)
            away_soon, near_soon = _places_of(order, listed, number + lanes_here, soon)
            value, state, at, bit, outside = _latent(
                state, at, bit, coded, interval, lane, live, source, starts, first_symbol, LANES
            )
            wrong |= outside
            tl.store(latents_here + away, value, mask=live)
            known = clamped(value, -_LARGEST, _LARGEST) << UNIT_BITS
            tl.store(around + near, known.to(tl.int16), mask=live)
            coded, interval, away, near, live = coded_soon, interval_soon, away_soon, near_soon, soon
            coded_soon, soon = coded_later, later

    wrong |= tl.max((used & (state != _LEAST)).to(tl.int32), 0) | (at + (bit + 7) // 8 != bytes_here).to(tl.int32)
    wrong = tl.where(bytes_here > 0, wrong, 0) | (sensible == 0).to(tl.int32)
    tl.store(failed + tile, wrong.to(tl.uint8))


@triton.jit
def _surround(around, u, v, places, lattice, HAS_U: tl.constexpr, HAS_V: tl.constexpr, TILE: tl.constexpr):
    """A tile's surroundings before it is decoded: no latents, U and V; beyond the lattice, the nearest site."""
    r_t, r_z, r_y = tl.load(places + 4) + 2, tl.load(places + 5) + 2, tl.load(places + 6) + 2
    r_x = tl.load(places + 7) + 2
    count = r_t * r_z * r_y * r_x
    for start in range(0, count, TILE):
        index = start + tl.arange(0, TILE)
        mask = index < count
        line = index // r_x
        plane = line // r_y
        t = clamped(tl.load(places) + plane // r_z - 1, 0, lattice[0] - 1)
        z = clamped(tl.load(places + 1) + plane % r_z - 1, 0, lattice[1] - 1)
        y = clamped(tl.load(places + 2) + line % r_y - 1, 0, lattice[2] - 1)
        x = clamped(tl.load(places + 3) + index % r_x - 1, 0, lattice[3] - 1)
        site = ((t * lattice[1] + z) * lattice[2] + y) * lattice[3] + x
        none = tl.zeros((TILE,), tl.int16)
        tl.store(around + index, none, mask=mask)
        tl.store(around + count + index, tl.load(u + site, mask=mask, other=0) if HAS_U else none, mask=mask)
        tl.store(around + 2 * count + index, tl.load(v + site, mask=mask, other=0) if HAS_V else none, mask=mask)


@triton.jit
def _predicted(
    seen, layers, N: tl.constexpr, C: tl.constexpr, UNIT_BITS: tl.constexpr, BITS: tl.constexpr, TILE: tl.constexpr
):
    """Centres and tables, in one number; whole numbers in float32, exact whatever the order of the sums."""
    first, level_bias, second, second_bias, last, skip, last_bias, shifts, width = layers
    tap, channel = tl.arange(0, N), tl.arange(0, C)
    hidden = tl.zeros((TILE, C), dtype=tl.float32) + tl.load(second_bias + channel)[None, :]
    shift = tl.load(shifts)
    for c in range(width):
        one = tl.sum(tl.load(first + c * N + tap)[None, :] * seen, 1) + tl.load(level_bias + c)
        hidden += tl.load(second + c * C + channel)[None, :] * _requantised(one, shift, BITS)[:, None]
    hidden = _requantised(hidden, tl.load(shifts + 1), BITS)
    mean = tl.sum(tl.load(last + channel)[None, :] * hidden, 1) + tl.sum(tl.load(skip + tap)[None, :] * seen, 1)
    scale = tl.sum(tl.load(last + C + channel)[None, :] * hidden, 1)
    scale += tl.sum(tl.load(skip + N + tap)[None, :] * seen, 1)
    mean = tl.floor((mean + tl.load(last_bias)) * tl.load(shifts + 2)).to(tl.int32)
    scale = tl.floor((scale + tl.load(last_bias + 1)) * tl.load(shifts + 3)).to(tl.int32)
    units: tl.constexpr = 1 << UNIT_BITS
    mean, scale = clamped(mean, -units * _LARGEST, units * _LARGEST), clamped(scale, 0, _MOST_SCALE)
    middle = (mean + units // 2) >> UNIT_BITS
    return (middle << 16) + units * (scale - middle) + mean + units // 2


@triton.jit
def _requantised(total, shift, BITS: tl.constexpr):
    found, largest = tl.floor(total * tl.where(total < 0, shift * _LESS, shift)), (1 << BITS) - 1.0
    return tl.minimum(tl.maximum(found, -largest), largest)


@triton.jit
def _interval(centre, coded, live):
    """Of the tables that predictions name: where the centre's interval begins, its length, and how far symbols reach."""
    row = centre + 3 * (coded & 0xFFFF)
    start, frequency = tl.load(row, mask=live, other=0), tl.load(row + 1, mask=live, other=0)
    return start.to(tl.uint32), frequency.to(tl.uint32), tl.load(row + 2, mask=live, other=0)


@triton.jit
def _places_of(order, listed, number, live):
    """Where latents lie in the lattice, and in the surroundings."""
    return tl.load(order + listed + number, mask=live, other=0), tl.load(order + number, mask=live, other=0)


@triton.jit
def _latent(
    state, at, bit, coded, interval, lane, live, source, starts, first_symbol, LANES: tl.constexpr
):  # fmt: skip
    """Latents of the live lanes, states, the next word and plain bit, and whether one is too large.

    Most symbols are the centre's, and most take no word: the rest is looked at only where there is any.
    """
    start, frequency, reach = interval
    middle, slot = coded >> 16, (state & 0xFFFF) - start
    other = live & (slot >= frequency)
    value = middle
    known = tl.where(live & (other == 0), frequency * (state >> 16) + slot, state)
    wrong, escaped = tl.full((), 0, tl.int32), lane < 0
    if tl.max(other.to(tl.int32), 0) > 0:
        symbol, after = symbol_of(state, coded & 0xFFFF, other, (starts, first_symbol, first_symbol))
        known = tl.where(other, after, known)
        value = tl.where(other, middle + symbol - reach, middle)
        escaped = other & (symbol > 2 * reach)
    state = known
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
