"""What every system offers to the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.container import Section
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.warp import Field

from ..fitting.displacements import Found
from ..fitting.goal import Goal
from ..options import EncodeOptions
from ..payload import motion
from ..region import Region

Progress = Callable[[str, float, str], None]
Timed = Callable[[str, Callable[[], Any]], Any]
"""``timed(stage, work)``: does the work, counts its seconds to the stage, and returns what it returns."""


@dataclass(frozen=True)
class Draft:
    """A coded signal, not yet in its container.

    Attributes
    ----------
    sections : list of Section
    chunks : list of (int, bytes)
        Blocks in each chunk, and its bytes.
    weights : int
        Parameters stored.
    error : float or None
        Estimated sum of squared errors, where it is known without decoding.
    detail : object
        What the system itself wants to remember.
    """

    sections: list[Section]
    chunks: list[tuple[int, bytes]]
    weights: int
    error: float | None
    detail: Any = None


@dataclass(frozen=True, eq=False)
class Moving:
    """A clip whose still frames are coded in the place of its own.

    Attributes
    ----------
    field : Field
        Where samples of frames lie in still frames.
    frames : ndarray, shape (n, h, w)
        The clip.
    known : ndarray of bool, shape (n, H, W)
        What of the still frames the clip has seen.
    region : Region or None
        Of the frames.
    """

    field: Field
    frames: np.ndarray
    known: NDArray[np.bool_]
    region: Region | None

    @cached_property
    def section(self) -> Section:
        """What a decoder must know to displace still frames."""
        return Section(motion.TAG, motion.pack(self.field))

    @property
    def choices(self) -> dict[str, object]:
        """What was decided, for the report."""
        return {"motion_spacing": 1 << self.field.shift, "still_frames": "x".join(map(str, self.field.still))}


@dataclass(frozen=True)
class Task:
    """What a system works on.

    Attributes
    ----------
    volume : ndarray
        May be memory-mapped.
    low, high : int
        Smallest and largest sample.
    options : EncodeOptions
    backend : Backend
    progress, timed : callable
    channels : bool
        Whether axis 0 holds channels: those are neither halved nor, where they are few, cut apart.
    clip : bool
        Whether the axes are time, y and x.
    found : Found or None
        Motion that was looked for before.
    moving : Moving or None
        Where the volume is still frames of a clip.
    """

    volume: np.ndarray
    low: int
    high: int
    options: EncodeOptions
    backend: Backend
    progress: Progress
    timed: Timed
    channels: bool = False
    clip: bool = False
    found: Found | None = None
    moving: Moving | None = None

    @property
    def sections(self) -> list[Section]:
        """What a stream holds whatever the system, beside its own sections."""
        return [] if self.moving is None else [self.moving.section]

    @property
    def section_bytes(self) -> int:
        """What these take of the file."""
        return sum(len(section.data) for section in self.sections)

    @property
    def choices(self) -> dict[str, object]:
        """What was decided before the system had its say, for the report."""
        return {} if self.moving is None else self.moving.choices

    @property
    def region(self) -> Region | None:
        """Where errors count more: what was asked for, else what of still frames the clip has seen."""
        if self.moving is None or self.options.region is not None:
            return self.options.region
        return Region(self.moving.known)

    def note(self, stage: str) -> Callable[[float, str], None]:
        """Progress of one stage."""
        return lambda fraction, note: self.progress(stage, fraction, note)


SIZE_WINDOW = 0.985
"""A size is met by files of this part of it up to all of it, where coming nearer takes no new fit."""


class System(Protocol):
    """One way to code a signal.

    Attributes
    ----------
    task : Task
        What it works on.
    name : str
        As the container's header has it.
    step : float
        First guess of the quantisation step that reaches the goal.
    step_bounds : tuple of float
    size_slope : float
        Octaves by which the size falls when the step doubles, negative.
    size_window : float
        Least part of a size that is near enough to it.
    psnr_slope : float
        dB by which the PSNR falls when the step doubles, negative.
    overhead_bytes : int
        About what the container takes for itself: header, directory, footer, tree and statistics; the task's sections come besides.
    shared_bytes : int
        About what networks for the whole signal take.
    restorable : bool
        Whether decoded samples gain from a restoration network; not where the system has such a network itself.
    blocks : int
    decoder_bytes : int
        Memory that a decoder needs for a batch of blocks.
    extents : tuple of int
        Samples along each axis that a decoder holds at a time.
    choices : dict
        What was decided, for the report.
    backend : Backend
        What it fits with: the task's, or another one with the reason why.
    """

    name: ClassVar[str]
    step_bounds: ClassVar[tuple[float, float]]
    size_slope: ClassVar[float]
    psnr_slope: ClassVar[float]
    overhead_bytes: ClassVar[int]
    shared_bytes: ClassVar[int]
    restorable: ClassVar[bool]
    task: Task
    size_window: float
    step: float
    choices: dict[str, object]
    backend: Backend

    @property
    def blocks(self) -> int: ...

    @property
    def decoder_bytes(self) -> int: ...

    @property
    def extents(self) -> tuple[int, ...]: ...

    def __init__(self, task: Task) -> None: ...

    def prepare(self, goal: Goal) -> None:
        """Partition and fit: everything that does not depend on the exact step."""
        ...

    def draft(self, step: float, pressure: float) -> Draft:
        """Quantise at a step and code; `pressure` scales the rate in rate-distortion decisions, 0 to 1."""
        ...
