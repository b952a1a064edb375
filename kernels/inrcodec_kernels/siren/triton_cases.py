"""Typical classes for a compiler without a device, see ``bench/compile_report.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .reference import LARGEST
from .triton_classes import CHUNK, FRACTION_BITS, PRECISIONS, SAMPLES, layout_of, precision_of, program_of
from .triton_kernels import (
    disturb_kernel,
    draw_kernel,
    finish_kernel,
    fit_kernel,
    gradients_kernel,
    orthonormal_kernel,
    reconstruct_kernel,
)


def compile_cases() -> list[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    """Typical classes for a compiler without a device: name, kernel, types of the arguments, constants, warps.

    See ``bench/compile_report.py``.
    """
    classes = [((16, 16, 16), "fp32"), *(((32, 32, 32, 32), name) for name in PRECISIONS), ((64, 48, 40), "fp32")]
    every = [case for widths, name in classes for case in _class_cases(3, widths, name)]
    return [_finish_case(), _constants_case(3), *_step_cases(3, (32, 32, 32, 32)), *every]


def _class_cases(
    axes: int, widths: Sequence[int], precision: str
) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    floats = dict.fromkeys(("errors", "gradients", "weights", "points", "targets"), "*fp32")
    rebuilt = _rebuilt_types(axes)
    fitted = {
        **dict.fromkeys(("errors", "weights", "moment", "square", "gradients", "noisy", "schedule"), "*fp32"),
        **_VOXEL_TYPES,
        **dict.fromkeys(("noise", "price", "start"), "*fp32"),
        **dict.fromkeys(("first", "done", "steps", "all_steps", "count"), "i32"),
    }
    blend = _BLEND
    sharp = {"HALO": 0, "FAST": True}
    adam = {"NOISY": True, "PRICED": True, "BETA1": 0.9, "BETA2": 0.999, "EPSILON": 1e-8, "CHUNK": CHUNK}
    layout = layout_of(axes, widths)
    title = f"{axes}-{'-'.join(map(str, widths))}-1, {precision}"
    for name, kernel, types, constants, training in (
        ("accumulate", reconstruct_kernel, {**rebuilt, "out": "*i64"}, blend, False),
        ("place, fast sine", reconstruct_kernel, {**rebuilt, "out": "*u16"}, {**blend, **sharp}, False),
        ("loss_and_gradients", gradients_kernel, {**floats, "count": "i32", "per_split": "i32"}, {}, True),
        ("fit_adam", fit_kernel, fitted, adam, True),
    ):
        program = program_of(layout, training=training)
        known = {**layout, **constants, "PRECISION": precision_of(precision), "TILE": program["TILE"]}
        yield f"{name}, {title}", kernel, types, known, program["num_warps"]


_VOXEL_TYPES = {"samples": "*fp32", "begin": "*i64", "box": "*i32", "shift": "*fp32", "unit": "*fp32", "key": "*i32"}
_BLEND = {"BITS": FRACTION_BITS, "LARGEST": LARGEST, "HALO": 2, "FAST": False}


def _rebuilt_types(axes: int) -> dict[str, Any]:
    box = {"limits": "*fp64", "box": ("i32",) * axes, "share": "*i32", "unsound": "*i32"}
    blocks = {"origin": "*i32", "extent": "*i32", "scale": "*fp32", "mean": "*fp32"}
    return {**box, **blocks, "quantised": "*i32", "steps": "*fp32", "start": "*fp32"}


def _constants_case(axes: int) -> tuple[str, Any, dict[str, Any], dict[str, Any], int]:
    layout = layout_of(axes, (), constant=True)
    program = program_of(layout, training=False)
    types = {**_rebuilt_types(axes), "quantised": "*fp32", "out": "*i64"}
    known = {**layout, **_BLEND, "PRECISION": PRECISIONS["fp32"], "TILE": program["TILE"]}
    return "accumulate, constants", reconstruct_kernel, types, known, program["num_warps"]


def _step_cases(
    axes: int, widths: Sequence[int]
) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any], int]]:
    step = {"step": "*i32"}
    types = {**_VOXEL_TYPES, **step, "points": "*fp32", "targets": "*fp32", "count": "i32"}
    for edge, warps in ((32, 4), (64, 8), (128, 16)):
        arrays = {"out": "*fp32", "matrices": "*fp32", "size": "i32"}
        yield f"orthonormal, {edge}", orthonormal_kernel, arrays, {"EDGE": edge}, warps
    yield "draw", draw_kernel, types, {"D": axes, "CHUNK": CHUNK}, 4
    layout = layout_of(axes, widths)
    types = {**dict.fromkeys(("noisy", "weights", "noise"), "*fp32"), **step, "key": "*i32"}
    known = {"OFFSETS": layout["OFFSETS"], "DEPTH": layout["DEPTH"], "CHUNK": CHUNK}
    yield "disturbed", disturb_kernel, types, known, 4


def _finish_case() -> tuple[str, Any, dict[str, Any], dict[str, Any], int]:
    types = {"out": "*u16", "total": "*i64", "share": "*i32", "limits": "*fp64", "count": "i32"}
    return "finish", finish_kernel, types, {"SAMPLES": SAMPLES}, 4
