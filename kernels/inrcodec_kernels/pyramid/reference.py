"""Plain definition of the pyramid's float operations, in torch. Any float dtype; torch differentiates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..siren.reference import mix
from .layout import AXES, CENTRE, Box, Context, Layout, Place, Synthesis, coarser_span, needed_of_all, place_of

SLOPE = 0.125
"""Slope of the leaky ReLU below zero."""
FLOOR = 1e-6
"""Added to every probability."""
MOST = 5.5
"""Upper limit of log2 of the scale."""
CUBIC = (-0.0234375, 0.2265625, 0.8671875, -0.0703125)
LINEAR = (0.0, 0.25, 0.75, 0.0)
"""Taps of an upsampling by two."""
NOISE_PARTS = 8
"""Bytes of two hashes that are summed to one Gaussian number."""
NOISE_DEVIATION = math.sqrt(NOISE_PARTS * (256**2 - 1) / 12)
"""Standard deviation of the sum of so many bytes."""

Parameters = TypeVar("Parameters", Context, Synthesis)


class Window(NamedTuple):
    """A part of a lattice: stored values from `origin` on, of a lattice of some extents."""

    values: Tensor
    origin: Place
    extents: Place


def upsample(source: Window, taps: Tensor, halved: Sequence[bool], box: Box) -> Tensor:
    """Values of a box on the next finer level; only halved axes are touched. Beyond the lattice its edge counts.

    Parameters
    ----------
    source : Window
        Covers what the box needs.
    taps : Tensor, shape (4,)
        ``f``: the even sample 2 i is ``f0 a[i-2] + f1 a[i-1] + f2 a[i] + f3 a[i+1]``, the odd one mirrors it.
    halved : sequence of 4 bool
    box : (start, stop)
    """
    values = source.values
    for axis in range(AXES):
        place = torch.arange(box[0][axis], box[1][axis])
        if not halved[axis]:
            values = values.index_select(axis, place - source.origin[axis])
            continue
        odd, total = place % 2, None
        for tap in range(4):
            index = (place // 2 - 2 + odd + tap).clamp(0, source.extents[axis] - 1) - source.origin[axis]
            weight = torch.where(odd == 1, taps[3 - tap], taps[tap]).reshape(
                [-1 if a == axis else 1 for a in range(AXES)]
            )
            part = weight * values.index_select(axis, index)
            total = part if total is None else total + part
        assert total is not None
        values = total
    return values


def seen(window: Window, box: Box, tap: Place, edge: bool) -> Tensor:
    """The value at a tap from every site of a box: beyond the lattice that of its edge, or else 0."""
    values = window.values
    for axis in range(AXES):
        place = torch.arange(box[0][axis], box[1][axis]) + tap[axis]
        inside = place.clamp(0, window.extents[axis] - 1)
        values = values.index_select(axis, inside - window.origin[axis])
        if not edge:
            values = values * (place == inside).to(values.dtype).reshape([-1 if a == axis else 1 for a in range(AXES)])
    return values


def leaky(values: Tensor) -> Tensor:
    """``max(v, v / 8)``."""
    return torch.maximum(values, SLOPE * values)


def laplace_bits(latents: Tensor, location: Tensor, log_scale: Tensor, least: float) -> Tensor:
    """Bits of latents under Laplace distributions integrated over a unit."""
    inverse = torch.exp2(-log_scale.clamp(least, MOST))
    above, below = (latents + 0.5 - location) * inverse, (latents - 0.5 - location) * inverse
    # Of both, the tail that is the smaller one: a difference of numbers near 1 would lose it.
    flip = torch.where(above + below > 0, -1.0, 1.0).to(latents.dtype)
    return -torch.log2((_cumulative(flip * above) - _cumulative(flip * below)).abs() + FLOOR)


def _cumulative(values: Tensor) -> Tensor:
    tail = 0.5 * torch.exp(-values.abs())
    return torch.where(values > 0, 1 - tail, tail)


def context_inputs(latents: Sequence[Tensor], layout: Layout, level: int, box: Box) -> Tensor:
    """What the context model sees from the latents of a box of a level, shape (..., n)."""
    shapes = layout.shapes
    own = Window(latents[level], (0, 0, 0, 0), shapes[level])
    around = _around(box, layout.context_reach, shapes[level])
    coarser = Window(_coarser(latents, layout, level, 1, around), around[0], shapes[level])
    inputs = [seen(own, box, tap, False) for tap in layout.causal] + [seen(coarser, box, tap, True) for tap in layout.cross]
    return torch.stack([*inputs, _coarser(latents, layout, level, 2, box)], -1)


def _coarser(latents: Sequence[Tensor], layout: Layout, level: int, further: int, box: Box) -> Tensor:
    """Latents so many levels further, upsampled to a box of a level; zeros where there are none."""
    if level + further >= layout.levels:
        return torch.zeros([b - a for a, b in zip(*box, strict=True)], dtype=latents[0].dtype)
    linear, extents = torch.tensor(LINEAR, dtype=latents[0].dtype), layout.shapes[level + 1]
    axes = zip(*box, extents, layout.steps[level], strict=True)
    spans = [coarser_span(a, b, n) if half else (a, b) for a, b, n, half in axes]
    near = place_of(a for a, _ in spans), place_of(b for _, b in spans)
    values = latents[level + 1][_inside(near)] if further == 1 else _coarser(latents, layout, level + 1, further - 1, near)
    return upsample(Window(values, near[0], extents), linear, layout.steps[level], box)


def _around(box: Box, reach: Place, extents: Place) -> Box:
    """A box with what lies around it within a lattice."""
    axes = [(max(0, a - r), min(n, b + r)) for a, b, r, n in zip(*box, reach, extents, strict=True)]
    return place_of(a for a, _ in axes), place_of(b for _, b in axes)


def _inside(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(*box, strict=True))


def bits(latents: Sequence[Tensor], context: Any, layout: Layout, least: float) -> Tensor:
    """Bits of every level, shape (K,); `context` holds tensors."""
    found = []
    for k, own in enumerate(latents):
        x = context_inputs(latents, layout, k, ((0, 0, 0, 0), layout.shapes[k]))
        first, first_bias, second, second_bias, last, last_bias, skip = context.of_level(k, layout.lattice[k])
        hidden = leaky(leaky(x @ first + first_bias) @ second + second_bias)
        location, log_scale = (hidden @ last + last_bias + x @ skip).unbind(-1)
        found.append(laplace_bits(own, location, log_scale, least).sum())
    return torch.stack(found)


def synthesis_inputs(
    latents: Sequence[Tensor], origins: Sequence[Place], synthesis: Any, layout: Layout, box: Box
) -> tuple[Tensor, Tensor]:
    """What the synthesis sees from the samples of a box, shape (..., n), and the centres of all channels, shape (..., K)."""
    whole, absent, boxes = layout.whole, len(layout.above), needed_of_all(layout, *box)
    channels: list[Tensor] = []
    for j in reversed(range(whole.levels)):
        if j + 1 < whole.levels:
            start, extents = boxes[j + 1][0], whole.shapes[j + 1]
            filters, halved = synthesis.filters[j], whole.halved[j]
            channels = [upsample(Window(c, start, extents), filters, halved, boxes[j]) for c in channels]
        if (k := j - absent) >= 0:
            inside = tuple(slice(a - o, b - o) for a, b, o in zip(*boxes[j], origins[k], strict=True))
            channels.insert(0, synthesis.gains[k] * latents[k][inside])
    windows = [Window(c, boxes[0][0], layout.shape) for c in channels]
    inputs = [seen(windows[k], box, tap, k + absent > 0) for k, tap in layout.seen]
    centres = [seen(window, box, CENTRE, True) for window in windows]
    return torch.stack(inputs, -1), torch.stack(centres, -1)


def samples(latents: Sequence[Tensor], origins: Sequence[Place], synthesis: Any, layout: Layout, box: Box) -> Tensor:
    """Samples of a box, in units of the step; `synthesis` holds tensors, and latents cover what the box needs."""
    x, centres = synthesis_inputs(latents, origins, synthesis, layout, box)
    hidden = leaky(leaky(x @ synthesis.first + synthesis.first_bias) @ synthesis.second + synthesis.second_bias)
    return hidden @ synthesis.last + synthesis.last_bias + centres @ synthesis.skips


def rate(
    latents: Sequence[NDArray[Any]], context: Context, layout: Layout, least: float
) -> tuple[NDArray[np.float64], list[NDArray[Any]], Context]:
    """As `inrcodec_kernels.pyramid.rate`, in the dtype of the arrays."""
    found, of_latents, of_context = _differentiated(lambda ys, p: bits(ys, p, layout, least), latents, context)
    return found.double().numpy(), of_latents, of_context


def distortion(
    latents: Sequence[NDArray[Any]],
    synthesis: Synthesis,
    layout: Layout,
    target: NDArray[Any],
    weights: NDArray[Any] | None = None,
) -> tuple[float, list[NDArray[Any]], Synthesis]:
    """As `inrcodec_kernels.pyramid.distortion`, in the dtype of the arrays."""
    origins: list[Place] = [(0, 0, 0, 0)] * layout.levels
    whole: Box = ((0, 0, 0, 0), layout.shape)
    wanted = torch.from_numpy(target)
    counted = torch.ones((), dtype=wanted.dtype) if weights is None else torch.from_numpy(weights).to(wanted.dtype)
    squares, of_latents, of_synthesis = _differentiated(
        lambda ys, p: (counted * (samples(ys, origins, p, layout, whole) - wanted).square()).sum(), latents, synthesis
    )
    return float(squares), of_latents, of_synthesis


def synthesise_box(
    latents: Sequence[NDArray[Any]], origins: Sequence[Place], synthesis: Synthesis, layout: Layout, box: Box
) -> NDArray[Any]:
    """As `inrcodec_kernels.pyramid.synthesise_box`, in the dtype of the arrays."""
    tensors = Synthesis(*map(torch.from_numpy, synthesis))  # type: ignore[arg-type]
    result: NDArray[Any] = samples([torch.from_numpy(y) for y in latents], origins, tensors, layout, box).numpy()
    return result


def _differentiated(
    operation: Callable[[list[Tensor], Any], Tensor], latents: Sequence[NDArray[Any]], parameters: Parameters
) -> tuple[Tensor, list[NDArray[Any]], Parameters]:
    """What an operation gives, and the gradients of its sum by latents and parameters."""
    leaves = [torch.from_numpy(np.asarray(a, order="C")).requires_grad_(True) for a in (*latents, *parameters)]
    count = len(latents)
    with torch.enable_grad():
        found = operation(leaves[:count], type(parameters)(*leaves[count:]))  # type: ignore[arg-type]
        gradients = torch.autograd.grad(found.sum(), leaves, materialize_grads=True)
    arrays = [g.numpy() for g in gradients]
    return found.detach(), arrays[:count], type(parameters)(*arrays[count:])


def noise(key: int, count: int) -> NDArray[np.int32]:
    """Sums of bytes of hashes less their mean: whole numbers, nearly Gaussian, of deviation `NOISE_DEVIATION`."""
    stream = mix(np.array([key % 2**32], dtype=np.uint32))
    number = np.arange(2 * count, dtype=np.uint32) * np.uint32(0x85EBCA77)
    hashes = mix(stream + number).view(np.uint8).reshape(count, NOISE_PARTS)
    return hashes.sum(1, dtype=np.int32) - np.int32(NOISE_PARTS * 255 // 2)


def soften(latents: NDArray[Any], temperature: float, deviation: float, key: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """As `inrcodec_kernels.pyramid.soften`, in the dtype of the array."""
    disturbance = noise(key, latents.size).reshape(latents.shape) * (deviation / NOISE_DEVIATION)
    once, slope = _soft_round(latents, temperature)
    twice, further = _soft_round(once + disturbance.astype(latents.dtype), temperature)
    return twice, slope * further


def _soft_round(values: NDArray[Any], temperature: float) -> tuple[NDArray[Any], NDArray[Any]]:
    middle = np.floor(values) + 0.5
    height = 0.5 / math.tanh(0.5 / temperature)
    bent = np.tanh((values - middle) / temperature)
    return middle + height * bent, height / temperature * (1 - bent * bent)


def adam(
    latents: NDArray[Any],
    gradients: NDArray[Any],
    moments: tuple[NDArray[Any], NDArray[Any]],
    step: int,
    rate: float,
    decays: tuple[float, float],
    epsilon: float,
) -> None:
    """As `inrcodec_kernels.pyramid.adam`, in the dtype of the arrays."""
    for moment, decay, new in zip(moments, decays, (gradients, gradients**2), strict=True):
        moment *= decay
        moment += (1 - decay) * new
    mean, square = (moment / (1 - decay**step) for moment, decay in zip(moments, decays, strict=True))
    latents -= rate * mean / (np.sqrt(square) + epsilon)
