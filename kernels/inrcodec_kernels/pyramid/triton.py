"""The pyramid on CUDA devices. README.md and CODING.md have the mathematics and the design.

Triton decides when a kernel is decorated whether it is compiled or interpreted (``TRITON_INTERPRET=1``), so this module
is imported only when its backend has been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .context import IntegerContext, Tile
from .layout import Box, Layout, Place, Synthesis
from .triton_cases import compile_cases
from .triton_coding import DeviceContext, DeviceTiles, decode_tiles, parents
from .triton_synthesis import DeviceSynthesis, synthesise_box

__all__ = [
    "DeviceContext",
    "DeviceSynthesis",
    "DeviceTiles",
    "box_of",
    "compile_cases",
    "decode_tiles",
    "parents",
    "synthesise_box",
    "tiles_of",
]


def box_of(
    latents: Sequence[Any], origins: Sequence[Place], synthesis: Synthesis, layout: Layout, box: Box, device: str
) -> Any:
    """As `inrcodec_kernels.pyramid.synthesise_box`, of arrays or of tensors."""
    there = [_up(own, device) for own in latents]
    return _like(synthesise_box(there, origins, DeviceSynthesis.of(synthesis, layout, device), layout, box), latents[0])


def tiles_of(
    data: Sequence[NDArray[np.uint8]],
    tiles: Sequence[Tile],
    network: IntegerContext,
    lanes: Sequence[int],
    latents: Any,
    device: str,
) -> Any:
    """As `inrcodec_kernels.pyramid.decode_tiles`, into an array or a tensor, of at least one tile."""
    there = torch.as_tensor(latents).to(device)
    level, *_, u, v = tiles[0]
    coarser = [None if lattice is None else torch.as_tensor(lattice).to(device) for lattice in (u, v)]
    size = torch.tensor([len(body) for body in data], dtype=torch.int64)
    failed = decode_tiles(
        torch.from_numpy(np.concatenate(data)).to(device), (size.cumsum(0) - size).to(device), size.to(device),
        torch.tensor(lanes, dtype=torch.int32, device=device),
        DeviceTiles.of([t.start for t in tiles], [t.shape for t in tiles], tuple(there.shape), device),  # type: ignore[arg-type]
        level, DeviceContext.of(network, tiles[0].present, device), coarser[0], coarser[1], there,
    )  # fmt: skip
    if isinstance(latents, Tensor):
        if there is not latents:
            latents.copy_(there)
        return failed
    latents[...] = there.cpu().numpy()
    return failed.cpu().numpy()


def _up(values: Any, device: str) -> Tensor:
    """On the device, float32; a tensor that is there stays as it is."""
    return torch.as_tensor(values).to(device, torch.float32)


def _like(found: Tensor, given: Any) -> Any:
    """A tensor for a tensor, an array for an array."""
    return found if isinstance(given, Tensor) else found.cpu().numpy()
