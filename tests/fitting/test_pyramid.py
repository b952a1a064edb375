"""The descent on a pyramid: it pays, lands on goals, repeats itself, and its last part can be done again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import inrcodec.fitting.pyramid as fitting
from fitting.pyramid_cases import quiet, small
from inrcodec.fitting.goal import Goal
from inrcodec.fitting.pyramid import FAIR, Frames, PyramidFit
from inrcodec.fitting.pyramid_course import USUAL, Cost, Schedule
from inrcodec.fitting.pyramid_start import Differences, choose_halvings, first_latents
from inrcodec.models.pyramid import PyramidLayout, initial_networks, joined, parted
from inrcodec.region import Region
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import distortion, synthesise
from samples import tissue

STEPS = 60


def new_fit(volume: np.ndarray, step: float = 30.0, seed: int = 0, frames: Frames | None = None) -> PyramidFit:
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
    return PyramidFit(volume, 0.0, step, layout, initial_networks(layout, seed), seed, choose("cpu"), frames=frames)


@pytest.fixture(scope="module")
def fitted() -> PyramidFit:
    fit = new_fit(small())
    fit.run(STEPS, None, Schedule(), quiet)
    return fit


def cost(fit: PyramidFit, latents: list[np.ndarray]) -> float:
    return float(fit.squares(latents) + FAIR * fit.bits(latents))


def test_the_descent_lowers_the_cost(fitted: PyramidFit) -> None:
    before, after = new_fit(small()).cost(), fitted.cost()
    assert after.error + FAIR * after.bits / fitted.samples < 0.5 * (before.error + FAIR * before.bits / fitted.samples)


def test_costs_are_those_of_the_rounded_latents(fitted: PyramidFit) -> None:
    found = fitted.cost()
    assert found.bits == pytest.approx(fitted.bits(fitted.rounded))
    assert found.error == pytest.approx(fitted.squares(fitted.rounded) / fitted.samples)


def test_the_same_seed_gives_the_same_latents(fitted: PyramidFit) -> None:
    again = new_fit(small())
    again.run(STEPS, None, Schedule(), quiet)
    assert all(np.array_equal(a, b) for a, b in zip(again.rounded, fitted.rounded, strict=True))
    other = new_fit(small(), seed=1)
    other.run(STEPS, None, Schedule(), quiet)
    assert not all(np.array_equal(a, b) for a, b in zip(other.rounded, fitted.rounded, strict=True))


def test_the_last_part_again_at_another_price(fitted: PyramidFit) -> None:
    kept = [y.copy() for y in fitted.rounded]
    dear, cheap = fitted.again(3.0, quiet), fitted.again(0.4, quiet)
    assert fitted.bits(dear) < fitted.bits(cheap)
    assert fitted.squares(dear) > fitted.squares(cheap)
    assert all(np.array_equal(a, b) for a, b in zip(kept, fitted.rounded, strict=True))


@pytest.mark.parametrize(("times", "first", "octaves"), [(1, 45, 0.08), (3, 36, 0.18)])
def test_the_last_part_is_shorter_where_the_goal_is_near(
    times: float, first: int, octaves: float, fitted: PyramidFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near by what is foretold; the price moves bits either way, though so few steps leave the step to change meanwhile."""
    fit, taken = new_fit(small()), []
    fit.run(STEPS, Goal(bits=times * fitted.cost().bits), Schedule(), quiet)
    advance = fit.advance

    def noted(number: int, networks: bool = True) -> None:
        taken.append(number)
        advance(number, networks)

    monkeypatch.setattr(fit, "advance", noted)
    dear = fit.again(4.0, quiet)
    assert taken == [*range(first, STEPS)] and fit.octaves == octaves
    assert 0.5 * fit.bits(fit.rounded) < fit.bits(dear) < fit.bits(fit.rounded)


