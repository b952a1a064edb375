"""A second decoder, written from docs/container.md alone: the section MOVE."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from .restoration import read_tensor
from .stream import Bytes, Index, RangeDecoder, Stream

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
    assert version == 0
    size = 2**s
    grid = (shape[0], 2, *((n - 1) // size + 2 for n in shape[1:]))
    coder = RangeDecoder(fields.rest())
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
    return Motion(size, tuple(still), np.cumsum(d, axis=0).astype(np.int64))


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
