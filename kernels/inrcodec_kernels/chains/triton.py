"""Chains of sine layers on CUDA devices: moments of features, derivatives, and leaves put into a box. README.md has the mathematics.

Triton decides when a kernel is decorated whether it is compiled or interpreted (``TRITON_INTERPRET=1``), so this module is
imported only when its backend has been chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from ..siren.triton_classes import AXES, DEEPEST, MOST_PARTS, PROGRAMS, TILES, WIDEST, program_of
from ..stored import INTEGERS
from .reference import joined
from .triton_kernels import mix_kernel, moments_kernel, pullback_kernel, write_kernel

LEAVES, POINTS, COLUMNS = 16, 128, 16
"""Leaves and points of a program of `mix`, and the columns of the basis that it takes at a time."""


def lacking(axes: int, widths: Sequence[int]) -> str:
    """Why a class of chains has no kernels; empty if it has."""
    if not 1 <= axes <= AXES[1]:
        return f"expected 1 to {AXES[1]} axes, found {axes}"
    if len(widths) > DEEPEST or max(widths, default=0) > WIDEST:
        return f"expected 1 to {DEEPEST} sine layers of up to {WIDEST} neurons, found {tuple(widths)}"
    return ""


def layout_of(layers: Sequence[Tensor], axes: int) -> dict[str, Any]:
    """The constants of a class of chains, as kernels take them."""
    reads, widths = joined(layers, axes), [layer.shape[-1] for layer in layers]
    if reason := lacking(axes, widths):
        raise ValueError(f"{reason}; use another backend")
    return _constants(axes, widths, reads)


def _constants(axes: int, widths: Sequence[int], reads: Sequence[bool]) -> dict[str, Any]:
    inputs = [axes, *(n + axes * int(j) for n, j in zip(widths[:-1], reads[1:], strict=True))]
    sizes = [(a + 1) * b for a, b in zip(inputs, widths, strict=True)]
    return {
        "WIDTHS": (axes, *widths),
        "PADS": (axes, *(max(16, triton.next_power_of_2(width)) for width in widths)),
        "JOINED": tuple(int(j) for j in reads),
        "OFFSETS": (0, *itertools.accumulate(sizes)),
        "DEPTH": len(widths),
    }


def moments(layers: Sequence[Tensor], points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As `chains.moments`, without derivatives. Sums are taken in one order: same input, same bits."""
    if targets.shape[1] == 0:
        gram, products = moments(layers, points, points.new_zeros(len(targets), 1, len(points)))
        return gram, products[:, :0]
    if targets.shape[1] != 1:
        gram, products = moments([_repeated(w, targets.shape[1]) for w in layers], points, targets.flatten(0, 1)[:, None])
        several = targets.shape[:2]
        return gram.unflatten(0, several)[:, 0].contiguous(), products.unflatten(0, several)[:, :, 0]
    count, axes = points.shape
    layout = layout_of(layers, axes)
    program, nodes, neurons = program_of(layout, training=True), len(targets), layout["WIDTHS"][-1]
    splits, per_split = _splits(nodes, count, program["TILE"])
    found = torch.empty((nodes, splits, neurons + 1, neurons + 2), dtype=torch.float64, device=points.device)
    with _on(points):
        moments_kernel[(nodes, splits)](
            found, _packed(layers), points.contiguous(), targets.contiguous(), count, per_split, **layout, **program
        )
    whole = found.sum(1)
    gram = whole[:, :, :-1]
    gram[:, 0, 1:] = gram[:, 1:, 0]
    return gram.contiguous(), whole[:, None, :, -1].contiguous()


def pullback(layers: Sequence[Tensor], points: Tensor, targets: Tensor, head: Tensor) -> list[Tensor]:
    """As `reference.pullback`. Sums are taken in one order: same input, same bits."""
    several = targets.shape[1]
    if several != 1:
        neurons = layers[-1].shape[-1]
        parts = [_repeated(head[:, rows], several) / several for rows in (slice(neurons), slice(-1, None))]
        own = head[:, neurons:-1].flatten(0, 1)[:, None]
        repeated = [_repeated(w, several) for w in layers]
        found = pullback(repeated, points, targets.flatten(0, 1)[:, None], torch.cat([parts[0], own, parts[1]], dim=1))
        return [g.unflatten(0, targets.shape[:2]).sum(1) for g in found]
    count, axes = points.shape
    layout = layout_of(layers, axes)
    program, nodes = program_of(layout, training=True), len(targets)
    splits, per_split = _splits(nodes, count, program["TILE"])
    packed = _packed(layers)
    gradients = packed.new_empty(nodes, splits, packed.shape[1])
    with _on(points):
        pullback_kernel[(nodes, splits)](
            gradients, packed, points.contiguous(), targets.contiguous(), head.contiguous(), count, per_split,
            **layout, **program,
        )  # fmt: skip
    flat = gradients.sum(1).split([w[0].numel() for w in layers], dim=1)
    return [g.reshape(w.shape) for g, w in zip(flat, layers, strict=True)]


