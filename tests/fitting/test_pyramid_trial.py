"""Trials of a pyramid: what is fitted where, at which step, with which networks, and that fits begun so land on goals."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from fitting.pyramid_cases import quiet, small
from inrcodec.fitting import pyramid_trial
from inrcodec.fitting.goal import Goal
from inrcodec.fitting.pyramid import FAIR, PyramidFit
from inrcodec.fitting.pyramid_course import USUAL, Course, Schedule
from inrcodec.fitting.pyramid_start import Differences, choose_halvings, first_latents, typical_boxes
from inrcodec.fitting.pyramid_trial import GUESS_OF_ERROR, Guess, Trials
from inrcodec.models.pyramid import PyramidLayout, initial_networks
from inrcodec.region import Region
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import Context, Synthesis
from samples import tissue

STEPS = 60


def guessed(
    volume: np.ndarray, goal: Goal, steps: int = 50, above: int | None = None, note: Callable[[float, str], None] = quiet, split: int | None = 0
) -> Guess:
    full = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
    trials = Trials(
        volume, 0.0, Differences(volume, 0.0, full), full, lambda layout: initial_networks(layout, 0), lambda fit: lambda: 0.0, lambda layout: goal, steps, 0, choose("cpu"), None, note
    )
    return trials.guess(above, split)


@pytest.mark.parametrize(("above", "split"), [(None, 0), (None, None), (1, 0)])
@pytest.mark.parametrize("depth", [12, 72])
def test_all_trials_and_the_lesson_are_one_progress(depth: int, above: int | None, split: int | None) -> None:
    seen: list[float] = []
    guessed(tissue((depth, 40, 40)), Goal(bits=3000.0 * depth), 20, above, lambda fraction, text: seen.append(fraction), split)
    assert seen == sorted(seen) and seen[-1] == 1
    assert 0 < seen[0] < 0.3 and all(later - before < 0.9 for before, later in itertools.pairwise(seen))


def reached(goal: Goal) -> float:
    """Bits or error of a fit, over its goal."""
    volume = small()
    layout, step, course, _, networks = guessed(volume, goal)
    fit = PyramidFit(volume, 0.0, step, layout, networks, 0, choose("cpu"))
    fit.course = course
    fit.run(100, goal, Schedule(), quiet)
    found = fit.cost()
    return found.bits / goal.bits if goal.bits is not None else found.error * fit.step**2 / (goal.error or 1.0)


@pytest.mark.parametrize("kind", ["bits", "error"])
def test_the_end_follows_the_goal(kind: str) -> None:
    """Within a factor in so few steps of so small a signal; the encoder's search does the rest."""
    low, high = (4000.0, 16000.0) if kind == "bits" else (100.0, 900.0)
    small_goal, large_goal = reached(Goal(**{kind: low})), reached(Goal(**{kind: high}))
    assert 0.25 < small_goal < 2.5 and 0.25 < large_goal < 2.5
    assert small_goal * low < large_goal * high


def test_guesses_of_the_step_stay_near_what_was_tried() -> None:
    """Even where the measure of the error has run into its limit, far above what the signal has."""
    volume = small()
    layout, step, *_ = guessed(volume, Goal(error=1e7), 10)
    first = Differences(volume, 0.0, layout).step(Goal(error=1e7), GUESS_OF_ERROR)
    assert first / 16 <= step <= first * 16


def test_a_sample_is_believed_as_far_as_its_bits_are_its_latents() -> None:
    parts = np.array([0.2, 0.6, 1.0])
    course = Course(parts, np.array([3.0, 2.0, 1.0]), np.array([1.5, 1.2, 1.0]))
    usual = np.interp(parts, USUAL.parts, USUAL.bits)
    none, half, whole = (course.believed(share) for share in (0.0, 0.5, 1.0))
    assert none.bits[-1] == half.bits[-1] == whole.bits[-1] == 1
    assert (none.bits[:-1] < usual[:-1]).all() and (whole.bits[:-1] < course.bits[:-1]).all()
    assert half.bits == pytest.approx(np.sqrt(none.bits * whole.bits))
    assert whole.errors is course.errors


def test_networks_of_a_guess_have_learned() -> None:
    volume = tissue((48, 56, 56))
    goal = Goal(bits=20000.0)
    guess = guessed(volume, goal, 40, 0)

    def cost(networks: tuple[Context, Synthesis]) -> float:
        fit = PyramidFit(volume, 0.0, guess.step, guess.layout, networks, 0, choose("cpu"))
        fit.run(20, None, Schedule(), quiet)
        end = fit.cost()
        return end.error + FAIR * end.bits / volume.size

    assert cost(guess.networks) < 0.9 * cost(initial_networks(guess.layout, 0))


