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

from ..recorded import Repeated
from . import triton_fit, triton_pointwise
from .context import IntegerContext, Tile, ring_of
from .layout import Box, Context, Layout, Place, Synthesis
from .triton_cases import compile_cases
from .triton_coding import decode_tiles
from .triton_context import DeviceContext
from .triton_parents import parents
from .triton_synthesis import DeviceSynthesis, synthesise_box
from .triton_tiles import DeviceTiles
from .workspace import Workspace

__all__ = [
    "DeviceContext",
    "DeviceSynthesis",
    "DeviceTiles",
    "adam_of",
    "box_of",
    "compile_cases",
    "decode_tiles",
    "distortion_of",
    "parents",
    "rate_of",
    "soften_of",
    "synthesise_box",
    "tiles_of",
]


def box_of(
    latents: Sequence[Any], origins: Sequence[Place], synthesis: Synthesis, layout: Layout, box: Box, device: str
) -> Any:
    """As `inrcodec_kernels.pyramid.synthesise_box`, of arrays or of tensors."""
    there = [_up(own, device) for own in latents]
    return _like(synthesise_box(there, origins, DeviceSynthesis.of(synthesis, layout, device), layout, box), latents[0])


def rate_of(
    latents: Sequence[Any], context: Context, layout: Layout, least: float, device: str, workspace: Workspace | None = None
) -> Any:
    """As `inrcodec_kernels.pyramid.rate`, of arrays or of tensors; tensors that are returned hold until the workspace is used again."""
    there, parameters, count = [_up(own, device) for own in latents], triton_fit.tensors(context, device), len(latents)

    def computed(*given: Tensor) -> Any:
        return triton_fit.rate(given[:count], Context(*given[count:]), layout, least)  # type: ignore[arg-type]

    workspace = workspace or Workspace()
    bits, gradients, of_context = workspace.once(("rate", least), lambda: Repeated(computed))([*there, *parameters])
    given = latents[0]
    return _like(bits, given), [_like(g, given) for g in gradients], Context(*(_like(g, given) for g in of_context))


def distortion_of(
    latents: Sequence[Any], synthesis: Synthesis, layout: Layout, target: Any, weights: Any, device: str,
    workspace: Workspace | None = None,
) -> Any:  # fmt: skip
    """As `inrcodec_kernels.pyramid.distortion`, of arrays or of tensors; tensors that are returned as by `rate_of`."""
    there, parameters, count = [_up(own, device) for own in latents], triton_fit.tensors(synthesis, device), len(latents)
    compared = [_up(each, device) for each in (target, weights) if each is not None]

    def computed(*given: Tensor) -> Any:
        (seen, *counted), own = given[count : count + len(compared)], given[count + len(compared) :]
        return triton_fit.distortion(given[:count], Synthesis(*own), layout, seen, *counted)  # type: ignore[arg-type]

    workspace, name = workspace or Workspace(), ("distortion", *(tuple(each.shape) for each in compared))
    squares, gradients, of_synthesis = workspace.once(name, lambda: Repeated(computed))([*there, *compared, *parameters])
    given = latents[0]
    total = squares if isinstance(given, Tensor) else float(squares)
    return total, [_like(g, given) for g in gradients], Synthesis(*(_like(g, given) for g in of_synthesis))


def soften_of(latents: Any, temperature: float, deviation: float, key: int, device: str) -> Any:
    """As `inrcodec_kernels.pyramid.soften`, of an array or of a tensor."""
    found = triton_pointwise.soften(_up(latents, device).contiguous(), temperature, deviation, key)
    return tuple(_like(each, latents) for each in found)


def adam_of(
    latents: Any, gradients: Any, moments: Sequence[Any], step: int, rate: float, decays: tuple[float, float],
    epsilon: float, device: str,
) -> None:  # fmt: skip
    """As `inrcodec_kernels.pyramid.adam`, of arrays or of tensors."""
    changed = [latents, *moments]
    own, *there = (_up(each, device) for each in changed)
    triton_pointwise.adam(own, _up(gradients, device).contiguous(), (there[0], there[1]), step, rate, decays, epsilon)
    for given, new in zip(changed, (own, *there), strict=True):
        if not isinstance(given, Tensor):
            given[...] = new.cpu().numpy()
        elif given is not new:
            given.copy_(new)


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
    lattice: Any = tuple(there.shape)
    level, _, _, present, u, v = tiles[0]
    coarser = [None if each is None else torch.as_tensor(each).to(device) for each in (u, v)]
    size = torch.tensor([len(body) for body in data], dtype=torch.int64)
    failed = decode_tiles(
        torch.from_numpy(np.concatenate(data)).to(device), (size.cumsum(0) - size).to(device), size.to(device),
        torch.tensor(lanes, dtype=torch.int32, device=device),
        DeviceTiles.of([t.start for t in tiles], [t.shape for t in tiles], lattice, ring_of(present, network.wide), device),
        level, DeviceContext.of(network, present, device), coarser[0], coarser[1], there,
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


def _like(found: Any, given: Any) -> Any:
    """A tensor for a tensor, an array for an array."""
    return found if isinstance(given, Tensor) else found.cpu().numpy()
