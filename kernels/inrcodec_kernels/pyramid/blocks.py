"""Gradients that are collected over many short spans: dot products whose sums stay in vectors, and what is added where inputs are.

`vectors.dots` adds up the lanes of its sums at the end of every call, which on spans that fit the first-level cache
takes as long as the products themselves. Here a sum of `LANES` parts is kept in memory and added up once, at the end.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from ..vectors import _INT, _ZERO, INNER, LANES, LINE, _Writer
from .frames import BLOCK

SPAN = 240 // BLOCK * BLOCK
"""Positions that go forward and back at a time."""
ROW = SPAN + 2 * LINE
"""Pitch of the rows of a span, an odd number of lines: there is room for shifts by one, and no two rows share their places in the cache."""
NEIGHBOURS = 3
"""Inputs side by side along x, whose gradients are added together."""


def lane_dots(rows: int, columns: int) -> Any:
    """Make ``f(out, width, left, lefts, i, left_at, right, rights, j, right_at, count)``: `vectors.dots`, lanes apart.

    Parameters
    ----------
    rows, columns : int
        Extents of the part of `out` that a call adds to.

    Notes
    -----
    As for `vectors.dots`: nothing is checked, and `count` is a positive multiple of `LANES`. `out` is flat; the `LANES`
    parts of the sum of row i and column j begin at ``(i width + j) LANES``. `left` is read from ``lefts[i] + left_at``
    on, and `right` likewise.
    """

    @intrinsic
    def block(  # type: ignore[no-untyped-def]
        typing, out, width, left, lefts, i, left_at, right, rights, j, right_at, count
    ):  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = _Writer(context, builder, signature, arguments)
            out, width, left, lefts, i, left_at, right, rights, j, right_at, count = w.arguments
            a = [builder.add(w.number(lefts, w.plus(i, m)), left_at) for m in range(rows)]
            b = [builder.add(w.number(rights, w.plus(j, m)), right_at) for m in range(columns)]

            def body(n: Any, sums: list[Any]) -> list[Any]:
                y = [w.vector(w.place(right, builder.add(start, n))) for start in b]
                found = []
                for m, start in enumerate(a):
                    x = w.vector(w.place(left, builder.add(start, n)))
                    found += [w.fma(x, q, sums[m * columns + c]) for c, q in enumerate(y)]
                return found

            sums = w.loop(count, LANES, [_ZERO] * (rows * columns), body)
            for m in range(rows):
                line = builder.add(builder.mul(w.plus(i, m), width), j)
                for c in range(columns):
                    place = w.place(out, builder.mul(w.plus(line, c), _INT(LANES)))
                    builder.store(builder.fadd(w.vector(place), sums[m * columns + c]), place, align=4)
            return context.get_dummy_value()

        return types.void(out, width, left, lefts, i, left_at, right, rights, j, right_at, count), generate

    return block


def added_back(along: int, outputs: int) -> Any:
    """Make ``f(out, to, values, rows, m, outs, factors, first, count)``: add gradients by neighbours along a line to where these are.

        out[to + n] += sum_j values[rows[m + j] + n - j] + sum_o factors[first + o, m + j] values[outs[o] + n - j]

    Parameters
    ----------
    along : int
        Neighbours j.
    outputs : int
        Rows o.

    Notes
    -----
    As for `vectors.product`; `count` is a positive multiple of `LANES`.
    """

    @intrinsic
    def block(typing, out, to, values, rows, m, outs, factors, first, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = _Writer(context, builder, signature, arguments)
            out, to, values, rows, m, outs, factors, first, count = w.arguments
            columns = w.extent(factors, 1)
            begins, terms = [], []
            for j in range(along):
                begins.append(w.plus(w.number(rows, w.plus(m, j)), -j))
                for o in range(outputs):
                    splat = w.splat(w.number(factors, builder.add(builder.mul(w.plus(first, o), columns), w.plus(m, j))))
                    terms.append((splat, w.plus(w.number(outs, _INT(o)), -j)))

            def body(n: Any, _: list[Any]) -> list[Any]:
                place = w.place(out, builder.add(to, n))
                total = w.vector(place)
                for begin in begins:
                    total = builder.fadd(total, w.vector(w.place(values, builder.add(begin, n))))
                for splat, begin in terms:
                    total = w.fma(splat, w.vector(w.place(values, builder.add(begin, n))), total)
                builder.store(total, place, align=4)
                return []

            w.loop(count, LANES, [], body)
            return context.get_dummy_value()

        return types.void(out, to, values, rows, m, outs, factors, first, count), generate

    return block


_three, _three_and_one, _three_and_two = added_back(NEIGHBOURS, 0), added_back(NEIGHBOURS, 1), added_back(NEIGHBOURS, 2)
_one, _one_and_one, _one_and_two = added_back(1, 0), added_back(1, 1), added_back(1, 2)


@njit(**INNER)
def add_group(out, at, values, rows, m, shifts, span, count, outs, factors, first):  # type: ignore[no-untyped-def]
    """Add gradients by the inputs from m on where these are, and nowhere else: other threads work on what is there.

    `shifts` are a line of a `Net`'s plan; rows `outs` times `factors`, from row `first` on, are added besides, if there are any.
    """
    for j in range(NEIGHBOURS):
        # What is read beyond a span, one or two positions further along x.
        values[rows[m + j] + span : rows[m + j] + span + LANES] = 0
    if shifts[NEIGHBOURS] == 0:
        length = count + NEIGHBOURS - 1
        whole = length // LANES * LANES
        if whole:
            if len(outs) == 0:
                _three(out, at + shifts[0], values, rows, m, outs, factors, first, whole)
            elif len(outs) == 1:
                _three_and_one(out, at + shifts[0], values, rows, m, outs, factors, first, whole)
            else:
                _three_and_two(out, at + shifts[0], values, rows, m, outs, factors, first, whole)
        for n in range(whole, length):
            for j in range(NEIGHBOURS):
                out[at + shifts[0] + n] += _of_input(values, rows, m + j, outs, factors, first, n - j)
        return
    whole = count // LANES * LANES
    for j in range(shifts[NEIGHBOURS]):
        if whole:
            if len(outs) == 0:
                _one(out, at + shifts[j], values, rows, m + j, outs, factors, first, whole)
            elif len(outs) == 1:
                _one_and_one(out, at + shifts[j], values, rows, m + j, outs, factors, first, whole)
            else:
                _one_and_two(out, at + shifts[j], values, rows, m + j, outs, factors, first, whole)
        for n in range(whole, count):
            out[at + shifts[j] + n] += _of_input(values, rows, m + j, outs, factors, first, n)


@njit(**INNER)
def _of_input(values, rows, k, outs, factors, first, n):  # type: ignore[no-untyped-def]
    found = values[rows[k] + n]
    for o in range(len(outs)):
        found += factors[first + o, k] * values[outs[o] + n]
    return found