def write(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], layers: Sequence[Tensor], points: Tensor, readouts: Tensor,
    offset: float, low: int, high: int,
) -> None:  # fmt: skip
    """As `chains.write`."""
    if len(readouts) == 0:
        return
    layout = layout_of(layers, points.shape[1])
    program = program_of(layout, training=False)
    parts = min(triton.cdiv(len(points), program["TILE"] * TILES), MOST_PARTS)
    with _on(out):
        write_kernel[(len(readouts), parts)](
            *_place(out, corner, cell), _packed(layers), points.contiguous(), readouts.contiguous(), len(points),
            float(offset), int(low), int(high), **layout, **program, INTEGER=out.dtype in INTEGERS,
        )  # fmt: skip


def mix(
    out: Tensor, corner: Tensor, cell: tuple[int, ...], basis: Tensor, coefficients: Tensor, offset: float, low: int,
    high: int,
) -> None:  # fmt: skip
    """As `chains.mix`."""
    leaves, width = coefficients.shape
    if leaves == 0:
        return
    count = len(basis)
    grid = (triton.cdiv(leaves, LEAVES), triton.cdiv(count, POINTS))
    with _on(out):
        mix_kernel[grid](
            *_place(out, corner, cell), basis.contiguous(), coefficients.contiguous(), count, width, leaves,
            float(offset), int(low), int(high), LEAVES=LEAVES, POINTS=POINTS, COLUMNS=COLUMNS,
            INTEGER=out.dtype in INTEGERS, num_warps=4,
        )  # fmt: skip


def _repeated(layer: Tensor, times: int) -> Tensor:
    """A copy of each chain for each of its targets: devices have room for the work, and kernels know one target."""
    return layer.repeat_interleave(times, dim=0)


def _packed(layers: Sequence[Tensor]) -> Tensor:
    """All layers of each chain in one row."""
    return torch.cat([w.flatten(1) for w in layers], dim=1)


def _splits(nodes: int, count: int, tile: int) -> tuple[int, int]:
    """Ranges that a chain's points are cut into, and points of each."""
    tiles = triton.cdiv(count, tile)
    splits = max(1, min(PROGRAMS // nodes, triton.cdiv(tiles, TILES)))
    per_split = triton.cdiv(tiles, splits) * tile
    return triton.cdiv(count, per_split), per_split


def _place(out: Tensor, corner: Tensor, cell: tuple[int, ...]) -> tuple[Any, ...]:
    """The box, the leaves' corners (n, 4), and tuples of extents: of the box, its strides, and a leaf, of four axes."""
    missing = 4 - out.ndim
    box = out[(None,) * missing]
    corners = torch.nn.functional.pad(corner.to(out.device, torch.int32), (missing, 0)).contiguous()
    return box, corners, tuple(box.shape), tuple(box.stride()), (1,) * missing + tuple(cell)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def compile_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    """Typical classes for a compiler without a device: name, kernel, types of the arguments, constants, warps."""
    classes = (((16, 16), (True, False)), ((32, 32, 24), (True, False, True)), ((60, 60), (True, False)))
    types = {**_BOX_TYPES, "basis": "*fp32", "coefficients": "*fp32", "count": "i32", "width": "i32", "leaves": "i32", **_FORM}
    known = {"LEAVES": LEAVES, "POINTS": POINTS, "COLUMNS": COLUMNS, "INTEGER": True}
    return [("mix", mix_kernel, types, known, 4), *(c for widths, reads in classes for c in _class_cases(3, widths, reads))]


_BOX_TYPES: dict[str, Any] = {"out": "*u16", "corner": "*i32", **dict.fromkeys(("box", "stride", "cell"), ("i32",) * 4)}
_FORM = {"offset": "fp32", "low": "i32", "high": "i32"}


def _class_cases(
    axes: int, widths: Sequence[int], reads: Sequence[bool]
) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    layout = _constants(axes, widths, reads)
    read = dict.fromkeys(("weights", "points", "targets"), "*fp32")
    ranges = {"count": "i32", "per_split": "i32"}
    boxes = {**_BOX_TYPES, "weights": "*fp32", "points": "*fp32", "readouts": "*fp32", "count": "i32", **_FORM}
    names = [f"{w}{'+' if i and r else ''}" for i, (w, r) in enumerate(zip(widths, reads, strict=True))]
    title = f"{axes}-{'-'.join(names)}"
    training, sampling = program_of(layout, training=True), program_of(layout, training=False)
    for name, kernel, types, constants, program in (
        ("moments", moments_kernel, {"found": "*fp64", **read, **ranges}, {}, training),
        ("pullback", pullback_kernel, {"gradients": "*fp32", **read, "head": "*fp32", **ranges}, {}, training),
        ("write", write_kernel, boxes, {"INTEGER": True}, sampling),
    ):
        yield f"{name}, {title}", kernel, types, {**layout, **constants, "TILE": program["TILE"]}, program["num_warps"]