@pytest.mark.parametrize("bits", [600.0, 400000.0])
def test_finest_levels_are_left_out_where_streams_are_small(bits: float) -> None:
    volume = tissue((48, 56, 56))
    layout = guessed(volume, Goal(bits=bits), 60).layout
    assert bool(layout.above) == (bits < 1e4)
    asked = [guessed(volume, Goal(bits=bits), 5, above).layout for above in (0, 1, 2)]
    assert [len(found.above) for found in asked] == [0, 1, 2] and [found.levels for found in asked] == [4, 3, 2]
    assert all(found.above + found.halved == asked[0].halved for found in asked)


@pytest.mark.parametrize(
    ("finest", "lacks", "error", "tried"),
    [
        # Lattices that take most of the bits and still not enough of them: what they would need is no step for finer ones.
        (0.9, 0.25, 1.0, [(1, 1.0), (0, 1.0), (1, 0.25), (0, 1.5)]),
        (0.9, 0.25, 1e6, [(1, 1.0), (0, 1.0), (1, 0.25), (0, 1.5)]),
        # Both are compared where they meet the goal.
        (0.9, 0.9, 1.0, [(1, 1.0), (0, 0.9), (0, 1.5)]),
        (0.9, 1.5, 1.0, [(1, 1.0), (1, 1.5), (0, 1.5)]),
        (0.2, 0.25, 1.0, [(1, 1.0), (1, 0.25)]),
        (0.05, 1.5, 1.0, [(1, 1.0), (1, 1.5), (2, 1.5)]),
    ],
)
def test_trials_correct_the_step_of_lattices_that_may_be_those(
    finest: float, lacks: float, error: float, tried: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lattices without latents and steps, over the first guess, of all trials; those with latents everywhere need 1.5 of it."""
    seen: list[tuple[int, float]] = []

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        above, first = len(layout.above), self._first_step
        if lesson:
            return made(layout, step)
        seen.append((above, round(step / first, 3)))
        return made(layout, step, first * (1.5 if above == 0 else lacks), finest, error if above else 1.0)

    def made(layout: PyramidLayout, step: float, needed: float = 1.0, finest: float = 0.0, error: float = 1.0) -> object:
        return pyramid_trial._Trial(layout, step, error, 1.0, finest, USUAL, needed, initial_networks(layout, 0), 0.0)

    monkeypatch.setattr(Trials, "_trial", trial)
    guessed(tissue((48, 56, 56)), Goal(bits=2e4))
    assert seen == tried


@pytest.mark.parametrize(
    ("finest", "needed", "error", "tried", "above"),
    [
        (0.9, 1.2, 1.0, [(0, 1.0)], 0),
        (0.9, 1.5, 1.0, [(0, 1.0), (0, 1.5)], 0),
        (0.2, 1.0, 0.9, [(0, 1.0), (1, 1.0)], 1),
        (0.2, 1.0, 1.1, [(0, 1.0), (1, 1.0)], 0),
    ],
)
def test_latents_everywhere_are_tried_first_where_there_are_many_bits(
    finest: float, needed: float, error: float, tried: list[tuple[int, float]], above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none on the signal's lattice only if those say little."""
    seen: list[tuple[int, float]] = []

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        if not lesson:
            seen.append((len(layout.above), round(step / self._first_step, 3)))
        own = 1e9 * (error if layout.above else 1.0)
        return pyramid_trial._Trial(layout, step, own, 1.0, finest, USUAL, needed * self._first_step, initial_networks(layout, 0), 0.0)

    monkeypatch.setattr(Trials, "_trial", trial)
    found = guessed(tissue((48, 56, 56)), Goal(bits=1e5)).layout
    assert seen == tried and len(found.above) == above


@pytest.mark.parametrize(("shape", "steps"), [((48, 56, 56), 20), ((16, 20, 24), 40)])
def test_trials_are_shorter_where_a_lesson_follows(shape: tuple[int, ...], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    run = PyramidFit.run

    def counted(self: PyramidFit, steps: int, *others: object) -> None:
        seen.append(steps)
        run(self, steps, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(PyramidFit, "run", counted)
    guessed(tissue(shape), Goal(bits=3000.0), 40, 0)
    # Each after a fit at half resolution of half as many steps.
    taught = [20, 40] if steps == 20 else []
    assert seen[:2] == [steps // 2, steps] and seen[len(seen) - len(taught) :] == taught


def test_lattices_are_compared_where_they_meet_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without latents on the finest one a fit is cheaper at a coarse step, and makes half as much error again at the size that is asked for."""

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        at, above = step / self._first_step, bool(layout.above)
        bits, error = (0.18 if above else 0.3) / at**2, (0.041 + 0.005 * at if above else 0.04 * at**1.5) * self._first_step**2
        return pyramid_trial._Trial(layout, step, error, bits, 0.9, USUAL, step * (bits / 0.45) ** 0.5, initial_networks(layout, 0), 0.0)

    costs = [0.046 + FAIR * 0.18, 0.04 + FAIR * 0.3]
    assert costs[0] < costs[1], "at the first step"
    monkeypatch.setattr(Trials, "_trial", trial)
    found = guessed(tissue((48, 56, 56)), Goal(bits=2e4))
    assert not found.layout.above


@pytest.mark.parametrize(("above", "error", "split"), [(None, 0.9, 2), (None, 1.1, 0), (1, 0.9, 2)])
def test_bands_are_tried_where_nothing_is_said(above: int | None, error: float, split: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lattices are best, two of them are tried in bands, at the step that they need."""
    seen: list[tuple[int, int, float]] = []

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        seen.append((len(layout.above), layout.split, round(step / self._first_step, 3)))
        own = 1e6 * (error if layout.split else 1.0)
        return pyramid_trial._Trial(layout, step, own, 1.0, 0.2, USUAL, 1.2 * self._first_step, initial_networks(layout, 0), 0.0)

    monkeypatch.setattr(Trials, "_trial", trial)
    found = guessed(tissue((48, 56, 56)), Goal(bits=2e4), above=above, split=None).layout
    assert seen == [(1, 0, 1.0), (1, 2, 1.2), (1, split, 1.2)] and (len(found.above), found.split) == (1, split)


def test_bands_that_are_asked_for_are_there() -> None:
    for above, split in ((0, 1), (1, 7), (2, 2)):
        found = guessed(small(), Goal(bits=3000.0), 10, above, split=split).layout
        assert (len(found.above), found.split) == (above, min(split, found.resolutions - 1))


@pytest.mark.parametrize(("error", "further", "above"), [(1.05, 1.0, 1), (1.1, 1.0, 0), (1.05, 0.0, 0), (0.99, 0.0, 1)])
def test_trials_count_the_further_steps_of_a_fit_without_the_finest_lattice(
    error: float, further: float, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little more error, over that of latents everywhere, is what they will make up for, if there are any."""

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        own = 1e6 * (error if layout.above else 1.0)
        return pyramid_trial._Trial(layout, step, own, 1.0, 0.9, USUAL, step, initial_networks(layout, 0), 0.0)

    monkeypatch.setattr(Trials, "_trial", trial)
    monkeypatch.setattr(pyramid_trial, "pace", lambda width, above, wide, backend: 1.0 + further * above)
    assert len(guessed(tissue((48, 56, 56)), Goal(bits=2e4)).layout.above) == above


def test_guesses_with_a_region_count_what_counts() -> None:
    volume, mask = small(), np.zeros((20, 24), bool)
    mask[5:15, 4:14] = True
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4))
    plain, region, alone = (Differences(volume, 0.0, layout, w) for w in (None, *(Region(mask, e).weights(volume.shape) for e in (8.0, np.inf))))
    assert plain.bits(10.0) > region.bits(10.0) > alone.bits(10.0) > 0
    assert region.error(10.0) == pytest.approx(alone.error(10.0))
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (8, 8))
    weights = Region(mask, np.inf).weights(volume.shape)
    finest = first_latents(volume.reshape(layout.kernel.shape) / np.float32(20), layout, np.ones(layout.levels, np.float32), weights)[0]
    inside = np.broadcast_to(mask, finest.shape)
    assert finest[inside].any() and not finest[~inside].any()


def test_boxes_of_a_sample_stand_for_all_densities() -> None:
    shape = (64, 40, 96)
    boxes = typical_boxes(shape, 8000, lambda box: float(box[0].start))
    assert len({tuple(s.stop - s.start for s in box) for box in boxes}) == 1
    sizes = [np.prod([s.stop - s.start for s in box]) for box in boxes]
    assert 4000 <= sum(sizes) <= 8000 and all(0 <= s.start < s.stop <= n for box in boxes for s, n in zip(box, shape, strict=True))
    starts = [box[0].start for box in boxes]
    assert starts == sorted(starts) and starts[0] < 20 < 35 < starts[-1]
    others = typical_boxes(shape, 8000, lambda box: float(box[0].start), 1)
    assert all(box[0].start >= start for box, start in zip(others, starts, strict=True)) and not any(box in boxes for box in others)
    assert typical_boxes(shape, 300_000, lambda box: 0.0) == [tuple(slice(0, n) for n in shape)]


@pytest.mark.parametrize(("bits", "finest"), [(2e4, 0.9), (1e5, 0.2)])
def test_no_guess_takes_more_trials_than_its_progress_counts(bits: float, finest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every layout is tried again at another step."""
    seen: list[PyramidLayout] = []

    def trial(self: Trials, layout: PyramidLayout, step: float, *lesson: object) -> object:
        if not lesson:
            seen.append(layout)
        off = 0.5 if seen.count(layout) == 1 else 1.0
        return pyramid_trial._Trial(layout, step, 1.0, 1.0, finest, USUAL, off * step, initial_networks(layout, 0), 0.0)

    monkeypatch.setattr(Trials, "_trial", trial)
    guessed(tissue((48, 56, 56)), Goal(bits=bits), split=None)
    assert len(seen) == pyramid_trial._MOST_TRIALS and len(set(seen)) == 3
