"""Where the compiled loops keep the layers of a class of networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def padded(rows: int) -> int:
    """Rows of a layer, padded to fours."""
    return -(-rows // 4) * 4


@dataclass(frozen=True)
class Plan:
    """Widths of a class's layers and where each begins in the flat arrays of a thread.

    Attributes
    ----------
    table : ndarray of int64, shape (5, layers + 1)
        Of each layer's input, and of the output: neurons, first number of its rows; then of each layer: first packed
        weight, first packed weight of the transposed layer, first weight in raster order. The last column ends.
    sizes : ndarray of int64, shape (4,)
        Numbers in all rows, packed weights, packed transposed weights; axes.
    """

    table: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, neurons: Sequence[int], tile: int) -> Plan:
        """Plan for layers of so many neurons, inputs first, the output last; `tile` points in a row."""
        pairs = list(itertools.pairwise(neurons))
        rows = _begins([padded(n) * tile for n in neurons])
        forward = _begins([_packed(n_in, n_out) for n_in, n_out in pairs])
        turned = _begins([0, *(_packed(n_out, n_in) for n_in, n_out in pairs[1:])][: len(pairs)])
        weights = _begins([(n_in + 1) * n_out for n_in, n_out in pairs])
        table = np.array([list(neurons), rows[:-1], forward, turned, weights], dtype=np.int64)
        return cls(table, np.array([rows[-1], forward[-1], turned[-1], neurons[0]], dtype=np.int64))


def _begins(lengths: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _packed(n_in: int, n_out: int) -> int:
    """Numbers of a layer as the loops read it: for each pair of outputs two biases and the weights of all inputs."""
    return (n_out + 1) // 2 * (2 + 2 * padded(n_in))
