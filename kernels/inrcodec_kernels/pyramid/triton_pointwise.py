"""Steps of a pyramid's fit on CUDA devices: soft rounding with noise, and Adam."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..siren.reference import mix as mix_on_host
from ..siren.triton_network import mix
from .reference import NOISE_DEVIATION, NOISE_PARTS
from .triton_upsampling import on

PART = 1024
"""Numbers of a program."""

_LOG2_E = tl.constexpr(1 / math.log(2))
_MEAN = tl.constexpr(NOISE_PARTS * 255 // 2)


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
