"""The distributions of latents: tables of a Laplace distribution, from integers alone.

In units of 1/n, n 8 or 16, table ``n j + q + n/2`` is that of a latent y whose predicted mean lies q units (-n/2 to
n/2 - 1) beside the whole number c, with the scale ``b_j = 2^(j/6 - 5)``: symbol i stands for ``y = c + i - REACH[j]``, and the last one, ``2 REACH[j] +
1``, for all other y. Machines differ in the last bits of an exponential; so the ratios are literals, and all else is
integers.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rans import ALPHABET, PRECISION, Tables, proportional

SCALES = 64
"""Scales b_j, j from 0 on."""
NEAR, NEAR_FIRST, NEAR_BITS = 6, -2, 21
"""How many symbols' starts `near_starts` has, the first one's distance from the centre's, and the bits of each."""
# exp(-1 / (8 b_j)) 2^48, rounded: how much of a distribution's tail is left an eighth further out.
# fmt: off
RATIOS = (
    5155394029647, 7976092886867, 11766322752515, 16636788636993, 22650942242158, 29818215177122,
    38093495697156, 47382175547065, 57549330341319, 68431277162841, 79847814247392, 91613762189606,
    103548857136061, 115485482891186, 127274099555002, 138786498427229, 149917182656563, 160583254353294,
    170723203316912, 180294962789356, 189273543339036, 197648492057384, 205421360858075, 212603310837849,
    219212932277264, 225274322665018, 230815437532455, 235866709602581, 240459919245179, 244627291949798,
    248400795102225, 251811605621434, 254889721063654, 257663688928428, 260160431598241, 262405147252031,
    264421269977109, 266230475016979, 267852717552348, 269306295582392, 270607929346405, 271772851314332,
    272814902101423, 273746628755627, 274579382756486, 275323415780582, 275987971858373, 276581374995299,
    277111111677821, 277583907951471, 278005800958556, 278382204971398, 278717972063620, 279017447636170,
    279284521063697, 279522671756502, 279735010948284, 279924319524019, 280093082198488, 280243518346558,
    280377609773054, 280497125694296, 280603645186272, 280698577336561,
)
# fmt: on
_OF_RATIOS, _ONE = 8, 48
"""Units, and bits, of a ratio."""
_MOST = 126
"""The largest reach: with its escape, a table then fits the alphabet."""


def _reach(j: int) -> int:
    """``min(126, 2 + ceil(8 b_j))`` in integers: the ceiling is the least m with m^6 >= (8 b_j)^6 = 2^(j - 12)."""
    m = 1
    while m**6 << 12 < 1 << j:
        m += 1
    return min(_MOST, 2 + m)


REACH = tuple(_reach(j) for j in range(SCALES))
"""The largest difference from c that has a symbol of its own."""


class LaplaceTables(NamedTuple):
    """All tables, and what saves the coder a search.

    Attributes
    ----------
    tables : Tables
        64 n of them.
    reach : ndarray of int32, shape (64 n,)
        `REACH` of each.
    centre : ndarray of uint32, shape (64 n, 2)
        Start and frequency of the symbol of c itself, the likeliest by far.
    cost : ndarray of float32, shape (64 n, ALPHABET)
        Bits of each symbol; for estimates only, no stream depends on them.
    """

    tables: Tables
    reach: NDArray[np.int32]
    centre: NDArray[np.uint32]
    cost: NDArray[np.float32]


@cache
def laplace_tables(units: int) -> LaplaceTables:
    """Make the tables for means in such units, once; 0.1 to 0.2 s."""
    tables = Tables.of([frequencies for j in range(SCALES) for frequencies in _frequencies(j, units)])
    reach = np.repeat(np.array(REACH, dtype=np.int32), units)
    number = np.arange(SCALES * units)
    start = tables.starts[number, reach]
    centre = np.stack([start, tables.starts[number, reach + 1] - start], axis=1)
    frequency = np.diff(tables.starts.astype(np.int64), axis=1)
    cost = PRECISION - np.log2(np.maximum(frequency, 1))
    return LaplaceTables(tables, reach, centre, cost[:, :ALPHABET].astype(np.float32))


