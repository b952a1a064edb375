"""Tiles of one level on CUDA devices, and the order in which their latents are decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .context import WEIGHTS
from .layout import AXES, Place
from .triton_synthesis import pitches


@dataclass(frozen=True)
class DeviceTiles:
    """Tiles of one level on a device, and the order in which their latents are decoded.

    A tile's surroundings are three arrays of its extents and a ring of one site: its latents, U and V.

    Attributes
    ----------
    lattice : tuple of 4 int
        Extents of the level.
    places : Tensor of int32, shape (T, 8)
        First latent, and extents.
    rooms : Tensor of int64, shape (T, 5)
        Where a tile's latents and stages begin in the two below, how many stages there are, and where its surroundings
        and what is predicted begin among those of all tiles.
    order : Tensor of int32, shape (2, n)
        In coding order, where a latent lies in its surroundings, and in the lattice from the tile's first latent on:
        one list for all tiles of the same extents.
    stages : Tensor of int32
        Where in its list each stage begins, and the end.
    surroundings, predicted : int
        Numbers that all surroundings have, and all tiles.
    """

    lattice: Place
    places: Tensor
    rooms: Tensor
    order: Tensor
    stages: Tensor
    surroundings: int
    predicted: int

    @classmethod
    def of(
        cls, starts: Sequence[Place], shapes: Sequence[Place], lattice: Place, device: torch.device | str
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
        orders, stages, rooms, done = [_none(device).reshape(2, 0)], [_none(device)], [], np.zeros(4, np.int64)
        for shape in shapes:
            if shape not in known:
                order, begin = _coding_order(shape, lattice, torch.device(device))
                known[shape] = [*done[:2].tolist(), len(begin) - 1]
                done += [order.shape[1], len(begin), 0, 0]
                orders.append(order)
                stages.append(begin)
            rooms.append([*known[shape], *done[2:].tolist()])
            done += [0, 0, 3 * math.prod(n + 2 for n in shape), math.prod(shape)]
        places = [[*start, *shape] for start, shape in zip(starts, shapes, strict=True)]
        return cls(
            lattice, torch.tensor(places, dtype=torch.int32, device=device).reshape(-1, 2 * AXES),
            torch.tensor(rooms, dtype=torch.int64, device=device).reshape(-1, 5),
            torch.cat(orders, 1), torch.cat(stages), *done[2:].tolist(),
        )  # fmt: skip


def _none(device: torch.device | str) -> Tensor:
    return torch.zeros(0, dtype=torch.int32, device=device)


def _coding_order(shape: Place, lattice: Place, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions stage by stage, in raster order within each; and where stages begin."""
    weight, ringed, away = (
        _dotted(shape, factors, device) for factors in (WEIGHTS, pitches([n + 2 for n in shape]), pitches(lattice))
    )
    found, order = torch.sort(weight, stable=True)
    last = sum((n - 1) * w for n, w in zip(shape, WEIGHTS, strict=True))
    numbers = torch.arange(last + 2, dtype=torch.int32, device=device)
    first = sum(pitches([n + 2 for n in shape]))
    return torch.stack([ringed[order] + first, away[order]]), torch.searchsorted(found, numbers, out_int32=True)


def _dotted(shape: Place, factors: Sequence[int], device: torch.device) -> Tensor:
    """Of every latent of a tile in raster order, its coordinates times factors."""
    found = torch.zeros(shape, dtype=torch.int32, device=device)
    for axis, (n, factor) in enumerate(zip(shape, factors, strict=True)):
        places = torch.arange(n, dtype=torch.int32, device=device) * factor
        found += places.reshape([-1 if a == axis else 1 for a in range(AXES)])
    return found.flatten()
