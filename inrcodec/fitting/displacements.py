"""Displacements that are worth their bits: where frames say little, or bits are dear, nodes hold what their neighbours foretell.

A displacement that is wrong by d moves samples of slope g by d, which is an error of about (g d)^2. Of all nodes that a sample lies
between, each answers for its weight: convex, so errors are never more than what is counted. Nodes are chosen one pass of the coder
after the other, frame after frame, each by least ``error + price * bits``, and what later ones are foretold follows from those chosen.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.registration import Hats
from inrcodec_kernels.warp import Field

from ..coding.displacements import COARSEST, CORNER, NodeTables, Pass, coarsest, passes, residuals
from .goal import Goal
from .motion import Floats, field_of, sought, stilled
from .spread import Spread, step_at

_UNITS = 4
"""Units of an eighth, a quarter, a half and a whole sample are tried."""
_ROUNDS = 3
"""Times that nodes are chosen, with the tables of the time before."""
_SMALLER = 4
"""Values nearer to what is foretold that are tried besides the nearest to the truth."""
_PRICE = 0.1
"""Squared error that a bit is worth, over the square of the step: half and twice as much cost less than 0.1 dB. By theory it is 0.12 (``ln 2 / 6``)."""
_WORTH = 0.88
"""Of what frames cost that are left as they are, still frames and displacements may take this much: 0.87 gained 0.4 dB, 0.89 lost 0.5."""


class Found(NamedTuple):
    """What was found of a clip's motion, before anything is asked for.

    Attributes
    ----------
    field : Field
        Displacements as exact as they are known.
    spread : Spread
        Of still frames.
    """

    field: Field
    spread: Spread

    @classmethod
    def of(cls, frames: np.ndarray, wish: bool | str, backend: Backend = REFERENCE) -> Found | None:
        """Look for motion; None where there is none, see `motion.sought`."""
        field = sought(frames, wish, backend)
        return None if field is None else cls(field, Spread.of(stilled(frames, field, backend, sweeps=0).samples))

    def step_for(self, goal: Goal) -> float:
        """The step at which still frames reach a goal."""
        if goal.bits is not None:
            return step_at(lambda step: -self.spread.bits(step), -goal.bits)
        assert goal.error is not None
        wanted = goal.error * len(self.field.nodes) * math.prod(self.field.still)
        return step_at(self.spread.error, wanted)


def price_at(step: float) -> float:
    """Squared error that a bit is worth at a step."""
    return _PRICE * step**2


def worthwhile(frames: np.ndarray, still: np.ndarray, bits: float, step: float) -> bool:
    """Whether still frames, and the bits of displacements, cost less than frames as they are."""

    def cost(samples: np.ndarray) -> float:
        spread = Spread.of(samples)
        return spread.error(step) + price_at(step) * spread.bits(step)

    return cost(still) + price_at(step) * bits < _WORTH * cost(frames)


def economical(field: Field, frames: np.ndarray, price: float, weights: Any = None) -> Field | None:
    """The field that takes the least of errors and bits together.

    Parameters
    ----------
    field : Field
        Displacements as exact as they are known.
    frames : ndarray, shape (n, h, w)
        Samples that are displaced.
    price : float
        Squared error that a bit is worth.
    weights : ndarray, broadcast to the frames, optional
        What squared errors count.

    Returns
    -------
    Field or None
        None where still frames would be too large.
    """
    pulls = _pulls(field, frames, weights)
    tried = [_in_units(field, pulls * np.float32(4**unit), unit, price) for unit in range(_UNITS)]
    nodes, _ = min(tried, key=lambda each: each[1])
    return field_of(nodes, field.shift, field.frame)


def _pulls(field: Field, frames: np.ndarray, weights: Any) -> Floats:
    """What an eighth off at each node costs: along y, along x, and along both; shape (n, 3, K_y, K_x)."""
    hats = Hats(field.frame, field.nodes.shape[2:], field.shift)
    counted = np.broadcast_to(np.float32(1) if weights is None else weights, frames.shape)
    found = np.empty((len(frames), 3, *field.nodes.shape[2:]), dtype=np.float32)
    for pull, frame, weight in zip(found, frames, counted, strict=True):
        # Noise is not coded, so that it may well be displaced wrongly.
        gy, gx = np.gradient(_smooth(frame.astype(np.float32)))
        pull[:] = [hats.summed(weight * a * b) for a, b in ((gy, gy), (gx, gx), (gy, gx))]
    found /= np.float32(64)
    return found


def _smooth(frame: Floats) -> Floats:
    """Binomial means of 5 x 5 samples: a Gaussian of deviation 1."""
    for axis in (0, 1):
        for _ in range(2):
            padded = np.pad(frame, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            before, here, after = (padded.take(range(k, k + frame.shape[axis]), axis) for k in range(3))
            frame = (before + 2 * here + after) / np.float32(4)
    return frame


class _Reach(NamedTuple):
    """What an error of nodes costs where all that is foretold of them is as wrong: of the first, the coarsest, and of every pass."""

    corner: Floats
    coarsest: Floats
    new: list[Floats]

    @classmethod
    def of(cls, pulls: Floats, steps: list[Pass]) -> _Reach:
        total, new = pulls.copy(), []
        for step in reversed(steps):
            mine = step.new(total).copy()
            new.append(mine)
            _hand_on(step, total, mine / 2)
        held = coarsest(total)
        return cls(held.sum((-2, -1), keepdims=True), held, new[::-1])


def _hand_on(step: Pass, total: Floats, half: NDArray[Any]) -> None:
    """Add to known nodes the halves of those between them; an edge's last one depends on its neighbour alone."""
    lines = np.moveaxis(step.lines(total), step.axis, -1)
    half = np.moveaxis(half, step.axis, -1)
    count = (lines.shape[-1] - 1) // 2
    lines[..., 2::2][..., :count] += half[..., :count]
    lines[..., : 2 * half.shape[-1] : 2] += half
    lines[..., 2 * count : -1 : 2] += half[..., count:]


