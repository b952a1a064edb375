"""Where groups of frames begin: at scene cuts, and where a group would become too long."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEAST_FRAMES, MOST_FRAMES = 8, 64
USUAL_SAMPLES = 1 << 24
"""Luma samples of a group."""
WORTH_FRAMES, MOST_SAMPLES = 32, 1 << 26
"""So many frames are worth more samples, up to these: 13 instead of 26 cost 0.4 dB on 1080p where frames are displaced, 8 instead of 16 1.3 dB."""

_REACH = 3
"""Frames on either side of a cut that must all differ from those on the other: a flash of two frames is no cut."""
_NEIGHBOURS = 8
_FACTOR, _FLOOR = 3.0, 0.03
"""A cut's frames differ by so many times what its neighbours' do, and by this part of the largest value."""
_SHRINK = 4


def most_frames(luma_samples: int, most_samples: int = MOST_SAMPLES) -> int:
    """Frames that a group may have, given the samples of one, and of all where frames are large."""
    worth = min(WORTH_FRAMES, most_samples // luma_samples)
    return min(max(USUAL_SAMPLES // luma_samples, worth, LEAST_FRAMES), MOST_FRAMES)


class CutFinder:
    """Finds scene cuts while frames pass by; holds six of them, small.

    Parameters
    ----------
    peak : float
        Largest value that a sample can have.
    """

    def __init__(self, peak: float) -> None:
        self._peak, self._frames = peak, 0
        self._held: deque[Floats] = deque(maxlen=2 * _REACH)
        self._novelty: list[float] = []

    def add(self, luma: np.ndarray) -> None:
        """Look at the next frame."""
        self._held.append(thumbnail(luma))
        self._frames += 1
        if self._frames > _REACH:
            self._judge(self._frames - _REACH)

    def cuts(self) -> list[int]:
        """Frames that begin a scene, the first one of the clip left out; no frame is added after this."""
        for frame in range(max(1, self._frames - _REACH + 1), self._frames):
            self._judge(frame)
        values = np.array(self._novelty)
        return [place + 1 for place in range(len(values)) if self._stands_out(values, place)]

    def _judge(self, frame: int) -> None:
        """How much the frames from this one on differ from those before: of the most alike pair."""
        first = self._frames - len(self._held)
        held = list(self._held)
        before = held[max(0, frame - _REACH - first) : frame - first]
        after = held[frame - first : frame + _REACH - first]
        self._novelty.append(min(float(np.abs(a - b).mean()) for a in before for b in after))

    def _stands_out(self, values: NDArray[np.float64], place: int) -> bool:
        low = max(0, place - _NEIGHBOURS)
        others = np.delete(values[low : place + _NEIGHBOURS + 1], place - low)
        usual = float(np.median(others)) if len(others) else 0.0
        return bool(values[place] > max(_FACTOR * usual, _FLOOR * self._peak))


def thumbnail(plane: np.ndarray) -> Floats:
    """Means of four by four samples; of fewer at the edges and of small planes."""
    small: Floats = plane.astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(0, plane.shape[axis], _SHRINK)
        counts = np.diff(np.append(starts, plane.shape[axis])).astype(np.float32)
        sums = np.add.reduceat(small, starts, axis)
        small = np.asarray(sums / (counts[:, None] if axis == 0 else counts), np.float32)
    return small


def group_starts(frames: int, cuts: list[int], luma_samples: int, most_samples: int = MOST_SAMPLES) -> list[int]:
    """First frames of all groups: scenes, cut evenly where they are too long.

    Parameters
    ----------
    frames : int
        Of the whole clip.
    cuts : list of int
        Ascending, see `CutFinder.cuts`.
    luma_samples : int
        Of a frame.
    most_samples : int
        See `most_frames`.
    """
    most, starts = most_frames(luma_samples, most_samples), []
    for begin, end in zip([0, *cuts], [*cuts, frames], strict=True):
        count = -(-(end - begin) // most)
        starts += [begin + (end - begin) * part // count for part in range(count)]
    return starts
