"""Bits of latents under Laplace distributions, and their gradients, in a loop that the compiler makes vectors of.

With ``a = |y - mu|``, ``t1 = exp(-|a - 1/2| / b)`` and ``t2 = exp(-(a + 1/2) / b)`` the probability is ``(t1 - t2) /
2`` for a >= 1/2, else ``1 - (t1 + t2) / 2``; its derivatives by a and by 1 / b are the same in both cases:

    dP/da = -(t1 - t2) / (2 b),    dP/d(1/b) = ((a + 1/2) t2 - (a - 1/2) t1) / 2

so there are three powers, a logarithm and a division, and nothing to branch on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .reference import FLOOR, MOST

# Rounding by adding a large number must not be reordered.
EXACT = {"contract", "nsz"}

_F = np.float32
_ROUND = _F(3 * 2.0**22)
"""Added and taken off again, it rounds to the nearest whole number, whose last bits are those of the sum."""
_SMALLEST = _F(-126)
# Minimax of 2^f on [-1/2, 1/2]: relative error below 2e-8.
_P1, _P2, _P3 = _F(0.693147180), _F(0.240226507), _F(0.0555041087)
_P4, _P5, _P6 = _F(0.00961812911), _F(0.00133335581), _F(0.000154035304)
# log2 (1 + z) / (1 - z) is odd in z; |z| < 0.172.
_L1 = _F(2 / math.log(2))
_L3, _L5, _L7 = _F(1 / 3), _F(1 / 5), _F(1 / 7)
_ROOT_BITS = np.int32(0x3F3504F3)
"""Bits of the square root of 1/2: mantissas are taken from there to twice as much."""
_MANTISSA = np.int32(0x007FFFFF)
_LOG2_E = _F(1 / math.log(2))
_LN_2 = _F(math.log(2))
_FLOOR, _MOST = _F(FLOOR), _F(MOST)
_HALF, _ONE, _ZERO = _F(0.5), _F(1), _F(0)


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def exp2(x: Any) -> Any:
    """Power of two, float32; 2^-126 for all smaller ones."""
    x = _SMALLEST if x < _SMALLEST else x
    shifted = x + _ROUND
    f = x - (shifted - _ROUND)
    power = _ONE + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    return np.int32(_F(power).view(np.int32) + (_F(shifted).view(np.int32) << 23)).view(_F)


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def log2(x: Any) -> Any:
    """Binary logarithm of a normal positive number, float32."""
    bits = np.int32(_F(x).view(np.int32) - _ROOT_BITS)
    exponent = np.int32(bits >> 23)
    m = np.int32(np.int32(bits & _MANTISSA) + _ROOT_BITS).view(_F)
    z = (m - _ONE) / (m + _ONE)
    u = z * z
    return _F(exponent) + _L1 * z * (_ONE + u * (_L3 + u * (_L5 + u * _L7)))


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def bits_and_gradients(  # type: ignore[no-untyped-def]
    latents, location, scale, mask, bits, location_bias, scale_bias, least
):  # fmt: skip
    """Write the bits of every latent, and gradients by location and log2 scale in their places; 0 where the mask is."""
    for i in range(len(bits)):
        s = scale[i] + scale_bias
        clamped = least if s < least else s
        clamped = _MOST if clamped > _MOST else clamped
        inverse = exp2(-clamped)
        d = latents[i] - (location[i] + location_bias)
        a = abs(d)
        sharp = inverse * _LOG2_E
        above, below = a + _HALF, a - _HALF
        t1, t2 = exp2(-abs(below) * sharp), exp2(-above * sharp)
        outer = _HALF * t1
        q = (outer if below >= _ZERO else _ONE - outer) - _HALF * t2 + _FLOOR
        bits[i] = -mask[i] * log2(q)
        g = mask[i] * _HALF * inverse / q
        by_distance = g * _LOG2_E * (t1 - t2)
        location[i] = by_distance if d < _ZERO else -by_distance
        by_scale = g * (above * t2 - below * t1)
        scale[i] = by_scale if clamped == s else _ZERO
