"""Rate and distortion of a pyramid on CUDA devices with all gradients, and the steps of its fit.

A thread takes a site forward and all the way back. Gradients by its inputs are stored once for each tap, and every site
then sums those of the taps that saw it; hidden numbers and their gradients are stored once, and multiplied for the
gradients of matrices. No sum depends on the order in which programs run.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..siren.reference import mix as mix_on_host
from ..siren.triton_network import mix
from .layout import AXES, CENTRE, Context, Layout, Place, Synthesis, place_of
from .reference import FLOOR, LINEAR, MOST, NOISE_DEVIATION, NOISE_PARTS, SLOPE
from .triton_synthesis import centres, channels_of, padded, pitches, ring, shifts, taps
from .triton_upsampling import downsampled, on, upsampled

TILE = 128
"""Sites of a program that runs the network."""
FEW = 64
"""Sites whose gradients of matrices are added at a time: with twice as many, a thread's registers do not do."""
WARPS = 4
SPAN = 1 << 18
"""Sites whose hidden numbers and gradients are held at a time: up to 200 numbers each."""
PROGRAMS = 256
"""Programs that sum gradients of matrices; a constant, so that sums do not depend on the device."""
PRECISION = "tf32x3"
"""How their sums are multiplied: three products of 11 bits instead of one of 24."""
PART = 1024
"""Numbers of a program where there is nothing but them."""
_LEAST_EDGE = 16
"""What tl.dot wants of every extent of a matrix."""