def _frequencies(j: int, units: int) -> list[NDArray[np.int64]]:
    """The tables of a scale, one for each place of the mean: shares of 2^32, scaled down to `rans.TOTAL`."""
    half = units // 2
    # Of a sixteenth it is the root of what is left after an eighth.
    ratio = RATIOS[j] if units == _OF_RATIOS else math.isqrt(RATIOS[j] << _ONE)
    below = _distribution(ratio, units * (REACH[j] + 1))
    origin = len(below) // 2
    found = []
    for q in range(-half, half):
        # The bounds of the symbols, in units from the mean.
        bounds = units * np.arange(-REACH[j], REACH[j] + 2) - half - q
        weights = np.diff(below[origin + bounds])
        weights = np.append(weights, (1 << 32) - weights.sum())
        found.append(proportional(np.maximum(weights, 1)))
    return found


def _distribution(ratio: int, reach: int) -> NDArray[np.int64]:
    """The distribution function times 2^32 at -reach..reach units from the mean; powers are cut off, not rounded."""
    powers = [1 << _ONE]
    for _ in range(reach):
        powers.append(powers[-1] * ratio >> _ONE)
    tail = np.array(powers, dtype=np.int64) >> (_ONE - 31)
    return np.concatenate([tail[:0:-1], (1 << 32) - tail])


@cache
def near_starts(units: int) -> NDArray[np.int64]:
    """Where the symbols around each centre's start, packed: of a slot between the first and the last of them it is known at once whose it is.

    Returns
    -------
    ndarray of int64, shape (64 units, 2)
        `NEAR` starts of `NEAR_BITS` bits, the lowest first, three to a number. Symbols below the first start where it does, those beyond
        a table's escape where that one does: no slot between is theirs.
    """
    laplace = laplace_tables(units)
    symbols = laplace.reach[:, None] + NEAR_FIRST + np.arange(NEAR)
    found = np.take_along_axis(laplace.tables.starts.astype(np.int64), np.clip(symbols, 0, 2 * laplace.reach[:, None] + 1), axis=1)
    parts = found.reshape(-1, 2, NEAR // 2) << (NEAR_BITS * np.arange(NEAR // 2))
    return np.bitwise_or.reduce(parts, axis=2)


def split(means: NDArray[Any], scales: NDArray[Any], units: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The whole number nearest to each mean, and the table of what is left."""
    half = units // 2
    centres = (means + half) // units
    return centres, units * scales + means - units * centres + half


def neighbouring_bits(
    latents: NDArray[np.int32], means: NDArray[np.int32], scales: NDArray[np.int32], units: int
) -> NDArray[np.float32]:
    """Bits that latents would take more if they were one less, and if they were one more.

    Parameters
    ----------
    latents, means, scales : ndarray of int32, any shape
        Means, in units, and numbers of scales, as `predictions` gives them.
    units : int

    Returns
    -------
    ndarray of float32, shape (3, *latents.shape)
        One less, one more, and the derivative of a latent's own bits by itself. Beyond a table's reach, symbols count
        as its escape.
    """
    laplace = laplace_tables(units)
    centres, table = split(means, scales, units)
    reach = laplace.reach[table]
    place = latents - centres + reach
    own, less, more = (laplace.cost[table, np.clip(place + d, -1, 2 * reach + 1) % (2 * reach + 2)] for d in (0, -1, 1))
    slopes = _slopes(latents - means / units, scales).astype(np.float32)
    return np.stack([less - own, more - own, slopes])


def _slopes(distance: NDArray[np.float64], scales: NDArray[np.int32]) -> NDArray[np.float64]:
    """Derivatives of the bits of a Laplace distribution over a unit, by the distance of its middle from the mean."""
    inverse = 2.0 ** (5 - scales / 6)
    far = np.abs(distance)
    inside = np.minimum(far, 0.5)
    right, left = np.exp((inside - 0.5) * inverse), np.exp((-inside - 0.5) * inverse)
    probability = 1 - 0.5 * (right + left) + 1e-6
    near = 0.5 * inverse * (right - left) / (probability * np.log(2))
    found: NDArray[np.float64] = np.sign(distance) * np.where(far < 0.5, near, inverse / np.log(2))
    return found
