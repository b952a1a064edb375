"""Coding the split flags of a tree: per level one probability, then a flag for each cell present."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .entropy import SymbolReader, SymbolWriter, categorical


def write_flags(flags: list[np.ndarray]) -> bytes:
    """Code the flags of each level; per level: P(split) in 1/256 (8 bits), then the flags unless it is 0 or 255."""
    writer = SymbolWriter()
    for level in flags:
        chance = _chance(level)
        writer.digits(np.array([chance]), 8)
        if 0 < chance < 255:
            writer.symbols(level.astype(np.int32), _model(chance))
    return writer.finish()


def flag_reader(data: bytes) -> Callable[[int, int], np.ndarray]:
    """Return ``read(level, count)`` for `octree.from_flags`; levels must be asked for in order."""
    reader = SymbolReader(data)

    def read(level: int, count: int) -> np.ndarray:
        chance = int(reader.digits(1, 8)[0])
        if 0 < chance < 255:
            flags = reader.symbols(count, _model(chance)).astype(bool)
        else:
            flags = np.full(count, chance == 255)
        return flags

    return read


def _chance(flags: np.ndarray) -> int:
    """0 and 255 say that all flags are alike; what is mixed stays in between."""
    if not flags.any():
        return 0
    if flags.all():
        return 255
    return int(min(max(round(256 * flags.mean()), 1), 254))


def _model(chance: int) -> object:
    return categorical(np.array([256.0 - chance, float(chance)]))
