"""The search for binary places that are worth their bits."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting.pyramid_places import LARGE, SMALL, generous, names, worth
from inrcodec.models.pyramid import STORED_PLACES, stored_places


@pytest.mark.parametrize("kind", ["context", "synthesis"])
def test_groups_are_all_parameters_of_their_network_once(kind: str) -> None:
    every: list[str] = []
    for groups in (LARGE, SMALL):
        whole, *parts = groups[kind]
        assert {name for part in parts for name in part} == set(whole) and len(set(whole)) == len(whole) == sum(map(len, parts))
        assert {name for name in names(groups) if name.startswith(f"{kind}.")} == set(whole)
        every += whole
    assert sorted(every) == sorted(name for name in STORED_PLACES if name.startswith(f"{kind}."))


@pytest.mark.parametrize("first", [0, 3, 7])
def test_the_least_of_separate_costs_is_found_from_anywhere(first: int) -> None:
    """Each group's cost is that of its own distance from its best places; what no group holds stays."""
    random = np.random.default_rng(first)
    groups = SMALL["context"]
    best = {name: int(random.integers(0, STORED_PLACES[name] + 1)) for part in groups[1:] for name in part[:1]}
    start = {name: min(first, most) for name, most in STORED_PLACES.items()}

    def cost(places: dict[str, int]) -> float:
        return float(sum((places[name] - wanted) ** 2 for name, wanted in best.items()))

    found = worth(groups, start, cost)
    assert {name: found[name] for name in best} == best
    assert all(found[name] == start[name] for name in STORED_PLACES if name.startswith("synthesis"))


def test_places_stay_within_what_can_be_stored_and_nothing_is_tried_in_vain() -> None:
    asked: list[dict[str, int]] = []

    def cost(places: dict[str, int]) -> float:
        asked.append(places)
        return -float(sum(places.values()))

    start = stored_places(1 << 18)
    found = worth(SMALL["synthesis"], start, cost)
    changed = set(SMALL["synthesis"][0])
    assert all(found[name] == (most if name in changed else start[name]) for name, most in STORED_PLACES.items())
    assert len(asked) <= 30
    cheap = worth(SMALL["synthesis"], start, lambda places: float(sum(places.values())))
    assert all(cheap[name] == (0 if name in changed else start[name]) for name in STORED_PLACES)


def test_places_that_cost_less_nowhere_stay() -> None:
    start = stored_places(1 << 20)
    assert worth(SMALL["context"], start, lambda places: 1.0) == start


def test_a_search_from_finer_places_is_not_misled_where_rounding_does_much() -> None:
    """Errors of weights that are rounded to nothing like themselves: two places less make less of it than one."""
    first = {name: 3 for name in STORED_PLACES}

    def cost(places: dict[str, int]) -> float:
        place = places["synthesis.first"]
        return 10.0 * place + (5000.0 + 100 * place if place < 5 else 4.0 ** (8 - place))

    group = (("synthesis.first",),)
    assert worth(group, first, cost)["synthesis.first"] == 0, "the case would show nothing"
    assert worth(group, generous(first), cost)["synthesis.first"] == 7
    assert all(first[name] < place <= STORED_PLACES[name] for name, place in generous(first).items())
