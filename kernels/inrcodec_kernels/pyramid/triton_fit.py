"""Rate and distortion of a pyramid on CUDA devices with all gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..recorded import constant
from .layout import AXES, CENTRE, Context, Layout, Place, Synthesis, place_of
from .reference import LINEAR
from .triton_gradients import differentiated
from .triton_network import Net
from .triton_synthesis import centres, channels_of
from .triton_upsampling import downsampled, upsampled


def _inside(values: Tensor, ring: Place) -> Tensor:
    """Without the ring; the last four axes."""
    for axis, (r, n) in enumerate(zip(ring, values.shape[-AXES:], strict=True)):
        values = values.narrow(axis - AXES, r, n - 2 * r)
    return values


def _folded(gradients: Tensor, ring: Place) -> Tensor:
    """Without the ring, whose values repeat the edge: their gradients are the edge's."""
    for axis, (r, n) in enumerate(zip(ring, gradients.shape[-AXES:], strict=True)):
        axis -= AXES
        for place in range(r):
            gradients.narrow(axis, r, 1).add_(gradients.narrow(axis, place, 1))
            gradients.narrow(axis, n - r - 1, 1).add_(gradients.narrow(axis, n - place - 1, 1))
    return _inside(gradients, ring)


def rate(
    latents: Sequence[Tensor], context: Context, layout: Layout, least: float
) -> tuple[Tensor, list[Tensor], Context]:
    """As `inrcodec_kernels.pyramid.rate`, of tensors of float32; without waiting for the device.

    Parameters
    ----------
    latents : sequence of K Tensor
    context : Context
        Of tensors.
    layout : Layout
    least : float

    Returns
    -------
    bits : Tensor of float64, shape (K,)
    gradients : list of Tensor
    of_context : Context
        Of tensors.

    Raises
    ------
    ValueError
        If a level has 2^31 latents or more, with a ring.
    """
    linear = constant(LINEAR, torch.float32, latents[0].device)
    inputs = _context_inputs(latents, linear, layout)
    places = [*((0, tap) for tap in layout.causal), *((1, tap) for tap in layout.cross), (2, CENTRE)]
    found = []
    for k, (own, seen) in enumerate(zip(latents, inputs, strict=True)):
        net = Net(*context.of_level(k, layout.lattice[k]))  # type: ignore[arg-type]
        found.append(differentiated(seen, own.contiguous(), net, places, layout.context_reach, least))
    bits, gradients, sums = zip(*found, strict=True)
    whole = Context.of_levels(sums, layout.lattice, context.networks, torch.stack)  # type: ignore[arg-type]
    of_context = Context(*(part.float() for part in whole))  # type: ignore[attr-defined]
    return torch.stack(bits), _context_adjoint(gradients, linear, layout), of_context


def _context_inputs(latents: Sequence[Tensor], linear: Tensor, layout: Layout) -> list[Tensor]:
    """For every level its latents, U and V with a ring: 0 around latents, else the edge."""
    around, found = layout.context_reach, list[Tensor]()
    for k in reversed(range(layout.levels)):
        shape = layout.shapes[k]
        ringed = latents[k].new_zeros(3, *(n + 2 * r for n, r in zip(shape, around, strict=True)))
        _inside(ringed[0], around).copy_(latents[k])
        if found:
            sources = [latents[k + 1], _inside(found[0][1], around)][: layout.levels - 1 - k]
            stop = place_of(n + r for n, r in zip(shape, around, strict=True))
            box = place_of(-r for r in around), stop
            ringed[1 : 1 + len(sources)] = upsampled(torch.stack(sources), k, linear, layout, CENTRE, box)
        found.insert(0, ringed)
    return found


def _context_adjoint(gradients: Sequence[Tensor], linear: Tensor, layout: Layout) -> list[Tensor]:
    """Adjoint of `_context_inputs`; what it is given is changed."""
    found = [_inside(levels[0], layout.context_reach).clone() for levels in gradients]
    from_finer: Tensor | None = None
    for k in range(layout.levels - 1):
        given = _folded(gradients[k][1:], layout.context_reach).contiguous()
        if from_finer is not None:
            given[0] += from_finer
        back, _ = downsampled(given, k, linear, layout)
        found[k + 1] += back[0]
        from_finer = back[1]
    return found


def distortion(
    latents: Sequence[Tensor], synthesis: Synthesis, layout: Layout, target: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, list[Tensor], Synthesis]:
    """As `inrcodec_kernels.pyramid.distortion`, of tensors of float32; without waiting for the device.

    Parameters
    ----------
    latents : sequence of K Tensor
    synthesis : Synthesis
        Of tensors.
    layout : Layout
    target : Tensor
    weights : Tensor, optional

    Returns
    -------
    squares : Tensor of float64, shape ()
    gradients : list of Tensor
    of_synthesis : Synthesis
        Of tensors.

    Raises
    ------
    ValueError
        If the signal has 2^31 samples or more, with a ring.
    """
    parameters: list[Tensor] = [p.contiguous() for p in synthesis]  # type: ignore[attr-defined]
    gains, filters, first, first_bias, second, second_bias, last, last_bias, skips = parameters
    whole = (CENTRE, layout.shape)
    inputs, sources = channels_of(latents, [CENTRE] * layout.levels, gains, filters, layout, whole)
    middle = centres(layout, gains.device)
    skip = torch.zeros(len(first), device=gains.device).index_copy(0, middle, skips)
    net = Net(first, first_bias, second, second_bias, last[:, None], last_bias.reshape(1), skip[:, None])
    squares, gradients, sums = differentiated(inputs, target.contiguous(), net, list(layout.seen), layout.synthesis_reach, None, weights)
    by_scaled, of_filters = _channels_adjoint(gradients, sources, filters, layout)
    of_gains = torch.stack([(own.double() * by).sum() for own, by in zip(latents, by_scaled, strict=True)])
    of_skips = sums.skip[:, 0].index_select(0, middle)
    every = [of_gains, of_filters, *sums[:4], sums.last[:, 0], sums.last_bias[0], of_skips]
    of_synthesis = Synthesis(*(part.float() for part in every))  # type: ignore[arg-type]
    by_latents = [gain * by for gain, by in zip(gains, by_scaled, strict=True)]
    return squares, by_latents, of_synthesis


def _channels_adjoint(
    gradients: Tensor, sources: Sequence[Tensor], filters: Tensor, layout: Layout
) -> tuple[list[Tensor], Tensor]:
    """Gradients by the scaled latents and by the filters; `gradients` is changed."""
    whole, absent = layout.whole, len(layout.above)
    found = [] if absent else [_inside(gradients[0], layout.synthesis_reach).contiguous()]
    of_filters = torch.zeros(filters.shape, dtype=torch.float64, device=filters.device)
    given = _folded(gradients[0 if absent else 1 :], layout.synthesis_reach)
    for j, source in enumerate(sources):
        given, of_taps = downsampled(given.contiguous(), j, filters[j], whole, source)
        assert of_taps is not None
        of_filters[j] = of_taps
        if j + 1 >= absent:
            found.append(given[0])
            given = given[1:]
    return found, of_filters


def tensors(parameters: Any, device: torch.device | str) -> Any:
    """Parameters as tensors of float32 on a device."""
    return type(parameters)(*(torch.as_tensor(p).to(device, torch.float32) for p in parameters))
