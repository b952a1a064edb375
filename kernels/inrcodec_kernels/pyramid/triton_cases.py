"""Typical specialisations for a compiler without a device, see ``bench/compile_report.py``."""

from __future__ import annotations

from typing import Any

from ..siren.reference import LARGEST
from .reference import SLOPE
from .triton_coding import PART as AROUND
from .triton_coding import REGISTERS, at_once, decode, surround
from .triton_coding import WARPS as DECODING
from .triton_gradients import FEW, PRECISION, gather_kernel, products_kernel
from .triton_gradients import PART as SITES
from .triton_gradients import WARPS as FITTING
from .triton_gradients import at_once as sites_at_once
from .triton_network import network_kernel
from .triton_parents import PART, parents_kernel
from .triton_pointwise import PART as STEP
from .triton_pointwise import adam_kernel, soften_kernel
from .triton_synthesis import TILE, WARPS, synthesis_kernel
from .triton_upsampling import BLOCK, adjoint_kernel, taps_kernel, upsample_kernel

Case = tuple[Any, ...]
"""Name, kernel, types of its arguments, constants, warps, and further options of the compiler where there are any."""


def compile_cases() -> list[Case]:
    """Name, kernel, types of its arguments, constants, warps."""
    return [*_synthesis_cases(), *_upsampling_cases(), *_coding_cases(), *_fit_cases()]


def _synthesis_cases() -> list[Case]:
    kinds = dict.fromkeys(("channels", "first", "first_bias", "second", "second_bias", "last", "last_bias"), "*fp32")
    kinds |= {"skip": "*fp32", "shift": "*i64", "unsound": "*i32", "step": "fp32", "offset": "fp32"}
    kinds |= dict.fromkeys(("low", "high", "count", "corner", "width"), "i32")
    kinds |= dict.fromkeys(("n_z", "n_y", "n_x", "pitch_t", "pitch_z", "pitch_y"), "i32")
    cases: list[Case] = []
    for inputs, thick, out in ((64, 16, "fp32"), (64, 16, "u16"), (64, 32, "u16"), (128, 16, "u16"), (32, 16, "u8")):
        constants = {"N": inputs, "C": thick, "TILE": TILE, "SLOPE": SLOPE, "LARGEST": LARGEST, "INTEGER": out != "fp32"}
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


def _coding_cases() -> list[Case]:
    kinds = dict.fromkeys(("data", "failed", "first_symbol"), "*u8")
    kinds |= dict.fromkeys(("begin", "size", "rooms", "near_symbols"), "*i64")
    kinds |= dict.fromkeys(("lanes", "places", "order", "stages", "latents", "taps", "starts", "reaches", "predicted"), "*i32")
    kinds |= dict.fromkeys(("u", "v", "around"), "*i16") | dict.fromkeys(("first", "second"), "*fp16")
    kinds |= dict.fromkeys(("level_bias", "second_bias", "last", "skip", "last_bias", "shifts"), "*fp32")
    kinds |= dict.fromkeys(("listed", "n_t", "n_z", "n_y", "n_x", "level"), "i32")
    cases: list[Case] = []
    for inputs, width, unit_bits, bits in ((64, 32, 4, 14), (32, 32, 4, 14), (32, 32, 4, 12), (32, 32, 3, 11), (32, 16, 4, 13), (16, 16, 4, 14)):
        constants = {"N": inputs, "C": width, "UNIT_BITS": unit_bits, "BITS": bits, "LANES": 32, "TILE": at_once(inputs)}
        name = f"decode, {inputs} inputs, H={width}, units of 1/{1 << unit_bits}, hidden numbers of {bits} bits"
        types = {a: kinds[a] for a in decode.arg_names if a in kinds}
        cases.append((name, decode, types, constants, DECODING, {"maxnreg": REGISTERS, "num_stages": 1}))
    types = {a: kinds[a] for a in surround.arg_names if a in kinds}
    cases.append(("surround", surround, types, {"HAS_V": True, "PART": AROUND, "RING_T": 0, "RING_Z": 1, "RING_Y": 1, "RING_X": 1}, DECODING))
    numbers = dict.fromkeys(("count", "n_z", "n_y", "n_x", "m_t", "m_z", "m_y", "m_x"), "i32")
    for unit, kind in ((16, "*i32"), (1, "*i16")):
        constants = {"UNIT": unit, "HT": 0, "HZ": 1, "HY": 1, "HX": 1, "PART": PART}
        types = {"coarse": kind, "out": "*i16"} | numbers
        cases.append((f"parents, from {kind[1:]}", parents_kernel, types, constants, 4))
    return cases


def _fit_cases() -> list[Case]:
    layers = ("first", "first_bias", "second", "second_bias", "last", "last_bias", "skip")
    kinds = dict.fromkeys(("inputs", "target", "weights", *layers, "by_inputs", "hidden"), "*fp32")
    kinds |= {"shift": "*i32", "totals": "*fp64", "least": "fp32"}
    kinds |= dict.fromkeys(("begin", "end", "used", "width", "thick", "span"), "i32")
    kinds |= {f"{name}_{axis}": "i32" for name in "erw" for axis in "tzyx"}
    cases: list[Case] = []
    for inputs, thick, what in ((64, 32, "rate"), (32, 32, "rate"), (16, 16, "rate"), (64, 16, "distortion"), (64, 32, "distortion"), (128, 32, "distortion"), (64, 16, "weighed")):
        constants: dict[str, Any] = {"N": inputs, "C": thick, "D": thick, "TILE": sites_at_once(inputs, what == "rate"), "PRECISION": PRECISION}
        constants |= {"RATE": what == "rate", "WEIGHED": what == "weighed"}
        name = f"{what}, {inputs} inputs, {thick} in the second layer"
        cases.append((name, network_kernel, kinds, constants, FITTING))
    kinds = dict.fromkeys(("left", "right", "products"), "*fp32") | {"shift": "*i32"}
    kinds |= dict.fromkeys(("lefts", "rights", "begin", "size", "count", "span"), "i32")
    for lefts, rights in ((32, 32), (64, 32), (128, 32)):
        constants = {"A": lefts, "B": rights, "TILE": FEW, "PRECISION": PRECISION}
        cases.append((f"products, {lefts} x {rights}", products_kernel, kinds, constants, FITTING, {"num_stages": 1}))
    kinds = {"by_inputs": "*fp32", "gradients": "*fp32"} | dict.fromkeys(("number", "shift", "ends"), "*i32")
    kinds |= dict.fromkeys(("begin", "end", "low", "high", "size", "span"), "i32")
    cases.append(("gather", gather_kernel, kinds, {"PART": SITES}, 4))
    kinds = dict.fromkeys(("latents", "values", "slopes"), "*fp32") | {"count": "i32", "stream": "i32"}
    kinds |= dict.fromkeys(("height", "sharp", "unit"), "fp32")
    cases.append(("soften", soften_kernel, kinds, {"PART": STEP}, 4))
    kinds = dict.fromkeys(("latents", "gradients", "means", "squares"), "*fp32") | {"count": "i32"}
    kinds |= dict.fromkeys(("pace", "lift", "first", "second", "epsilon"), "fp32")
    cases.append(("adam", adam_kernel, kinds, {"PART": STEP}, 4))
    return cases
