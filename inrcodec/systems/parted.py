"""Large signals: parts that are pyramids of their own, fitted one after the other, so that memory is bounded by one of them.

Parts share the goal as if all were fitted at one step (`fitting.shares`). What a part took really is taken off the goal, and the rest is
shared anew among those that are left. The part that has most of the goal comes last: it is what lands on the target, and can best
make up for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from inrcodec_formats.container import Section
from inrcodec_formats.errors import OptionError

from ..fitting.goal import Goal
from ..fitting.shares import Measures, largest_last, shares, unrounded
from ..partition.parted import Cut, cut_of
from ..payload import parted
from ..region import Region
from .base import Draft, Task
from .pyramid import OF_ERROR, PyramidSystem, scaled, size_window

_INDEX_BYTES = 8
"""Of a chunk in the container's index."""
_NEAR, _TRIES = 1.15, 2
"""Factor within which a part is to meet its share, and how often it is fitted for that."""
_MOST = 1.5
"""Factor by which the last part's bits may change to make up for the others; beyond, all are fitted anew."""


@dataclass(frozen=True)
class CodedPart:
    """What is kept of a fitted part.

    Attributes
    ----------
    tree, network : bytes
        Its sections.
    chunks : list of (int, bytes)
    weights, blocks : int
        Numbers of parameters, and of tiles.
    extents : tuple of int
        As `System.extents`.
    decoder_bytes : int
    error : float
        Mean squared error of samples that count 1, where that is the goal.
    step : float
        Of its synthesis.
    """

    tree: bytes
    network: bytes
    chunks: list[tuple[int, bytes]]
    weights: int
    blocks: int
    extents: tuple[int, ...]
    decoder_bytes: int
    error: float
    step: float

    @classmethod
    def of(cls, system: PyramidSystem, draft: Draft, error: float = 0.0) -> CodedPart:
        """A draft, without anything of the fit that it came from."""
        tree, network = (section.data for section in draft.sections)
        return cls(
            tree, network, draft.chunks, draft.weights, system.blocks, system.extents, system.decoder_bytes, error, system.fit.step
        )  # fmt: skip

    @property
    def latent_bits(self) -> int:
        """Bits of all chunks."""
        return 8 * sum(len(body) for _, body in self.chunks)

    @property
    def bits(self) -> int:
        """All that the part adds to a stream, in bits."""
        fixed = len(self.tree) + len(self.network) + parted.ROW_BYTES + _INDEX_BYTES * len(self.chunks)
        return self.latent_bits + 8 * fixed

    def excess(self, goal: Goal) -> float:
        """Bits over those that meet the goal, about."""
        if goal.bits is not None:
            return self.bits / goal.bits
        assert goal.error is not None
        return float((goal.error / max(self.error, 1e-30)) ** (1 / OF_ERROR))