@pytest.mark.parametrize(("many", "moving", "lines"), [(1, False, 2), (1 << 30, False, 1), (1, True, 1)])
def test_errors_of_large_still_signals_are_taken_from_lines_in_turns_while_latents_are_soft(
    many: int, moving: bool, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, volume = [], small()

    def noted(*arguments: Any) -> Any:
        *others, turn = arguments
        taken.append(turn)
        return distortion(*others, turn)

    monkeypatch.setattr(fitting, "distortion", noted)
    monkeypatch.setattr(fitting, "_MANY", many)
    fit = new_fit(volume, frames=Frames(volume.reshape(1, *volume.shape), noted, None) if moving else None)
    fit.begin(STEPS, Schedule())
    for number in range(STEPS):
        fit.advance(number)
    hard = STEPS // 10
    assert [turn.lines for turn in taken] == [lines] * (STEPS - hard) + [1] * hard
    assert [turn.number for turn in taken] == [*range(STEPS)]


def test_gradients_are_those_of_squares_and_bits(fitted: PyramidFit) -> None:
    """To the first order, in the direction of the gradients."""
    latents = [y.astype(np.float64) for y in fitted.rounded]
    of_error, _ = fitted.slopes(fitted.rounded)
    length = 1e-3
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in of_error))
    moved = [(y + length * g / norm) for y, g in zip(latents, of_error, strict=True)]
    rise = fitted.squares(moved) - fitted.squares(fitted.rounded)
    assert rise == pytest.approx(length * norm, rel=0.02)


def test_first_latents_are_differences_of_means() -> None:
    volume = small().astype(np.float32).reshape(1, *small().shape)
    layout = PyramidLayout(small().shape, ((True,) * 3,) * 2)
    gains = np.array([1.0, 0.5, 0.25], dtype=np.float32)
    fine, middle, coarse = first_latents(volume, layout, gains)
    rough = np.abs(fine).max()
    assert 0 < rough < np.ptp(volume)
    assert not first_latents(np.float32(1e-3) * volume, layout, gains)[0].any(), "what is small is zero"
    means = volume.reshape(1, 8, 2, 10, 2, 12, 2).mean((2, 4, 6))
    # What the coarsest level leaves of the means, the middle one holds; inside, interpolation is linear.
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32), means.shape)
    straight = first_latents(np.repeat(np.repeat(np.repeat(ramp, 2, 1), 2, 2), 2, 3), layout, gains)
    assert np.abs(straight[1][..., 2:-2]).max() < 1e-4
    assert coarse.shape == (1, 4, 5, 6) and middle.shape == means.shape
    np.testing.assert_allclose(coarse * gains[2], means.reshape(1, 4, 2, 5, 2, 6, 2).mean((2, 4, 6)), rtol=1e-4, atol=1e-3)


def test_thick_slices_are_halved_later() -> None:
    fine = tissue((32, 32, 32))
    assert choose_halvings(fine, 3)[0] == (True, True, True)
    thick = fine[::8]
    assert choose_halvings(thick, 4)[0] == (False, True, True)
    assert all(len(flags) == 1 for flags in choose_halvings(fine[0, 0], 3))
    assert choose_halvings(np.zeros((3, 4), np.int16), 5) == ()


@pytest.mark.parametrize("volume", [np.zeros((5, 6), np.int16), np.full((1, 1, 9), 7, np.uint8), np.arange(3, dtype=np.int16)])
def test_signals_with_nothing_in_them(volume: np.ndarray) -> None:
    fit = new_fit(volume, step=1.0)
    fit.run(10, Goal(bits=100.0), Schedule(), quiet)
    assert np.isfinite(fit.cost().error)
    assert all(y.dtype == np.int32 for y in fit.rounded)


def test_measures_fall_and_rise_with_the_step() -> None:
    volume = small()
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4))
    known = Differences(volume, 0.0, layout)
    assert known.bits(10.0) > known.bits(20.0) > 0
    assert known.error(20.0) > known.error(10.0) > 0
    step = known.step(Goal(bits=4000.0), 0.5)
    assert 0.5 * known.bits(step) == pytest.approx(4000.0, rel=0.01)
    assert known.error(known.step(Goal(error=9.0), 1.0)) == pytest.approx(9.0, rel=0.01)


def test_a_start_at_half_resolution_lowers_the_cost() -> None:
    """Coarse levels then already say what they can, and the finest one is as it was."""
    plain, started = new_fit(small()), new_fit(small())
    started.start_at_half(STEPS, Schedule(), quiet)
    assert np.array_equal(plain.rounded[0], started.rounded[0])
    assert not np.array_equal(plain.rounded[1], started.rounded[1])
    for fit in (plain, started):
        fit.run(STEPS, None, Schedule(), quiet)
    a, b = (fit.cost().error + FAIR * fit.cost().bits / fit.samples for fit in (plain, started))
    assert b < a


