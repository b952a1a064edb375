"""Quantising and coding the parameters of shared networks: one power-of-two step per tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrcodec_formats.errors import ContainerError

from .entropy import MagnitudeTable, SymbolReader, SymbolWriter, read_signed, write_signed


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
        return cls(exponent, np.rint(np.asarray(tensor, dtype=np.float64) * 2.0**-exponent).astype(np.int64))

    def dequantised(self) -> np.ndarray:
        """The tensor back, float32."""
        return (self.values * 2.0**self.exponent).astype(np.float32)

    @property
    def bits(self) -> float:
        """Estimated size when coded."""
        n = np.minimum(np.abs(self.values), 255).ravel()
        return float(_table(n).cost[n].sum()) + 40


def write_parameters(tensors: list[QuantisedTensor]) -> bytes:
    """Code tensors one after the other; their shapes are the reader's knowledge.

    Per tensor: exponent + 24 in 5 bits, its magnitude table (16 + 8 + 8 bits), then the integers.
    """
    writer = SymbolWriter()
    for tensor in tensors:
        flat = tensor.values.ravel()
        table = _table(np.minimum(np.abs(flat), 255))
        for value, bits in ((tensor.exponent + 24, 5), (table.nonzero, 16), (table.beyond, 8), (table.decay, 8)):
            writer.digits(np.array([value]), bits)
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
        exponent, nonzero, beyond, decay = (int(reader.digits(1, bits)[0]) for bits in (5, 16, 8, 8))
        if 0 in (nonzero, beyond, decay):
            raise ContainerError("expected probabilities above 0, found 0; get a fresh copy of the file")
        count = int(np.prod(shape))
        group = np.zeros(count, dtype=np.int64)
        values = read_signed(reader, group, [MagnitudeTable(nonzero, beyond, decay)])
        tensors.append(QuantisedTensor(exponent - 24, values.reshape(shape)))
    return tensors


def _table(magnitude: np.ndarray) -> MagnitudeTable:
    return MagnitudeTable.fit(
        float((magnitude == 0).sum()),
        float((magnitude == 1).sum()),
        float((magnitude > 1).sum()),
        float(np.maximum(magnitude - 2, 0).sum()),
    )
