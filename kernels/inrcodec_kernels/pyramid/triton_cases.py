"""Typical specialisations for a compiler without a device, see ``bench/compile_report.py``."""

from __future__ import annotations

from typing import Any

from .reference import SLOPE
from .triton_synthesis import TILE, WARPS, synthesis_kernel
from .triton_upsampling import BLOCK, adjoint_kernel, taps_kernel, upsample_kernel

Case = tuple[str, Any, dict[str, str], dict[str, Any], int]


def compile_cases() -> list[Case]:
    """Name, kernel, types of its arguments, constants, warps."""
    return [*_synthesis_cases(), *_upsampling_cases()]


def _synthesis_cases() -> list[Case]:
    kinds = dict.fromkeys(("channels", "first", "first_bias", "second", "second_bias", "last", "last_bias"), "*fp32")
    kinds |= {"skip": "*fp32", "shift": "*i64", "step": "fp32", "offset": "fp32"}
    kinds |= dict.fromkeys(("low", "high", "count", "corner", "width"), "i32")
    kinds |= dict.fromkeys(("n_z", "n_y", "n_x", "pitch_t", "pitch_z", "pitch_y"), "i32")
    cases: list[Case] = []
    for inputs, thick, out in ((64, 16, "fp32"), (64, 16, "u16"), (64, 32, "u16"), (128, 32, "u16"), (32, 16, "u8")):
        constants = {"N": inputs, "C": thick, "TILE": TILE, "SLOPE": SLOPE, "INTEGER": out != "fp32"}
        name = f"synthesise, {inputs} inputs, S2={thick}, {out}"
        cases.append((name, synthesis_kernel, {**kinds, "out": f"*{out}"}, constants, WARPS))
    return cases


def _upsampling_cases() -> list[Case]:
    arrays = dict.fromkeys(("source", "out", "taps", "gradient"), "*fp32") | {"partial": "*fp64"}
    numbers = ("rows", "count", "stored", "inner", "first", "origin", "fine", "coarse", "tiles")
    kinds = arrays | dict.fromkeys(numbers, "i32")
    cases: list[Case] = []
    for columns in (64, BLOCK):
        constants: dict[str, Any] = {"ROWS": BLOCK // columns, "COLUMNS": columns}
        for name, kernel, more in (
            ("upsample", upsample_kernel, {"HALVED": True}),
            ("adjoint of upsample", adjoint_kernel, {}),
            ("gradients of taps", taps_kernel, {}),
        ):
            types = {a: kinds[a] for a in kernel.arg_names if a in kinds}
            cases.append((f"{name}, lines of {columns}", kernel, types, constants | more, 4))
    return cases
