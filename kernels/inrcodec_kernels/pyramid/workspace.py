"""What is used again from call to call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import in_threads
from .layout import Floats

_PART = 1 << 18
"""Numbers that a thread clears at a time."""


class Workspace:
    """Flat arrays of one layout, by name: of fresh ones every page would be touched for the first time in every step of a fit.

    On a device it keeps recordings of what is computed again and again instead. Two calls that run at a time must not share one.
    """

    def __init__(self) -> None:
        self._held: dict[str, Floats] = {}
        self._made: dict[Hashable, Any] = {}
        self._spare: dict[Hashable, list[Any]] = {}

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What was made for a name; the first time it is made."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @contextmanager
    def lent(self, name: Hashable, make: Callable[[], Any]) -> Iterator[Any]:
        """One of the things of a name that no thread has now, as it was left; a new one where there is none."""
        spare = self._spare.setdefault(name, [])
        try:
            found = spare.pop()
        except IndexError:
            found = make()
        yield found
        spare.append(found)

    def kept(self, name: str, size: int) -> Floats:
        """The array of a name as it was left; zeros at first, or where its size changes."""
        if name not in self._held or len(self._held[name]) != size:
            self._held[name] = np.zeros(size, np.float32)
        return self._held[name]

    def cleared(self, name: str, size: int) -> Floats:
        """The same, zeros."""
        found = self.kept(name, size)
        in_threads(lambda part: found[part * _PART : (part + 1) * _PART].fill(0), range(-(-size // _PART)))
        return found
