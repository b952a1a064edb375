"""A small network at many sites on CUDA devices, forward and all the way back.

Gradients by its inputs are stored once for each tap; hidden numbers and their gradients are stored once.
`triton_gradients` sums them.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .reference import FLOOR, MOST, SLOPE
from .triton_synthesis import filled, padded

LEAST_EDGE = 16
"""What tl.dot wants of every extent of a matrix."""
_SLOPE, _FLOOR, _MOST = (tl.constexpr(n) for n in (SLOPE, FLOOR, MOST))
_LOG2_E = tl.constexpr(1 / math.log(2))


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
        """As the kernel reads them: all extents padded to powers of two, of 16 at least."""
        inputs, width, thick = (_edge(len(layer)) for layer in (self.first, self.second, self.last))
        return [
            filled(self.first, inputs, width), padded(self.first_bias, width), filled(self.second, width, thick),
            padded(self.second_bias, thick), padded(self.last.T, thick), self.last_bias.contiguous(),
            padded(self.skip.T, inputs),
        ]  # fmt: skip


def _edge(extent: int) -> int:
    """What tl.dot wants of an extent."""
    return max(LEAST_EDGE, triton.next_power_of_2(extent))


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


# One program for all levels: extents and strides are many, and each would be compiled anew where they are multiples of 16.
_NUMBERS = ("begin", "end", "used", "width", "thick", "span", *(f"{of}_{axis}" for of in "erw" for axis in "tzyx"))


@triton.jit(do_not_specialize=_NUMBERS)
def network_kernel(
    inputs, shift, target, weights, first, first_bias, second, second_bias, last, last_bias, skip, by_inputs, hidden, totals,
    begin, end, used, e_t, e_z, e_y, e_x, r_t, r_z, r_y, r_x, w_t, w_z, w_y, w_x, width, thick, least, span,
    N: tl.constexpr, C: tl.constexpr, D: tl.constexpr, RATE: tl.constexpr, WEIGHED: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """TILE of the sites `begin` .. `end`, forward and back.

    Stored are, site by site, gradients by the inputs, and one after the other both hidden layers, the gradients by the first,
    by the outputs and by the second. Sites of the ring have gradients of 0. With RATE, the input after the last one is the
    latent itself. `weights` have strides w, and are read with WEIGHED only.
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
    tap, channel, outer = tl.arange(0, N), tl.arange(0, C), tl.arange(0, D)
    # Threads side by side are to load sites side by side: see `synthesis_kernel`.
    near = tl.multiple_of(tl.max_contiguous(position[:, None] + tl.load(shift + tap)[None, :], [TILE, 1]), [1, 1])
    seen = tl.load(inputs + near, mask=here[:, None], other=0.0)
    wanted = tl.load(target + (((t * n_z + z) * n_y + y) * n_x + x), mask=here, other=0.0)
    # Where a site's numbers of the layers begin.
    one_at, two_at = hidden + index, hidden + width * span + index
    by_one_at, given_at = two_at + thick * span, two_at + (thick + width) * span
    by_two_at = given_at + (2 if RATE else 1) * span
    ones, in_one = channel[None, :] * span, some[:, None] & (channel < width)[None, :]
    twos, in_two = outer[None, :] * span, some[:, None] & (outer < thick)[None, :]

    # What goes straight to the outputs is added up first: inputs need no registers after the first product.
    value = tl.sum(tl.load(skip + tap)[None, :] * seen, 1)
    scale = tl.sum(tl.load(skip + N + tap)[None, :] * seen, 1) if RATE else value
    to_one = tl.load(first + tap[:, None] * C + channel[None, :])
    to_two = tl.load(second + channel[:, None] * D + outer[None, :])
    one = _leaky(tl.dot(seen, to_one, input_precision=PRECISION) + tl.load(first_bias + channel)[None, :])
    tl.store(one_at[:, None] + ones, one, mask=in_one)
    two = _leaky(tl.dot(one, to_two, input_precision=PRECISION) + tl.load(second_bias + outer)[None, :])
    tl.store(two_at[:, None] + twos, two, mask=in_two)
    value += tl.sum(tl.load(last + outer)[None, :] * two, 1) + tl.load(last_bias)
    if RATE:
        scale += tl.sum(tl.load(last + D + outer)[None, :] * two, 1) + tl.load(last_bias + 1)
        lost, by_value, by_scale = _laplace(wanted, value, scale, least)
        by_value, by_scale = tl.where(here, by_value, 0.0), tl.where(here, by_scale, 0.0)
        # As a symbol, a latent moves against its location.
        tl.store(by_inputs + used * span + index, -by_value, mask=some)
        tl.store(given_at + span, by_scale, mask=some)
    else:
        error = tl.where(here, value - wanted, 0.0)
        lost, by_value, by_scale = error * error, 2 * error, error
        if WEIGHED:
            count = tl.load(weights + (t * w_t + z * w_z + y * w_y + x * w_x), mask=here, other=0.0)
            lost, by_value = lost * count, by_value * count
    tl.store(totals + tl.program_id(0), tl.sum(tl.where(here, lost, 0.0), 0).to(tl.float64))
    tl.store(given_at, by_value, mask=some)

    by_two = tl.load(last + outer)[None, :] * by_value[:, None]
    direct = tl.load(skip + tap)[None, :] * by_value[:, None]
    if RATE:
        by_two += tl.load(last + D + outer)[None, :] * by_scale[:, None]
        direct += tl.load(skip + N + tap)[None, :] * by_scale[:, None]
    by_two = _through(by_two, two)
    tl.store(by_two_at[:, None] + twos, by_two, mask=in_two)
    by_one = _through(tl.dot(by_two, tl.trans(to_two), input_precision=PRECISION), one)
    tl.store(by_one_at[:, None] + ones, by_one, mask=in_one)
    back = tl.dot(by_one, tl.trans(to_one), direct, input_precision=PRECISION)
    tl.store(by_inputs + tap[None, :] * span + index[:, None], back, mask=some[:, None] & (tap < used)[None, :])
