"""Pyramids of latents: the rate of their context model, their synthesis, and steps of their fit. See README.md.

Without a device, "triton" runs compiled on the host. Functions that change nothing copy what is not on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import REFERENCE, Backend, compiled_on_host, on_device
from . import checks, reference
from .context import EXACT, IntegerContext, Tile, check_tile, largest_sums
from .context import check as check_context
from .context import ring_of as context_ring
from .context_coder import decoded_on_host, tile_coder
from .context_tables import neighbouring_bits
from .curvature import CONTEXT_ORDER, SITES, SYNTHESIS_ORDER, Sampling, context_curvature, synthesis_curvature
from .layout import ALL, CENTRE, NONE, Box, Context, Floats, Layout, Place, Synthesis, Turn, needed, network_of
from .reference import CUBIC, LINEAR
from .subbands import joined, joined_box, parted
from .workspace import Workspace

__all__ = [
    "ALL",
    "CONTEXT_ORDER",
    "CUBIC",
    "EXACT",
    "LINEAR",
    "NONE",
    "SITES",
    "SYNTHESIS_ORDER",
    "Box",
    "Context",
    "IntegerContext",
    "Layout",
    "Place",
    "Sampling",
    "Synthesis",
    "Tile",
    "Turn",
    "Workspace",
    "adam",
    "check_context",
    "context_curvature",
    "context_ring",
    "decode_tiles",
    "device_pyramid",
    "distortion",
    "joined",
    "joined_box",
    "largest_sums",
    "needed",
    "neighbouring_bits",
    "network_of",
    "pace",
    "parted",
    "rate",
    "soften",
    "synthesis_curvature",
    "synthesise",
    "synthesise_box",
    "tile_coder",
]


def rate(
    latents: Sequence[Floats],
    context: Context,
    layout: Layout,
    least: float,
    backend: Backend = REFERENCE,
    workspace: Workspace | None = None,
    turn: Turn = ALL,
) -> tuple[NDArray[np.float64], list[Floats], Context]:
    """Bits of latents under the context model, and the gradients of their sum.

    Parameters
    ----------
    latents : sequence of K ndarray of float32, shapes `layout.shapes`
        The finest level first.
    context : Context
    layout : Layout
    least : float
        Lower limit of log2 of the scale.
    backend : Backend
        With "triton", tensors may stand for arrays; then all results are tensors.
    workspace : Workspace, optional
        Of calls one after the other with the same layout, compiled loops keep their arrays there, and devices recordings of
        their kernels; tensors that are returned then hold until the next such call.
    turn : Turn
        For compiled loops, which samples of large levels the gradients of parameters are taken from; elsewhere it is from all.

    Returns
    -------
    bits : ndarray of float64, shape (K,)
    gradients : list of ndarray, shapes of the latents
        By the latents, as symbols and as contexts of others.
    of_context : Context
        By the parameters.

    Raises
    ------
    ValueError
        If shapes do not fit the layout.
    """
    checks.check_latents(latents, layout.shapes)
    checks.check_context(context, layout)
    if on_device(backend):
        from . import triton

        return triton.rate_of(latents, context, layout, least, backend.device, workspace)
    if compiled_on_host(backend):
        from . import cpu

        return cpu.rate(_whole(latents), context, layout, least, workspace or Workspace(), turn)
    return reference.rate(latents, context, layout, least)


def pace(width: int, above: int = 0, wide: bool = False, backend: Backend = REFERENCE) -> float:
    """Steps of `rate` and `distortion` in the time that the largest usual networks take for one on a processor with AVX2; 1 on devices.

    Parameters
    ----------
    width : int
        Of the context model's hidden layers.
    above : int
        Lattices without latents.
    wide : bool
        Whether contexts see further.
    """
    if on_device(backend) or not compiled_on_host(backend):
        return 1.0
    from .networks import pace as of_processor

    return of_processor(width, above, wide)


def distortion(
    latents: Sequence[Floats],
    synthesis: Synthesis,
    layout: Layout,
    target: Floats,
    backend: Backend = REFERENCE,
    weights: Floats | None = None,
    workspace: Workspace | None = None,
    turn: Turn = ALL,
) -> tuple[float, list[Floats], Synthesis]:
    """Sum of squared errors of the synthesis, each times its weight, and its gradients.

    Parameters
    ----------
    latents : sequence of K ndarray of float32, shapes `layout.shapes`
    synthesis : Synthesis
    layout : Layout
    target : ndarray of float32, shape `layout.shape`
        Samples in units of the step, less the offset.
    backend : Backend
        With "triton", tensors may stand for arrays; then all results are tensors.
    weights : ndarray of float32, shape `layout.shape`, or 1 along some axes, optional
        What a squared error counts; along an axis of extent 1 they are the same. Without, all count 1.
    workspace : Workspace, optional
        As for `rate`; the same one serves both.
    turn : Turn
        As for `rate`; with `Turn.lines` the sum and its gradients are those of some lines, so many times. Only compiled loops leave any out.

    Returns
    -------
    squares : float
    gradients : list of ndarray, shapes of the latents
    of_synthesis : Synthesis
        By the parameters.

    Raises
    ------
    ValueError
        If shapes do not fit the layout.
    """
    checks.check_latents([*latents, target], [*layout.shapes, layout.shape])
    checks.check_synthesis(synthesis, layout)
    checks.check_weights(weights, layout)
    workspace, channels = workspace or Workspace(), layout.channels
    whole = joined(latents, layout, backend, workspace)
    if on_device(backend):
        from . import triton

        squares, gradients, of = triton.distortion_of(whole, synthesis, channels, target, weights, backend.device, workspace)
    elif compiled_on_host(backend):
        from . import cpu

        squares, gradients, of = cpu.distortion(_whole(whole), synthesis, channels, target, weights, workspace, turn, layout.thinned)
    else:
        squares, gradients, of = reference.distortion(whole, synthesis, channels, target, weights)
    return squares, parted(gradients, layout, backend, workspace), of


def synthesise(latents: Sequence[Floats], synthesis: Synthesis, layout: Layout, backend: Backend = REFERENCE) -> Floats:
    """All samples, in units of the step; parameters and errors as `synthesise_box`."""
    return synthesise_box(latents, [CENTRE] * layout.levels, synthesis, layout, CENTRE, layout.shape, backend)


def synthesise_box(
    latents: Sequence[Floats],
    origins: Sequence[Place],
    synthesis: Synthesis,
    layout: Layout,
    start: Place,
    stop: Place,
    backend: Backend = REFERENCE,
) -> Floats:
    """Samples of a box, in units of the step: the same, to the last bit, as those of any other box.

    Parameters
    ----------
    latents : sequence of K ndarray of float32
        Of every level a part that holds what `needed` says.
    origins : sequence of K tuples of 4 int
        Index, in its lattice, of each array's first latent.
    synthesis : Synthesis
    layout : Layout
    start, stop : tuple of 4 int
        The box, within the signal.
    backend : Backend
        With "triton", tensors may stand for arrays; then the result is one.

    Returns
    -------
    ndarray of float32, shape ``stop - start``

    Raises
    ------
    ValueError
        If the box is empty or leaves the signal, if latents are missing, or if shapes do not fit the layout.
    """
    boxes = needed(layout, start, stop)
    checks.check_synthesis(synthesis, layout)
    checks.check_held(latents, origins, boxes)
    parts, places = joined_box(latents, origins, layout, start, stop, backend)
    if on_device(backend):
        from . import triton

        return triton.box_of(parts, places, synthesis, layout.channels, (start, stop), backend.device)
    if compiled_on_host(backend):
        from . import cpu

        return cpu.synthesise_box(parts, places, synthesis, layout.channels, (start, stop))
    return reference.synthesise_box(parts, places, synthesis, layout.channels, (start, stop))


def soften(
    latents: Floats, temperature: float, deviation: float, key: int, backend: Backend = REFERENCE
) -> tuple[Floats, Floats]:
    """Round softly, add Gaussian noise, and round softly again.

    Soft rounding with temperature T is ``floor(y) + 1/2 + tanh((y - floor(y) - 1/2) / T) / (2 tanh(1 / (2 T)))``.

    Parameters
    ----------
    latents : ndarray of float32
    temperature : float
        Towards 0 it is rounding, towards infinity nothing.
    deviation : float
        Of the noise, which depends on the key and on the number of the latent alone.
    key : int
    backend : Backend
        With "triton", tensors may stand for arrays; then all results are tensors.

    Returns
    -------
    values : ndarray of float32
    slopes : ndarray of float32
        Derivatives by the latents.

    Raises
    ------
    ValueError
        If the temperature is not positive.

    References
    ----------
    Agustsson & Theis 2020, arXiv:2006.09952.
    """
    if not temperature > 0:
        raise ValueError(f"expected a positive temperature, found {temperature}; round latents if they are to be whole")
    if on_device(backend):
        from . import triton

        return triton.soften_of(latents, temperature, deviation, key, backend.device)
    if compiled_on_host(backend):
        from . import pointwise

        return pointwise.soften(np.ascontiguousarray(latents), temperature, deviation, key)
    return reference.soften(latents, temperature, deviation, key)


def adam(
    latents: Floats,
    gradients: Floats,
    moments: tuple[Floats, Floats],
    step: int,
    rate: float,
    decays: tuple[float, float] = (0.9, 0.99),
    epsilon: float = 1e-12,
    backend: Backend = REFERENCE,
) -> None:
    """A step of Adam, in place.

    Parameters
    ----------
    latents : ndarray of float32
        Changed.
    gradients : ndarray of float32, shape of the latents
    moments : tuple of 2 ndarray of float32, shape of the latents
        Running means of the gradients and of their squares, zeros before the first step. Changed.
    step : int
        Number of the step; the first is 1.
    rate : float
        Learning rate.
    decays : tuple of 2 float
        Of the moments.
    epsilon : float
    backend : Backend
        With "triton", tensors may stand for arrays; then all results are tensors.

    Raises
    ------
    ValueError
        If shapes differ, if an array that is changed is not contiguous, or if the step's number is not positive.

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980.
    """
    if any(a.shape != latents.shape for a in (gradients, *moments)) or step < 1:
        raise ValueError(
            f"expected arrays of shape {latents.shape} and a step from 1 on, found step {step}; keep one for each"
        )
    if not all(_contiguous(a) for a in (latents, *moments)):
        raise ValueError("expected contiguous latents and moments, found a view; copy it")
    if on_device(backend):
        from . import triton

        triton.adam_of(latents, gradients, moments, step, rate, decays, epsilon, backend.device)
    elif compiled_on_host(backend):
        from . import pointwise

        pointwise.adam(latents, np.ascontiguousarray(gradients), moments, step, rate, decays, epsilon)
    else:
        reference.adam(latents, gradients, moments, step, rate, decays, epsilon)


def decode_tiles(
    data: Sequence[NDArray[np.uint8]],
    tiles: Sequence[Tile],
    network: IntegerContext,
    lanes: Sequence[int],
    latents: NDArray[np.int32],
    backend: Backend = REFERENCE,
) -> NDArray[np.bool_]:
    """Decode tiles of one level into its lattice; on a device all at once.

    Parameters
    ----------
    data : sequence of ndarray of uint8
        Bytes of each tile.
    tiles : sequence of Tile
        All with the same level, axes, U and V, arrays or tensors; they share no latents.
    network : IntegerContext
        Checked by `check_context`.
    lanes : sequence of int
        1..256 of each tile; where one has more than 32, or the network more than 32 hidden numbers, tiles are decoded
        on the CPU, for a device has a thread of one warp for each.
    latents : ndarray, or Tensor with "triton", of int32, the lattice
        Gets the tiles' latents; undefined where a tile fails.
    backend : Backend

    Returns
    -------
    ndarray, or Tensor where the latents are one, of bool
        Tiles that the encoder cannot have written.

    Raises
    ------
    ValueError
        If tiles and network do not fit each other.
    """
    for tile in tiles:
        check_tile(tile, network)
    if tiles and on_device(backend) and max(lanes) <= 32 and len(network.second) <= 32:
        from . import triton

        return triton.tiles_of(data, tiles, network, lanes, latents, backend.device)
    return decoded_on_host(data, tiles, network, lanes, latents, backend)


def device_pyramid() -> ModuleType:
    """The module whose `parents`, `decode_tiles` and `synthesise_box` keep all on a device; only asking imports Triton."""
    from . import triton

    return triton


def _contiguous(values: Any) -> bool:
    """Of an array, or of a tensor."""
    return bool(values.flags.c_contiguous if isinstance(values, np.ndarray) else values.is_contiguous())


def _whole(latents: Sequence[Floats]) -> list[Floats]:
    return [np.ascontiguousarray(own, np.float32) for own in latents]
