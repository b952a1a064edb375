"""The correction on CUDA devices, fused with what precedes and follows it in a decoder. See README.md for the decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from ..stored import INTEGERS, stored
from . import reference
from .reference import SLOPE, Parameters, without_mean

TILE = {3: (16, 32), 1: (1, 512)}
"""Middle layer of a tile along y and x, by the taps along y."""
PLANES = 32
"""Planes that a program writes, one after the other: it computes 2 more of the hidden layers than it writes."""
WARPS = 8


@triton.jit
def clamped(index, least, most):  # type: ignore[no-untyped-def]
    """The index nearest to one, of those from least to most."""
    return tl.minimum(tl.maximum(index, least), most)


@triton.jit
def restoration(  # type: ignore[no-untyped-def]
    samples, out, first, biases, middle, last, unit, low, high, planes, width,
    before_z, before_y, before_x, n_z, n_y, n_x, size_z, size_y, size_x,
    from_b, from_z, from_y, from_x, to_b, to_z, to_y, to_x,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
    HY: tl.constexpr, HX: tl.constexpr, SLOPE: tl.constexpr,
    ADD: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """`planes` planes of a tile of samples; the hidden layers of one plane at a time, HY x HX positions.

    A thread holds all channels of its positions, so that only the last layer's neighbours are exchanged: the response
    to each of its kernels' taps, shifted by a gather. What a plane gives to the planes after it is carried along.
    """
    tiles_x, tiles_y, tiles_z = tl.cdiv(size_x, HX - KX + 1), tl.cdiv(size_y, HY - KY + 1), tl.cdiv(size_z, planes)
    tile = tl.program_id(0)
    corner_x, corner_y = tile % tiles_x * (HX - KX + 1), tile // tiles_x % tiles_y * (HY - KY + 1)
    corner_z = tile // (tiles_x * tiles_y) % tiles_z * planes
    batch = (tile // (tiles_x * tiles_y * tiles_z)).to(tl.int64)
    # Within a tile, 32 bits hold every distance from its corner.
    source = samples + batch * from_b + corner_y.to(tl.int64) * from_y + corner_x.to(tl.int64) * from_x
    target = out + batch * to_b + corner_y.to(tl.int64) * to_y + corner_x.to(tl.int64) * to_x

    channel, tap, position = tl.arange(0, C), tl.arange(0, TAPS), tl.arange(0, HY * HX)
    in_y, in_x = position // HX, position % HX
    inside = (in_y < HY - KY + 1) & (in_x < HX - KX + 1) & (corner_y + in_y < size_y) & (corner_x + in_x < size_x)
    # What the first kernels see from a position lies at these distances; beyond the box, its nearest sample counts.
    tap_z, tap_y, tap_x = tap // (KY * KX), tap // KX % KY, tap % KX
    seen_y = clamped((in_y + before_y - KY + 1)[:, None] + tap_y[None, :], -corner_y, n_y - 1 - corner_y)
    seen_x = clamped((in_x + before_x - KX + 1)[:, None] + tap_x[None, :], -corner_x, n_x - 1 - corner_x)
    centre_y = clamped(in_y + before_y - KY + 1 + KY // 2, -corner_y, n_y - 1 - corner_y)
    centre_x = clamped(in_x + before_x - KX + 1 + KX // 2, -corner_x, n_x - 1 - corner_x)
    away, centre_away = seen_y * from_y + seen_x * from_x, centre_y * from_y + centre_x * from_x
    used, inverse = tap < KZ * KY * KX, 1 / unit

    older = tl.zeros((HY * HX,), dtype=tl.float32)
    newer = tl.zeros((HY * HX,), dtype=tl.float32)
    for plane in range(0, tl.minimum(planes, size_z - corner_z) + KZ - 1):
        # The first kernels sum to zero: differences from the centre give the same without cancellation.
        z = corner_z + plane + before_z - KZ + 1
        seen_z = clamped(z + tap_z, 0, n_z - 1).to(tl.int64) * from_z
        # So that a thread has a position with all its taps: see `synthesis_kernel` of the pyramid.
        near = tl.multiple_of(tl.max_contiguous(seen_z[None, :] + away, [HY * HX, 1]), [1, 1])
        seen = tl.load(source + near, mask=used[None, :], other=0.0)
        centre = tl.load(source + clamped(z + KZ // 2, 0, n_z - 1).to(tl.int64) * from_z + centre_away)
        seen = (seen - centre[:, None]) * inverse

        hidden = tl.zeros((HY * HX, C), dtype=tl.float32) + tl.load(biases + C + channel)[None, :]
        for c in range(width):
            one = tl.sum(tl.load(first + c * TAPS + tap)[None, :] * seen, 1) + tl.load(biases + c)
            one = tl.where(one > 0, one, SLOPE * one)
            hidden += tl.load(middle + c * C + channel)[None, :] * one[:, None]
        hidden = tl.where(hidden > 0, hidden, SLOPE * hidden)

        done = older
        for back in tl.static_range(KZ):
            part = tl.zeros((HY * HX,), dtype=tl.float32)
            for k in range(KY * KX):
                kernel = tl.load(last + ((KZ - 1 - back) * (KY * KX) + k) * C + channel)
                response = tl.sum(kernel[None, :] * hidden, 1)
                # Positions whose neighbour lies beyond the tile have no result: there any response will do.
                part += tl.gather(response, tl.minimum(position + (k // KX * HX + k % KX), HY * HX - 1), 0)
            if back == 0:
                done = older + part
            elif back == 1:
                older = newer + part
            else:
                newer = part
        done *= unit

        at = corner_z + plane - KZ + 1
        where = target + at.to(tl.int64) * to_z + (in_y * to_y + in_x * to_x)
        written = inside & (plane >= KZ - 1)
        if ADD:
            own = source + (at + before_z).to(tl.int64) * from_z
            done += tl.load(own + ((in_y + before_y) * from_y + (in_x + before_x) * from_x), mask=written, other=0.0)
        if INTEGER:
            tl.store(where, stored(done, low, high).to(out.dtype.element_ty), mask=written)
        else:
            tl.store(where, done, mask=written)


def correction(samples: Tensor, parameters: Parameters) -> Tensor:
    """As `reference.correction`, for float32 and without gradients; where one is recorded, that function itself.

    Raises
    ------
    ValueError
        If the box is no larger than its ring, or if its dtype is another.
    """
    if torch.is_grad_enabled() and (samples.requires_grad or any(p.requires_grad for p in parameters)):
        return reference.correction(samples, parameters)
    before = _reach(parameters)
    inner = [n - 2 * r for n, r in zip(samples.shape[1:], before, strict=True)]
    if min(inner) < 1:
        raise ValueError(
            f"expected more than {tuple(2 * r for r in before)} samples along the axes, found a box of {tuple(samples.shape[1:])}; read a larger box"
        )
    out = samples.new_empty((len(samples), *inner))
    _launch(samples, out, parameters, 1.0, (0, 0), before, add=False)
    return out


def restore(
    samples: Tensor, parameters: Parameters, scale: float, low: int, high: int, out: Tensor,
    before: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Corrected samples, as a decoder stores them: ``samples + scale correction(samples / scale)``.

    Parameters
    ----------
    samples : Tensor of float32, shape (B, n_z, n_y, n_x)
        Decoded samples: a box with what is known of the ring around it. Beyond it, the samples of its edge count.
    parameters : Parameters
    scale : float
        The network's unit in the units of the samples; above 0.
    low, high : int
        Limits of integers; without effect on floats.
    out : Tensor, shape (B, s_z, s_y, s_x)
        float32 gets the corrected samples; uint8, int8, uint16, int16 or int32 get them rounded half to even within
        low..high. Must not share memory with `samples`. Any strides.
    before : sequence of 3 int, optional
        Samples along each axis that come before the first of `out`. By default as many as come after the last one.

    Raises
    ------
    ValueError
        If `out` does not fit into the box of samples there, or if the scale or a dtype is another.
    """
    rest = [n - s for n, s in zip(samples.shape, out.shape, strict=True)]
    if before is None and any(r % 2 for r in rest):
        raise ValueError(f"expected as many samples before as after those of out, found {tuple(rest[1:])} more of them; pass before")
    before = [r // 2 for r in rest[1:]] if before is None else list(before)
    if rest[0] or any(not 0 <= b <= r for b, r in zip(before, rest[1:], strict=True)):
        raise ValueError(
            f"expected a box out within that of the samples, found {tuple(out.shape)} after {tuple(before)} of {tuple(samples.shape)}; read a larger box"
        )
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"expected a scale above 0, found {scale}; pass the network's unit")
    _launch(samples, out, parameters, scale, (low, high), before, add=True)


