"""Coding what the nodes of grids hold, coarse to fine: each node as what it has more than nodes around it foretell.

The coarsest nodes lie so far apart that there are at most two along each axis. Between them others are filled in, halfway between
known ones of a column, then of a row, until all are known: where a field is smooth nearly all of these have nothing more than is foretold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError

from .entropy import MagnitudeTable, SymbolReader, SymbolWriter, read_signed, read_table, write_signed, write_table

Grids = NDArray[np.int64]

MOST_LEVELS = 3
"""Spacings of nodes that have tables of their own: the finest, the next, and all others."""
_EDGES = (1, 2, 3, 6)
"""Magnitudes of both neighbours together from which on another table is used."""
_PER_LEVEL = len(_EDGES) + 1
CORNER, COARSEST, _FIRST = 0, 1, 2
"""Tables of the first node, of the other coarsest ones, and the first of all others."""
_ABSENT = MagnitudeTable(1, 1, 1)
_TABLE_BITS = 33


class Pass(NamedTuple):
    """Nodes that are filled in together.

    Attributes
    ----------
    axis : int
        Along which their known neighbours lie: -2 or -1.
    spacing : int
        Nodes of the grid from one of them to its neighbours.
    """

    axis: int
    spacing: int

    def lines(self, values: NDArray[Any]) -> NDArray[Any]:
        """A view of grids (..., K_y, K_x): known nodes and those to fill in take turns along the axis."""
        return values[..., :: self.spacing, :: self.spacing * (2 if self.axis == -2 else 1)]

    def new(self, values: NDArray[Any]) -> NDArray[Any]:
        """A view of the nodes to fill in."""
        lines = self.lines(values)
        return lines[..., 1::2, :] if self.axis == -2 else lines[..., 1::2]

    def neighbours(self, values: NDArray[Any], distance: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
        """What known nodes on both sides hold; beyond the edge, the one before."""
        lines, places = self.lines(values), self._places(values)
        sides = (np.where(self._inside(values, far), far, places - 1) for far in (places - distance, places + distance))
        before, after = (lines.take(side, self.axis) for side in sides)
        return before, after

    def _places(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Of nodes to fill in, along the axis of `lines`."""
        return np.arange(1, self.lines(values).shape[self.axis], 2)

    def _inside(self, values: NDArray[Any], places: NDArray[np.intp]) -> NDArray[np.bool_]:
        return (places >= 0) & (places < self.lines(values).shape[self.axis])

    def foretold(self, values: Grids) -> Grids:
        """What known nodes say of those to fill in: a cubic through four, or the mean of two where there are no four."""
        (before, after), (first, last) = self.neighbours(values), self.neighbours(values, 3)
        mean, cubic = (before + after + 1) >> 1, (9 * (before + after) - first - last + 8) >> 4
        places = self._places(values)
        whole = self._inside(values, places - 3) & self._inside(values, places + 3)
        found: Grids = np.where(whole[:, None] if self.axis == -2 else whole, cubic, mean)
        return found

    def classes(self, rest: Grids, levels: int) -> NDArray[np.int64]:
        """Numbers of tables, by how much known neighbours had more than was foretold."""
        before, after = self.neighbours(np.abs(rest))
        level = min(self.spacing.bit_length(), levels) - 1
        return np.digitize(before + after, _EDGES) + (_FIRST + _PER_LEVEL * level)


def top_spacing(grid: tuple[int, ...]) -> int:
    """Nodes of a grid (..., K_y, K_x) from one of the coarsest to the next."""
    return 1 << (max(grid[-2:]) - 1).bit_length() - 1


def passes(grid: tuple[int, ...]) -> list[Pass]:
    """All passes, coarse to fine."""
    found, spacing = [], top_spacing(grid)
    while spacing > 1:
        spacing //= 2
        found += [Pass(-2, spacing), Pass(-1, spacing)]
    return found


def coarsest(values: NDArray[Any]) -> NDArray[Any]:
    """A view of the nodes that are known before the first pass."""
    spacing = top_spacing(values.shape)
    return values[..., ::spacing, ::spacing]


def residuals(values: Grids) -> Grids:
    """What nodes of grids (..., K_y, K_x) have more than is foretold."""
    rest = np.empty_like(values)
    coarsest(rest)[...] = coarsest(values) - values[..., :1, :1]
    rest[..., 0, 0] = values[..., 0, 0]
    for step in passes(values.shape):
        step.new(rest)[...] = step.new(values) - step.foretold(values)
    return rest


def classes(rest: Grids, levels: int) -> NDArray[np.int64]:
    """Numbers of the tables of all nodes."""
    found = np.full(rest.shape, COARSEST)
    found[..., 0, 0] = CORNER
    for step in passes(rest.shape):
        step.new(found)[...] = step.classes(rest, levels)
    return found