def _in_units(field: Field, pulls: Floats, unit: int, price: float) -> tuple[NDArray[np.int64], float]:
    """Nodes in eighths that are multiples of ``2^unit``, and what they cost: errors, and bits at their price."""
    exact = field.nodes / 2.0**unit
    steps = passes(exact.shape)
    nodes = np.rint(exact).astype(np.int64)
    reach = _Reach.of(pulls, steps)
    for _ in range(_ROUNDS):
        rest = residuals(np.diff(nodes, axis=0, prepend=0))
        tables = NodeTables.best(rest)
        nodes = _chosen(exact, reach, steps, tables, price)
    rest = residuals(np.diff(nodes, axis=0, prepend=0))
    y, x = np.moveaxis(nodes - exact, 1, 0)
    error = float((pulls[:, 0] * y * y + pulls[:, 1] * x * x + 2 * pulls[:, 2] * y * x).sum(dtype=np.float64))
    return nodes << unit, error + price * NodeTables.best(rest).bits(rest)


def _chosen(
    exact: NDArray[np.float64], reach: _Reach, steps: list[Pass], tables: NodeTables, price: float
) -> NDArray[np.int64]:
    """Nodes frame by frame: what each has more than the frame before is what is coded."""
    dear, found = price * tables.costs(), np.zeros(exact.shape, dtype=np.int64)
    before = np.zeros(exact.shape[1:], dtype=np.int64)
    for number, frame in enumerate(exact):
        wanted, values, rest = frame - before, np.zeros_like(before), np.zeros_like(before)
        first = _nearest(wanted[..., :1, :1], reach.corner[number], dear, np.array(CORNER))
        held = coarsest(rest)
        held[...] = _nearest(coarsest(wanted) - first, reach.coarsest[number], dear, np.array(COARSEST))
        held[..., :1, :1] = 0
        coarsest(values)[...] = first + held
        held[..., :1, :1] = first
        for step, new in zip(steps, reach.new, strict=True):
            foretold = step.foretold(values)
            more = _nearest(step.new(wanted) - foretold, new[number], dear, step.classes(rest, tables.levels))
            step.new(rest)[...], step.new(values)[...] = more, foretold + more
        before = found[number] = before + values
    return found


def _nearest(wanted: NDArray[np.float64], pull: Floats, dear: NDArray[np.float32], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers (2, a, b) of least error and price, y before x.

    Parameters
    ----------
    wanted : ndarray, shape (2, a, b)
    pull : ndarray, shape (3, a, b)
    dear : ndarray, shape (classes, 256)
        Price of every magnitude.
    group : ndarray of int64, broadcast to `wanted`
    """
    found, group = np.rint(wanted).astype(np.int64), np.broadcast_to(group, wanted.shape)
    off: Any = 0.0
    for axis in (0, 1):
        sign = np.sign(found[axis])
        tried = np.stack([*(found[axis] - sign * k for k in range(_SMALLER)), np.zeros_like(sign)])
        tried = np.where(tried * sign < 0, 0, tried)
        rest = tried - wanted[axis]
        cost = (pull[axis] * rest + 2 * axis * pull[2] * off) * rest + dear[group[axis], np.minimum(np.abs(tried), 255)]
        best = cost.argmin(0)[None]
        found[axis], off = (np.take_along_axis(each, best, 0)[0] for each in (tried, rest))
    return found