@pytest.mark.parametrize("networks", [1, 2])
def test_what_the_finest_level_has_been_taught_is_kept(networks: int) -> None:
    """Its half has no such level; untaught, it begins as the next one."""
    volume = small()
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8), networks=networks)
    begun, fits = initial_networks(layout, 1), []
    for taught in (False, True):
        fits.append(PyramidFit(volume, 0.0, 30.0, layout, begun, 0, choose("cpu")))
        fits[-1].start_at_half(STEPS, Schedule(), quiet, taught)
    anew, kept = (fit.context for fit in fits)
    for name, untaught, taught, first in zip(anew._fields, anew, kept, begun[0], strict=True):
        assert np.array_equal(untaught[1:], taught[1:]), "the others are the half's"
        if name == "level_bias" or networks > 1:
            assert np.array_equal(taught[0], first[0]) and np.array_equal(untaught[0], untaught[1])
        assert not np.array_equal(taught[-1], first[-1])


def test_two_levels_have_no_half_to_start_from() -> None:
    volume = np.arange(6, dtype=np.int16)
    fit = new_fit(volume, step=1.0)
    before = fit.rounded
    fit.start_at_half(5, Schedule(), quiet)
    assert fit.layout.levels < 3 and all(np.array_equal(a, b) for a, b in zip(before, fit.rounded, strict=True))


def test_settled_networks_stay_as_they_are() -> None:
    """What is foretold before that changes nothing."""
    fit, seen = new_fit(small()), []

    def settle(last: bool) -> Goal | None:
        rounded = parted({name: values.round(2) for name, values in joined(fit.context, fit.synthesis).items()})
        if last:
            fit.set_networks(*rounded)
        seen.append((last, joined(*rounded)))
        return None

    fit.run(40, None, Schedule(), quiet, settle)
    assert [last for last, _ in seen] == [False, True]
    (_, first), (_, second) = seen
    for name, values in joined(fit.context, fit.synthesis).items():
        np.testing.assert_allclose(values, second[name], rtol=1e-6)
    assert all(not np.allclose(first[f"context.{name}"], second[f"context.{name}"], rtol=1e-6) for name in ("first", "last_bias"))


def test_a_fit_of_few_steps_is_settled_once() -> None:
    fit, seen = new_fit(small()), []
    fit.run(2, None, Schedule(), quiet, lambda last: seen.append(last))
    assert seen == [True]


def test_bits_are_dear_at_first_and_fair_in_the_end() -> None:
    schedule = Schedule()
    prices = [schedule.price(part) for part in np.linspace(0, 1, 11)]
    assert prices[0] == schedule.dear and prices[-1] == 1 and all(a >= b for a, b in itertools.pairwise(prices))


def test_courses_are_those_of_the_fit() -> None:
    fit = new_fit(tissue((16, 32, 32)))
    fit.run(20, None, Schedule(), quiet)
    course, costs, end = fit.went, dict(fit.costs), fit.cost()
    assert list(course.parts) == list(costs) and course.at(1) == (1, 1)
    assert course.at(0.5) == pytest.approx(tuple(np.clip([costs[0.5].bits / end.bits, costs[0.5].error / end.error], 1 / 3, 3)))
    fit.costs = [(0.5, Cost(1e12, 0.0))]
    assert fit.went.at(0.5) == (3.0, 1 / 3)
    fit.costs = []
    assert fit.went is USUAL
    few = new_fit(small())
    few.run(10, None, Schedule(), quiet)
    assert few.costs and few.went is USUAL
    assert USUAL.at(1.0) == (1, 1) and min(USUAL.at(0.2)) > 1


def test_a_fit_without_the_finest_level_starts_from_all_that_a_half_has() -> None:
    volume = small()
    full = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
    for layout in (full.without_finest, full.without_finest.without_finest):
        fit = PyramidFit(volume, 0.0, 30.0, layout, initial_networks(layout, 0), 0, choose("cpu"))
        before = fit.rounded
        assert [y.shape[1:] for y in before] == list(full.lattices[len(layout.above) :])
        fit.start_at_half(STEPS, Schedule(), quiet)
        assert not any(np.array_equal(a, b) for a, b in zip(before, fit.rounded, strict=True))
        first = fit.cost()
        fit.run(STEPS, None, Schedule(), quiet)
        assert fit.cost().error + FAIR * fit.cost().bits / fit.samples < first.error + FAIR * first.bits / fit.samples


