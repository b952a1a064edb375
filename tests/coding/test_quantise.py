"""Rate-distortion optimised rounding: never dearer than plain rounding, and close to the exact values."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.coding.contexts import Bands
from inrcodec.coding.quantise import LAMBDA, optimised_rounding, plain_rounding
from inrcodec.coding.readouts import ReadoutCoder, ReadoutGeometry, band_counts, estimate_bits
from inrcodec_kernels.backend import Backend

LEVELS = [1, 2, 2, 2] * 150


def geometry_of(levels: list[int]) -> ReadoutGeometry:
    cells = ((16, 16), (8, 8), (4, 4))
    bands = {}
    for level in sorted(set(levels)):
        index = np.argwhere(np.ones(cells[level], dtype=bool))
        bands[level] = Bands.of_lattice(index[np.argsort((index**2).sum(axis=1), kind="stable")])
    return ReadoutGeometry(cells, bands, np.array(levels, dtype=np.int64))


def coefficients_of(geometry: ReadoutGeometry, seed: int) -> dict[int, np.ndarray]:
    """Laplacian coefficients that fall with frequency, some leaves quiet and some loud."""
    random = np.random.default_rng(seed)
    found = {}
    for level in geometry.levels:
        count = int((geometry.level == level).sum())
        part = np.empty((geometry.bands[level].width, count), dtype=np.float32)
        for b, members in enumerate(geometry.bands[level].members):
            part[members] = random.laplace(size=(len(members), count)) * 40 / (1 + b) ** 1.5
        found[level] = part * random.gamma(1.0, size=count).astype(np.float32)
    return found


def cost(
    geometry: ReadoutGeometry, exact: dict[int, np.ndarray], step: float, turns: int
) -> tuple[float, float, float]:
    """``D + lambda R`` in squared steps with the coder's own estimate of R, then D and R."""
    values, widths, statistics = optimised_rounding(geometry, exact, step, turns)
    error = sum(float(((c / step - values[level]) ** 2).sum()) for level, c in exact.items())
    bits = estimate_bits(geometry, values, widths, statistics)
    return error + LAMBDA * bits, error, bits


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("step", [0.5, 3.0, 20.0])
def test_optimised_rounding_is_never_dearer(seed: int, step: float) -> None:
    geometry = geometry_of(LEVELS)
    exact = coefficients_of(geometry, seed)
    plain, one, three = (cost(geometry, exact, step, turns) for turns in (0, 1, 3))
    assert one[0] < plain[0] and three[0] < plain[0]
    assert three[2] < plain[2] and three[1] > plain[1], "fewer bits, bought with some error"
    assert three[0] < one[0] * 1.001


def test_leaves_that_count_less_take_fewer_bits() -> None:
    geometry = geometry_of(LEVELS)
    exact = coefficients_of(geometry, 0)
    weights = {level: np.where(np.arange(c.shape[1]) % 3, 1.0, 0.02).astype(np.float32) for level, c in exact.items()}
    ones = {level: np.ones_like(w) for level, w in weights.items()}
    plain, same, found = (optimised_rounding(geometry, exact, 3.0, 2, weights=w)[0] for w in (None, ones, weights))
    for level, values in found.items():
        little = weights[level] < 1
        assert np.array_equal(same[level], plain[level])
        assert (values[1:, little] != 0).mean() < 0.5 * (plain[level][1:, little] != 0).mean()
        assert np.abs(values[:, ~little] - plain[level][:, ~little]).max() <= 1, "others only see other statistics"
        assert (values[1:, ~little] != 0).mean() > 0.8 * (plain[level][1:, ~little] != 0).mean()
    nothing = optimised_rounding(geometry, exact, 3.0, 1, weights={level: 0 * w for level, w in weights.items()})[0]
    assert all(not values[1:].any() for values in nothing.values())


@pytest.mark.parametrize("turns", [0, 2])
def test_integers_stay_near_the_exact_values(turns: int) -> None:
    geometry, step = geometry_of(LEVELS), 2.0
    exact = coefficients_of(geometry, 2)
    values, widths, statistics = optimised_rounding(geometry, exact, step, turns)
    for level, part in exact.items():
        scaled, n = part.astype(np.float64) / step, values[level]
        assert np.all(np.sign(n) * np.sign(scaled) >= 0)
        assert np.all(np.abs(n) <= np.floor(np.abs(scaled) + 0.5) + 1e-3)
        assert np.all((n == 0) | (np.abs(scaled) - np.abs(n) <= 1.5 + 1e-3))
        assert np.array_equal(n[0], np.rint(part[0] / np.float32(step)))
        assert np.all(widths[level] >= band_counts(geometry.bands[level], n))
    coder = ReadoutCoder(geometry, statistics)
    found = coder.read(coder.write(values, widths, 0, 600), 0, 600)
    assert all(np.array_equal(found[level], values[level]) for level in values)


def test_no_turns_are_plain_rounding() -> None:
    geometry = geometry_of(LEVELS)
    exact = coefficients_of(geometry, 4)
    values, widths, _ = optimised_rounding(geometry, exact, 1.5, 0)
    plain, used = plain_rounding(geometry, exact, 1.5)
    for level in plain:
        assert np.array_equal(values[level], plain[level]) and np.array_equal(widths[level], used[level])
        assert np.array_equal(widths[level], band_counts(geometry.bands[level], plain[level]))


def test_plain_rounding_of_known_values() -> None:
    part = np.array([[2.6, -2.6, 0.5], [1.09, -1.11, 0.9], [0.0, 7.2, -3.05]], dtype=np.float32)
    geometry = ReadoutGeometry(((3,),), {0: Bands.of_lattice(np.arange(3)[:, None])}, np.zeros(3, dtype=np.int64))
    values, widths = plain_rounding(geometry, {0: part}, 2.0)
    assert values[0].tolist() == [[1, -1, 0], [0, -1, 0], [0, 4, -1]]
    assert widths[0].tolist() == [0, 2, 2]


@pytest.mark.parametrize(("turns", "pressure"), [(0, 1.0), (1, 1.0), (3, 0.5)])
def test_backends_agree(turns: int, pressure: float) -> None:
    pytest.importorskip("numba")
    geometry = geometry_of(LEVELS)
    exact = coefficients_of(geometry, 5)
    numpy, numba = (
        optimised_rounding(geometry, exact, 3.0, turns, pressure, Backend(name)) for name in ("reference", "numba")
    )
    for level in exact:
        assert np.array_equal(numpy[0][level], numba[0][level]) and np.array_equal(numpy[1][level], numba[1][level])
    assert numpy[2].to_bytes() == numba[2].to_bytes()
    estimates = [estimate_bits(geometry, *numpy, backend=Backend(name)) for name in ("reference", "numba")]
    assert estimates[0] == estimates[1]


def test_zeros_stay_zeros() -> None:
    geometry = geometry_of(LEVELS)
    zeros = {level: np.zeros_like(c) for level, c in coefficients_of(geometry, 0).items()}
    values, widths, _ = optimised_rounding(geometry, zeros, 1.0, 2)
    assert not any(v.any() for v in values.values()) and not any(w.any() for w in widths.values())


def test_input_is_not_changed() -> None:
    geometry = geometry_of(LEVELS)
    exact = coefficients_of(geometry, 0)
    copies = {level: c.copy() for level, c in exact.items()}
    optimised_rounding(geometry, exact, 2.0, 2)
    assert all(np.array_equal(exact[level], copies[level]) for level in exact)
