"""Products of small matrices with long rows, held in vector registers: the inner loops of several operations.

Over flat arrays, where a tap of a kernel is a shift of a row and a channel is a row of its own, layers of small networks
and transforms along an axis are one product, a block of neighbouring n at a time, and gradients another:

    out[outs[m] + n] = f(sum_k matrix[k, m] inputs[ins[k] + n])                    (product)
    out[i, j]       += sum_n left[lefts[i] + n] right[rights[j] + n]               (dots)

They are written as LLVM vectors, because a compiled loop over n loads again what 12 registers can hold: the sums of
4 rows by 3 vectors take 7 loads for 12 multiply-adds, and so run at the rate of the multiply-adds. With AVX-512 registers
are twice as many, and twice as long. Every sum of a product is taken in the order of k, wherever a block begins: results
do not depend on the length. Dot products are sums of `LANES` parts, and do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen, config
from numba.extending import intrinsic
from numpy.typing import NDArray


def cpu_features() -> set[str]:
    """What the processor is compiled for: LLVM's names, each after a plus or a minus."""
    named = config.CPU_FEATURES  # type: ignore[attr-defined]
    return set((codegen.get_host_cpu_features() if named is None else named).split(","))


INNER: Any = {"nogil": True, "cache": True, "forceinline": True, "_nrt": False}
"""Options of compiled functions that loops call and that make no arrays. Numba counts who holds an array, at every slice, and hands structures of arrays over one by one:
for a span of some hundred positions that took as long as its products."""
LANES = 16 if "+avx512f" in cpu_features() else 8
"""Numbers of a vector."""
ROWS = 8 if LANES == 16 else 4
"""Rows whose sums, by 3 vectors, are as many as there are registers for."""
LINE = 16
"""Numbers of a line of the cache. A vector that begins on one, or in the middle, is in one line."""

_VECTOR, _INT, _LANE = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64), ir.IntType(32)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


def float32_limits(low: int, high: int) -> tuple[np.float32, np.float32]:
    """The least and the greatest float32 number within [low, high]: what is clipped to them fits the integers."""
    least, most = np.float32(low), np.float32(high)
    if int(least) < low:
        least = np.nextafter(least, np.float32(np.inf))
    if int(most) > high:
        most = np.nextafter(most, np.float32(-np.inf))
    return least, most


