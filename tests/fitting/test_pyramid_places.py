"""The search for binary places that are worth their bits."""

from __future__ import annotations

import pytest

from inrcodec.fitting.pyramid_places import UPSAMPLING, generous, worth
from inrcodec.models.pyramid import STORED_PLACES, stored_places


@pytest.mark.parametrize("first", [0, 3, 12])
def test_the_least_cost_is_found_from_anywhere(first: int) -> None:
    """All of a group together; what is not in it stays."""
    start = {name: min(first, most) for name, most in STORED_PLACES.items()}
    found = worth(UPSAMPLING, start, lambda places: float(sum((places[name] - 9) ** 2 for name in UPSAMPLING)))
    assert all(found[name] == (9 if name in UPSAMPLING else start[name]) for name in STORED_PLACES)


def test_places_stay_within_what_can_be_stored_and_nothing_is_tried_in_vain() -> None:
    asked: list[dict[str, int]] = []

    def cost(places: dict[str, int]) -> float:
        asked.append(places)
        return -float(sum(places.values()))

    start = stored_places(1 << 18)
    found = worth(UPSAMPLING, start, cost)
    assert all(found[name] == (most if name in UPSAMPLING else start[name]) for name, most in STORED_PLACES.items())
    assert len(asked) <= 20
    cheap = worth(UPSAMPLING, start, lambda places: float(sum(places.values())))
    assert all(cheap[name] == (0 if name in UPSAMPLING else start[name]) for name in STORED_PLACES)


def test_places_that_cost_less_nowhere_stay() -> None:
    start = stored_places(1 << 20)
    assert worth(UPSAMPLING, start, lambda places: 1.0) == start


def test_a_search_from_finer_places_is_not_misled_where_rounding_does_much() -> None:
    """Errors of numbers that are rounded to nothing like themselves: two places less make less of it than one."""
    first = {name: 3 for name in STORED_PLACES}

    def cost(places: dict[str, int]) -> float:
        place = places["synthesis.filters"]
        return 10.0 * place + (5000.0 + 100 * place if place < 5 else 4.0 ** (8 - place))

    assert worth(UPSAMPLING, first, cost)["synthesis.filters"] == 0, "the case would show nothing"
    assert worth(UPSAMPLING, generous(first), cost)["synthesis.filters"] == 7
    assert all(first[name] < place <= STORED_PLACES[name] for name, place in generous(first).items())
