"""An integer context model on CUDA devices, and the tables that its answers choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from . import context
from .context import IntegerContext
from .context_tables import laplace_tables, near_starts
from .layout import AXES
from .triton_network import LEAST_EDGE
from .triton_synthesis import filled, padded

WIDE = 13
"""Bits of hidden numbers from which on the weights that they meet are whole numbers of a float16, or sums would be too large."""


class DeviceContext(NamedTuple):
    """An `IntegerContext` and the tables on a device, as the kernel reads them; n inputs padded to N, H to C, both at least 16.

    Make it once for a stream: `decode_tiles` copies no weights.

    Attributes
    ----------
    taps : Tensor of int32, shape (5, N)
        Offsets of the inputs along t, z, y, x; and whether it is a latent (0), U (1) or V (2). What pads has no weight.
    first : Tensor of float16, shape (2, N, C)
        Weights in two parts, for a float16 has 11 bits: multiples of 128, over 128, and what is left.
    level_bias : Tensor of float32, shape (K, C)
    second : Tensor of float16, shape (2, C, C)
        Likewise; from `WIDE` bits of hidden numbers on all is left.
    second_bias : Tensor of float32, shape (C,)
    last : Tensor, shape (2, C)
    skip : Tensor, shape (2, N)
    last_bias : Tensor, shape (2,)
    shifts : Tensor, shape (4,)
        Powers of two that sums are multiplied by.
    starts, first_symbol : Tensor
        The tables, as `rans.triton.DeviceCode` has them.
    near : Tensor of int64, shape (64 units, 2)
        As `near_starts` has them.
    reach : Tensor of int32, shape (64 units,)
        Of each table: the symbol of the centre.
    unit_bits, hidden_bits : int
        As the network has them.
    """

    taps: Tensor
    first: Tensor
    level_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    skip: Tensor
    last_bias: Tensor
    shifts: Tensor
    starts: Tensor
    first_symbol: Tensor
    near: Tensor
    reach: Tensor
    unit_bits: int
    hidden_bits: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is on the device, from `taps` to `reach`."""
        return self[:-2]

    @property
    def units(self) -> int:
        """Units of inputs and means in a latent's."""
        return 1 << self.unit_bits

    @classmethod
    def of(cls, network: IntegerContext, present: Sequence[bool], device: torch.device | str) -> DeviceContext:
        """Copy to a device.

        Raises
        ------
        ValueError
            If `context.check` refuses the network, or if it has other inputs or more than 32 hidden numbers.
        """
        context.check(network)
        wanted = context.inputs(present, network.wide)
        if len(network.first) != wanted or len(network.second) > 32:
            raise ValueError(
                f"expected a network of {wanted} inputs and up to 32 hidden numbers, found one of "
                f"{network.first.shape}; decode it on the CPU"
            )
        first, level_bias, second, second_bias, last, last_bias, skip = (
            torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(device) for a in network.arrays
        )
        inputs, width = (max(LEAST_EDGE, triton.next_power_of_2(len(weights))) for weights in (first, second))
        first_parts = _parts(filled(first, inputs, width), True)
        second_parts = _parts(filled(second, width, width), network.hidden_bits < WIDE)
        laplace = laplace_tables(network.units)
        ends = (laplace.tables.starts < 1 << 16).sum(axis=1, keepdims=True) - 1
        symbols = np.concatenate([laplace.tables.first, ends.astype(np.uint8)], axis=1)
        return cls(
            _taps(present, network.wide, inputs).to(device), first_parts, padded(level_bias, width), second_parts, padded(second_bias, width),
            padded(last.T, width), padded(skip.T, inputs), last_bias,
            torch.tensor([0.5**shift for shift in network.shifts], device=device),
            torch.from_numpy(laplace.tables.starts.astype(np.int32)).to(device), torch.from_numpy(symbols).to(device),
            torch.from_numpy(near_starts(network.units)).to(device), torch.from_numpy(laplace.reach).to(device), network.unit_bits, network.hidden_bits,
        )  # fmt: skip


def _parts(weights: Tensor, split: bool) -> Tensor:
    """The two parts of whole weights."""
    high = torch.floor((weights + 64) / 128) if split else torch.zeros_like(weights)
    return torch.stack([high, weights - 128 * high]).to(torch.float16)


def _taps(present: Sequence[bool], wide: bool, length: int) -> Tensor:
    own, cross = context.causal_taps(present, wide), context.cross_taps(present)
    found = np.zeros((AXES + 1, length), dtype=np.int32)
    places = np.concatenate([own, cross, np.zeros((1, AXES), np.int64)])
    found[:AXES, : len(places)] = places.T
    found[AXES, : len(places)] = [0] * len(own) + [1] * len(cross) + [2]
    return torch.from_numpy(found)
