"""Products of small matrices with long rows in bfloat16: in the tile registers of some processors (AMX), 8 times as fast as in vectors of float32,
or in vectors of pairs, which others multiply and add at the rate of single numbers (AVX512-BF16), twice as fast.

Either multiplies bfloat16 numbers and adds up in float32. A float32 number is the sum of two of them, its upper half and what that leaves, to
2^-15 of itself; of the four products of such sums three count:

    a b = a_high b_high + a_low b_high + a_high b_low

So results are those of float32 to about 2^-15 of their terms: not what a decoder must find again to the last bit. Where 2^-8 will do, one product does.

A tile of *weights* is 16 outputs by 32 inputs; one of *pairs* is 16 pairs of inputs by 16 positions, the two of a pair side by side in 32 bits. Sums
of 16 outputs by 16 positions are written as rows. Vectors take the same tiles, from the cache.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from .vectors import _INT, _ZERO, LANES, ROWS, _Writer, cpu_features

OUTPUTS, INPUTS, POSITIONS = 16, 32, 16
"""Extents of tiles."""
TOGETHER = 3
"""Tiles of positions that are multiplied together: their sums do not wait for each other."""
_TILE = OUTPUTS * INPUTS
_BYTES_OF_ROW = 64

_BYTE, _POINTER = ir.IntType(8), ir.IntType(8).as_pointer()
_PAIRS = ir.VectorType(ir.IntType(32), LANES)
_PALETTE = bytes([1, *[0] * 15]) + 8 * (64).to_bytes(2, "little") + bytes(16) + bytes([16] * 8) + bytes(8)
"""Eight tiles of 16 rows of 64 bytes."""

_UPPER = np.uint32(0xFFFF0000)
_HALF_OF_BITS, _HALF = np.uint32(16), np.uint32(0x8000)


def _are_allowed() -> bool:
    """Ask Linux for the registers' state, which a process must do once; whether it has them then."""
    arch_prctl, request, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0


_FOR_REGISTERS = LANES == 16 and {"+amx-tile", "+amx-bf16"} <= cpu_features() and sys.platform == "linux" and platform.machine() == "x86_64"
# What is compiled depends on the processor alone, as it is kept for other processes: some may use its registers, and some may not.
_IN_VECTORS = LANES == 16 and "+avx512bf16" in cpu_features() and not _FOR_REGISTERS
KNOWN = _FOR_REGISTERS or _IN_VECTORS
"""Whether products are compiled."""
REGISTERS = _FOR_REGISTERS and _are_allowed()
"""Whether this process may use tile registers."""
TILES = REGISTERS or _IN_VECTORS
"""Whether it has either."""


def weights(matrix: NDArray[np.float32], products: int) -> NDArray[np.uint16]:
    """Tiles of a matrix, shape (outputs, inputs): for every 16 outputs, for every 32 inputs, upper halves and, for 3 products, what they leave.

    Returns
    -------
    ndarray of uint16
        Flat; zeros where there are no outputs or inputs.
    """
    outputs, inputs = (-(-extent // size) for extent, size in zip(matrix.shape, (OUTPUTS, INPUTS), strict=True))
    whole = np.zeros((outputs * OUTPUTS, inputs * INPUTS), np.float32)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    upper = whole.view(np.uint32) + _HALF & _UPPER
    parts = [upper, (whole - upper.view(np.float32)).view(np.uint32)][: 2 if products == 3 else 1]
    halves = np.stack([(part >> _HALF_OF_BITS).astype(np.uint16) for part in parts])
    arranged = halves.reshape(-1, outputs, OUTPUTS, inputs, INPUTS).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(arranged).reshape(-1)


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), list(arguments))


@intrinsic
def configure(typing):  # type: ignore[no-untyped-def]
    """Give this thread its tiles, before anything is multiplied in them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _FOR_REGISTERS:
            kind = ir.ArrayType(_BYTE, len(_PALETTE))
            palette = cgutils.global_constant(builder, "palette", ir.Constant(kind, bytearray(_PALETTE)))
            _call(builder, "ldtilecfg", builder.bitcast(palette, _POINTER))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def release(typing):  # type: ignore[no-untyped-def]
    """Give the tiles back: a thread that has none is switched faster."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _FOR_REGISTERS:
            _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def multiply(products: int, pitch: int) -> Any:
    """Make ``f(out, to, outputs, tiles, first, inputs, pairs, at, low)``: 16 rows by `TOGETHER` tiles of positions of weights times pairs.

    Parameters
    ----------
    products : int
        3, or 1 for upper halves alone, rounded: results of 8 bits.
    pitch : int
        From a row of `out`, and of `pairs`, to the next.

    Notes
    -----
    Of what is made, `out` is float32, `tiles` uint16 as `weights` gives them and `pairs` uint32; all are flat and contiguous, and nothing is checked.
    In `out` the first row begins at `to`, in `pairs` at `at`, and what upper halves leave `low` further.
    The rows are outputs of number 16 `first` on; those beyond the last of all `outputs` are zeros, or stay as they are. Of pairs whole tiles may be read; what is beyond that of the last of the `inputs` must be finite.
    """

    @intrinsic
    def block(typing, out, to, outputs, tiles, first, inputs, pairs, at, low):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if KNOWN:
                w = _Writer(context, builder, signature, arguments)
                (_in_registers if _FOR_REGISTERS else _in_vectors)(w, products, pitch)
            return context.get_dummy_value()

        return types.void(out, to, outputs, tiles, first, inputs, pairs, at, low), generate

    return block