def padded(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin on a line of the cache."""
    room = np.zeros(size + LINE, np.float32)
    first = -room.ctypes.data % (LINE * room.itemsize) // room.itemsize
    return room[first : first + size]


class _Writer:
    """The few instructions that both are made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.arguments = [
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")

    def extent(self, array: Any, axis: int) -> Any:
        return cgutils.unpack_tuple(self.builder, array.shape)[axis]

    def plus(self, index: Any, number: int) -> Any:
        return self.builder.add(index, _INT(number))

    def number(self, array: Any, index: Any) -> Any:
        return self.builder.load(self.builder.gep(array.data, [index]))

    def place(self, array: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(array.data, [index]), _VECTOR.as_pointer())

    def vector(self, place: Any) -> Any:
        return self.builder.load(place, align=4)

    def splat(self, number: Any) -> Any:
        kind = ir.VectorType(number.type, LANES)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, _LANE(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_LANE, LANES), [0] * LANES))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self._fma, [a, b, c])

    def sloped(self, sign: Any, values: Any, slope: float) -> Any:
        """The values where `sign` is positive, else the values by the slope."""
        constant = ir.Constant(_VECTOR, [float(np.float32(slope))] * LANES)
        positive = self.builder.fcmp_ordered(">", sign, _ZERO)
        return self.builder.select(positive, values, self.builder.fmul(values, constant))

    def loop(self, count: Any, step: int, start: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """``for i in range(0, count, step): sums = body(i, sums)``, at least once; the sums stay in registers."""
        builder, before = self.builder, self.builder.block
        block, after = builder.append_basic_block("body"), builder.append_basic_block("after")
        builder.branch(block)
        builder.position_at_end(block)
        index, sums = builder.phi(_INT), [builder.phi(_VECTOR) for _ in start]
        found = body(index, sums)
        following = self.plus(index, step)
        for phi, first, later in zip([index, *sums], [_INT(0), *start], [following, *found], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, block)
        builder.cbranch(builder.icmp_signed("<", following, count), block, after)
        builder.position_at_end(after)
        return found


def product(rows: int, vectors: int, kind: str, slope: float = 0.0) -> Any:
    """Make ``f(out, outs, to, matrix, bias, first, inputs, ins, at)``: a block of rows [first, first + rows) of a product.

    Parameters
    ----------
    rows, vectors : int
        Extents of a block, the second in vectors of `LANES`.
    kind : str
        ``"plain"``: written; ``"added"``: added to what `out` holds; ``"hidden"``: a bias added first, then a leaky ReLU;
        ``"gated"``: by the slope that the leaky ReLU had whose results `out` holds.
    slope : float
        Of the leaky ReLU.

    Notes
    -----
    All arrays are flat and contiguous, float32 and int64, but the matrix, shape (inputs, outputs). Nothing is
    checked: the block is read from ``ins[k] + at`` and written from ``outs[m] + to`` on, `vectors` vectors each.
    """

    @intrinsic
    def block(typing, out, outs, to, matrix, bias, first, inputs, ins, at):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = _Writer(context, builder, signature, arguments)
            out, outs, to, matrix, bias, first, inputs, ins, at = w.arguments
            starts = [builder.add(w.number(outs, w.plus(first, m)), to) for m in range(rows)]
            places = [w.place(out, w.plus(start, v * LANES)) for start in starts for v in range(vectors)]
            if kind == "hidden":
                sums = [s for m in range(rows) for s in [w.splat(w.number(bias, w.plus(first, m)))] * vectors]
            else:
                sums = [w.vector(place) if kind == "added" else _ZERO for place in places]
            columns = w.extent(matrix, 1)

            def body(k: Any, sums: list[Any]) -> list[Any]:
                source = builder.add(w.number(ins, k), at)
                values = [w.vector(w.place(inputs, w.plus(source, v * LANES))) for v in range(vectors)]
                weight = builder.add(builder.mul(k, columns), first)
                found = []
                for m in range(rows):
                    splat = w.splat(w.number(matrix, w.plus(weight, m)))
                    found += [w.fma(splat, x, sums[m * vectors + v]) for v, x in enumerate(values)]
                return found

            for place, value in zip(places, w.loop(w.extent(ins, 0), 1, sums, body), strict=True):
                if kind == "hidden":
                    value = w.sloped(value, value, slope)
                elif kind == "gated":
                    value = w.sloped(w.vector(place), value, slope)
                builder.store(value, place, align=4)
            return context.get_dummy_value()

        return types.void(out, outs, to, matrix, bias, first, inputs, ins, at), generate

    return block


def dots(rows: int, columns: int) -> Any:
    """Make ``f(out, left, lefts, i, right, rights, j, at, count)``: add dot products over [at, at + count) to ``out[i:, j:]``.

    Parameters
    ----------
    rows, columns : int
        Extents of the part of `out` that a call adds to.

    Notes
    -----
    As for `product`; `out` has two axes, and `count` is a positive multiple of `LANES`.
    """

    @intrinsic
    def block(typing, out, left, lefts, i, right, rights, j, at, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w = _Writer(context, builder, signature, arguments)
            out, left, lefts, i, right, rights, j, at, count = w.arguments
            a = [builder.add(w.number(lefts, w.plus(i, m)), at) for m in range(rows)]
            b = [builder.add(w.number(rights, w.plus(j, m)), at) for m in range(columns)]

            def body(n: Any, sums: list[Any]) -> list[Any]:
                x = [w.vector(w.place(left, builder.add(start, n))) for start in a]
                y = [w.vector(w.place(right, builder.add(start, n))) for start in b]
                pairs = [(p, q) for p in x for q in y]
                return [w.fma(p, q, s) for (p, q), s in zip(pairs, sums, strict=True)]

            sums = w.loop(count, LANES, [_ZERO] * (rows * columns), body)
            for m in range(rows):
                line = builder.add(builder.mul(w.plus(i, m), w.extent(out, 1)), j)
                for c in range(columns):
                    place = builder.gep(out.data, [w.plus(line, c)])
                    total = builder.load(place)
                    for lane in range(LANES):
                        total = builder.fadd(total, builder.extract_element(sums[m * columns + c], _LANE(lane)))
                    builder.store(total, place)
            return context.get_dummy_value()

        return types.void(out, left, lefts, i, right, rights, j, at, count), generate

    return block
