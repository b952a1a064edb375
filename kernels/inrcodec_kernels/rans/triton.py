"""Chunks decoded on CUDA devices, all in one launch; see README.md for the design."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from .bands import BandCode
from .reference import MOST_EXPECTED
from .tables import ALPHABET, TOTAL

MOST_LANES = 32
"""Lanes are the threads of one warp."""
LEAVES = 128
"""Leaves looked at together when those of a stage are listed."""
AHEAD = 128
"""Coefficients of a stage whose tables are found together, before their symbols are decoded."""
REGISTERS = 224
"""Most registers of a thread: left alone, the compiler saves them for more programs than there are chunks."""

_STARTS = tl.constexpr(ALPHABET + 1)
_FIRSTS = tl.constexpr(257)
_LEAST = tl.constexpr(1 << 16)
_LARGE = tl.constexpr(1 << 31)
_MOST_EXPECTED = tl.constexpr(MOST_EXPECTED)


@dataclass(frozen=True)
class DeviceCode:
    """A `BandCode` on a device. Make it once for a stream: `decode_chunks` copies nothing from the host.

    Attributes
    ----------
    order, begin, neighbours, gains, means, thresholds, ratios, escape : Tensor
        As in `BandCode`.
    starts : Tensor of int32, shape (T, ALPHABET + 1)
        As in `Tables`.
    first : Tensor of uint8, shape (T, 257)
        As in `Tables`, and the symbol that has the last slot: a slot's symbol is between two of these.
    """

    order: Tensor
    begin: Tensor
    neighbours: Tensor
    gains: Tensor
    means: Tensor
    thresholds: Tensor
    ratios: Tensor
    starts: Tensor
    first: Tensor
    escape: Tensor

    @classmethod
    def of(cls, code: BandCode, device: torch.device | str) -> DeviceCode:
        """Copy to a device."""
        last = (code.tables.starts < TOTAL).sum(axis=1, keepdims=True) - 1
        first = np.concatenate([code.tables.first, last.astype(np.uint8)], axis=1)
        arrays = [code.order, code.begin, code.neighbours, code.gains, code.means, code.thresholds, code.ratios]
        arrays += [code.tables.starts.astype(np.int32), first, code.escape]
        return cls(*(torch.tensor(array, device=device) for array in arrays))


def decode_chunks(
    data: Tensor, begin: Tensor, lanes: int, level: Tensor, first: Tensor, code: DeviceCode, rows: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode the coefficients of the leaves of C chunks, without waiting for the device.

    Parameters
    ----------
    data : Tensor of uint8
        The chunks' bytes.
    begin : Tensor of int64, shape (C + 1,)
        Where each chunk begins in `data`, ascending, and the end of the last.
    lanes : int
        1..32.
    level : Tensor of int32 or int64, shape (B,)
        Of each leaf, 0..V - 1.
    first : Tensor of int64, shape (C + 1,)
        The first leaf of each chunk, ascending from 0, and B. A chunk has fewer than 2^31 coefficients.
    code : DeviceCode
    rows : Tensor of int64, shape (B,)
        Where each leaf's coefficients, and a 0 behind them, go in `values`.
    size : int
        Length of `values`.

    Returns
    -------
    values : Tensor of int32, shape (size,)
        Those of leaves of failed chunks are undefined.
    kept : Tensor of int32, shape (B,)
        Bands each leaf keeps besides the constant; undefined in failed chunks.
    failed : Tensor of bool, shape (C,)
        Chunks that the encoder cannot have written, for which the reference raises `CodedError`.

    Raises
    ------
    ValueError
        If there are more lanes than 32, or shapes do not fit.
    """
    if not 1 <= lanes <= MOST_LANES:
        raise ValueError(f"expected 1..{MOST_LANES} lanes, found {lanes}; decode them with the reference")
    if len(begin) != len(first) or len(level) != len(rows) or data.dtype != torch.uint8:
        raise ValueError(
            f"expected bytes, as many chunks as groups of leaves and a row for each leaf, found {data.dtype}, "
            f"{len(begin) - 1} and {len(first) - 1}, {len(level)} and {len(rows)}; correct them"
        )
    chunks, leaves = len(begin) - 1, len(level)
    values = torch.zeros(size, dtype=torch.int32, device=data.device)
    kept, listed = (torch.empty(leaves, dtype=torch.int32, device=data.device) for _ in range(2))
    failed = torch.empty(chunks, dtype=torch.uint8, device=data.device)
    constants = torch.empty(leaves, dtype=torch.int64, device=data.device)
    escaped = torch.empty(8 * len(data) // 5 + chunks, dtype=torch.int64, device=data.device)
    asked = torch.empty(2, chunks, AHEAD, dtype=torch.int64, device=data.device)
    if chunks:
        decode[(chunks,)](
            data, begin, first, level, rows, values, kept, failed, listed, constants, escaped, asked,
            code.order, code.begin, code.neighbours, code.gains, code.means, code.thresholds, code.ratios,
            code.starts, code.first, code.escape, lanes, *_sizes(code), **_constants(code, lanes),
            num_warps=1, maxnreg=REGISTERS,
        )  # fmt: skip
    return values, kept, failed.view(torch.bool)


def _sizes(code: DeviceCode) -> tuple[int, int, int]:
    return len(code.order), code.means.shape[1], code.order.shape[1]


def _constants(code: DeviceCode, lanes: int) -> dict[str, int]:
    constants = {"NEIGHBOURS": code.gains.shape[1], "CONTEXTS": len(code.thresholds) + 1}
    return constants | {"LANES": triton.next_power_of_2(lanes), "LEAVES": LEAVES, "AHEAD": AHEAD}


@triton.jit(do_not_specialize=["lanes", "levels", "bands", "width"])
def decode(  # type: ignore[no-untyped-def]
    data, begin, first_leaf, level, rows, values, kept, failed, listed, constants, escaped, asked,
    order, band_begin, neighbours, gains, means, thresholds, ratios, starts, first, escape,
    lanes, levels, bands, width,
    NEIGHBOURS: tl.constexpr, CONTEXTS: tl.constexpr, LANES: tl.constexpr, LEAVES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One chunk. Lanes decode in lockstep: symbols r lanes .. (r + 1) lanes - 1 of a stage in round r.

    What is expected of coefficients comes from earlier stages alone, so tables are found for many of them at a time, by
    all threads, and wait in `asked` with the coefficients' places. A round then waits for nothing but the one before.

    Loops are bounded by the numbers of leaves and coefficients and by the chunk's length, whatever its bytes are. What
    reads beyond the chunk gets zeros, and its positions then fail the check at the end.
    """
    chunk = tl.program_id(0)
    origin, leaf = tl.load(begin + chunk), tl.load(first_leaf + chunk)
    size = tl.load(begin + chunk + 1) - origin
    source = (data + origin, size)
    chunk_leaves = (level + leaf, kept + leaf, (tl.load(first_leaf + chunk + 1) - leaf).to(tl.int32))
    rows, listed, constants = rows + leaf, listed + leaf, constants + leaf
    # An escape takes at least 5 plain bits: with one more than there can be, they do not fit the chunk.
    notes = (escaped + 8 * origin // 5 + chunk, 8 * size // 5 + 1)
    tables = (starts, first, escape)
    lane = tl.arange(0, LANES)
    used = lane < lanes

    state = word(source, 4 * lane, used) | (word(source, 4 * lane + 2, used) << 16)
    wrong = tl.max((used & (state < _LEAST)).to(tl.int32), 0)
    at, bit = tl.full((), 0, tl.int64) + 4 * lanes, tl.full((), 0, tl.int64)
    state, at, most = decode_widths(state, at, lane, lanes, chunk_leaves, source, tables, CONTEXTS)
    tl.debug_barrier()
    state, at, bit = decode_constants(
        state, at, bit, lane, lanes, chunk_leaves, constants, source, tables, notes, CONTEXTS + levels
    )

    escapes = tl.full((), 0, tl.int32)
    tables_asked, places_asked = asked + chunk * AHEAD, asked + (tl.num_programs(0) + chunk) * AHEAD
    number, together = tl.arange(0, AHEAD), AHEAD // lanes * lanes
    for band in range(1, most + 1):
        for v in range(0, levels):
            # What other lanes stored in the stage before, and the list of this one, is seen from here on.
            tl.debug_barrier()
            count = those_that_keep(band, v, chunk_leaves, listed, LEAVES)
            tl.debug_barrier()
            members = tl.load(band_begin + v * (bands + 1) + band)
            of_leaf = tl.load(band_begin + v * (bands + 1) + band + 1) - members
            mean = tl.load(means + v * bands + band)
            around = (neighbours + v * NEIGHBOURS * width, gains + v * NEIGHBOURS, width)
            total = count * of_leaf
            for block in range(0, total, together):
                part = tl.minimum(total - block, together)
                inside = number < part
                here = tl.load(listed + (block + number) // of_leaf, mask=inside, other=0)
                row = tl.load(rows + here, mask=inside, other=0)
                coefficient = tl.load(order + v * width + members + (block + number) % of_leaf, mask=inside, other=0)
                expected = expected_at(values + row, coefficient, inside, mean, around, NEIGHBOURS)
                # The block before this one has been read.
                tl.debug_barrier()
                tl.store(tables_asked + number, context_of(expected, thresholds, CONTEXTS), mask=inside)
                tl.store(places_asked + number, row + coefficient, mask=inside)
                tl.debug_barrier()
                live = used & (lane < part)
                table, place = asked_of(tables_asked, places_asked, lane, live)
                for start in range(0, part, lanes):
                    soon = used & (start + lanes + lane < part)
                    table_soon, place_soon = asked_of(tables_asked, places_asked, start + lanes + lane, soon)
                    value, state, at, bit, escapes = signed_of(
                        state, at, bit, escapes, table, place, live, source, tables, notes
                    )
                    tl.store(values + place, value, mask=live)
                    table, place, live = table_soon, place_soon, soon
    tl.debug_barrier()
    bit, largest = enlarge(values, escapes, source, notes, bit)

    wrong |= (largest >= _LARGE).to(tl.int32)
    wrong |= store_constants(values, rows, constants, chunk_leaves, ratios, levels)
    wrong |= tl.max((used & (state != _LEAST)).to(tl.int32), 0) | (at + (bit + 7) // 8 != size).to(tl.int32)
    tl.store(failed + chunk, wrong.to(tl.uint8))


@triton.jit
def decode_widths(state, at, lane, lanes, chunk_leaves, source, tables, CONTEXTS):  # type: ignore[no-untyped-def]
    """The first stage: bands that each leaf keeps. States, the next word, and the most bands."""
    level, kept, leaves = chunk_leaves
    most = 0
    for start in range(0, leaves, lanes):
        number = start + lane
        live = (lane < lanes) & (number < leaves)
        table = CONTEXTS + tl.load(level + number, mask=live, other=0).to(tl.int32)
        bands, state = symbol_of(state, table, live, tables)
        short = live & (state < _LEAST)
        taken = tl.cumsum(short.to(tl.int32), 0)
        state = tl.where(short, (state << 16) | word(source, at + 2 * (taken - 1), short), state)
        at += 2 * tl.max(taken, 0)
        tl.store(kept + number, bands, mask=live)
        most = tl.maximum(most, tl.max(tl.where(live, bands, 0), 0))
    return state, at, most


@triton.jit
def decode_constants(  # type: ignore[no-untyped-def]
    state, at, bit, lane, lanes, chunk_leaves, constants, source, tables, notes, first_table
):  # fmt: skip
    """The second stage: differences of constants, whole. States, the next word and plain bit."""
    level, kept, leaves = chunk_leaves
    escapes = tl.full((), 0, tl.int32)
    for start in range(0, leaves, lanes):
        number = start + lane
        live = (lane < lanes) & (number < leaves)
        has_bands = (tl.load(kept + number, mask=live, other=0) > 0).to(tl.int32)
        table = first_table + 2 * tl.load(level + number, mask=live, other=0).to(tl.int32) + has_bands
        difference, state, at, bit, escapes = signed_of(
            state, at, bit, escapes, table, number.to(tl.int64), live, source, tables, notes
        )
        tl.store(constants + number, difference.to(tl.int64), mask=live)
    tl.debug_barrier()
    bit, _ = enlarge(constants, escapes, source, notes, bit)
    return state, at, bit


@triton.jit
def word(source, at, live):  # type: ignore[no-untyped-def]
    """The 16 bits at bytes `at`, 0 beyond the end."""
    data, size = source
    whole = live & (at + 1 < size)
    low, high = tl.load(data + at, mask=whole, other=0), tl.load(data + at + 1, mask=whole, other=0)
    return low.to(tl.uint32) | (high.to(tl.uint32) << 8)


@triton.jit
def asked_of(tables, places, number, live):  # type: ignore[no-untyped-def]
    """Tables and places of the coefficients with some numbers."""
    table, place = tl.load(tables + number, mask=live, other=0), tl.load(places + number, mask=live, other=0)
    return table.to(tl.int32), place


@triton.jit
def plain_bit(source, bit, live):  # type: ignore[no-untyped-def]
    """The plain bits at positions `bit`, 0 beyond the front."""
    data, size = source
    byte = tl.load(data + size - 1 - (bit >> 3), mask=live & (bit < 8 * size), other=0).to(tl.int32)
    return (byte >> (bit & 7).to(tl.int32)) & 1


@triton.jit
def symbol_of(state, table, live, tables):  # type: ignore[no-untyped-def]
    """Symbols of the live lanes, and the states before they take a word."""
    starts, first, _ = tables
    slot = state & 0xFFFF
    bucket = first + table * _FIRSTS + (slot >> 8).to(tl.int32)
    low, high = tl.load(bucket, mask=live, other=0).to(tl.int32), tl.load(bucket + 1, mask=live, other=0).to(tl.int32)
    row = starts + table * _STARTS
    # The lane with the longest interval says how often all halve theirs; the last symbols are looked at side by side,
    # for a load that waits for another one takes as long as many that do not.
    span = tl.max(high - low, 0)
    while span > 4:
        middle = (low + high + 1) >> 1
        right = tl.load(row + middle, mask=live, other=0).to(tl.uint32) <= slot
        low, high = tl.where(right, middle, low), tl.where(right, high, middle - 1)
        span = span >> 1
    if span > 0:
        lowest = low
        for k in tl.static_range(1, 5):
            some = live & (lowest + k <= high)
            before = tl.load(row + lowest + k, mask=some, other=0).to(tl.uint32) <= slot
            low += (some & before).to(tl.int32)
    start = tl.load(row + low, mask=live, other=0).to(tl.uint32)
    frequency = tl.load(row + low + 1, mask=live, other=0).to(tl.uint32) - start
    return low, tl.where(live, frequency * (state >> 16) + slot - start, state)


@triton.jit
def signed_of(  # type: ignore[no-untyped-def]
    state, at, bit, escapes, table, place, live, source, tables, notes
):  # fmt: skip
    """Symbols with their signs, states, the next word, plain bit and escape; the places of escapes are noted."""
    symbol, state = symbol_of(state, table, live, tables)
    escaped, capacity = notes
    short, signed = live & (state < _LEAST), live & (symbol > 0)
    large = live & (symbol == tl.load(tables[2] + table, mask=live, other=-1))
    # One scan counts all three: a count of up to 32 takes 8 bits. In most rounds there is none of them.
    each = short.to(tl.int32) + (signed.to(tl.int32) << 8) + (large.to(tl.int32) << 16)
    total = tl.sum(each, 0)
    if total > 0:
        before = tl.cumsum(each, 0) - each
        state = tl.where(short, (state << 16) | word(source, at + 2 * (before & 255), short), state)
        negative = plain_bit(source, bit + ((before >> 8) & 255), signed) > 0
        symbol = tl.where(negative, -symbol, symbol)
        note = escapes + (before >> 16)
        tl.store(escaped + note, place, mask=large & (note < capacity))
        at, bit, escapes = at + 2 * (total & 255), bit + ((total >> 8) & 255), escapes + (total >> 16)
    return symbol, state, at, bit, escapes


@triton.jit
def those_that_keep(band, v, chunk_leaves, listed, LEAVES: tl.constexpr):  # type: ignore[no-untyped-def]
    """List the leaves of level v that keep a band; how many."""
    level, kept, leaves = chunk_leaves
    count = 0
    for start in range(0, leaves, LEAVES):
        number = start + tl.arange(0, LEAVES)
        inside = number < leaves
        keeps = tl.load(kept + number, mask=inside, other=0) >= band
        here = inside & keeps & (tl.load(level + number, mask=inside, other=0) == v)
        place = tl.cumsum(here.to(tl.int32), 0)
        tl.store(listed + count + place - 1, number, mask=here)
        count += tl.max(place, 0)
    return count


@triton.jit
def expected_at(leaf_values, coefficient, live, mean, around, NEIGHBOURS: tl.constexpr):  # type: ignore[no-untyped-def]
    """What is expected of coefficients; `leaf_values` are signed symbols so far."""
    neighbours, gains, width = around
    expected = tl.zeros_like(coefficient).to(tl.int64) + mean
    for k in tl.static_range(NEIGHBOURS):
        neighbour = tl.load(neighbours + k * width + coefficient, mask=live, other=0)
        expected += tl.load(gains + k) * tl.abs(tl.load(leaf_values + neighbour, mask=live, other=0))
    return expected


@triton.jit
def context_of(expected, thresholds, CONTEXTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The number of thresholds that do not exceed what is expected: independent loads, not the steps of a search."""
    context = tl.zeros_like(expected).to(tl.int32)
    for i in tl.static_range(CONTEXTS - 1):
        context += (tl.load(thresholds + i) <= expected).to(tl.int32)
    return context


@triton.jit
def enlarge(numbers, escapes, source, notes, bit):  # type: ignore[no-untyped-def]
    """Add to numbers that escaped what they exceed their symbols by; the next plain bit, and the largest magnitude."""
    data, size = source
    places, capacity = notes
    largest = tl.full((), 0, tl.int64)
    for i in range(0, tl.minimum(escapes, capacity)):
        target = numbers + tl.load(places + i)
        number = tl.load(target).to(tl.int64)
        # 5 bits of length, up to 31 of the excess, and up to 7 of the byte where they begin.
        window = tl.full((), 0, tl.int64)
        for k in tl.static_range(6):
            byte = size - 1 - (bit >> 3) - k
            window |= tl.load(data + byte, mask=byte >= 0, other=0).to(tl.int64) << (8 * k)
        window = window >> (bit & 7)
        length = window & 31
        magnitude = tl.abs(number) + ((window >> 5) & ((tl.full((), 1, tl.int64) << length) - 1))
        largest = tl.maximum(largest, magnitude)
        tl.store(target, tl.where(number < 0, -magnitude, magnitude).to(numbers.dtype.element_ty))
        bit += 5 + length
    tl.debug_barrier()
    return bit, largest


@triton.jit
def store_constants(values, rows, differences, chunk_leaves, ratios, levels):  # type: ignore[no-untyped-def]
    """Constants, each its difference and what the one before leads to expect; 1 if one is out of range."""
    level, _, leaves = chunk_leaves
    constant, previous, wrong = tl.full((), 0, tl.int64), tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    for i in range(0, leaves):
        here = tl.load(level + i).to(tl.int32)
        # Before the first leaf the constant is 0, and so is what it leads to expect.
        constant = (constant * tl.load(ratios + previous * levels + here) + (1 << 15)) >> 16
        constant = tl.minimum(tl.maximum(constant, -_MOST_EXPECTED), _MOST_EXPECTED)
        constant += tl.load(differences + i)
        outside = tl.abs(constant) >= _LARGE
        wrong |= outside.to(tl.int32)
        constant = tl.where(outside, 0, constant)
        tl.store(values + tl.load(rows + i), constant.to(tl.int32))
        previous = here
    return wrong


def compile_cases() -> list[tuple[str, Any, dict[str, str], dict[str, int], int, dict[str, int]]]:
    """Typical specialisations: name, kernel, signature, constants, warps, options."""
    kinds = dict.fromkeys(("data", "failed", "first"), "*u8")
    kinds |= dict.fromkeys(("values", "kept", "listed", "order", "band_begin"), "*i32")
    kinds |= dict.fromkeys(("neighbours", "starts", "escape"), "*i32")
    kinds |= dict.fromkeys(("begin", "first_leaf", "level", "rows", "constants", "escaped", "asked"), "*i64")
    kinds |= dict.fromkeys(("gains", "means", "thresholds", "ratios"), "*i64")
    kinds |= dict.fromkeys(("lanes", "levels", "bands", "width"), "i32")
    cases = []
    for lanes in (1, 8, 32):
        for neighbours in (5, 9, 14):
            constants = {"NEIGHBOURS": neighbours, "CONTEXTS": 32, "LANES": lanes, "LEAVES": LEAVES, "AHEAD": AHEAD}
            name = f"decode, {lanes} lanes, {neighbours} neighbours"
            cases.append((name, decode, kinds, constants, 1, {"maxnreg": REGISTERS}))
    return cases
