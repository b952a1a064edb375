"""Entropy coding of a tile's latents, stage by stage: the definition. CODING.md has every byte."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..backend import Backend, compiled_on_host
from ..rans import CodedError, RawBits, Tables, check_end, escape_bits, first_states, joined, reference
from .context import (
    LIMIT,
    IntegerContext,
    Surroundings,
    Tile,
    check_tile,
    evaluate,
    parents,
    predictions,
    stages,
)
from .context_tables import laplace_tables, split

__all__ = ["decode_tile", "decoded_on_host", "encode_tile", "parents", "predictions", "tile_bits", "tile_coder"]

ESCAPE_BITS = 6
"""Plain bits of an escape besides its number: the sign, and 5 for the number's length."""


def tile_coder(backend: Backend) -> ModuleType:
    """The module with `encode_tile`, `decode_tile`, `tile_bits`, `predictions`, `parents`: this one, or compiled."""
    if not compiled_on_host(backend):
        from . import context_coder

        return context_coder
    from . import context_cpu

    return context_cpu


def encode_tile(latents: NDArray[np.int32], tile: Tile, network: IntegerContext, lanes: int) -> bytes:
    """Code a tile.

    Parameters
    ----------
    latents : ndarray of int32, the tile's shape
        Below 2^20 in magnitude.
    tile : Tile
    network : IntegerContext
        Checked by `check`.
    lanes : int
        1..256.

    Returns
    -------
    bytes
        Empty if all latents are zero.

    Raises
    ------
    ValueError
        If latents, tile and network do not fit each other.
    """
    means, scales = predictions(latents, tile, network)
    if not latents.any():
        return b""
    parts = stages(tile.shape)
    order = np.concatenate(parts)
    laplace = laplace_tables(network.units)
    centres, table = split(
        means.ravel()[order].astype(np.int64), scales.ravel()[order].astype(np.int64), network.units
    )
    symbols, beyond = _symbols(latents.ravel()[order] - centres, laplace.reach[table].astype(np.int64))
    lane = np.concatenate([np.arange(len(part)) % lanes for part in parts]).astype(np.uint8)
    words = reference.encode(laplace.tables.intervals(symbols, table), lane, lanes)
    bits = [bit for excess in beyond.tolist() for bit in [int(excess < 0), *escape_bits(abs(excess) - 1)]]
    return joined(words, np.array(bits, dtype=np.uint8))


def _symbols(differences: NDArray[np.int64], reach: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Symbols of differences from the centre, and how far beyond their tables, with the sign, those lie that escape."""
    beyond = differences - np.clip(differences, -reach, reach)
    return np.where(beyond == 0, differences + reach, 2 * reach + 1), beyond[beyond != 0]


def decode_tile(data: NDArray[np.uint8], tile: Tile, network: IntegerContext, lanes: int) -> NDArray[np.int32]:
    """Decode a tile.

    Parameters
    ----------
    data : ndarray of uint8
    tile : Tile
    network : IntegerContext
        Checked by `check`.
    lanes : int
        1..256.

    Returns
    -------
    ndarray of int32, the tile's shape

    Raises
    ------
    CodedError
        If the bytes cannot have been written by `encode_tile`.
    ValueError
        If tile and network do not fit each other.
    """
    check_tile(tile, network)
    found = np.zeros(int(np.prod(tile.shape)), dtype=np.int32)
    if not len(data):
        return found.reshape(tile.shape)
    states, at = first_states(data, lanes), 4 * lanes
    known, raw, laplace = Surroundings(tile, network), RawBits(data), laplace_tables(network.units)
    for sites in stages(tile.shape):
        centres, table = split(*evaluate(known.rows(sites), tile.level, network), network.units)
        used, which = np.unique(table, return_inverse=True)
        # Of the tables that occur alone, for the definition makes lists of all that it is given.
        few = Tables(laplace.tables.starts[used], laplace.tables.first[used])
        symbols, at = reference.decode(data, at, states, few, which)
        reach = laplace.reach[table].astype(np.int64)
        differences = symbols - reach
        for i in np.flatnonzero(differences > reach):
            differences[i] = _escaped(raw, int(reach[i]))
        latents = centres + differences
        if np.any(np.abs(latents) >= LIMIT):
            raise CodedError
        found[sites] = latents
        known.put(sites, found[sites])
    check_end(len(data), at, raw.read, states)
    return found.reshape(tile.shape)


def _escaped(raw: RawBits, reach: int) -> int:
    below = bool(raw.take(1)[0])
    magnitude = reach + 1 + int(raw.digits(1, int(raw.digits(1, 5)[0]))[0])
    return -magnitude if below else magnitude


def tile_bits(latents: NDArray[np.int32], tile: Tile, network: IntegerContext) -> float:
    """Bits that a tile's symbols and escapes take; the lanes' states, 32 bits each, not counted.

    Parameters
    ----------
    latents : ndarray of int32, the tile's shape
        Below 2^20 in magnitude.
    tile : Tile
    network : IntegerContext
        Checked by `check`.

    Returns
    -------
    float
        Of a tile of zeros, 0: it is not coded.

    Raises
    ------
    ValueError
        If latents, tile and network do not fit each other.
    """
    means, scales = predictions(latents, tile, network)
    if not latents.any():
        return 0.0
    laplace = laplace_tables(network.units)
    centres, table = split(means.ravel().astype(np.int64), scales.ravel().astype(np.int64), network.units)
    symbols, beyond = _symbols(latents.ravel() - centres, laplace.reach[table].astype(np.int64))
    plain = sum(ESCAPE_BITS + (abs(excess) - 1).bit_length() for excess in beyond.tolist())
    return float(laplace.cost[table, symbols].sum(dtype=np.float64)) + plain


def decoded_on_host(
    data: Sequence[NDArray[np.uint8]],
    tiles: Sequence[Tile],
    network: IntegerContext,
    lanes: Sequence[int],
    latents: Any,
    backend: Backend,
) -> Any:
    """As `inrcodec_kernels.pyramid.decode_tiles`, one tile after the other; of arrays or of tensors."""
    coder, failed = tile_coder(backend), np.zeros(len(tiles), dtype=np.bool_)
    u, v = (_on_host(each) for each in tiles[0][-2:]) if tiles else (None, None)
    for i, (body, tile, count) in enumerate(zip(data, tiles, lanes, strict=True)):
        inside = tuple(slice(a, a + n) for a, n in zip(tile.start, tile.shape, strict=True))
        try:
            found = coder.decode_tile(body, tile._replace(u=u, v=v), network, count)
        except CodedError:
            failed[i] = True
            continue
        latents[inside] = found if isinstance(latents, np.ndarray) else latents.new_tensor(found)
    return failed if isinstance(latents, np.ndarray) else latents.new_tensor(failed, dtype=torch.bool)


def _on_host(values: Any) -> NDArray[np.int16] | None:
    return values if values is None or isinstance(values, np.ndarray) else values.cpu().numpy()