def _launch(
    samples: Tensor, out: Tensor, parameters: Parameters, scale: float, limits: tuple[int, int], before: Sequence[int],
    *, add: bool,
) -> None:  # fmt: skip
    if samples.dtype != torch.float32 or out.dtype not in (torch.float32, *INTEGERS):
        raise ValueError(
            f"expected samples of float32, and an out of float32 or up to 32-bit integers, found {samples.dtype} and {out.dtype}; convert them"
        )
    if out.numel() == 0:
        return
    kernel = tuple(parameters.first.shape[1:])
    h_y, h_x = TILE[kernel[1]]
    tiles = len(out) * triton.cdiv(out.shape[1], PLANES)
    tiles *= triton.cdiv(out.shape[2], h_y - kernel[1] + 1) * triton.cdiv(out.shape[3], h_x - kernel[2] + 1)
    weights = _packed(parameters, samples.device)
    with torch.cuda.device_of(out):
        restoration[(tiles,)](
            samples, out, *weights, float(scale), *map(int, limits), PLANES, len(parameters.first),
            *before, *samples.shape[1:], *out.shape[1:], *samples.stride(), *out.stride(),
            *kernel, weights[1].shape[1], weights[0].shape[1], h_y, h_x, SLOPE, add, out.dtype in INTEGERS, num_warps=WARPS,
        )  # fmt: skip


