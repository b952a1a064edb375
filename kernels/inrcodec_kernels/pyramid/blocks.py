"""Dot products of rows whose sums stay in vectors, for gradients that are collected over many short spans.

`vectors.dots` adds up the lanes of its sums at the end of every call, which on spans that fit the first-level cache
takes as long as the products themselves. Here a sum of `LANES` parts is kept in memory and added up once, at the end.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..vectors import _INT, _ZERO, LANES, _Writer


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
