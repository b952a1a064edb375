"""Small codes of coefficients in bands, and leaves to code with them."""

from __future__ import annotations

from itertools import product

import numpy as np

from inrcodec_kernels.rans import BandCode, Tables, proportional


def band_code(levels: int, seed: int) -> BandCode:
    """Leaves of levels with 3 x 3, 4 x 4, ... coefficients whose bands are diagonals, and random distributions."""
    random = np.random.default_rng(seed)
    edges = range(3, 3 + levels)
    lattices = [np.array(sorted(product(range(e), repeat=2), key=lambda k: (sum(k), k))) for e in edges]
    most, width = 2 * edges[-1] - 1, edges[-1] ** 2
    order = np.zeros((levels, width), dtype=np.int32)
    begin = np.zeros((levels, most + 1), dtype=np.int32)
    neighbours = np.zeros((levels, 2, width), dtype=np.int32)
    for v, lattice in enumerate(lattices):
        number = {tuple(k): i for i, k in enumerate(lattice.tolist())}
        order[v, : len(lattice)] = random.permutation(0) if len(lattice) == 0 else np.arange(len(lattice))
        begin[v] = np.searchsorted(lattice.sum(axis=1), np.arange(most + 1))
        for axis in (0, 1):
            step = np.eye(2, dtype=int)[axis]
            neighbours[v, axis] = len(lattice)
            neighbours[v, axis, : len(lattice)] = [number.get(tuple(k), len(lattice)) for k in (lattice - step).tolist()]
    thresholds = np.array([3, 40, 400], dtype=np.int64)
    magnitudes = [proportional(np.array([20.0 / (1 + c), *(3.0 + c) ** -np.arange(1.0, 6)]) * 1000 + 1) for c in range(4)]
    kept = [proportional(random.integers(1, 9, 2 * e - 1)) for e in edges]
    constants = [proportional(random.integers(1, 9, 5)) for _ in range(2 * levels)]
    found = [f.astype(np.int64) for f in (*magnitudes, *kept, *constants)]
    return BandCode(
        np.array([len(x) for x in lattices], dtype=np.int32), order, begin, neighbours,
        random.integers(1, 30, (levels, 2)), random.integers(0, 50, (levels, most)), thresholds,
        random.integers(1 << 14, 1 << 18, (levels, levels)), Tables.of(found),
        np.array([len(f) - 1 for f in found], dtype=np.int32),
    )  # fmt: skip


def leaves(code: BandCode, count: int, seed: int, largest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, coefficients and bands kept of random leaves."""
    random = np.random.default_rng(seed)
    level = random.integers(0, code.levels, count)
    kept = np.array([random.integers(0, np.count_nonzero(np.diff(code.begin[v]))) for v in level], dtype=np.int64)
    rows = code.rows(level)
    values = np.zeros(rows[-1], dtype=np.int32)
    for i, v in enumerate(level.tolist()):
        size = int(code.begin[v, kept[i] + 1])
        values[rows[i] + code.order[v, :size]] = np.rint(random.laplace(0, largest, size))
    return level, values, kept