_SLOPE, _FLOOR, _MOST = (tl.constexpr(n) for n in (SLOPE, FLOOR, MOST))
_LOG2_E, _LN_2 = tl.constexpr(1 / math.log(2)), tl.constexpr(math.log(2))
_MEAN = tl.constexpr(NOISE_PARTS * 255 // 2)


class Net(NamedTuple):
    """A network of n inputs, layers of C and D and one output or two.

    Attributes
    ----------
    first : Tensor, shape (n, C)
    first_bias : Tensor, shape (C,)
    second : Tensor, shape (C, D)
    second_bias : Tensor, shape (D,)
    last : Tensor, shape (D, outputs)
    last_bias : Tensor, shape (outputs,)
    skip : Tensor, shape (n, outputs)
        From the inputs to the outputs.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    last_bias: Tensor
    skip: Tensor

    def packed(self) -> list[Tensor]:
        """As the kernel reads them: inputs and D padded to powers of two."""
        inputs, thick = (triton.next_power_of_2(len(layer)) for layer in (self.first, self.last))
        return [
            padded(self.first.T, inputs), self.first_bias.contiguous(), padded(self.second, thick),
            padded(self.second_bias, thick), padded(self.last.T, thick), self.last_bias.contiguous(),
            padded(self.skip.T, inputs),
        ]  # fmt: skip


@triton.jit
def _leaky(values):
    return tl.maximum(values, values * _SLOPE)


@triton.jit
def _through(gradient, values):
    """A gradient by values from one by what `_leaky` made of them."""
    return tl.where(values > 0, gradient, gradient * _SLOPE)


@triton.jit
def _laplace(latent, location, scale, least):
    """Bits of latents, and their derivatives by location and log2 scale; `laplace.py` has the formulas."""
    limited = tl.minimum(tl.maximum(scale, least), _MOST)
    inverse = tl.exp2(-limited)
    distance = latent - location
    above, below = tl.abs(distance) + 0.5, tl.abs(distance) - 0.5
    near, far = tl.exp2(-tl.abs(below) * inverse * _LOG2_E), tl.exp2(-above * inverse * _LOG2_E)
    probability = tl.where(below >= 0, 0.5 * near, 1 - 0.5 * near) - 0.5 * far + _FLOOR
    share = 0.5 * inverse / probability
    by_distance = share * _LOG2_E * (near - far)
    by_scale = tl.where(limited == scale, share * (above * far - below * near), 0.0)
    return -tl.log2(probability), tl.where(distance < 0, by_distance, -by_distance), by_scale


@triton.jit
def network_kernel(
    inputs, shift, target, first, first_bias, second, second_bias, last, last_bias, skip, by_inputs, hidden, totals,
    begin, end, used, e_t, e_z, e_y, e_x, r_t, r_z, r_y, r_x, width, thick, least,
    N: tl.constexpr, D: tl.constexpr, RATE: tl.constexpr, TILE: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """TILE of the sites `begin` .. `end`, forward and back: a thread has one with all inputs and one hidden layer.

    Stored are, site by site, gradients by the inputs, and one after the other both hidden layers, the gradients by them
    and those by the outputs. Sites of the ring have gradients of 0. With RATE, the input after the last one is the
    latent itself.
    """
    index = tl.program_id(0) * TILE + tl.arange(0, TILE)
    position = begin + index
    line = position // e_x
    plane = line // e_y
    t, z, y, x = plane // e_z - r_t, plane % e_z - r_z, line % e_y - r_y, position % e_x - r_x
    n_t, n_z, n_y, n_x = e_t - 2 * r_t, e_z - 2 * r_z, e_y - 2 * r_y, e_x - 2 * r_x
    here = (t >= 0) & (z >= 0) & (y >= 0) & (x >= 0) & (t < n_t) & (z < n_z) & (y < n_y) & (x < n_x)
    some = position < end
    here = here & some
    tap, channel = tl.arange(0, N), tl.arange(0, D)
    away = tl.load(shift + tap)[:, None]
    seen = tl.load(inputs + (position.to(tl.int64)[None, :] + away), mask=here[None, :], other=0.0)
    wanted = tl.load(target + (((t * n_z + z) * n_y + y) * n_x + x), mask=here, other=0.0)
    # Where a site's numbers of the layers begin.
    one_at, two_at = hidden + index, hidden + width * SPAN + index
    by_one_at, by_two_at = two_at + thick * SPAN, two_at + (thick + width) * SPAN
    given_at = by_two_at + thick * SPAN
    rows, stored = channel[:, None] * SPAN, some[None, :] & (channel < thick)[:, None]

    layer = tl.zeros((D, TILE), dtype=tl.float32) + tl.load(second_bias + channel)[:, None]
    for c in range(width):
        one = _leaky(tl.sum(tl.load(first + c * N + tap)[:, None] * seen, 0) + tl.load(first_bias + c))
        tl.store(one_at + c * SPAN, one, mask=some)
        layer += tl.load(second + c * D + channel)[:, None] * one[None, :]
    layer = _leaky(layer)
    tl.store(two_at[None, :] + rows, layer, mask=stored)
    value = tl.sum(tl.load(last + channel)[:, None] * layer, 0) + tl.load(last_bias)
    value += tl.sum(tl.load(skip + tap)[:, None] * seen, 0)
    if RATE:
        scale = tl.sum(tl.load(last + D + channel)[:, None] * layer, 0) + tl.load(last_bias + 1)
        scale += tl.sum(tl.load(skip + N + tap)[:, None] * seen, 0)
        lost, by_value, by_scale = _laplace(wanted, value, scale, least)
        by_value, by_scale = tl.where(here, by_value, 0.0), tl.where(here, by_scale, 0.0)
        # As a symbol, a latent moves against its location.
        tl.store(by_inputs + used * SPAN + index, -by_value, mask=some)
        tl.store(given_at + SPAN, by_scale, mask=some)
    else:
        error = tl.where(here, value - wanted, 0.0)
        lost, by_value, by_scale = error * error, 2 * error, error
    tl.store(totals + tl.program_id(0), tl.sum(tl.where(here, lost, 0.0), 0).to(tl.float64))
    tl.store(given_at, by_value, mask=some)

    by_layer = tl.load(last + channel)[:, None] * by_value[None, :]
    back = tl.load(skip + tap)[:, None] * by_value[None, :]
    if RATE:
        by_layer += tl.load(last + D + channel)[:, None] * by_scale[None, :]
        back += tl.load(skip + N + tap)[:, None] * by_scale[None, :]
    by_layer = _through(by_layer, layer)
    tl.store(by_two_at[None, :] + rows, by_layer, mask=stored)
    # Whichever thread reads the first layer again, it is there.
    tl.debug_barrier()
    for c in range(width):
        by_one = tl.sum(tl.load(second + c * D + channel)[:, None] * by_layer, 0)
        by_one = _through(by_one, tl.load(one_at + c * SPAN, mask=some, other=0.0))
        tl.store(by_one_at + c * SPAN, by_one, mask=some)
        back += tl.load(first + c * N + tap)[:, None] * by_one[None, :]
    tl.store(by_inputs + tap[:, None] * SPAN + index[None, :], back, mask=some[None, :] & (tap < used)[:, None])


@triton.jit
def products_kernel(
    left, shift, right, products, sums, lefts, rights, begin, size, count,
    A: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr, SPAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over every ``num_programs(0)``-th tile: of all products of left and right numbers, and of right ones."""
    program = tl.program_id(0)
    row, column = tl.arange(0, A), tl.arange(0, B)
    away = tl.load(shift + row, mask=row < lefts, other=0)
    found, total = tl.zeros((A, B), tl.float32), tl.zeros((B,), tl.float32)
    for start in range(program * TILE, count, tl.num_programs(0) * TILE):
        index = start + tl.arange(0, TILE)
        some = index < count
        place = (begin + index).to(tl.int64)[:, None] + away[None, :]
        # What lies beyond the array is a tap of a site of the ring, which has no gradients.
        inside = some[:, None] & (row < lefts)[None, :] & (place >= 0) & (place < size)
        mine = tl.load(left + place, mask=inside, other=0.0)
        others = tl.load(
            right + column[None, :] * SPAN + index[:, None], mask=some[:, None] & (column < rights)[None, :], other=0.0
        )
        found += tl.dot(tl.trans(mine), others, input_precision=PRECISION)
        total += tl.sum(others, 0)
    tl.store(products + program * (A * B) + row[:, None] * B + column[None, :], found)
    tl.store(sums + program * B + column, total)


@triton.jit
def gather_kernel(
    by_inputs, gradients, number, shift, ends, begin, end, low, high, size, PART: tl.constexpr, SPAN: tl.constexpr
):  # fmt: skip
    """Add to sites `low` .. `high` of one channel what the taps on it have, at positions `begin` .. `end`."""
    channel = tl.program_id(1)
    site = low + tl.program_id(0) * PART + tl.arange(0, PART)
    inside = site < high
    where = gradients + channel.to(tl.int64) * size + site
    total = tl.load(where, mask=inside, other=0.0)
    for i in range(tl.load(ends + channel), tl.load(ends + channel + 1)):
        position = site - tl.load(shift + i)
        seen = inside & (position >= begin) & (position < end)
        total += tl.load(by_inputs + (tl.load(number + i) * SPAN + position - begin), mask=seen, other=0.0)
    tl.store(where, total, mask=inside)


def _differentiated(
    inputs: Tensor, target: Tensor, net: Net, places: Sequence[tuple[int, Place]], layout: Layout, least: float | None
) -> tuple[Tensor, Tensor, Net]:
    """Run a network at all sites of a level.

    Parameters
    ----------
    inputs : Tensor, shape (channels, extents with a ring)
    target : Tensor, shape (extents,)
        Latents, or samples.
    net : Net
    places : sequence of (channel, offset)
        Of every input.
    layout : Layout
    least : float or None
        For a rate; without, it is a distortion.

    Returns
    -------
    total : Tensor of float64, shape ()
        Bits, or squared errors.
    gradients : Tensor, shape of the inputs
    by_net : Net of float64
        Gradients by the network.

    Raises
    ------
    ValueError
        If there are 2^31 sites or more, with the ring.
    """
    extents, size = inputs.shape[1:], math.prod(inputs.shape[1:])
    if size + SPAN >= 1 << 31:
        raise ValueError(f"expected fewer than 2^31 sites with a ring, found {tuple(extents)}; fit on the CPU")
    span, is_rate = min(SPAN, triton.next_power_of_2(size)), least is not None
    packed, (width, thick), outs = net.packed(), net.second.shape, len(net.last_bias)
    shift = shifts(places, extents, packed[0].shape[1], inputs.device)
    number, distance, ends = _taps_by_channel(places, len(inputs), extents, own=is_rate)
    lists = [torch.tensor(a, dtype=torch.int32, device=inputs.device) for a in (number, distance, ends)]
    reach, gradients = max(map(abs, distance), default=0), torch.zeros_like(inputs)
    by_inputs, hidden = inputs.new_empty(len(places) + 1, span), inputs.new_empty(2 * (width + thick) + outs, span)
    one, two, by_one, by_two, given = hidden.split([width, thick, width, thick, outs])
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    by_net = Net(*(torch.zeros(layer.shape, dtype=torch.float64, device=inputs.device) for layer in net))
    rows = torch.arange(max(width, thick), device=inputs.device) * span
    for begin in range(0, size, span):
        end = min(size, begin + span)
        count, low, high = end - begin, max(0, begin - reach), min(size, end + reach)
        totals = torch.empty(triton.cdiv(count, TILE), dtype=torch.float64, device=inputs.device)
        with on(inputs):
            network_kernel[(len(totals),)](
                inputs, shift, target, *packed, by_inputs, hidden, totals, begin, end, len(places),
                *extents, *ring(layout), width, thick, 0.0 if least is None else float(least),
                packed[0].shape[1], packed[2].shape[1], is_rate, TILE, span, num_warps=WARPS,
            )  # fmt: skip
            gather_kernel[(triton.cdiv(high - low, PART), len(inputs))](
                by_inputs, gradients, *lists, begin, end, low, high, size, PART, span
            )
        total += totals.sum()
        _add_products(by_net.first, by_net.first_bias, inputs, shift, by_one, begin, count)
        _add_products(by_net.skip, by_net.last_bias, inputs, shift, given, begin, count)
        _add_products(by_net.second, by_net.second_bias, one, rows, by_two, 0, count)
        _add_products(by_net.last, None, two, rows, given, 0, count)
    return total, gradients, by_net


def _add_products(
    matrix: Tensor, bias: Tensor | None, left: Tensor, shift: Tensor, right: Tensor, begin: int, count: int
) -> None:
    """Add gradients: of a matrix, of what went in and the gradients of what came out; and of the bias."""
    (lefts, rights), span = matrix.shape, right.shape[1]
    edges = [max(_LEAST_EDGE, triton.next_power_of_2(n)) for n in (lefts, rights)]
    programs = min(PROGRAMS, triton.cdiv(count, FEW))
    products, sums = right.new_empty(programs, *edges), right.new_empty(programs, edges[1])
    with on(right):
        products_kernel[(programs,)](
            left, shift, right, products, sums, lefts, rights, begin, left.numel(), count, *edges, FEW, span, PRECISION,
            num_warps=WARPS,
        )  # fmt: skip
    matrix += products.sum(0, dtype=torch.float64)[:lefts, :rights]
    if bias is not None:
        bias += sums.sum(0, dtype=torch.float64)[:rights]


def _taps_by_channel(
    places: Sequence[tuple[int, Place]], channels: int, extents: Sequence[int], own: bool
) -> tuple[list[int], list[int], list[int]]:
    """Numbers and distances of the inputs on each channel, one channel after the other, and where each begins."""
    pitch, every = pitches(extents), list(places) + [(0, CENTRE)] * own
    number = sorted(range(len(every)), key=lambda i: every[i][0])
    ends = [sum(channel < c for channel, _ in every) for c in range(channels + 1)]
    return number, [int(np.dot(every[i][1], pitch)) for i in number], ends


def _inside(values: Tensor, layout: Layout) -> Tensor:
    """Without the ring; the last four axes."""
    for axis, (r, n) in enumerate(zip(ring(layout), values.shape[-AXES:], strict=True)):
        values = values.narrow(axis - AXES, r, n - 2 * r)
    return values


def _folded(gradients: Tensor, layout: Layout) -> Tensor:
    """Without the ring, whose values repeat the edge: their gradients are the edge's."""
    for axis in layout.present:
        axis -= AXES
        n = gradients.shape[axis]
        gradients.narrow(axis, 1, 1).add_(gradients.narrow(axis, 0, 1))
        gradients.narrow(axis, n - 2, 1).add_(gradients.narrow(axis, n - 1, 1))
    return _inside(gradients, layout)


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
    linear = torch.tensor(LINEAR, device=latents[0].device)
    inputs = _context_inputs(latents, linear, layout)
    first, level_bias, *others = context
    places = [*((0, tap) for tap in layout.causal), *((1, tap) for tap in layout.cross), (2, CENTRE)]
    found = []
    for k, (own, seen) in enumerate(zip(latents, inputs, strict=True)):
        net = Net(first, level_bias[k], *others)  # type: ignore[arg-type]
        found.append(_differentiated(seen, own.contiguous(), net, places, layout, least))
    bits, gradients, sums = zip(*found, strict=True)
    whole = [sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True)]
    whole[1] = torch.stack([parts[1] for parts in sums])
    of_context = Context(*(part.float() for part in whole))
    return torch.stack(bits), _context_adjoint(gradients, linear, layout), of_context