@dataclass(frozen=True)
class NodeTables:
    """Distributions of what nodes have more than is foretold.

    Attributes
    ----------
    levels : int
        Spacings that are told apart, 1..`MOST_LEVELS`.
    tables : list of MagnitudeTable or None
        By number of class; None where no node is of it.
    """

    levels: int
    tables: list[MagnitudeTable | None]

    @classmethod
    def fit(cls, rest: Grids, levels: int) -> NodeTables:
        """Fit to what is to be coded."""
        group, size = classes(rest, levels).ravel(), np.minimum(np.abs(rest), 255).ravel()
        count = _count(levels)
        sums = (size == 0, size == 1, size > 1, np.maximum(size - 2, 0))
        rows = np.stack([np.bincount(group, values, count) for values in sums], axis=1)
        return cls(levels, [MagnitudeTable.fit(*row.tolist()) if row[:3].any() else None for row in rows])

    @classmethod
    def best(cls, rest: Grids) -> NodeTables:
        """Fit with as many levels as take the fewest bits."""
        return min((cls.fit(rest, levels) for levels in range(1, MOST_LEVELS + 1)), key=lambda tables: tables.bits(rest))

    @property
    def present(self) -> list[MagnitudeTable]:
        """As coders take them."""
        return [table or _ABSENT for table in self.tables]

    def costs(self) -> NDArray[np.float32]:
        """Bits of every magnitude up to 255, by number of class."""
        return np.stack([table.cost for table in self.present])

    def bits(self, rest: Grids) -> float:
        """About what grids take, with the tables."""
        cost = self.costs()[classes(rest, self.levels), np.minimum(np.abs(rest), 255)]
        return float(cost.sum()) + sum(1 if table is None else _TABLE_BITS for table in self.tables)


def _count(levels: int) -> int:
    return _FIRST + _PER_LEVEL * levels


def write_grids(values: Grids) -> bytes:
    """Code grids (n, 2, K_y, K_x).

    Levels in 8 bits; for every table 1 bit that says whether it is there, and 16 + 8 + 8 bits of it; what the first nodes hold, what
    the other coarsest ones have more, then pass by pass.
    """
    rest = residuals(values)
    tables, writer = NodeTables.best(rest), SymbolWriter()
    writer.digits(np.array([tables.levels]), 8)
    for table in tables.tables:
        writer.digits(np.array([table is not None]), 1)
        if table is not None:
            write_table(writer, table)

    def write(part: Grids, group: NDArray[np.int64]) -> None:
        write_signed(writer, part.ravel(), group.ravel(), tables.present)

    write(rest[..., 0, 0], np.full(rest[..., 0, 0].shape, CORNER))
    others = _others(rest)
    write(others, np.full(others.shape, COARSEST))
    for step in passes(values.shape):
        write(step.new(rest), step.classes(rest, tables.levels))
    return writer.finish()


def read_grids(data: bytes, shape: tuple[int, ...]) -> Grids:
    """Inverse of `write_grids`.

    Raises
    ------
    ContainerError
        If the bytes cannot have been written by it.
    """
    reader = SymbolReader(data)
    tables = _read_tables(reader)
    rest, values = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def read(group: NDArray[np.int64]) -> Grids:
        return read_signed(reader, group.ravel(), tables.present).reshape(group.shape)

    values[..., 0, 0] = rest[..., 0, 0] = read(np.full(shape[:2], CORNER))
    known = coarsest(values)
    known[...] = values[..., :1, :1]
    part = read(np.full(_others(rest).shape, COARSEST))
    spread = np.concatenate([np.zeros((*shape[:2], 1), dtype=np.int64), part], axis=-1).reshape(known.shape)
    known += spread
    coarsest(rest)[...] += spread
    for step in passes(shape):
        found = read(step.classes(rest, tables.levels))
        step.new(rest)[...] = found
        step.new(values)[...] = step.foretold(values) + found
    return values


def _others(rest: Grids) -> Grids:
    """The coarsest nodes but the first of each grid, in raster order."""
    held = coarsest(rest)
    return held.reshape(*held.shape[:2], -1)[..., 1:]


def _read_tables(reader: SymbolReader) -> NodeTables:
    levels = int(reader.digits(1, 8)[0])
    if not 1 <= levels <= MOST_LEVELS:
        raise ContainerError(f"expected 1 to {MOST_LEVELS} levels of nodes, found {levels}; get a fresh copy of the file")
    return NodeTables(levels, [read_table(reader) if int(reader.digits(1, 1)[0]) else None for _ in range(_count(levels))])
