"""The integer context model: tables from literals, exact sums, both backends the same integers."""

from __future__ import annotations

import decimal
import hashlib
import itertools
import math
from types import ModuleType

import numpy as np
import pytest

from inrcodec_kernels.pyramid import context, context_cpu
from inrcodec_kernels.pyramid.context import IntegerContext, Tile, causal_taps, cross_taps, inputs
from inrcodec_kernels.pyramid.context_tables import (
    NEAR,
    NEAR_BITS,
    NEAR_FIRST,
    RATIOS,
    REACH,
    laplace_tables,
    near_starts,
)
from inrcodec_kernels.rans import TOTAL

from .coding_cases import AXES, PRECISIONS, SHAPES, UNITS, axes_of, both, latents_of, network, tile_of

# ---- Tables


def test_the_ratios_are_what_the_exponential_gives() -> None:
    """How the literals were made: exp(-1 / (8 b_j)) 2^48 in 60 digits, rounded."""
    with decimal.localcontext(prec=60):
        for j, literal in enumerate(RATIOS):
            scale = decimal.Decimal(2) ** (decimal.Decimal(j) / 6 - 5)
            assert literal == int(((-1 / (8 * scale)).exp() * 2**48).to_integral_value())
            assert REACH[j] == min(126, 2 + math.ceil(8 * scale))


@pytest.mark.parametrize(
    ("units", "digest"),
    [
        (8, "2f4ee38e5d9b86d78b5435a962c95b11f2b9884eb2b8aa0e338fd58fb38eac17"),
        (16, "db1b0957bbce9bd29a807f3366a75770a3f8021973cb8dd38f7aa8c4eac5382b"),
    ],
)
def test_the_tables_are_those_of_the_format(units: int, digest: str) -> None:
    starts = laplace_tables(units).tables.starts.astype("<u4")
    assert starts.shape == (64 * units, 257)
    assert hashlib.sha256(starts.tobytes()).hexdigest() == digest