def _context_inputs(latents: Sequence[Tensor], linear: Tensor, layout: Layout) -> list[Tensor]:
    """For every level its latents, U and V with a ring: 0 around latents, else the edge."""
    around, found = ring(layout), list[Tensor]()
    for k in reversed(range(layout.levels)):
        shape = layout.shapes[k]
        ringed = latents[k].new_zeros(3, *(n + 2 * r for n, r in zip(shape, around, strict=True)))
        _inside(ringed[0], layout).copy_(latents[k])
        if found:
            sources = [latents[k + 1], _inside(found[0][1], layout)][: layout.levels - 1 - k]
            stop = place_of(n + r for n, r in zip(shape, around, strict=True))
            box = place_of(-r for r in around), stop
            ringed[1 : 1 + len(sources)] = upsampled(torch.stack(sources), k, linear, layout, CENTRE, box)
        found.insert(0, ringed)
    return found


def _context_adjoint(gradients: Sequence[Tensor], linear: Tensor, layout: Layout) -> list[Tensor]:
    """Adjoint of `_context_inputs`; what it is given is changed."""
    found = [_inside(levels[0], layout).clone() for levels in gradients]
    from_finer: Tensor | None = None
    for k in range(layout.levels - 1):
        given = _folded(gradients[k][1:], layout).contiguous()
        if from_finer is not None:
            given[0] += from_finer
        back, _ = downsampled(given, k, linear, layout)
        found[k + 1] += back[0]
        from_finer = back[1]
    return found


