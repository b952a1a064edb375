"""How finely a pyramid's networks are stored: as finely as is worth its bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..models.pyramid import STORED_PLACES

Places = dict[str, int]

_LARGE: tuple[tuple[str, ...], ...] = (("first", "second"), ("first",), ("second",))
_OF_CONTEXT: tuple[tuple[str, ...], ...] = (
    ("level_bias", "second_bias", "last", "last_bias", "skip"), ("level_bias", "second_bias"), ("last", "last_bias", "skip"),
)  # fmt: skip
_OF_SYNTHESIS: tuple[tuple[str, ...], ...] = (
    ("gains", "filters", "first_bias", "second_bias", "last", "last_bias", "skips"),
    ("first_bias", "second_bias"), ("last",), ("gains", "filters", "skips", "last_bias"),
)  # fmt: skip
Groups = Mapping[str, tuple[tuple[str, ...], ...]]


def _groups(**kinds: tuple[tuple[str, ...], ...]) -> Groups:
    return {kind: tuple(tuple(f"{kind}.{name}" for name in group) for group in groups) for kind, groups in kinds.items()}


LARGE, SMALL = _groups(context=_LARGE, synthesis=_LARGE), _groups(context=_OF_CONTEXT, synthesis=_OF_SYNTHESIS)
"""Parameters of each network whose places change together, in the order in which that is tried, all of them first: the large matrices, which
take nearly all of the bits of networks in a stream, and what is small."""
_FINER, _CONTEXT_FINER = 6, 2
"""Places more than by the formula that a search begins with, of the synthesis and of the context model."""


def worth(groups: Sequence[Sequence[str]], first: Places, cost: Callable[[Places], float]) -> Places:
    """Change the binary places of groups of parameters, one group after the other, as long as the cost falls.

    Parameters
    ----------
    groups : sequence of sequence of str
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
    for group in groups:
        for more in (-1, 1):
            start = found
            while (tried := _moved(found, group, more)) != found and (now := cost(tried)) < least:
                found, least = tried, now
            if found != start:
                break
    return found


def names(groups: Groups) -> frozenset[str]:
    """All parameters in some groups."""
    return frozenset(name for together in groups.values() for name in together[0])


def generous(places: Places) -> Places:
    """Places from which it goes down: where rounding does much, one place less may do less, and a search from there goes astray."""
    return {name: min(p + (_FINER if name.startswith("synthesis.") else _CONTEXT_FINER), STORED_PLACES[name]) for name, p in places.items()}


def _moved(places: Places, group: Sequence[str], more: int) -> Places:
    return places | {name: min(max(places[name] + more, 0), STORED_PLACES[name]) for name in group}
