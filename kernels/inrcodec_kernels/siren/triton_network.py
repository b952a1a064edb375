"""Device functions of sine networks: sine and cosine, random numbers, products, reading layers, and evaluating them."""

# Annotations of kernels are directions to Triton's compiler; its tensors have no static types.
# Their tuples grow by concatenation, which Triton unrolls.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disable-error-code="assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

# ---------------------------------------------------------------------------------------------------- arithmetic


@triton.jit
def _reduce(x):
    """``x = k pi + r``, ``|r| <= pi / 2``: r, and the sign ``(-1)^k`` as the highest bit of an integer.

    Adding 1.5 * 2^23 leaves k in the low bits of the float. 3217 / 1024 has 12 bits, so k times it is exact up to k = 4096,
    whether or not the compiler contracts the subtraction to a multiply-add.
    """
    shifted = x * 0.3183098861837907 + 12582912.0
    k = shifted - 12582912.0
    r = (x - k * 3.1416015625) - k * -8.90890987648163e-06
    return r, shifted.to(tl.int32, bitcast=True) << 31


@triton.jit
def _signed(value, sign):
    return (value.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _odd(r, s):
    """sin r for ``|r| <= pi / 2``, ``s = r^2``; near-minimax, 2.7e-8."""
    p = s * 2.6347917180119736e-06 - 0.00019822754031328406
    p = p * s + 0.008333242283300943
    p = p * s - 0.16666665966041216
    return r + (r * s) * p


@triton.jit
def sine(x, FAST: tl.constexpr):
    """sin x, absolute error at most 2.5e-7 for ``|x| <= 100``; with FAST the device's own unit, 5e-7."""
    r, sign = _reduce(x)
    if FAST:
        value = tl.inline_asm_elementwise("sin.approx.f32 $0, $1;", "=f,f", [r], dtype=tl.float32, is_pure=True, pack=1)
    else:
        value = _odd(r, r * r)
    return _signed(value, sign)


@triton.jit
def sine_and_cosine(x):
    """sin x and cos x from one reduction."""
    r, sign = _reduce(x)
    s = r * r
    p = s * -2.629769733334465e-07 + 2.4774590202595235e-05
    p = p * s - 0.0013888651833040362
    p = p * s + 0.041666659370468824
    p = p * s - 0.49999999964046854
    return _signed(_odd(r, s), sign), _signed(p * s + 1.0, sign)


@triton.jit
def mix(x):
    """Murmur3's finaliser, a bijection of 32-bit integers that leaves no visible pattern."""
    x ^= x >> 16
    x *= 0x85EBCA6B
    x ^= x >> 13
    x *= 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def multiply(a, b, PRECISION: tl.constexpr):
    if PRECISION == "fp16":
        product = tl.dot(a.to(tl.float16), b.to(tl.float16))
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


# ------------------------------------------------------------------------------------------------------- layers
#
# WIDTHS = (d, w_1, ..., w_L, 1); PADS the same, hidden ones rounded up to a power of two of at least 16, as tl.dot wants;
# OFFSETS the first parameter of each layer. What pads a weight is 0, so padded neurons are sin 0 = 0 and get no gradient.


@triton.jit
def read_row(layer, row, WIDTH: tl.constexpr, PAD: tl.constexpr):
    columns = tl.arange(0, PAD)
    return tl.load(layer + row * WIDTH + columns, mask=columns < WIDTH, other=0).to(tl.float32)


@triton.jit
def first_layer(weights, WIDTHS: tl.constexpr, PADS: tl.constexpr):
    """Its rows, one by one: so few coordinates are multiplied without tl.dot."""
    rows = ()
    for a in tl.static_range(WIDTHS[0] + 1):
        rows = rows + (read_row(weights, a, WIDTHS[1], PADS[1]),)
    return rows


@triton.jit
def hidden_layer(weights, LAYER: tl.constexpr, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr):
    """Matrix and bias of layer LAYER + 1 of 2 ... L."""
    layer = weights + OFFSETS[LAYER]
    rows = tl.arange(0, PADS[LAYER])[:, None]
    columns = tl.arange(0, PADS[LAYER + 1])[None, :]
    there = (rows < WIDTHS[LAYER]) & (columns < WIDTHS[LAYER + 1])
    matrix = tl.load(layer + rows * WIDTHS[LAYER + 1] + columns, mask=there, other=0).to(tl.float32)
    return matrix, read_row(layer, WIDTHS[LAYER], WIDTHS[LAYER + 1], PADS[LAYER + 1])


@triton.jit
def last_layer(weights, DEPTH: tl.constexpr, WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr):
    layer = weights + OFFSETS[DEPTH]
    bias = tl.load(layer + WIDTHS[DEPTH]).to(tl.float32)
    return read_row(layer, 0, WIDTHS[DEPTH], PADS[DEPTH]), bias


@triton.jit
def first_phase(points, rows, D: tl.constexpr):
    phase = rows[D][None, :]
    for a in tl.static_range(D):
        phase = phase + points[a][:, None] * rows[a][None, :]
    return phase


# -------------------------------------------------------------------------------------------------------- outputs


@triton.jit
def read_quantised(
    quantised, steps, start,
    WIDTHS: tl.constexpr, PADS: tl.constexpr, OFFSETS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """All layers of a network: the first, the hidden ones, the last."""
    step = tl.load(steps)
    first = ()
    for a in tl.static_range(WIDTHS[0] + 1):
        row = read_row(quantised, a, WIDTHS[1], PADS[1]) * step + read_row(start, a, WIDTHS[1], PADS[1])
        first = first + (row,)
    hidden = ()
    for i in tl.static_range(1, DEPTH):
        matrix, bias = hidden_layer(quantised, i, WIDTHS, PADS, OFFSETS)
        step = tl.load(steps + i)
        hidden = hidden + ((matrix * step, bias * step),)
    row, bias = last_layer(quantised, DEPTH, WIDTHS, PADS, OFFSETS)
    step = tl.load(steps + DEPTH)
    return first, hidden, (row * step, bias * step)


@triton.jit
def evaluate(points, layers, D: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, FAST: tl.constexpr):
    """Value of a network at a tile of points."""
    first, hidden, last = layers
    h = sine(first_phase(points, first, D), FAST)
    for i in tl.static_range(DEPTH - 1):
        h = sine(multiply(h, hidden[i][0], PRECISION) + hidden[i][1][None, :], FAST)
    return tl.sum(h * last[0][None, :], axis=1) + last[1]
