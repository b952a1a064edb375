"""Soft rounding with noise, and Adam, of a whole lattice, in loops that the compiler makes vectors of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ..backend import in_threads
from .laplace import exp2
from .layout import Floats
from .reference import NOISE_DEVIATION, NOISE_PARTS, mix

PART = 1 << 15
"""Latents that a thread takes at a time."""

# Rounding by adding a large number must not be reordered.
EXACT = {"contract", "nsz"}

_F, _U = np.float32, np.uint32
_TWO_LOG2_E = _F(2 / math.log(2))
_MEAN = _F(NOISE_PARTS * 255 // 2)
_HALF, _ONE, _ZERO = _F(0.5), _F(1), _F(0)


def _in_parts(work: Callable[[int, int], Any], count: int) -> None:
    in_threads(lambda part: work(part * PART, min(count, (part + 1) * PART)), range(-(-count // PART)))


def soften(latents: Floats, temperature: float, deviation: float, key: int) -> tuple[Floats, Floats]:
    """As `inrcodec_kernels.pyramid.soften`."""
    values, slopes = np.empty(latents.shape, _F), np.empty(latents.shape, _F)
    flat = latents.reshape(-1), values.reshape(-1), slopes.reshape(-1)
    stream = mix(np.array([key % 2**32], dtype=_U))[0]
    height, sharp = _F(0.5 / math.tanh(0.5 / temperature)), _F(1 / temperature)
    unit = _F(deviation / NOISE_DEVIATION)

    def work(begin: int, end: int) -> None:
        _soften(*(a[begin:end] for a in flat), stream, begin, height, sharp, unit)  # type: ignore[call-arg]

    _in_parts(work, latents.size)
    return values, slopes


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def _mix(x: Any) -> Any:
    """As `siren.reference.mix`."""
    x = _U(x)
    x = _U((x ^ (x >> _U(16))) * _U(0x85EBCA6B))
    x = _U((x ^ (x >> _U(13))) * _U(0xC2B2AE35))
    return _U(x ^ (x >> _U(16)))


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def _bytes(x: Any) -> Any:
    """Sum of the four bytes of a hash."""
    pairs = _U(_U(x & _U(0x00FF00FF)) + _U(_U(x >> _U(8)) & _U(0x00FF00FF)))
    return _U(_U(pairs & _U(0xFFFF)) + _U(pairs >> _U(16)))


@njit(nogil=True, fastmath=EXACT, error_model="numpy", inline="always")
def _soft_round(y: Any, height: Any, sharp: Any) -> Any:
    """Soft rounding and its derivative, from one power and one division."""
    middle = _F(math.floor(y)) + _HALF
    d = (y - middle) * sharp
    e = exp2(-abs(d) * _TWO_LOG2_E)
    part = _ONE / (_ONE + e)
    bent = (_ONE - e) * part
    bent = bent if d >= _ZERO else -bent
    return middle + height * bent, height * sharp * (_F(4) * e * part * part)


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def _soften(latents, values, slopes, stream, begin, height, sharp, unit):  # type: ignore[no-untyped-def]
    for i in range(len(latents)):
        number = _U(stream + _U(_U(_U(begin) + _U(i)) * _U(2 * 0x85EBCA77 % 2**32)))
        total = _U(_bytes(_mix(number)) + _bytes(_mix(_U(number + _U(0x85EBCA77)))))
        noise = (_F(np.int32(total)) - _MEAN) * unit
        once, slope = _soft_round(latents[i], height, sharp)
        values[i], further = _soft_round(once + noise, height, sharp)
        slopes[i] = slope * further


def adam(
    latents: Floats,
    gradients: Floats,
    moments: tuple[Floats, Floats],
    step: int,
    rate: float,
    decays: tuple[float, float],
    epsilon: float,
) -> None:
    """As `inrcodec_kernels.pyramid.adam`."""
    flat = [a.reshape(-1) for a in (latents, gradients, *moments)]
    first, second = decays
    pace, lift = _F(rate / (1 - first**step)), _F(1 / math.sqrt(1 - second**step))

    def work(begin: int, end: int) -> None:
        _adam(*(a[begin:end] for a in flat), pace, lift, _F(first), _F(second), _F(epsilon))  # type: ignore[call-arg]

    _in_parts(work, latents.size)


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def _adam(latents, gradients, means, squares, pace, lift, first, second, epsilon):  # type: ignore[no-untyped-def]
    for i in range(len(latents)):
        g = gradients[i]
        means[i] = first * means[i] + (_ONE - first) * g
        squares[i] = second * squares[i] + (_ONE - second) * g * g
        latents[i] -= pace * means[i] / (_F(math.sqrt(squares[i])) * lift + epsilon)