def _reach(parameters: Parameters) -> list[int]:
    return [k - 1 for k in parameters.first.shape[1:]]


def _packed(parameters: Parameters, device: torch.device) -> list[Tensor]:
    """Parameters as the kernel reads them, padded with zeros to powers of two, C channels and TAPS taps.

    Shapes (W, TAPS); (2, C); (W, C), channel in first; and (taps, C).
    """
    first, biases, middle, last = (p.detach().to(device, torch.float32) for p in parameters)
    width, taps = len(first), math.prod(first.shape[1:])
    missing = triton.next_power_of_2(width) - width
    packed = [
        pad(without_mean(first).reshape(width, taps), (0, triton.next_power_of_2(taps) - taps)),
        pad(biases, (0, missing)),
        pad(middle.T, (0, missing)),
        pad(last.reshape(width, taps).T, (0, missing)),
    ]
    return [p.contiguous() for p in packed]


def compile_cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Typical specialisations: name, kernel, signature, constants, warps."""
    cases: list[tuple[str, Any, dict[str, str], dict[str, Any], int]] = []
    chosen = [((3, 3, 3), width, kind) for width in (4, 8, 16) for kind in ("*fp32", "*u16")]
    for taps, width, kind in [*chosen, ((1, 3, 3), 16, "*u16"), ((1, 1, 3), 16, "*u16"), ((3, 3, 3), 16, "*u8")]:
        constants: dict[str, Any] = dict(zip(("KZ", "KY", "KX"), taps, strict=True))
        constants |= dict(zip(("HY", "HX"), TILE[taps[1]], strict=True))
        constants |= dict(C=width, TAPS=triton.next_power_of_2(math.prod(taps)), SLOPE=SLOPE)
        constants |= dict(ADD=kind != "*fp32", INTEGER=kind != "*fp32")
        name = f"{'restore' if constants['ADD'] else 'correction'} {'x'.join(map(str, taps))} W={width} {kind[1:]}"
        cases.append((name, restoration, _signature(kind), constants, WARPS))
    return cases


def _signature(out: str) -> dict[str, str]:
    kinds = dict(samples="*fp32", out=out, first="*fp32", biases="*fp32", middle="*fp32", last="*fp32")
    kinds |= dict(unit="fp32", low="i32", high="i32", planes="i32", width="i32")
    kinds |= {f"{name}_{axis}": "i32" for name in ("before", "n", "size") for axis in "zyx"}
    return kinds | {f"{name}_{axis}": "i32" for name in ("from", "to") for axis in "bzyx"}
