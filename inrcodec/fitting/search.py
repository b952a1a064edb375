"""Finding the step that lands on a size or a quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_FINEST = 2e-4
"""Steps closer than this (relative) are not tried: between them the amount jumps."""


@dataclass(frozen=True)
class Trial:
    """One step tried, and how much it gave."""

    step: float
    amount: float


def search_step(
    attempt: Callable[[float], Trial],
    *,
    start: float,
    low: float,
    high: float,
    slope: float,
    bounds: tuple[float, float],
    trials: int = 16,
    aim: float = 0.5,
) -> list[Trial]:
    """Try steps until an amount that falls with the step lies within [low, high].

    Parameters
    ----------
    attempt : callable
        ``attempt(step)`` measures; the amount must fall (in the large) as the step grows.
    start : float
        First step.
    low, high : float
        The amounts wanted.
    slope : float
        Rough change of the amount when the step doubles, negative; used until two trials bracket the goal.
    bounds : tuple of float
        Smallest and largest step.
    trials : int
        Most attempts.
    aim : float
        Part of the way from `low` to `high` that steps are chosen for.

    Returns
    -------
    list of Trial
        All trials in order; the last one is the hit if there was one.
    """
    goal = low + aim * (high - low)
    done: list[Trial] = []
    step = min(max(start, bounds[0]), bounds[1])
    for _ in range(trials):
        done.append(attempt(step))
        if low <= done[-1].amount <= high:
            break
        over = [t for t in done if t.amount > high]
        under = [t for t in done if t.amount < low]
        if over and under and 1 < min(t.step for t in under) / max(t.step for t in over) < 1 + _FINEST:
            break
        previous = step
        step = min(max(_next_step(over, under, goal, slope, _one_sided(done, goal)), bounds[0]), bounds[1])
        if step == previous:
            break
    return done


def _one_sided(done: list[Trial], aim: float) -> bool:
    """Whether the last two trials fell on the same side: interpolation then creeps, halving does not."""
    return len(done) > 1 and (done[-1].amount > aim) == (done[-2].amount > aim)


def _next_step(over: list[Trial], under: list[Trial], aim: float, slope: float, halve: bool) -> float:
    """Interpolate between the closest trials on both sides, or follow the slope from the only side known."""
    if over and under:
        a = max(over, key=lambda t: t.step)
        b = min(under, key=lambda t: t.step)
        if a.step < b.step and a.amount != b.amount and not halve:
            part = min(max((a.amount - aim) / (a.amount - b.amount), 0.08), 0.92)
            return math.exp(math.log(a.step) + part * (math.log(b.step) - math.log(a.step)))
        return math.sqrt(a.step * b.step)
    known = over or under
    last = known[-1]
    if len(known) > 1 and known[-2].step != last.step:
        measured = (last.amount - known[-2].amount) / (math.log2(last.step) - math.log2(known[-2].step))
        slope = min(measured, slope / 4) if math.isfinite(measured) else slope
    return last.step * 2 ** min(max((aim - last.amount) / slope, -4.0), 4.0)