@pytest.mark.parametrize("units", UNITS)
def test_starts_near_a_centre_say_whose_a_slot_is(units: int) -> None:
    tables, reaches = laplace_tables(units).tables, laplace_tables(units).reach
    for row, packed, reach in list(zip(tables.starts, near_starts(units), reaches, strict=True))[::7]:
        known = [int(packed[k // 3]) >> NEAR_BITS * (k % 3) & ((1 << NEAR_BITS) - 1) for k in range(NEAR)]
        for slot in range(known[0], known[-1], 61):
            symbol = int(np.searchsorted(row, slot, side="right")) - 1
            assert reach + NEAR_FIRST + sum(start <= slot for start in known) - 1 == symbol <= 2 * reach
        # The centre's own slots are always among them, and those of an escape never.
        assert known[0] <= row[reach] < row[reach + 1] <= known[-1] <= row[2 * reach + 1]


@pytest.mark.parametrize("units", UNITS)
def test_the_tables_are_laplace_distributions(units: int) -> None:
    frequency = np.diff(laplace_tables(units).tables.starts.astype(np.int64), axis=1)
    for number, row in enumerate(frequency):
        j, q = number // units, number % units - units // 2
        size = 2 * REACH[j] + 2
        assert (row[:size] >= 1).all() and not row[size:].any()
        bounds = (np.arange(-REACH[j], REACH[j] + 2) - 0.5 - q / units) / 2 ** (j / 6 - 5)
        below = np.where(bounds < 0, np.exp(-np.abs(bounds)) / 2, 1 - np.exp(-np.abs(bounds)) / 2)
        expected = np.append(np.diff(below), below[0] + 1 - below[-1]) * TOTAL
        # Each symbol keeps one slot at least; what is left over goes to the likeliest.
        others = np.arange(size) != np.argmax(row)
        assert (np.abs(row[:size] - expected)[others] <= 2 + expected[others] * size / TOTAL).all()


# ---- Upsampling of the coarser levels


def upsampled(coarse: np.ndarray, halved: tuple[int, ...], shape: tuple[int, ...], unit: int) -> np.ndarray:
    """Site by site, in Python's integers."""
    found = np.empty(shape, dtype=np.int64)
    for site in itertools.product(*map(range, shape)):
        parts = []
        for i, n, half in zip(site, coarse.shape, halved, strict=True):
            other = min(max(i // 2 + (1 if i % 2 else -1), 0), n - 1)
            parts.append([(3, i // 2), (1, other)] if half else [(1, i)])
        total = sum(
            math.prod(w for w, _ in pick) * int(coarse[tuple(i for _, i in pick)]) for pick in itertools.product(*parts)
        )
        weight = 4 ** sum(halved)
        found[site] = (unit * total + weight // 2) // weight
    return found


@both
@pytest.mark.parametrize("halved", [(0, 1, 1, 1), (1, 1, 0, 1), (0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 0), (1, 0, 0, 0)])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 1, 1, 1), (2, 1, 7, 1), (1, 5, 2, 3)])
@pytest.mark.parametrize("units", UNITS)
def test_parents_are_the_formula(
    coder: ModuleType, halved: tuple[int, ...], shape: tuple[int, ...], units: int
) -> None:
    random = np.random.default_rng(sum(shape) + sum(halved))
    coarser = tuple(-(-n // 2) if half else n for n, half in zip(shape, halved, strict=True))
    coarse = random.integers(-300, 301, coarser).astype(np.int32)
    before = random.integers(-127 * units, 127 * units + 1, coarser).astype(np.int16)
    u, v = coder.parents(coarse, before, halved, shape, units)
    assert u.dtype == v.dtype == np.int16
    assert u.tolist() == upsampled(np.clip(coarse, -127, 127), halved, shape, units).tolist()
    assert v.tolist() == upsampled(before, halved, shape, 1).tolist()
    alone, none = coder.parents(coarse, None, halved, shape, units)
    assert none is None and alone.tolist() == u.tolist()


@both
def test_parents_refuse_levels_that_do_not_follow(coder: ModuleType) -> None:
    with pytest.raises(ValueError, match="expected a coarser level of"):
        coder.parents(np.zeros((1, 2, 2, 2), dtype=np.int32), None, (0, 1, 1, 1), (1, 3, 3, 5), 8)
    with pytest.raises(ValueError, match="expected a coarser level of"):
        coder.parents(np.zeros((1, 2, 2, 2), np.int32), np.zeros((1, 2, 2, 1), np.int16), (0, 1, 1, 1), (1, 3, 3, 4), 8)


# ---- Contexts


def predicted(latents: np.ndarray, tile: Tile, net: IntegerContext, site: tuple[int, ...]) -> tuple[int, int]:
    """One latent, in Python's integers."""

    def clamped(lattice: np.ndarray, tap: np.ndarray) -> int:
        place = (i + s + d for i, s, d in zip(site, tile.start, tap, strict=True))
        return int(lattice[tuple(min(max(p, 0), n - 1) for p, n in zip(place, lattice.shape, strict=True))])

    def own(tap: np.ndarray) -> int:
        place = tuple(int(i + d) for i, d in zip(site, tap, strict=True))
        inside = all(0 <= p < n for p, n in zip(place, tile.shape, strict=True))
        return net.units * min(max(int(latents[place]), -127), 127) if inside else 0

    x = [own(tap) for tap in causal_taps(tile.present, net.wide)]
    x += [clamped(tile.u, tap) for tap in cross_taps(tile.present)] + [clamped(tile.v, np.zeros(4, int))]

    def layer(values: list[int], weights: np.ndarray, bias: np.ndarray, shift: int) -> list[int]:
        sums = [
            sum(v * int(w) for v, w in zip(values, column, strict=True)) + int(b)
            for column, b in zip(weights.T, bias, strict=True)
        ]
        assert max(map(abs, sums)) < 2**24
        most = 2**net.hidden_bits - 1
        return [min(max(s // 2 ** (shift if s >= 0 else shift + 3), -most), most) for s in sums]

    h = layer(x, net.first, net.level_bias[tile.level], net.shifts[0])
    h = layer(h, net.second, net.second_bias, net.shifts[1])
    both_sums = [
        sum(a * int(w) for a, w in zip(h, net.last[:, k], strict=True))
        + sum(a * int(w) for a, w in zip(x, net.skip[:, k], strict=True))
        + int(net.last_bias[k])
        for k in (0, 1)
    ]
    mean, scale = (s // 2**r for s, r in zip(both_sums, net.shifts[2:], strict=True))
    most = 127 * net.units
    return min(max(mean, -most), most), min(max(scale, 0), 63)


@pytest.mark.parametrize(
    ("names", "shape"), [("zyx", (1, 3, 4, 3)), ("tzyx", (3, 2, 3, 3)), ("x", (1, 1, 1, 9)), ("tx", (4, 1, 1, 5))]
)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_predictions_are_the_formula(names: str, shape: tuple[int, ...], precision: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(shape))
    net = network(axes_of(names), random, width=8, precision=precision)
    tile = tile_of(names, shape, random, net.units)
    latents = latents_of(shape, random)
    means, scales = context.predictions(latents, tile, net)
    for site in itertools.product(*map(range, shape)):
        assert (means[site], scales[site]) == predicted(latents, tile, net, site)


@pytest.mark.parametrize(
    ("names", "inside", "across", "further"),
    [("zyx", 13, 7, 28), ("tzyx", 20, 9, 28), ("yx", 4, 5, 7), ("x", 1, 3, 1), ("tx", 4, 5, 1), ("z", 1, 3, 1)],
)
@pytest.mark.parametrize("wide", [False, True], ids=["near", "wide"])
def test_taps_see_earlier_stages_only(names: str, inside: int, across: int, further: int, wide: bool) -> None:
    inside += wide * further
    causal, cross = causal_taps(axes_of(names), wide), cross_taps(axes_of(names))
    assert len(causal) == inside and len(cross) == across and inputs(axes_of(names), wide) == inside + across + 1
    assert (causal @ np.array([8, 4, 2, 1]) < 0).all()
    assert not (np.concatenate([causal, cross]) * ~np.array(axes_of(names))).any()
    assert (
        cross[0].tolist() == [0] * 4
        and len(np.unique(cross, axis=0)) == across
        and len(np.unique(causal, axis=0)) == inside
    )


def test_the_order_of_taps_is_that_of_the_format() -> None:
    found = causal_taps(AXES["tzyx"]).tolist()
    assert found[:7] == [
        [-1, 0, 0, 0],
        [-1, -1, 0, 0],
        [-1, 1, 0, 0],
        [-1, 0, -1, 0],
        [-1, 0, 1, 0],
        [-1, 0, 0, -1],
        [-1, 0, 0, 1],
    ]
    assert (
        found[7:]
        == sorted(found[7:])
        == [[0, *tap] for tap in itertools.product((-1, 0, 1), repeat=3) if tap < (0, 0, 0)]
    )
    further = causal_taps(AXES["tzyx"], wide=True).tolist()
    assert further[:20] == found and further[20:] == sorted(further[20:])
    assert further[20:] == [
        [0, *tap]
        for tap in itertools.product((-2, -1, 0), range(-2, 3), range(-2, 3))
        if [0, *tap] not in found and np.dot(tap, (4, 2, 1)) < 0 and (tap[0] > -2 or max(map(abs, tap[1:])) < 2)
    ]
    assert cross_taps(AXES["yx"]).tolist() == [[0, 0, 0, 0], [0, 0, -1, 0], [0, 0, 1, 0], [0, 0, 0, -1], [0, 0, 0, 1]]


@pytest.mark.parametrize(("names", "shape"), SHAPES)
@pytest.mark.parametrize(("width", "precision"), list(zip((4, 24, 32), PRECISIONS, strict=True)), ids=str)
def test_compiled_predictions_are_the_same_integers(
    names: str, shape: tuple[int, ...], width: int, precision: tuple[int, int]
) -> None:
    random = np.random.default_rng(width + sum(shape))
    tile = tile_of(names, shape, random, 1 << precision[0], level=2)
    latents = latents_of(shape, random)
    nets = (network(axes_of(names), random, width=width, precision=precision, wide=wide) for wide in (False, True))
    for net, known in itertools.product(nets, (tile, tile._replace(v=None), tile._replace(u=None, v=None))):
        expected = context.predictions(latents, known, net)
        found = context_cpu.predictions(latents, known, net)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == np.int32 and a.tolist() == b.tolist()


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05])
def test_sparse_tiles_have_the_same_predictions(share: float) -> None:
    """Most blocks of latents see zeros only, and take a short way."""
    random = np.random.default_rng(int(1000 * share))
    net, shape = network(AXES["zyx"], random), (1, 17, 29, 31)
    u = (random.integers(-30, 31, shape) * (random.random(shape) < share)).astype(np.int16)
    tile = Tile(1, (0, 0, 0, 0), shape, AXES["zyx"], u, np.roll(u, 5))
    latents = (random.integers(-2, 3, shape) * (random.random(shape) < share)).astype(np.int32)
    expected, found = context.predictions(latents, tile, net), context_cpu.predictions(latents, tile, net)
    assert found[0].tolist() == expected[0].tolist() and found[1].tolist() == expected[1].tolist()


def test_float32_sums_are_exact_up_to_the_bound() -> None:
    """Large odd weights, their sums filled up to the last number below 2^24, and inputs at both ends."""
    random = np.random.default_rng(1)
    present, width = AXES["zyx"], 16
    count, full = inputs(present), (1 << 24) - 1
    first = random.integers(0, 2, (count, width)) * 2 * 393 - 393
    second = random.integers(0, 2, (width, width)) * 2 * 511 - 511
    last, skip = random.integers(0, 2, (width, 2)) * 2 * 255 - 255, random.integers(0, 2, (count, 2)) * 2 * 391 - 391
    net = IntegerContext(
        first,
        np.full((1, width), full - 1016 * 393 * count),
        second,
        -np.full(width, full - 2047 * 511 * width),
        last,
        np.array([full - 2047 * 255 * width - 1016 * 391 * count] * 2),
        skip,
        # Shifts so small that the last bits of all sums count.
        (0, 0, 0, 0),
        3,
        11,
    )
    context.check(net)
    shape = (1, 9, 10, 11)
    latents = random.choice(np.array([-127, 126, 127], dtype=np.int32), shape)
    u, v = random.choice(np.array([-1016, 1015, 1016], dtype=np.int16), (2, *shape))
    tile = Tile(0, (0, 0, 0, 0), shape, present, u, v)
    for shifts in ((0, 0, 0, 0), (12, 11, 14, 18), (9, 10, 13, 17)):
        with_shifts = net._replace(shifts=shifts)
        expected = context.predictions(latents, tile, with_shifts)
        found = context_cpu.predictions(latents, tile, with_shifts)
        assert found[0].tolist() == expected[0].tolist() and found[1].tolist() == expected[1].tolist()
    assert len(np.unique(expected[0])) > 20 and len(np.unique(expected[1])) > 5
    with pytest.raises(ValueError, match="expected sums below 16777216, found one of up to 16777216"):
        context.check(net._replace(last_bias=net.last_bias + np.array([0, 1])))


def test_networks_that_do_not_hold_together_are_refused() -> None:
    net = network(AXES["yx"], np.random.default_rng(0), width=8)
    wrong = [
        (net._replace(first=net.first.astype(np.float32)), "expected signed integers"),
        (net._replace(second=net.second[:, :4]), "expected layers that fit"),
        (net._replace(skip=net.skip[1:]), "expected layers that fit"),
        (net._replace(level_bias=net.level_bias[:0]), "expected layers that fit"),
        (net._replace(shifts=(0, 0, 25, 0)), "expected four shifts of 0..24"),
        (net._replace(shifts=(0, -1, 0, 0)), "expected four shifts of 0..24"),
        (net._replace(unit_bits=5), "expected units of"),
        (net._replace(unit_bits=2), "expected units of"),
        (net._replace(hidden_bits=10), "numbers of 11 to 14"),
        (net._replace(hidden_bits=15), "numbers of 11 to 14"),
        (net._replace(second=net.second * 0 + 160, hidden_bits=14, shifts=(0, 0, 24, 24)), "expected sums below"),
        (net._replace(second_bias=net.second_bias * 0 + (1 << 24)), "expected sums below"),
        (net._replace(first=net.first * 0 + np.iinfo(np.int64).min), "expected sums below"),
        (net._replace(level_bias=np.where(np.arange(3)[:, None] == 2, 1 << 24, net.level_bias)), "expected sums below"),
        (net._replace(skip=net.skip * 0 + 1 + (1 << 24) // (1016 * len(net.skip))), "expected sums below"),
    ]
    for each, message in wrong:
        with pytest.raises(ValueError, match=message):
            context.check(each)
    odd = IntegerContext(*(part[..., :6] for part in net[:2]), net[2][:6, :6], net[3][:6], net[4][:6], *net[5:])
    with pytest.raises(ValueError, match="of a multiple of 4"):
        context.check(odd)


@both
def test_what_does_not_belong_together_is_refused(coder: ModuleType) -> None:
    random = np.random.default_rng(0)
    net, tile = network(AXES["zyx"], random), tile_of("zyx", (1, 3, 4, 5), random, 8)
    latents = latents_of(tile.shape, random)
    for wrong in (
        tile._replace(level=3),
        tile._replace(present=AXES["yx"]),
        tile._replace(start=(0, 4, 0, 0)),
        tile._replace(start=(0, -1, 0, 0)),
    ):
        for call in (coder.predictions, coder.tile_bits, lambda *a: coder.encode_tile(*a, 2)):
            with pytest.raises(ValueError, match="expected"):
                call(latents, wrong, net)
        with pytest.raises(ValueError, match="expected"):
            coder.decode_tile(np.zeros(99, dtype=np.uint8), wrong, net, 2)
    with pytest.raises(ValueError, match="expected latents of"):
        coder.encode_tile(latents[:, 1:], tile, net, 2)
    with pytest.raises(ValueError, match="expected latents below 1048576"):
        coder.encode_tile(latents - (1 << 20), tile, net, 2)
    with pytest.raises(ValueError, match="an extent of 1 along absent axes"):
        tile = Tile(0, (0, 0, 0, 0), (2, 3, 4, 5), AXES["zyx"], None, None)
        coder.predictions(np.zeros(tile.shape, dtype=np.int32), tile, net)
