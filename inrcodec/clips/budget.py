"""How bytes, or the error allowed, are shared among the streams of a clip."""

from __future__ import annotations

from collections.abc import Sequence

from ..fitting.spread import Spread, step_at

LEAST_STREAM_BYTES = {"tinc": 256, "sci": 512, "pyramid": 1024}
"""What a stream of nearly nothing takes, by method."""


class Ledger:
    """A total, what has been spent of it, and what the streams still to come expect.

    What one stream leaves or takes too much is shared by those after it.

    Parameters
    ----------
    total : float
    expected : sequence of float
        Of every stream, in the order of coding; only their proportions count.
    least : float
        What every stream gets before the rest is shared.
    """

    def __init__(self, total: float, expected: Sequence[float], least: float = 0.0) -> None:
        self.left, self._least = total, least
        self._expected = list(expected)

    def share(self) -> float:
        """What the next stream may spend."""
        rest, to_come = sum(self._expected), len(self._expected)
        free = self.left - self._least * to_come
        part = self._expected[0] / rest if rest > 0 else 1 / to_come
        return self._least + free * part

    def spend(self, amount: float) -> None:
        """Note what the next stream took."""
        self.left -= amount
        self._expected.pop(0)


def size_ledger(total_bytes: float, spreads: Sequence[Spread], least: float) -> Ledger:
    """Shares of a size: what every stream takes at the one step at which all together take the total."""
    step = step_at(lambda step: -sum(s.bits(step) for s in spreads), -8 * total_bytes)
    return Ledger(total_bytes, [s.bits(step) for s in spreads], least)


def error_ledger(total_squares: float, spreads: Sequence[Spread]) -> Ledger:
    """Shares of a sum of squared errors, likewise."""
    step = step_at(lambda step: sum(s.error(step) for s in spreads), total_squares)
    return Ledger(total_squares, [s.error(step) for s in spreads])