def _tiles_of(w: _Writer, inputs: Any) -> Any:
    """How many tiles so many inputs fill."""
    return w.builder.udiv(w.plus(inputs, INPUTS - 1), _INT(INPUTS))


def _in_registers(w: _Writer, products: int, pitch: int) -> None:
    """`multiply` in tile registers."""
    builder = w.builder
    out, to, _, tiles, first, inputs, pairs, at, low = w.arguments
    sums, columns = ([_BYTE(start + c) for c in range(TOGETHER)] for start in (0, TOGETHER + 1))
    upper, lower, parts, count = _BYTE(TOGETHER), _BYTE(2 * TOGETHER + 1), 2 if products == 3 else 1, _tiles_of(w, inputs)

    def load(tile: Any, array: Any, index: Any, stride: Any) -> None:
        _call(builder, "tileloadd64", tile, builder.bitcast(builder.gep(array.data, [index]), _POINTER), stride)

    def add(weight: Any) -> None:
        for total, column in zip(sums, columns, strict=True):
            _call(builder, "tdpbf16ps", total, weight, column)

    for total in sums:
        _call(builder, "tilezero", total)
    begin, stride = builder.mul(builder.mul(first, count), _INT(parts * _TILE)), _INT(4 * pitch)

    def body(k: Any, _: list[Any]) -> list[Any]:
        tile = builder.add(begin, builder.mul(k, _INT(parts * _TILE)))
        row = builder.add(at, builder.mul(k, _INT(pitch * INPUTS // 2)))
        load(upper, tiles, tile, _INT(_BYTES_OF_ROW))
        for c, column in enumerate(columns):
            load(column, pairs, w.plus(row, c * POSITIONS), stride)
        add(upper)
        if products == 3:
            load(lower, tiles, w.plus(tile, _TILE), _INT(_BYTES_OF_ROW))
            add(lower)
            for c, column in enumerate(columns):
                load(column, pairs, w.plus(builder.add(row, low), c * POSITIONS), stride)
            add(upper)
        return []

    w.loop(count, 1, [], body)
    for c, total in enumerate(sums):
        place = builder.bitcast(builder.gep(out.data, [w.plus(to, c * POSITIONS)]), _POINTER)
        _call(builder, "tilestored64", total, place, stride)


def _in_vectors(w: _Writer, products: int, pitch: int) -> None:
    """`multiply` in vectors of pairs, some rows after the others."""
    builder = w.builder
    out, to, outputs, tiles, first, inputs, pairs, at, low = w.arguments
    parts = 2 if products == 3 else 1
    begin = builder.mul(builder.mul(first, _tiles_of(w, inputs)), _INT(parts * _TILE))

    def rows_from(group: int) -> None:
        def body(k: Any, sums: list[Any]) -> list[Any]:
            found = list(sums)
            # A tile has 16 pairs of each of its rows, side by side.
            tile = builder.mul(builder.lshr(k, _INT(4)), _INT(parts * _TILE))
            weight = builder.add(begin, builder.add(tile, builder.shl(builder.and_(k, _INT(15)), _INT(1))))
            row = builder.add(at, builder.mul(k, _INT(pitch)))
            for part, start in ((0, row), (_TILE, row), (0, builder.add(row, low)))[:products]:
                columns = [_pairs_at(w, pairs, w.plus(start, c * POSITIONS)) for c in range(TOGETHER)]
                for m in range(ROWS):
                    both = _splat_of_pair(w, tiles, w.plus(weight, part + (group + m) * INPUTS))
                    for c, column in enumerate(columns):
                        found[m * TOGETHER + c] = _add_products(w, found[m * TOGETHER + c], both, column)
            return found

        sums = w.loop(builder.lshr(w.plus(inputs, 1), _INT(1)), 1, [_ZERO] * (ROWS * TOGETHER), body)
        for number, total in enumerate(sums):
            m, c = divmod(number, TOGETHER)
            builder.store(total, w.place(out, w.plus(to, (group + m) * pitch + c * POSITIONS)), align=4)

    for group in range(0, OUTPUTS, ROWS):
        with builder.if_then(builder.icmp_signed(">", outputs, w.plus(builder.mul(first, _INT(OUTPUTS)), group))):
            rows_from(group)


def _pairs_at(w: _Writer, array: Any, index: Any) -> Any:
    """A vector of pairs."""
    place = w.builder.gep(array.data, [index])
    return w.builder.load(w.builder.bitcast(place, _PAIRS.as_pointer()), align=4)


def _splat_of_pair(w: _Writer, array: Any, index: Any) -> Any:
    """The pair of two numbers of 16 bits, or of one of 32, in all places of a vector."""
    place = w.builder.gep(array.data, [index])
    return w.splat(w.builder.load(w.builder.bitcast(place, _PAIRS.element.as_pointer()), align=2))


def _add_products(w: _Writer, sums: Any, pairs: Any, others: Any) -> Any:
    """Sums, and of every pair with another the products of both their numbers."""
    kind = ir.FunctionType(_ZERO.type, [_ZERO.type, _PAIRS, _PAIRS])
    function = cgutils.get_or_insert_function(w.builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
    return w.builder.call(function, [sums, pairs, others])


def accumulate(pitch: int) -> Any:
    """Make ``f(sums, to, left, at, right, first, count)``: add dot products of 16 rows with 16 others to a tile of sums.

    Parameters
    ----------
    pitch : int
        From a row of `left` to the next.

    Notes
    -----
    `sums` is float32 and holds two tiles from `to` on, which together are the sum; `left` is as `halve` writes it, the first row from `at` on, `right` has tiles as `turn` writes them from `first` on, an even `count` of them. All are flat; nothing is checked.
    """

    @intrinsic
    def block(typing, sums, to, left, at, right, first, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if KNOWN:
                w = _Writer(context, builder, signature, arguments)
                (_accumulate_in_registers if _FOR_REGISTERS else _accumulate_in_vectors)(w, pitch)
            return context.get_dummy_value()

        return types.void(sums, to, left, at, right, first, count), generate

    return block


def _accumulate_in_registers(w: _Writer, pitch: int) -> None:
    """`accumulate` in tile registers."""
    builder = w.builder
    sums, to, left, at, right, first, count = w.arguments
    width, stride, size = _INT(_BYTES_OF_ROW), _INT(4 * pitch), OUTPUTS * POSITIONS
    totals, rows, columns = (_BYTE(0), _BYTE(1)), (_BYTE(2), _BYTE(3)), (_BYTE(4), _BYTE(5))

    def place(array: Any, index: Any) -> Any:
        return builder.bitcast(builder.gep(array.data, [index]), _POINTER)

    def add(part: int, chunk: Any) -> None:
        _call(builder, "tileloadd64", rows[part], place(left, builder.add(at, builder.mul(chunk, _INT(LANES)))), stride)
        _call(builder, "tileloadd64", columns[part], place(right, builder.add(first, builder.mul(chunk, _INT(size)))), width)
        _call(builder, "tdpbf16ps", totals[part], rows[part], columns[part])

    for part, total in enumerate(totals):
        _call(builder, "tileloadd64", total, place(sums, w.plus(to, part * size)), width)

    def body(chunk: Any, _: list[Any]) -> list[Any]:
        # The two sums do not wait for each other.
        for part in range(2):
            add(part, w.plus(chunk, part))
        return []

    w.loop(count, 2, [], body)
    for part, total in enumerate(totals):
        _call(builder, "tilestored64", total, place(sums, w.plus(to, part * size)), width)


def _accumulate_in_vectors(w: _Writer, pitch: int) -> None:
    """`accumulate` in vectors of pairs; the first tile is the sum."""
    builder = w.builder
    sums, to, left, at, right, first, count = w.arguments
    places = [w.place(sums, w.plus(to, m * POSITIONS)) for m in range(OUTPUTS)]

    def body(pair: Any, totals: list[Any]) -> list[Any]:
        column = _pairs_at(w, right, builder.add(first, builder.mul(pair, _INT(POSITIONS))))
        return [
            _add_products(w, total, _splat_of_pair(w, left, w.plus(builder.add(at, pair), m * pitch)), column)
            for m, total in enumerate(totals)
        ]

    # A tile turned is 16 rows of pairs.
    totals = w.loop(builder.mul(count, _INT(LANES)), 1, [w.vector(place) for place in places], body)
    for total, place in zip(totals, places, strict=True):
        builder.store(total, place, align=4)
