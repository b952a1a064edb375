"""What products of bfloat16 numbers are made of (`tiles.py`): rows rounded, in pairs, or turned."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .tiles import KNOWN, TOGETHER
from .vectors import _INT, _ZERO, LANES, _Writer


def paired(kind: str, products: int, slope: float = 0.0, outputs: int = 0, kept: bool = True) -> Any:
    """Make ``f(pairs, to, low, values, one, other, first, second, factors, rows, count)``: pairs of two rows, for so many products.

    Parameters
    ----------
    kind : str
        ``"plain"``: of the rows of `values` that begin at `one` and `other`. ``"hidden"``: `factors` of number `first` and `second` are added to them before that, then comes
        a leaky ReLU. ``"gated"``: rows that begin at `first` and `second` take their place, by the slope that the leaky ReLU had whose results they are.
        ``"outer"``: the same with sums of `outputs` rows, which begin at `rows`, times `factors` of number `first` and `second`, which has as many for each.
    products : int
        As for `multiply`, or 0: then no pairs are written.
    slope : float
        Of the leaky ReLU.
    outputs : int
        Of ``"outer"``.
    kept : bool
        Whether what takes the place of rows is written there too.

    Notes
    -----
    `pairs` is uint32, `values` and `factors` float32, `rows` int64, all flat and contiguous; `count` is a positive multiple of `TOGETHER` * `LANES`, and nothing is checked. Upper
    halves are written from `to` on, and what these leave `low` further.
    """

    @intrinsic
    def block(typing, pairs, to, low, values, one, other, first, second, factors, rows, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if not KNOWN:
                return context.get_dummy_value()
            w = _Writer(context, builder, signature, arguments)
            pairs, to, low, values, one, other, first, second, factors, rows, count = w.arguments
            words = ir.VectorType(ir.IntType(32), LANES)
            half, bits, upper = (ir.Constant(words, [n] * LANES) for n in (0x8000, 16, 0xFFFF0000))
            places, numbers = (one, other), (first, second)
            if kind == "hidden":
                splats = [[w.splat(w.number(factors, number))] for number in numbers]
            elif kind == "outer":
                splats = [
                    [w.splat(w.number(factors, w.plus(builder.mul(number, _INT(outputs)), o))) for o in range(outputs)] for number in numbers
                ]
                begins = [w.number(rows, _INT(o)) for o in range(outputs)]

            def changed(number: int, found: Any, at: Any) -> Any:
                if kind == "hidden":
                    found = builder.fadd(found, splats[number][0])
                    return w.sloped(found, found, slope)
                if kind == "gated":
                    return w.sloped(found, w.vector(w.place(values, builder.add(numbers[number], at))), slope)
                total = _ZERO
                for splat, begin in zip(splats[number], begins, strict=True):
                    total = w.fma(splat, w.vector(w.place(values, builder.add(begin, at))), total)
                return w.sloped(found, total, slope)

            def write(halves: list[Any], at: Any) -> None:
                both = builder.or_(builder.lshr(halves[0], bits), builder.and_(halves[1], upper))
                place = builder.gep(pairs.data, [builder.add(to, at)])
                builder.store(both, builder.bitcast(place, words.as_pointer()), align=4)

            def write_pairs(found: list[Any], at: Any) -> None:
                plain = [builder.bitcast(row, words) for row in found]
                if products == 1:
                    write([builder.add(row, half) for row in plain], at)
                    return
                write(plain, at)
                uppers = [builder.bitcast(builder.and_(row, upper), _ZERO.type) for row in plain]
                left = [builder.fsub(row, part) for row, part in zip(found, uppers, strict=True)]
                write([builder.bitcast(part, words) for part in left], builder.add(at, low))

            def body(begin: Any, _: list[Any]) -> list[Any]:
                for v in range(TOGETHER):
                    at = w.plus(begin, v * LANES)
                    found = [w.vector(w.place(values, builder.add(place, at))) for place in places]
                    if kind != "plain":
                        found = [changed(number, row, at) for number, row in enumerate(found)]
                        for row, place in zip(found, places if kept else (), strict=kept):
                            builder.store(row, w.place(values, builder.add(place, at)), align=4)
                    if products:
                        write_pairs(found, at)
                return []

            w.loop(count, TOGETHER * LANES, [], body)
            return context.get_dummy_value()

        return types.void(pairs, to, low, values, one, other, first, second, factors, rows, count), generate

    return block


def halve() -> Any:
    """Make ``f(out, to, values, start, count)``: write a row's numbers, rounded to bfloat16, one after the other.

    Notes
    -----
    `out` is uint32 and has two numbers in each, `values` float32; `count` is a positive multiple of `LANES`, and nothing is checked.
    """

    @intrinsic
    def block(typing, out, to, values, start, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if not KNOWN:
                return context.get_dummy_value()
            w = _Writer(context, builder, signature, arguments)
            out, to, values, start, count = w.arguments

            def body(n: Any, _: list[Any]) -> list[Any]:
                found = _rounded(builder, w.vector(w.place(values, builder.add(start, n))))
                place = builder.gep(out.data, [builder.add(to, builder.lshr(n, _INT(1)))])
                builder.store(found, builder.bitcast(place, found.type.as_pointer()), align=4)
                return []

            w.loop(count, LANES, [], body)
            return context.get_dummy_value()

        return types.void(out, to, values, start, count), generate

    return block


def turn(positions: int, pitch: int) -> Any:
    """Make ``f(out, to, values, start)``: a tile of pairs of positions by rows.

    Its row n has, of each of 16 rows of `values`, the numbers at positions 2 n and 2 n + 1, rounded to bfloat16.

    Parameters
    ----------
    positions : int
        32, or 16: then the second half of the tile is zero.
    pitch : int
        From a row of `values` to the next.

    Notes
    -----
    As for `halve`; the tile, 256 uint32, is written from `to` on; the first row begins at `start`.
    """

    @intrinsic
    def block(typing, out, to, values, start):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if not KNOWN:
                return context.get_dummy_value()
            w = _Writer(context, builder, signature, arguments)
            out, to, values, start = w.arguments
            kind = ir.VectorType(ir.IntType(32), LANES)
            found = []
            for n in range(LANES):
                row = w.plus(start, n * pitch)
                halves = [_rounded(builder, w.vector(w.place(values, w.plus(row, p)))) for p in range(0, positions, LANES)]
                halves += [ir.Constant(halves[0].type, [0] * LANES)] * (2 - len(halves))
                both = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), list(range(2 * LANES))))
                found.append(builder.bitcast(both, kind))
            for distance in (8, 4, 2, 1):
                found = _exchanged(builder, found, distance)
            for n, row in enumerate(found):
                builder.store(row, builder.bitcast(builder.gep(out.data, [w.plus(to, n * LANES)]), kind.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(out, to, values, start), generate

    return block


def _rounded(builder: Any, row: Any) -> Any:
    """A vector's numbers as bfloat16."""
    words, halves = (ir.VectorType(ir.IntType(bits), LANES) for bits in (32, 16))
    half, bits = (ir.Constant(words, [n] * LANES) for n in (0x8000, 16))
    return builder.trunc(builder.lshr(builder.add(builder.bitcast(row, words), half), bits), halves)


def _exchanged(builder: Any, rows: list[Any], distance: int) -> list[Any]:
    """A step of turning a square of vectors: squares of that edge beside its diagonals change places."""
    found = list(rows)
    mask = ir.VectorType(ir.IntType(32), LANES)
    upper = ir.Constant(mask, [j if not j & distance else LANES + j - distance for j in range(LANES)])
    lower = ir.Constant(mask, [j + distance if not j & distance else LANES + j for j in range(LANES)])
    for i in range(LANES):
        if not i & distance:
            a, b = rows[i], rows[i + distance]
            found[i], found[i + distance] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
    return found
