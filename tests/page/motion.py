"""A second decoder, written from docs/container.md alone: the section MOVE."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from .restoration import read_tensor
from .stream import Bytes, Index, RangeDecoder, Stream, Table

# ---- MOVE

WEIGHTS = [
    [0, 0, 256, 0, 0, 0], [3, -12, 255, 14, -4, 0], [5, -22, 250, 31, -8, 0], [7, -29, 240, 49, -12, 1],
    [8, -34, 228, 69, -17, 2], [8, -37, 213, 91, -22, 3], [8, -38, 196, 113, -27, 4], [7, -37, 177, 135, -31, 5],
    [6, -35, 157, 157, -35, 6],
]  # fmt: skip
WEIGHTS += [WEIGHTS[16 - r][::-1] for r in range(9, 16)]


@dataclass
class Motion:
    size: int
    still: Index
    nodes: np.ndarray


def read_motion(body: bytes, shape: Index) -> Motion:
    fields = Bytes(body)
    version, s, *still = fields.fields("BBII")
    size = 2**s
    grid = (shape[0], 2, *((n - 1) // size + 2 for n in shape[1:]))
    (e,) = fields.fields("B") if version else (0,)
    d = {0: first_version, 1: second_version}[version](RangeDecoder(fields.rest()), grid)
    return Motion(size, tuple(still), np.cumsum(d, axis=0).astype(np.int64) * 2**e)


def first_version(coder: RangeDecoder, grid: Index) -> np.ndarray:
    corners = read_tensor(coder, grid[:2])
    d = read_tensor(coder, grid)
    assert not d[:, :, 0, 0].any()
    d[:, :, 0, 0] = corners
    for v, u in product(*map(range, grid[2:])):
        if v and u:
            before, above = d[:, :, v, u - 1], d[:, :, v - 1, u]
            d[:, :, v, u] += np.median([before, above, before + above - d[:, :, v - 1, u - 1]], axis=0)
        elif v or u:
            d[:, :, v, u] += d[:, :, v, u - 1] if u else d[:, :, v - 1, u]
    return d


def second_version(coder: RangeDecoder, grid: Index) -> np.ndarray:
    n, _, rows, columns = grid
    levels = coder.digit(8)
    tables = [Table(coder.digit(16), coder.digit(8), coder.digit(8)) if coder.digit(1) else None for _ in range(2 + 5 * levels)]
    d, more = np.zeros(grid, dtype=int), np.zeros(grid, dtype=int)
    grids = list(product(range(n), (0, 1)))

    def read(places: list[tuple[int, ...]], classes: list[int]) -> None:
        """What the nodes of a list have more."""
        magnitudes = [0] * len(places)
        for number, table in enumerate(tables):
            for i in (i for i, c in enumerate(classes) if c == number):
                assert table is not None
                magnitudes[i] = coder.symbol(table.left)
        for place, m, sign in zip(places, magnitudes, coder.signs(magnitudes), strict=True):
            more[place] = sign * coder.escape(m)

    top = next(2**k for k in range(30, -1, -1) if 2**k < max(rows, columns))
    corners = [(*g, 0, 0) for g in grids]
    read(corners, [0] * len(corners))
    d[:, :, 0, 0] = more[:, :, 0, 0]
    others = [(*g, v, u) for g in grids for v in range(0, rows, top) for u in range(0, columns, top) if v or u]
    read(others, [1] * len(others))
    for t, axis, v, u in others:
        d[t, axis, v, u] = d[t, axis, 0, 0] + more[t, axis, v, u]
    p = top // 2
    while p:
        for nodes, step in (
            ([(v, u) for v in range(p, rows, 2 * p) for u in range(0, columns, 2 * p)], (p, 0)),
            ([(v, u) for v in range(0, rows, p) for u in range(p, columns, 2 * p)], (0, p)),
        ):
            places = [(*g, *node) for g in grids for node in nodes]
            classes, foretold = [], []
            for t, axis, v, u in places:
                before, after, third, fourth = ((v + k * step[0], u + k * step[1]) for k in (-1, 1, -3, 3))
                exist = [0 <= y < rows and 0 <= x < columns for y, x in (after, third, fourth)]
                near = [(t, axis, *place) for place in (before, after if exist[0] else before)]
                a, b = (int(d[place]) for place in near)
                far = sum(int(d[(t, axis, *place)]) for place in (third, fourth)) if exist[1] and exist[2] else None
                foretold.append((a + b + 1) // 2 if far is None else (9 * (a + b) - far + 8) // 16)
                busy = sum(abs(int(more[place])) for place in near)
                classes.append(2 + 5 * min(p.bit_length() - 1, levels - 1) + sum(busy >= edge for edge in (1, 2, 3, 6)))
            read(places, classes)
            for place, number in zip(places, foretold, strict=True):
                d[place] = number + more[place]
        p //= 2
    return d


def motion_of(stream: Stream) -> tuple[Motion | None, Index]:
    """Displacements, where there are any, and the shape that is coded."""
    if "MOVE" not in stream.sections:
        return None, stream.shape
    motion = read_motion(stream.sections["MOVE"], stream.shape)
    return motion, (stream.shape[0], *motion.still)


def place(motion: Motion, d: np.ndarray, y: int, x: int, axis: int) -> int:
    size, v, f, u, g = motion.size, y // motion.size, y % motion.size, x // motion.size, x % motion.size
    m = (size - f) * ((size - g) * d[v, u] + g * d[v, u + 1]) + f * ((size - g) * d[v + 1, u] + g * d[v + 1, u + 1])
    return 16 * (y, x)[axis] + int(4 * m + size**2) // (2 * size**2)


def displaced(still: np.ndarray, motion: Motion, shape: Index) -> np.ndarray:
    found = np.zeros(shape)
    for t, y, x in product(*map(range, shape)):
        p = [place(motion, motion.nodes[t, axis], y, x, axis) for axis in (0, 1)]
        rows, columns = (np.clip(q // 16 - 2 + np.arange(6), 0, n - 1) for q, n in zip(p, still.shape[1:], strict=True))
        w = [np.array(WEIGHTS[q % 16]) / 256 for q in p]
        found[t, y, x] = w[0] @ still[t][np.ix_(rows, columns)] @ w[1]
    return found
