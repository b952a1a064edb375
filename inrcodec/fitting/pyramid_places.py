"""How finely a pyramid's networks are stored: as finely as is worth its bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..models.pyramid import STORED_PLACES

Places = dict[str, int]

UPSAMPLING = ("synthesis.gains", "synthesis.filters")
"""Parameters whose cost is not known but by trying."""
_FINER = 6
"""Places more than by the formula that a search begins with."""


def worth(group: Sequence[str], first: Places, cost: Callable[[Places], float]) -> Places:
    """Change the binary places of some parameters, all together, as long as the cost falls.

    Parameters
    ----------
    group : sequence of str
    first : dict of str to int
        Places to begin with.
    cost : callable
        ``cost(places)``.

    Returns
    -------
    dict of str to int
        Within 0 and `STORED_PLACES`.
    """
    found, least = first, cost(first)
    for more in (-1, 1):
        while (tried := _moved(found, group, more)) != found and (now := cost(tried)) < least:
            found, least = tried, now
        if found != first:
            break
    return found


def generous(places: Places) -> Places:
    """Places from which it goes down: where rounding does much, one place less may do less, and a search from there goes astray."""
    return {name: min(p + _FINER, STORED_PLACES[name]) for name, p in places.items()}


def _moved(places: Places, group: Sequence[str], more: int) -> Places:
    return places | {name: min(max(places[name] + more, 0), STORED_PLACES[name]) for name in group}
