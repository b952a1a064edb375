"""What contexts see of coarser levels, on CUDA devices: every number is the one that `context.parents` finds."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .context import LARGEST
from .layout import Place
from .triton_upsampling import clamped, on

PART = 1024
"""Numbers of a program."""

_LARGEST = tl.constexpr(LARGEST)


def parents(
    coarse: Tensor, coarser_parents: Tensor | None, halved: Sequence[bool], shape: Place, units: int
) -> tuple[Tensor, Tensor | None]:
    """As `context.parents`, of tensors: int32, and int16 or None.

    Raises
    ------
    ValueError
        If the extents of the levels do not follow from each other, or there are 2^31 latents or more.
    """
    wanted = tuple(-(-n // 2) if h else n for n, h in zip(shape, halved, strict=True))
    given = [coarse] if coarser_parents is None else [coarse, coarser_parents]
    if any(tuple(each.shape) != wanted for each in given) or math.prod(shape) + PART >= 1 << 31:
        raise ValueError(
            f"expected a coarser level of {wanted} for one of {shape} with fewer than 2^31 latents, found "
            f"{[tuple(each.shape) for each in given]}; take the one that belongs to it"
        )
    found = [_upsampled(each, halved, shape, units if each is coarse else 1) for each in given]
    return found[0], found[1] if len(found) > 1 else None


def _upsampled(coarse: Tensor, halved: Sequence[bool], shape: Place, unit: int) -> Tensor:
    out = torch.empty(shape, dtype=torch.int16, device=coarse.device)
    with on(out):
        parents_kernel[(triton.cdiv(out.numel(), PART),)](
            coarse.contiguous(), out, out.numel(), *shape[1:], *coarse.shape, unit, *map(int, halved), PART
        )
    return out


@triton.jit(do_not_specialize=["count", "n_z", "n_y", "n_x", "m_t", "m_z", "m_y", "m_x"])
def parents_kernel(
    coarse, out, count, n_z, n_y, n_x, m_t, m_z, m_y, m_x,
    UNIT: tl.constexpr, HT: tl.constexpr, HZ: tl.constexpr, HY: tl.constexpr, HX: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """``floor((unit S + 4^h / 2) / 4^h)``, S of weights 3 and 1 along the h axes that are halved."""
    index = tl.program_id(0) * PART + tl.arange(0, PART)
    mask = index < count
    line = index // n_x
    plane = line // n_y
    t, z, y, x = plane // n_z, plane % n_z, line % n_y, index % n_x
    total = tl.zeros((PART,), dtype=tl.int32)
    for corner in tl.static_range((1 + HT) * (1 + HZ) * (1 + HY) * (1 + HX)):
        # Of every halved axis, the nearest site or the other one.
        at_t, weight_t = _site(t, m_t, HT, corner // ((1 + HZ) * (1 + HY) * (1 + HX)))
        at_z, weight_z = _site(z, m_z, HZ, corner // ((1 + HY) * (1 + HX)) % (1 + HZ))
        at_y, weight_y = _site(y, m_y, HY, corner // (1 + HX) % (1 + HY))
        at_x, weight_x = _site(x, m_x, HX, corner % (1 + HX))
        site = ((at_t * m_z + at_z) * m_y + at_y) * m_x + at_x
        value = tl.load(coarse + site, mask=mask, other=0).to(tl.int32)
        if UNIT > 1:
            value = clamped(value, -_LARGEST, _LARGEST)
        total += weight_t * weight_z * weight_y * weight_x * value
    bits: tl.constexpr = 2 * (HT + HZ + HY + HX)
    tl.store(out + index, ((UNIT * total + ((1 << bits) >> 1)) >> bits).to(tl.int16), mask=mask)


@triton.jit
def _site(place, extent, HALVED: tl.constexpr, OTHER: tl.constexpr):
    """A site of the coarser level along one axis, and its weight."""
    found = place
    weight: tl.constexpr = 3 - 2 * OTHER if HALVED else 1
    if HALVED:
        found = place >> 1
        if OTHER:
            found = clamped(found + 2 * (place & 1) - 1, 0, extent - 1)
    return found, weight
