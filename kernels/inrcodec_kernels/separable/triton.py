"""Synthesis of leaves on CUDA devices: coefficients to stored samples in one pass. See README.md for the decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..stored import INTEGERS, stored

AXES = 4
"""Kernels see four axes; missing ones are leading axes of one sample and one frequency."""
CHUNK = 16
"""Frequencies of each of the last two axes taken at a time: the least reduction that `tl.dot` has."""
EDGE, ROWS, SAMPLES = 32, 8, 1024
"""Limits of a program's tile: along each of the last two axes, over all other ones, and altogether."""
WARPS = 4
REGISTERS = 168
"""Most registers of a thread: left alone, the compiler moves some to memory for more programs than there is shared memory for."""
PRECISIONS = ("ieee", "tf32")
"""Of the products along the last two axes; sums are always float32."""


@triton.jit
def highest(values, lattice, limits, leaves, count, pitch, LEAVES: tl.constexpr, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
    """``limits[b, j]``: frequencies of axis j below which all non-zero coefficients of leaf b lie."""
    leaf = tl.program_id(0) * LEAVES + tl.arange(0, LEAVES)
    row = values + leaf.to(tl.int64)[:, None] * pitch
    for axis in tl.static_range(4):
        most = tl.zeros((LEAVES, SPAN), dtype=tl.int32)
        for first in range(0, count, SPAN):
            number = first + tl.arange(0, SPAN)
            index = tl.load(lattice + axis * count + number, mask=number < count, other=0)
            held = (leaf[:, None] < leaves) & (number[None, :] < count)
            used = tl.load(row + number[None, :], mask=held, other=0) != 0
            most = tl.maximum(most, tl.where(used, index[None, :] + 1, 0))
        tl.store(limits + leaf * 4 + axis, tl.max(most, 1), mask=leaf < leaves)


@triton.jit
def synthesis(  # type: ignore[no-untyped-def]
    out, corner, values, limits, place, basis1, basis2, basis3, basis4, step, offset, low, high, leaves, count, pitch,
    size1, size2, size3, size4, stride1, stride2, stride3, stride4, n1, n2, n3, n4, m1, m2, m3, m4,
    L: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, Q3: tl.constexpr, Q4: tl.constexpr,
    K: tl.constexpr, INTEGER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of Q1 x Q2 x Q3 x Q4 samples of each of L leaves.

    The first two axes are summed frequency by frequency, without exchange between threads; the last two are matrix
    products. `place` tells the coefficient of each frequency, -1 for none.
    """
    R: tl.constexpr = L * Q1 * Q2
    tiles1, tiles2, tiles3, tiles4 = tl.cdiv(n1, Q1), tl.cdiv(n2, Q2), tl.cdiv(n3, Q3), tl.cdiv(n4, Q4)
    tile = tl.program_id(0)
    begin4 = tile % tiles4 * Q4
    begin3 = tile // tiles4 % tiles3 * Q3
    begin2 = tile // (tiles4 * tiles3) % tiles2 * Q2
    begin1 = tile // (tiles4 * tiles3 * tiles2) % tiles1 * Q1
    first_leaf = tile // (tiles4 * tiles3 * tiles2 * tiles1) * L
    leaf = first_leaf + tl.arange(0, L)
    q1, q2 = begin1 + tl.arange(0, Q1), begin2 + tl.arange(0, Q2)
    q3, q4 = begin3 + tl.arange(0, Q3), begin4 + tl.arange(0, Q4)

    limit = limits + leaf * 4
    limit1 = tl.max(tl.load(limit, mask=leaf < leaves, other=0), 0)
    limit2 = tl.max(tl.load(limit + 1, mask=leaf < leaves, other=0), 0)
    limit3 = tl.max(tl.load(limit + 2, mask=leaf < leaves, other=0), 0)
    limit4 = tl.max(tl.load(limit + 3, mask=leaf < leaves, other=0), 0)
    coefficients = values + leaf.to(tl.int64)[:, None] * pitch
    pair, single = tl.arange(0, K * K), tl.arange(0, K)

    samples = tl.zeros((Q3 * R, Q4), dtype=tl.float32)
    for first4 in range(0, limit4, K):
        lines = tl.zeros((Q3, R * K), dtype=tl.float32)
        for first3 in range(0, limit3, K):
            k3, k4 = first3 + pair // K, first4 + pair % K
            planes = tl.zeros((L, Q1, Q2, K * K), dtype=tl.float32)
            for k2 in range(limit2):
                along1 = tl.zeros((L, Q1, 1, K * K), dtype=tl.float32)
                for k1 in range(limit1):
                    cell = ((k1 * m2 + k2) * m3 + k3) * m4 + k4
                    number = tl.load(place + cell, mask=(k3 < m3) & (k4 < m4), other=-1)
                    held = (leaf[:, None] < leaves) & (number[None, :] >= 0)
                    value = tl.load(coefficients + number[None, :], mask=held, other=0).to(tl.float32)
                    wave1 = tl.load(basis1 + q1 * m1 + k1, mask=q1 < n1, other=0.0)
                    along1 += wave1[None, :, None, None] * value[:, None, None, :]
                wave2 = tl.load(basis2 + q2 * m2 + k2, mask=q2 < n2, other=0.0)
                planes += wave2[None, None, :, None] * along1
            k = first3 + single
            wave3 = tl.load(basis3 + q3[:, None] * m3 + k[None, :], mask=(q3[:, None] < n3) & (k[None, :] < m3), other=0.0)
            planes = planes.reshape(R, K, K).permute(1, 0, 2).reshape(K, R * K)
            lines = tl.dot(wave3, planes, lines, input_precision=PRECISION)
        k = first4 + single
        wave4 = tl.load(basis4 + q4[None, :] * m4 + k[:, None], mask=(q4[None, :] < n4) & (k[:, None] < m4), other=0.0)
        samples = tl.dot(lines.reshape(Q3 * R, K), wave4, samples, input_precision=PRECISION)

    # Rows of `samples` count q3 slowest, then leaf, q1 and q2.
    row = tl.arange(0, Q3 * R)
    own = first_leaf + row // (Q1 * Q2) % L
    own1, own2, own3 = begin1 + row // Q2 % Q1, begin2 + row % Q2, begin3 + row // R
    known = own < leaves
    at1 = tl.load(corner + own * 4, mask=known, other=0) + own1
    at2 = tl.load(corner + own * 4 + 1, mask=known, other=0) + own2
    at3 = tl.load(corner + own * 4 + 2, mask=known, other=0) + own3
    first = tl.load(corner + own * 4 + 3, mask=known, other=0)
    known &= (own1 < n1) & (at1 >= 0) & (at1 < size1) & (own2 < n2) & (at2 >= 0) & (at2 < size2)
    known &= (own3 < n3) & (at3 >= 0) & (at3 < size3)
    at4 = first[:, None] + q4[None, :]
    inside = known[:, None] & (q4[None, :] < n4) & (at4 >= 0) & (at4 < size4)
    begin = at1.to(tl.int64) * stride1 + at2.to(tl.int64) * stride2 + at3.to(tl.int64) * stride3
    where = out + begin[:, None] + at4.to(tl.int64) * stride4
    samples = offset + step * samples
    if INTEGER:
        tl.store(where, stored(samples, low, high).to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(where, samples, mask=inside)


def synthesise(
    out: Tensor, corner: Tensor, values: Tensor, lattice: Any, bases: Sequence[Tensor],
    step: float, offset: float, low: int, high: int, *, precision: str = "ieee",
) -> None:  # fmt: skip
    """Write the samples of leaves of one level into a box.

    Sample q of leaf b is ``offset + step sum_w values[b, w] prod_j bases[j][q_j, lattice[w, j]]``.

    Parameters
    ----------
    out : Tensor, shape (s_1, ..., s_d), 1 to 4 axes
        float32 gets the samples; uint8, int8, uint16, int16 or int32 get them rounded half to even within low..high.
        What lies in no leaf keeps its value. Any strides.
    corner : Tensor of int, shape (n, d)
        Where each leaf's first sample lies in `out`; what lies outside is left out.
    values : Tensor of int32, shape (n, W)
        Quantised coefficients; rows may lie apart.
    lattice : array_like of int, shape (W, d)
        Frequency index of each coefficient; no index twice.
    bases : sequence of d Tensors of float32, shapes (extent_j, m_j)
        Waves of each axis at a leaf's samples.
    step, offset : float
    low, high : int
        Limits of integers; without effect on floats.
    precision : str
        One of `PRECISIONS`.

    Raises
    ------
    ValueError
        If shapes, dtypes or the precision are others.
    """
    ndim, device = out.ndim, out.device
    _check(out, corner, values, bases, precision)
    shaped = out[(None,) * (AXES - ndim)]
    one = torch.ones((1, 1), dtype=torch.float32, device=device)
    waves = [one] * (AXES - ndim) + [b.to(device, torch.float32).contiguous() for b in bases]
    cell, counts = [len(w) for w in waves], [w.shape[1] for w in waves]
    frequencies = _padded(torch.as_tensor(lattice), device)
    corners, values = _padded(corner, device), values.to(device)
    leaves, count = values.shape
    if leaves == 0:
        return
    if values.stride(1) != 1:
        values = values.contiguous()
    pitch = values.stride(0)
    limits = torch.empty((leaves, AXES), dtype=torch.int32, device=device)
    span = min(1024, triton.next_power_of_2(max(1, count)))
    L, *edges = tile_of(tuple(cell))
    tiles = math.prod(triton.cdiv(n, q) for n, q in zip(cell, edges, strict=True))
    with torch.cuda.device_of(out):
        highest[(triton.cdiv(leaves, 1024 // span),)](
            values, frequencies.T.contiguous(), limits, leaves, count, pitch, LEAVES=1024 // span, SPAN=span, num_warps=WARPS
        )
        synthesis[(triton.cdiv(leaves, L) * tiles,)](
            shaped, corners, values, limits, _places(frequencies, counts), *waves,
            float(step), float(offset), int(low), int(high), leaves, count, pitch,
            *shaped.shape, *shaped.stride(), *cell, *counts, L, *edges, CHUNK, out.dtype in INTEGERS, precision,
            num_warps=WARPS, maxnreg=REGISTERS,
        )  # fmt: skip


def tile_of(cell: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """Leaves and samples along the four axes of a program's tile, powers of two."""
    n1, n2, n3, n4 = (triton.next_power_of_2(n) for n in cell)
    q3, q4 = min(n3, EDGE), min(n4, EDGE)
    rows = min(ROWS, SAMPLES // (q3 * q4))
    q2 = min(n2, rows)
    q1 = min(n1, rows // q2)
    return rows // (q1 * q2), q1, q2, q3, q4


def _padded(index: Tensor, device: torch.device) -> Tensor:
    """Positions (n, d) with leading axes of position 0, int32 on the device, shape (n, 4)."""
    missing = AXES - index.shape[1]
    return torch.nn.functional.pad(index.to(device, torch.int32), (missing, 0)).contiguous()


def _places(frequencies: Tensor, counts: list[int]) -> Tensor:
    """Number of the coefficient of each frequency, flat int32; -1 where there is none."""
    places = torch.full((math.prod(counts),), -1, dtype=torch.int32, device=frequencies.device)
    flat = torch.zeros(len(frequencies), dtype=torch.int64, device=frequencies.device)
    for axis, m in enumerate(counts):
        flat = flat * m + frequencies[:, axis]
    places[flat] = torch.arange(len(frequencies), dtype=torch.int32, device=frequencies.device)
    return places


def _check(out: Tensor, corner: Tensor, values: Tensor, bases: Sequence[Tensor], precision: str) -> None:
    if not 1 <= out.ndim <= AXES or len(bases) != out.ndim or tuple(corner.shape) != (len(values), out.ndim):
        raise ValueError(
            f"expected a box of 1 to {AXES} axes, a basis for each and corners (n, axes) of n leaves, found a box of {out.ndim} axes, "
            f"{len(bases)} bases, corners {tuple(corner.shape)} and {len(values)} leaves; pass matching arguments"
        )
    if out.dtype not in (torch.float32, *INTEGERS) or values.dtype != torch.int32:
        raise ValueError(
            f"expected a box of float32 or up to 32-bit integers and values of int32, found {out.dtype} and {values.dtype}; convert them"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"expected precision {' or '.join(PRECISIONS)}, found {precision!r}; choose one of them")


def compile_cases() -> list[tuple[Any, ...]]:
    """Typical specialisations: name, kernel, signature, constants, warps, and the compiler's options."""
    cases: list[tuple[Any, ...]] = []
    for together, span in ((8, 128), (1, 1024)):
        signature = dict(values="*i32", lattice="*i32", limits="*i32", leaves="i32", count="i32", pitch="i32")
        cases.append((f"highest {together}x{span}", highest, signature, dict(LEAVES=together, SPAN=span), WARPS))
    cells = ((1, 2, 8, 8), (1, 8, 8, 8), (1, 16, 16, 16), (1, 32, 32, 32), (2, 8, 8, 8), (1, 1, 16, 16))
    chosen = [(cell, "*u16", precision) for cell in cells for precision in PRECISIONS]
    for cell, kind, precision in [*chosen, ((1, 8, 8, 8), "*fp32", "ieee"), ((1, 16, 16, 16), "*u8", "ieee")]:
        constants: dict[str, Any] = dict(zip(("L", "Q1", "Q2", "Q3", "Q4"), tile_of(cell), strict=True))
        constants |= dict(K=CHUNK, INTEGER=kind != "*fp32", PRECISION=precision)
        name = f"synthesis {'x'.join(map(str, cell))} {kind[1:]} {precision}"
        cases.append((name, synthesis, _signature(kind), constants, WARPS, {"maxnreg": REGISTERS}))
    return cases


def _signature(out: str) -> dict[str, str]:
    kinds = dict(out=out, corner="*i32", values="*i32", limits="*i32", place="*i32")
    kinds |= {f"basis{axis}": "*fp32" for axis in range(1, 5)}
    kinds |= dict(step="fp32", offset="fp32", low="i32", high="i32", leaves="i32", count="i32", pitch="i32")
    return kinds | {f"{name}{axis}": "i32" for name in ("size", "stride", "n", "m") for axis in range(1, 5)}
