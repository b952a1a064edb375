"""The pyramid's small networks over spans of positions: forward, and all the way back, as products in registers.

Rows of a span lie one after the other in scratch that stays in the cache of a core: both hidden layers, the outputs,
and the gradients by the inputs. Gradients of a hidden layer take the place of its results. Inputs are shifts of a flat
array.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from ..tiles import OUTPUTS, REGISTERS, TILES, configure, release
from ..vectors import INNER, LANES, LINE, ROWS, aligned, padded, product
from . import tiled
from .blocks import NEIGHBOURS, ROW, add_group, lane_dots
from .frames import BLOCK, VECTORS
from .layout import Floats
from .reference import SLOPE
from .tiled import Room, Tiles

CHANNELS, INPUTS = 4, NEIGHBOURS
"""Rows of a hidden layer, and rows of gradients by inputs, that are made together at least."""
_LEAST_WIDTH = 32
"""Of the first hidden layer, from which on tiles pay: rows by the 16 and inputs by the 32 are filled then."""

_hidden, _gated = product(CHANNELS, VECTORS, "hidden", SLOPE), product(CHANNELS, VECTORS, "gated", SLOPE)
_hidden_rows, _gated_rows = product(ROWS, VECTORS, "hidden", SLOPE), product(ROWS, VECTORS, "gated", SLOPE)
_to_inputs = product(INPUTS, VECTORS, "plain")
_two, _two_added = product(2, VECTORS, "plain"), product(2, VECTORS, "added")
_one, _one_added = product(1, VECTORS, "plain"), product(1, VECTORS, "added")
_dots, _dots_of_two, _dots_of_one = lane_dots(CHANNELS, INPUTS), lane_dots(CHANNELS, 2), lane_dots(CHANNELS, 1)
_dots_of_rows = lane_dots(ROWS, INPUTS)

# Sums may be reordered and contracted; NaN and infinity keep their meaning.
SUMS = {"contract", "reassoc", "nsz"}


class Net(NamedTuple):
    """A network of one or two outputs as the loops take it; matrices have shape (inputs, outputs).

    Attributes
    ----------
    first, first_bias, second, second_bias, last, last_bias, skip : ndarray of float32
    first_turned, second_turned, last_turned : ndarray of float32
        Matrices that carry gradients back; the first from the thin hidden layer and the outputs.
    ins, in_columns : ndarray of int64
        Shifts of the inputs; the same, the last one repeated up to a multiple of `INPUTS`.
    skips, skip_rows : ndarray of int64
        Shifts of the inputs that have a skip; the same, repeated up to a multiple of `CHANNELS`.
    plan : ndarray of int64, shape (groups, INPUTS + 1)
        Shifts of every `INPUTS` inputs, to which their gradients are added, and the number of them, or 0 where they are
        neighbours along x: those are added up together.
    tiles : Tiles or tuple of nothing
        The matrices again, where they go through products of bfloat16.
    """

    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    last: Floats
    last_bias: Floats
    skip: Floats
    first_turned: Floats
    second_turned: Floats
    last_turned: Floats
    ins: NDArray[np.int64]
    in_columns: NDArray[np.int64]
    skips: NDArray[np.int64]
    skip_rows: NDArray[np.int64]
    plan: NDArray[np.int64]
    tiles: Tiles | tuple[()] = ()

    @classmethod
    def of(cls, layers: Sequence[Any], skip: Any, ins: Sequence[int], skips: Sequence[int]) -> Net:
        """Arrange the three layers' matrices and biases, and the skip with the shifts of its inputs."""
        first, first_bias, second, second_bias, last, last_bias, skip = (
            np.ascontiguousarray(p, np.float32) for p in (*layers, skip)
        )
        skipping, places = _arranged(tuple(ins), tuple(skips))
        back = np.zeros((first.shape[1] + last.shape[1], padded(len(first), INPUTS)), np.float32)
        back[: first.shape[1], : len(first)] = first.T
        back[first.shape[1] :, skipping] = skip.T
        return cls(
            first, first_bias, second, second_bias, last, last_bias, skip,
            back, np.ascontiguousarray(second.T), np.ascontiguousarray(last.T), *places,  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def parameters(self) -> list[Floats]:
        """In the order of `Scratch.gradients`."""
        return [self.first, self.first_bias, self.second, self.second_bias, self.last, self.last_bias, self.skip]

    @property
    def key(self) -> tuple[int, ...]:
        """Nets that have the same can use the same `Scratch`."""
        return (len(self.ins), len(self.skips), len(self.first_bias), len(self.second_bias), len(self.last_bias), len(self.tiles))

    def tiled(self, fine: bool) -> Net:
        """The same for products of bfloat16, where there are such and it is wide enough, in float32's precision or rounded."""
        if not TILES or len(self.first_bias) < _LEAST_WIDTH:
            return self
        return self._replace(tiles=Tiles.of(self.first, self.second, fine))


# Shifts and rows are the same at every step of a fit, which for a small signal would else spend a third of its time on them.
@lru_cache(maxsize=64)
def _arranged(ins: tuple[int, ...], skips: tuple[int, ...]) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
    """Which of the inputs have a skip; and the shifts in a `Net`, in its order."""
    places, skipped = np.array(ins, np.int64), np.array(skips, np.int64)
    skipping = np.array([ins.index(shift) for shift in skips], np.int64)
    return skipping, (places, repeated(places, INPUTS), skipped, repeated(skipped, CHANNELS), scatter(ins))


_PACES = ((25, 1.2, 2.3), (17, 1.4, 2.8), (0, 2.0, 2.0))
"""Steps of networks from such a width on, for one of a first version's largest, with latents on the finest lattice and without: as many as take about the
same time, those of 32 as many as let a whole encoding take 90 s a million samples on two cores of a Zen 4 EPYC where its last part is done again. Without
latents on the finest lattice a context model sees an eighth of as many; the time of the narrower ones was measured with AVX2."""
_WITH_REGISTERS, _WITH_AVX512 = 1.5, 1.25
"""With tile registers those of 32, with AVX-512 narrower ones: those of 32 would have an encoding take more than those 90 s."""
_WIDE = 0.95
"""The same for wide contexts, which take a twentieth more."""
_SMALL = 8
"""Width of the networks of the smallest streams, which keep their steps: they take little time, and what more would gain was not measured."""


def pace(width: int, above: int, wide: bool) -> float:
    """Steps of networks of a width, with so many lattices without latents, for one of 32 with all on a processor with AVX2, in about its time."""
    if width <= _SMALL:
        return 1.0
    faster = next(paces[above > 0] for least, *paces in _PACES if width >= least) * (_WIDE if wide else 1.0)
    if width >= _LEAST_WIDTH:
        return faster * (_WITH_REGISTERS if REGISTERS else 1.0)
    return faster * (_WITH_AVX512 if LANES == 16 else 1.0)


def repeated(places: NDArray[np.int64], multiple: int) -> NDArray[np.int64]:
    """Places, the last one repeated up to a multiple."""
    return np.pad(places, (0, padded(len(places), multiple) - len(places)), mode="edge")


def scatter(shifts: Sequence[int]) -> NDArray[np.int64]:
    """The plan of a network with inputs at these shifts."""
    found = []
    for row in range(0, len(shifts), INPUTS):
        group = list(shifts[row : row + INPUTS])
        along_x = group == [group[0], group[0] + 1, group[0] + 2]
        found.append([*group, *[0] * (INPUTS - len(group)), 0 if along_x else len(group)])
    return np.array(found, dtype=np.int64)


class Scratch(NamedTuple):
    """Rows of a span, and sums of the gradients of all parameters.

    Attributes
    ----------
    values : ndarray of float32
    thin, outs, thick, by_inputs : ndarray of int64
        Where rows begin: first hidden layer, outputs, second hidden layer, and gradients by the inputs, which in vectors are made
        `INPUTS` at a time in the same rows.
    back : ndarray of int64
        `thin` and `outs`, for vectors.
    columns : ndarray of int64
        `thin`, the last one repeated up to a multiple of `INPUTS`, for vectors.
    first, second, last, skip : ndarray of float32
        Sums for the matrices, (outputs, inputs) for the first two and (inputs, outputs) for the others, lanes apart; of the first two, tiles have tiles.
    first_bias, second_bias, last_bias : ndarray of float32
    room : Room or tuple of nothing
        What else it takes where layers go through tiles.
    """

    values: Floats
    thin: NDArray[np.int64]
    outs: NDArray[np.int64]
    thick: NDArray[np.int64]
    by_inputs: NDArray[np.int64]
    back: NDArray[np.int64]
    columns: NDArray[np.int64]
    first: Floats
    second: Floats
    last: Floats
    skip: Floats
    first_bias: Floats
    second_bias: Floats
    last_bias: Floats
    room: Room | tuple[()]

    @classmethod
    def of(cls, net: Net) -> Scratch:
        """Zeros for a network."""
        thin, outs, thick, inputs = len(net.first_bias), len(net.last_bias), len(net.second_bias), len(net.in_columns)
        room: Room | tuple[()] = ()
        if net.tiles:
            rows, room = _tiled_rows(thin, outs, thick, inputs), Room.of(thin, thick, inputs)
            sizes = [tiled.sums(len(net.ins), thin), tiled.sums(thin, thick)]
        else:
            rows = _rows(thin, outs, thick, inputs // INPUTS)
            sizes = [thin * inputs * LANES, thick * padded(thin, INPUTS) * LANES]
        sizes += [thick * outs * LANES, len(net.skip_rows) * outs * LANES, thin, thick, outs]
        last = max(int(row.max()) for row in rows if len(row))
        parts: list[Any] = [aligned(last + ROW), *rows, *(np.zeros(size, np.float32) for size in sizes), room]
        return cls(*parts)

    def clear(self) -> None:
        """Begin all sums anew."""
        for sums in (self.first, self.second, self.last, self.skip, self.first_bias, self.second_bias, self.last_bias):
            sums.fill(0)

    def gradients(self, net: Net, share: int) -> list[Floats]:
        """Those of first, first_bias, second, second_bias, last, last_bias and skip, shapes as the network has them, times the share; nothing of none."""
        if not share:
            return []

        def added(sums: Floats, rows: int) -> Floats:
            total: Floats = sums.reshape(rows, -1, LANES).sum(-1)
            return total

        if self.room:
            first = tiled.summed(self.first, len(net.ins), len(self.thin))
            second = tiled.summed(self.second, len(self.thin), len(self.thick))
        else:
            first = added(self.first, len(self.thin))[:, : len(net.ins)].T
            second = added(self.second, len(self.thick))[:, : len(self.thin)].T
        last, skip = added(self.last, len(self.thick)), added(self.skip, len(net.skip_rows))[: len(net.skips)]
        return [share * each for each in (first, self.first_bias, second, self.second_bias, last, self.last_bias, skip)]


@lru_cache(maxsize=64)
def _rows(thin: int, outs: int, thick: int, groups: int) -> tuple[NDArray[np.int64], ...]:
    """Where the rows in a `Scratch` begin, in its order."""
    every = np.arange(thin + outs + thick + INPUTS) * ROW + LINE
    rows = [part.copy() for part in np.split(every, np.cumsum([thin, outs, thick]))]
    rows[-1] = np.tile(rows[-1], groups)
    return (*rows, every[: thin + outs].copy(), repeated(every[:thin], INPUTS))


@lru_cache(maxsize=64)
def _tiled_rows(thin: int, outs: int, thick: int, inputs: int) -> tuple[NDArray[np.int64], ...]:
    """The same where layers go through tiles, which write rows by the `OUTPUTS`: gradients by inputs have some each, and those of a hidden layer before they are gated."""
    extents = [padded(thin, OUTPUTS), padded(thick, OUTPUTS), padded(max(thin, inputs), OUTPUTS), outs]
    every = np.arange(sum(extents)) * ROW + LINE
    thins, thicks, raw, last = (part.copy() for part in np.split(every, np.cumsum(extents[:3])))
    return thins[:thin], last, thicks[:thick], raw, last[:0], last[:0]


@njit(**INNER)
def forward(values, thin, thick, outs, unused, inputs, at, net, span):  # type: ignore[no-untyped-def]
    """Outputs of a span without their biases, and both hidden layers, as every decoder makes them."""
    for p in range(0, span, BLOCK):
        _layer(values, thin, p, net.first, net.first_bias, inputs, net.ins, at + p)
        _layer(values, thick, p, net.second, net.second_bias, values, thin, p)
    _outputs(values, thick, outs, unused, inputs, at, net, span)


@njit(**INNER)
def _layer(out, outs, to, matrix, bias, inputs, ins, at):  # type: ignore[no-untyped-def]
    """A block of a hidden layer."""
    together = len(outs) // ROWS * ROWS
    for m in range(0, together, ROWS):
        _hidden_rows(out, outs, to, matrix, bias, m, inputs, ins, at)
    for m in range(together, len(outs), CHANNELS):
        _hidden(out, outs, to, matrix, bias, m, inputs, ins, at)


@njit(**INNER)
def _outputs(values, thick, outs, unused, inputs, at, net, span):  # type: ignore[no-untyped-def]
    for p in range(0, span, BLOCK):
        if len(outs) == 2:
            _two(values, outs, p, net.last, unused, 0, values, thick, p)
            _two_added(values, outs, p, net.skip, unused, 0, inputs, net.skips, at + p)
        else:
            _one(values, outs, p, net.last, unused, 0, values, thick, p)
            _one_added(values, outs, p, net.skip, unused, 0, inputs, net.skips, at + p)


def _forward_in_vectors(scratch, unused, inputs, at, net, span):  # type: ignore[no-untyped-def]
    forward(scratch.values, scratch.thin, scratch.thick, scratch.outs, unused, inputs, at, net, span)


def _forward_in_tiles(scratch, unused, inputs, at, net, span):  # type: ignore[no-untyped-def]
    if not REGISTERS and net.tiles.fine:
        # Three products of pairs take longer than one of float32.
        forward(scratch.values, scratch.thin, scratch.thick, scratch.outs, unused, inputs, at, net, span)
        return
    tiled.forward(scratch, inputs, at, net, span)
    _outputs(scratch.values, scratch.thick, scratch.outs, unused, inputs, at, net, span)


def _gate_thick_in_vectors(scratch, unused, net, span, kept):  # type: ignore[no-untyped-def]
    _gate(scratch.values, scratch.thick, net.last_turned, unused, scratch.values, scratch.outs, span)


def _gate_thin_in_vectors(scratch, unused, net, span, kept):  # type: ignore[no-untyped-def]
    _gate(scratch.values, scratch.thin, net.second_turned, unused, scratch.values, scratch.thick, span)


def _dots_of_second_in_vectors(scratch, span):  # type: ignore[no-untyped-def]
    _add_dots(scratch.second, scratch.values, scratch.thick, scratch.values, scratch.columns, 0, span)


def _dots_of_first_in_vectors(scratch, inputs, at, net, span):  # type: ignore[no-untyped-def]
    _add_dots(scratch.first, scratch.values, scratch.thin, inputs, net.in_columns, at, span)


def _by_inputs_in_vectors(scratch, unused, gradient, at, net, span, count):  # type: ignore[no-untyped-def]
    values, rows = scratch.values, scratch.by_inputs
    for m in range(0, len(rows), INPUTS):
        for p in range(0, span, BLOCK):
            _to_inputs(values, rows, p, net.first_turned, unused, m, values, scratch.back, p)
        add_group(gradient, at, values, rows, m, net.plan[m // INPUTS], span, count, scratch.back[:0], net.first_turned, 0)


def _nothing(scratch):  # type: ignore[no-untyped-def]
    pass


def _configure(scratch):  # type: ignore[no-untyped-def]
    configure()  # type: ignore[call-arg]


def _release(scratch):  # type: ignore[no-untyped-def]
    release()  # type: ignore[call-arg]


def _either(in_vectors: Any, in_tiles: Any) -> Any:
    """An operation of compiled loops: one of two, by the type of its first argument, a `Scratch`, whose last field says whether it has tiles."""

    def operation(*arguments: Any) -> None: ...

    @overload(operation, strict=False, jit_options=INNER)
    def _(*arguments: Any) -> Any:
        return in_tiles if isinstance(arguments[0].types[-1], types.BaseNamedTuple) else in_vectors

    return operation


begin_spans, end_spans = _either(_nothing, _configure), _either(_nothing, _release)
"""What a thread does before it takes spans, and after the last one."""
through = _either(_forward_in_vectors, _forward_in_tiles)
"""As `forward`, of a span that goes back afterwards."""
# Gradients of hidden layers in the place of their results, where they are to be kept; and of matrices.
_gate_thick = _either(_gate_thick_in_vectors, tiled.gate_thick)
_gate_thin = _either(_gate_thin_in_vectors, tiled.gate_thin)
_add_dots_of_second = _either(_dots_of_second_in_vectors, tiled.add_dots_of_second)
_add_dots_of_first = _either(_dots_of_first_in_vectors, tiled.add_dots_of_first)
_add_by_inputs = _either(_by_inputs_in_vectors, tiled.add_by_inputs)


@njit(**INNER)
def back(scratch, unused, inputs, gradient, at, net, span, count, counts):  # type: ignore[no-untyped-def]
    """From the gradients of a span's outputs, where these were, to those of all inputs, and of parameters where this span counts."""
    values, thin, thick, outs = scratch.values, scratch.thin, scratch.thick, scratch.outs
    if counts:
        _add_sums(scratch.last_bias, values, outs, span)
        _add_dots_of_outputs(scratch.last, values, thick, 0, values, outs, span)
        _add_dots_of_outputs(scratch.skip, inputs, net.skip_rows, at, values, outs, span)
    _gate_thick(scratch, unused, net, span, counts)
    if counts:
        _add_sums(scratch.second_bias, values, thick, span)
        _add_dots_of_second(scratch, span)
    _gate_thin(scratch, unused, net, span, counts)
    if counts:
        _add_sums(scratch.first_bias, values, thin, span)
        _add_dots_of_first(scratch, inputs, at, net, span)
    _add_by_inputs(scratch, unused, gradient, at, net, span, count)


@njit(**INNER)
def _gate(out, outs, matrix, unused, gradient, ins, span):  # type: ignore[no-untyped-def]
    """Put the gradient of a hidden layer, before its leaky ReLU, in the place of its results."""
    together = len(outs) // ROWS * ROWS
    for p in range(0, span, BLOCK):
        for m in range(0, together, ROWS):
            _gated_rows(out, outs, p, matrix, unused, m, gradient, ins, p)
        for m in range(together, len(outs), CHANNELS):
            _gated(out, outs, p, matrix, unused, m, gradient, ins, p)


@njit(**INNER)
def _add_dots(out, left, lefts, right, rights, at, span):  # type: ignore[no-untyped-def]
    together = len(lefts) // ROWS * ROWS
    for j in range(0, len(rights), INPUTS):
        for i in range(0, together, ROWS):
            _dots_of_rows(out, len(rights), left, lefts, i, 0, right, rights, j, at, span)
        for i in range(together, len(lefts), CHANNELS):
            _dots(out, len(rights), left, lefts, i, 0, right, rights, j, at, span)


@njit(**INNER)
def _add_dots_of_outputs(out, left, lefts, at, right, rights, span):  # type: ignore[no-untyped-def]
    for i in range(0, len(lefts), CHANNELS):
        if len(rights) == 2:
            _dots_of_two(out, 2, left, lefts, i, at, right, rights, 0, 0, span)
        else:
            _dots_of_one(out, 1, left, lefts, i, at, right, rights, 0, 0, span)


@njit(**INNER, fastmath=SUMS)
def total(row):  # type: ignore[no-untyped-def]
    """Sum of a row."""
    found = np.float32(0)
    for i in range(len(row)):
        found += row[i]
    return found


@njit(**INNER)
def _add_sums(out, values, places, span):  # type: ignore[no-untyped-def]
    for m in range(len(places)):
        out[m] += total(values[places[m] : places[m] + span])