def distortion(
    latents: Sequence[Tensor], synthesis: Synthesis, layout: Layout, target: Tensor
) -> tuple[Tensor, list[Tensor], Synthesis]:
    """As `inrcodec_kernels.pyramid.distortion`, of tensors of float32; without waiting for the device.

    Parameters
    ----------
    latents : sequence of K Tensor
    synthesis : Synthesis
        Of tensors.
    layout : Layout
    target : Tensor

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
    middle = centres(layout).to(gains.device)
    skip = torch.zeros(len(first), device=gains.device).index_copy(0, middle, skips)
    net = Net(first, first_bias, second, second_bias, last[:, None], last_bias.reshape(1), skip[:, None])
    squares, gradients, sums = _differentiated(inputs, target.contiguous(), net, taps(layout), layout, None)
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
    found = [_inside(gradients[0], layout).contiguous()]
    of_filters = torch.zeros(filters.shape, dtype=torch.float64, device=filters.device)
    given = _folded(gradients[1:], layout)
    for k, source in enumerate(sources):
        given, of_taps = downsampled(given.contiguous(), k, filters[k], layout, source)
        assert of_taps is not None
        of_filters[k] = of_taps
        found.append(given[0])
        given = given[1:]
    return found, of_filters


# -------------------------------------------------------------------------------------------------- steps of a fit


@triton.jit
def _hash_sum(x):
    """Sum of the four bytes of hashes."""
    pairs = (x & 0x00FF00FF) + ((x >> 8) & 0x00FF00FF)
    return ((pairs & 0xFFFF) + (pairs >> 16)).to(tl.int32)


@triton.jit
def _soft_round(values, height, sharp):
    """Soft rounding and its derivative."""
    middle = tl.floor(values) + 0.5
    scaled = (values - middle) * sharp
    power = tl.exp2(tl.abs(scaled) * (-2 * _LOG2_E))
    part = 1 / (1 + power)
    bent = (1 - power) * part
    bent = tl.where(scaled < 0, -bent, bent)
    return middle + height * bent, height * sharp * (4 * power * part * part)


@triton.jit(do_not_specialize=["stream", "count"])
def soften_kernel(latents, values, slopes, count, stream, height, sharp, unit, PART: tl.constexpr):
    """Soft rounding, noise, soft rounding of PART latents."""
    index = tl.program_id(0).to(tl.int64) * PART + tl.arange(0, PART)
    mask = index < count
    number = stream.to(tl.uint32) + index.to(tl.uint32) * 0x0BD794EE
    total = _hash_sum(mix(number)) + _hash_sum(mix(number + 0x85EBCA77))
    once, slope = _soft_round(tl.load(latents + index, mask=mask, other=0.0), height, sharp)
    twice, further = _soft_round(once + (total - _MEAN).to(tl.float32) * unit, height, sharp)
    tl.store(values + index, twice, mask=mask)
    tl.store(slopes + index, slope * further, mask=mask)


@triton.jit(do_not_specialize=["count"])
def adam_kernel(
    latents, gradients, means, squares, count, pace, lift, first, second, epsilon, PART: tl.constexpr
):  # fmt: skip
    """A step of Adam of PART latents."""
    index = tl.program_id(0).to(tl.int64) * PART + tl.arange(0, PART)
    mask = index < count
    gradient = tl.load(gradients + index, mask=mask, other=0.0)
    mean = first * tl.load(means + index, mask=mask, other=0.0) + (1 - first) * gradient
    square = second * tl.load(squares + index, mask=mask, other=0.0) + (1 - second) * gradient * gradient
    tl.store(means + index, mean, mask=mask)
    tl.store(squares + index, square, mask=mask)
    own = tl.load(latents + index, mask=mask, other=0.0)
    tl.store(latents + index, own - pace * mean / (tl.sqrt(square) * lift + epsilon), mask=mask)


def soften(latents: Tensor, temperature: float, deviation: float, key: int) -> tuple[Tensor, Tensor]:
    """As `inrcodec_kernels.pyramid.soften`, of a contiguous tensor of float32."""
    values, slopes = torch.empty_like(latents), torch.empty_like(latents)
    stream = int(mix_on_host(np.array([key % 2**32], dtype=np.uint32)).view(np.int32)[0])
    height, unit = 0.5 / math.tanh(0.5 / temperature), deviation / NOISE_DEVIATION
    if latents.numel():
        with on(latents):
            soften_kernel[(triton.cdiv(latents.numel(), PART),)](
                latents, values, slopes, latents.numel(), stream, height, 1 / temperature, unit, PART
            )
    return values, slopes


def adam(
    latents: Tensor, gradients: Tensor, moments: tuple[Tensor, Tensor], step: int, rate: float,
    decays: tuple[float, float], epsilon: float,
) -> None:  # fmt: skip
    """As `inrcodec_kernels.pyramid.adam`, of contiguous tensors of float32."""
    first, second = decays
    pace, lift = rate / (1 - first**step), 1 / math.sqrt(1 - second**step)
    if latents.numel():
        with on(latents):
            adam_kernel[(triton.cdiv(latents.numel(), PART),)](
                latents, gradients, *moments, latents.numel(), pace, lift, first, second, epsilon, PART
            )


def tensors(parameters: Any, device: torch.device | str) -> Any:
    """Parameters as tensors of float32 on a device."""
    return type(parameters)(*(torch.as_tensor(p).to(device, torch.float32) for p in parameters))
