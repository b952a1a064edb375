"""Tiles of one level on CUDA devices, and the order in which their latents are decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .context import WEIGHTS
from .layout import AXES, Place
from .triton_synthesis import pitches

PLACES = 13
"""Numbers of a tile's row in `DeviceTiles.places`."""


@dataclass(frozen=True)
class DeviceTiles:
    """Tiles of one level on a device, and the order in which their latents are decoded.

    A tile's surroundings are three arrays of its extents and a ring as wide as contexts reach: its
    latents, U and V. They are skewed (`skewed`): threads that decode a stage read numbers that lie side by side.

    Attributes
    ----------
    lattice : tuple of 4 int
        Extents of the level.
    ring : tuple of 4 int
        Sites around a tile that contexts see along each axis: `context.ring_of`.
    places : Tensor of int32, shape (T, PLACES)
        First latent and extents; distances between neighbours in the surroundings, and how many sites these have.
    rooms : Tensor of int64, shape (T, 5)
        Where a tile's latents and stages begin in the two below, how many stages there are, and where its surroundings
        and what is predicted begin among those of all tiles.
    order : Tensor of int32, shape (2, n)
        In coding order, where a latent lies in its surroundings, and in the lattice from the tile's first latent on:
        one list for all tiles of the same extents.
    stages : Tensor of int32
        Where in its list each stage begins, and the end.
    surroundings, predicted, largest : int
        Numbers that all surroundings have, and all tiles; and sites of the largest tile with its ring.
    """

    lattice: Place
    ring: tuple[int, ...]
    places: Tensor
    rooms: Tensor
    order: Tensor
    stages: Tensor
    surroundings: int
    predicted: int
    largest: int

    @classmethod
    def of(
        cls, starts: Sequence[Place], shapes: Sequence[Place], lattice: Place, ring: Sequence[int], device: torch.device | str
    ) -> DeviceTiles:
        """Lists are made on the device; 8 bytes for each latent of each of the different extents.

        Raises
        ------
        ValueError
            If a tile leaves the lattice, or this has 2^31 latents or more.
        """
        for start, shape in zip(starts, shapes, strict=True):
            inside = all(0 <= s < s + n <= m for s, n, m in zip(start, shape, lattice, strict=True))
            if not inside or math.prod(lattice) >= 1 << 31:
                raise ValueError(
                    f"expected tiles within a lattice of fewer than 2^31 latents, found {start} and {shape} in "
                    f"{lattice}; cut them to it, or decode them on the CPU"
                )
        known: dict[Place, list[int]] = {}
        places, largest = [], 0
        orders, stages, rooms, done = [_none(device).reshape(2, 0)], [_none(device)], [], np.zeros(4, np.int64)
        for start, shape in zip(starts, shapes, strict=True):
            ringed = _ringed(shape, ring)
            largest, (pitch, size) = max(largest, math.prod(ringed)), skewed(ringed)
            places.append([*start, *shape, *pitch, size])
            if shape not in known:
                order, begin = _coding_order(shape, lattice, tuple(ring), torch.device(device))
                known[shape] = [*done[:2].tolist(), len(begin) - 1]
                done += [order.shape[1], len(begin), 0, 0]
                orders.append(order)
                stages.append(begin)
            rooms.append([*known[shape], *done[2:].tolist()])
            done += [0, 0, 3 * size, math.prod(shape)]
        surroundings, predicted = done[2:].tolist()
        return cls(
            lattice, tuple(map(int, ring)), torch.tensor(places, dtype=torch.int32, device=device).reshape(-1, PLACES),
            torch.tensor(rooms, dtype=torch.int64, device=device).reshape(-1, 5),
            torch.cat(orders, 1), torch.cat(stages), surroundings, predicted, largest,
        )  # fmt: skip


def _none(device: torch.device | str) -> Tensor:
    return torch.zeros(0, dtype=torch.int32, device=device)


def _ringed(shape: Place, ring: Sequence[int]) -> list[int]:
    """Extents with the ring."""
    return [n + 2 * int(r) for n, r in zip(shape, ring, strict=True)]


def skewed(extents: Sequence[int]) -> tuple[list[int], int]:
    """Distances between neighbours along each axis where sites of a stage at the same t lie side by side; and the sites of all stages."""
    _, n_z, n_y, n_x = extents
    plane, (_, by_z, by_y, _) = n_z * n_y, WEIGHTS
    all_stages = by_z * (n_z - 1) + by_y * (n_y - 1) + n_x
    return [all_stages * plane, by_z * plane + n_y, by_y * plane + 1, plane], extents[0] * all_stages * plane


@lru_cache(maxsize=16)
def _coding_order(
    shape: Place, lattice: Place, ring: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions stage by stage, in raster order within each; and where stages begin."""
    pitch, _ = skewed(_ringed(shape, ring))
    weight, ringed, away = (_dotted(shape, factors, device) for factors in (WEIGHTS, pitch, pitches(lattice)))
    found, order = torch.sort(weight, stable=True)
    last = sum((n - 1) * w for n, w in zip(shape, WEIGHTS, strict=True))
    numbers = torch.arange(last + 2, dtype=torch.int32, device=device)
    first = sum(d * int(r) for d, r in zip(pitch, ring, strict=True))
    return torch.stack([ringed[order] + first, away[order]]), torch.searchsorted(found, numbers, out_int32=True)


def _dotted(shape: Place, factors: Sequence[int], device: torch.device) -> Tensor:
    """Of every latent of a tile in raster order, its coordinates times factors."""
    found = torch.zeros(shape, dtype=torch.int32, device=device)
    for axis, (n, factor) in enumerate(zip(shape, factors, strict=True)):
        places = torch.arange(n, dtype=torch.int32, device=device) * factor
        found += places.reshape([-1 if a == axis else 1 for a in range(AXES)])
    return found.flatten()