class PartedPyramidSystem:
    """See `base.System`; its step is about the bits of all parts after the first fit over those of a draft.

    Parameters
    ----------
    task : Task

    Raises
    ------
    OptionError
        If there would be too many parts, or motion is asked for.
    """

    name: ClassVar[str] = PyramidSystem.name
    step_bounds: ClassVar[tuple[float, float]] = PyramidSystem.step_bounds
    size_slope: ClassVar[float] = PyramidSystem.size_slope
    psnr_slope: ClassVar[float] = PyramidSystem.psnr_slope
    overhead_bytes: ClassVar[int] = PyramidSystem.overhead_bytes
    shared_bytes: ClassVar[int] = PyramidSystem.shared_bytes
    restorable: ClassVar[bool] = PyramidSystem.restorable

    def __init__(self, task: Task) -> None:
        self.task, self.backend, self.step, self._reached = task, task.backend, 1.0, 1.0
        self.cut = _checked_cut(task)
        self.size_window = size_window(task.volume.size)
        self.choices: dict[str, object] = {}
        self._last: PyramidSystem | None = None

    @property
    def blocks(self) -> int:
        """Number of tiles of all parts."""
        return sum(part.blocks for part in self._coded.values())

    @property
    def extents(self) -> tuple[int, ...]:
        """The largest of all parts along each axis."""
        return tuple(np.max([part.extents for part in self._coded.values()], axis=0).tolist())

    @property
    def decoder_bytes(self) -> int:
        """Of two parts: a decoder keeps those on both sides of a face."""
        return 2 * max(part.decoder_bytes for part in self._coded.values())

    def prepare(self, goal: Goal) -> None:
        """Measure all parts, then fit and code one after the other."""
        self._goal = unrounded(goal)
        self._measures = [self.task.timed("measure", partial(self._measured, n)) for n in range(self.cut.count)]
        self.choices.update(signal_parts=self.cut.count, cut_axis=self.cut.axis)
        self._fit(self._goal)

    def draft(self, step: float, pressure: float) -> Draft:
        """Change the last part until all parts take the bits of the first fit over the step, about."""
        fewer = self._of_last(step / self._reached)
        if fewer is None:
            self._fit(scaled(self._goal, step))
            self._reached, fewer = step, 1.0
        assert self._last is not None
        found = CodedPart.of(self._last, self._last.draft(self._last_step * self._last.of_all(fewer), pressure))
        parts = [found if n == self._order[-1] else self._coded[n] for n in range(self.cut.count)]
        self.choices.update(units=[part.step for part in parts])
        extents = np.diff(self.cut.edges).tolist()
        rows = [parted.Part(n, p.blocks, p.tree, p.network) for n, p in zip(extents, parts, strict=True)]
        chunks = [chunk for part in parts for chunk in part.chunks]
        return Draft([Section(parted.TAG, parted.pack(self.cut.axis, rows))], chunks, sum(p.weights for p in parts), None)

    def _of_last(self, fewer: float) -> float | None:
        """The factor for the last part's latents that makes one for all parts; None where it is too much for one of them."""
        last = self._coded[self._order[-1]].latent_bits
        left = last - (1 - 1 / fewer) * sum(part.bits for part in self._coded.values())
        return last / left if last and 1 / _MOST < left / last < _MOST else None

    def _fit(self, goal: Goal) -> None:
        """Fit all parts for a goal, one after the other; of the last one the fit is kept."""
        self._order = largest_last(shares(goal, self._measures), self._measures)
        self._coded: dict[int, CodedPart] = {}
        for place, number in enumerate(self._order):
            left = [self._measures[n] for n in self._order[place:]]
            self._coded[number] = self._fitted(number, shares(self._rest(goal, left), left)[0])

    def _rest(self, goal: Goal, left: Sequence[Measures]) -> Goal:
        """What fitted parts leave of a goal, never nothing."""
        if goal.bits is not None:
            fair = goal.bits * len(left) / self.cut.count
            return Goal(bits=max(goal.bits - sum(part.bits for part in self._coded.values()), fair / 4))
        assert goal.error is not None
        made = sum(part.error * self._measures[number].inside for number, part in self._coded.items())
        asked = goal.error * sum(part.inside for part in self._measures)
        return Goal(error=max((asked - made) / max(sum(part.inside for part in left), 1), goal.error / 4))

    def _fitted(self, number: int, goal: Goal) -> CodedPart:
        """Fit a part until it is near its share, and code it."""
        # What was fitted before goes first: there is one fit at a time.
        self._last, self._last_step = None, 1.0
        self._last = system = PyramidSystem(self._task_of(number))
        system.prepare(goal)
        for tries_left in reversed(range(_TRIES)):
            draft = system.draft(self._last_step, 1.0)
            coded = CodedPart.of(system, draft, 0.0 if goal.error is None else system.error)
            excess = coded.excess(goal)
            if not tries_left or 1 / _NEAR < excess < _NEAR:
                break
            self._last_step = min(max(self._last_step * excess, self.step_bounds[0]), self.step_bounds[1])
        return coded

    def _measured(self, number: int) -> Measures:
        """What a part's samples say of its bits and errors."""
        measures, region = PyramidSystem(self._task_of(number)).measures, self.task.options.region
        return measures if region is None or self._region_of(number) is not None else measures.outside(region.outside)

    def _region_of(self, number: int) -> Region | None:
        """What a part has of the region."""
        region, shape = self.task.options.region, self.task.volume.shape
        return None if region is None else region.cropped(shape, self.cut.box(number, shape))

    def _task_of(self, number: int) -> Task:
        """The work on a part, whose errors count alike where it has nothing of the region."""
        task, count, options = self.task, self.cut.count, self.task.options
        alone = replace(options, region=self._region_of(number), motion=False)

        def progress(stage: str, fraction: float, note: str) -> None:
            task.progress(stage, fraction, f"part {number + 1} of {count}{note and ': '}{note}")

        return replace(task, volume=task.volume[self.cut.box(number, task.volume.shape)], options=alone, progress=progress, clip=False)


def _checked_cut(task: Task) -> Cut:
    """Where a task's signal is cut."""
    options, shape = task.options.pyramid, task.volume.shape
    if task.options.motion is True:
        raise OptionError(
            f"expected at most {options.part_samples} samples for motion=True, found {task.volume.size}; leave motion out, or raise part_samples"
        )
    cut = cut_of(shape, options.part_samples, task.channels)
    if cut.count > parted.MOST_PARTS:
        raise OptionError(f"expected at most {parted.MOST_PARTS} parts of a signal, found {cut.count}; raise part_samples")
    return cut
