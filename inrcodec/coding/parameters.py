"""Quantising and coding the parameters of shared networks: one power-of-two step per tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .entropy import (
    ESCAPE,
    MagnitudeTable,
    SymbolReader,
    SymbolWriter,
    read_signed,
    read_table,
    write_signed,
    write_table,
)

_HEAD_BITS, _LENGTH_BITS = 5 + 16 + 8 + 8, 5
"""Of a tensor's exponent and table; of the length of an escape."""


@dataclass(frozen=True)
class QuantisedTensor:
    """Integers and their step.

    Attributes
    ----------
    exponent : int
        The step is ``2 ** exponent``, -24..7.
    values : ndarray of int64
        Any shape.
    """

    exponent: int
    values: np.ndarray

    @classmethod
    def of(cls, tensor: np.ndarray, exponent: int) -> QuantisedTensor:
        """Round a tensor to multiples of ``2 ** exponent``."""
        return cls(exponent, np.asarray(np.rint(np.asarray(tensor, dtype=np.float64) * 2.0**-exponent), dtype=np.int64))

    def dequantised(self) -> np.ndarray:
        """The tensor back, float32."""
        return (self.values * 2.0**self.exponent).astype(np.float32)

    @property
    def bits(self) -> float:
        """Size when coded, but for what whole weights and a range coder add."""
        n = np.abs(self.values).ravel()
        # frexp gives the length of a whole number in bits.
        escapes = _LENGTH_BITS + np.frexp(n[n >= ESCAPE] - ESCAPE)[1]
        symbols = np.minimum(n, ESCAPE)
        return _table(symbols).bits(symbols) + np.count_nonzero(n) + int(escapes.sum()) + _HEAD_BITS


def write_parameters(tensors: list[QuantisedTensor]) -> bytes:
    """Code tensors one after the other; their shapes are the reader's knowledge.

    Per tensor: exponent + 24 in 5 bits, its magnitude table (16 + 8 + 8 bits), then the integers.
    """
    writer = SymbolWriter()
    for tensor in tensors:
        flat = tensor.values.ravel()
        table = _table(np.minimum(np.abs(flat), ESCAPE))
        writer.digits(np.array([tensor.exponent + 24]), 5)
        write_table(writer, table)
        write_signed(writer, flat, np.zeros(len(flat), dtype=np.int64), [table])
    return writer.finish()


def read_parameters(data: bytes, shapes: list[tuple[int, ...]]) -> list[QuantisedTensor]:
    """Inverse of `write_parameters`.

    Raises
    ------
    ContainerError
        If the bytes cannot have been written by it.
    """
    reader = SymbolReader(data)
    tensors = []
    for shape in shapes:
        exponent, table = int(reader.digits(1, 5)[0]), read_table(reader)
        count = int(np.prod(shape))
        group = np.zeros(count, dtype=np.int64)
        values = read_signed(reader, group, [table])
        tensors.append(QuantisedTensor(exponent - 24, values.reshape(shape)))
    return tensors


def _table(magnitude: np.ndarray) -> MagnitudeTable:
    return MagnitudeTable.fit(
        float((magnitude == 0).sum()),
        float((magnitude == 1).sum()),
        float((magnitude > 1).sum()),
        float(np.maximum(magnitude - 2, 0).sum()),
    )