def region_fit() -> tuple[PyramidFit, np.ndarray]:
    volume, mask = small(), np.zeros((20, 24), bool)
    mask[5:15, 4:14] = True
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
    weights = Region(mask, 32.0).weights(volume.shape)
    fit = PyramidFit(volume, 0.0, 30.0, layout, initial_networks(layout, 0), 0, choose("cpu"), weights)
    return fit, np.broadcast_to(mask, layout.kernel.shape)


def test_errors_that_count_less_save_bits(fitted: PyramidFit) -> None:
    """The region keeps its error at the same step; the others take fewer bits and have more."""
    fit, inside = region_fit()
    fit.run(STEPS, None, Schedule(), quiet)
    plain, found = (f.cost() for f in (fitted, fit))
    assert found.bits < 0.85 * plain.bits
    squares = [np.square(synthesise([y.astype(np.float32) for y in f.rounded], f.synthesis, f.layout.kernel) - f._target) for f in (fitted, fit)]
    assert found.error == pytest.approx(float(squares[1][inside].mean()), rel=1e-3)
    assert squares[1][inside].mean() < 1.3 * squares[0][inside].mean()
    assert squares[1][~inside].mean() > 2 * squares[0][~inside].mean()


def test_slopes_follow_the_weights() -> None:
    fit, inside = region_fit()
    of_error, _ = fit.slopes(fit.rounded)
    far = np.ones(inside.shape, bool)
    far[..., 3:17, 2:16] = False  # two samples away from the region: what the finest latents there do, others do not see
    plain = new_fit(small())
    plain.set_networks(fit.context, fit.synthesis)
    expected, _ = plain.slopes(fit.rounded)
    assert np.allclose(32 * of_error[0][far], expected[0][far], rtol=1e-3, atol=1e-4 * np.abs(expected[0]).max())
    centre = inside.copy()
    centre[..., :7, :] = centre[..., 13:, :] = centre[..., :6] = centre[..., 12:] = False
    assert np.allclose(of_error[0][centre], expected[0][centre], rtol=1e-3, atol=1e-4 * np.abs(expected[0]).max())


def test_a_region_is_fitted_from_half_its_resolution() -> None:
    fit, _ = region_fit()
    fit.start_at_half(5, Schedule(), quiet)
    fit.run(10, Goal(error=400.0), Schedule(), quiet)
    assert np.isfinite(fit.cost().error)


def test_the_measure_of_boxes_is_that_of_the_whole() -> None:
    volume = small()
    known = Differences(volume, 0.0, PyramidLayout(volume.shape, ((True,) * 3,) * 2))
    boxes = [(slice(z, z + 8), slice(0, 20), slice(x, x + 12)) for z in (0, 8) for x in (0, 12)]
    assert np.mean([known.density(10.0, box) for box in boxes]) == pytest.approx(known.bits(10.0) / volume.size, rel=1e-6)
    assert np.mean([known.error(10.0, box) for box in boxes]) == pytest.approx(known.error(10.0), rel=1e-6)


@pytest.mark.parametrize(("excess", "answered"), [(2.0, 1.0), (0.5, 1.0), (1.05, 1.05)])
def test_what_a_large_change_of_the_step_is_still_to_bring_is_not_asked_for_again(excess: float, answered: float) -> None:
    """Half of it comes before the next check; small changes are asked for until they are seen."""
    fit, goal = new_fit(small()), Goal(bits=1000.0)
    fit.begin(100, Schedule())
    of_course = fit.course.at(0.3)[0]

    def changed(seen: float) -> float:
        before = fit.step
        fit._follow(goal, Cost(1000 * of_course * seen, 1.0), 0.3)
        return fit.step / before

    assert changed(excess) == pytest.approx(excess**0.75)
    outstanding = max(excess / 1.1, min(excess * 1.1, 1.0)) ** 0.5
    assert changed(outstanding * answered) == pytest.approx(answered**0.75)
