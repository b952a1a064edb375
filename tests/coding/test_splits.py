"""Split flags: coded and back, level by level."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.splits import flag_reader, write_flags
from inrcodec_formats.errors import ContainerError

levels = st.lists(st.lists(st.booleans(), max_size=40), max_size=6)


def read_all(data: bytes, counts: list[int]) -> list[list[bool]]:
    read = flag_reader(data)
    return [read(level, count).tolist() for level, count in enumerate(counts)]


@settings(max_examples=100, deadline=None)
@given(levels)
def test_flags_come_back(flags: list[list[bool]]) -> None:
    data = write_flags([np.array(level, dtype=bool) for level in flags])
    assert read_all(data, [len(level) for level in flags]) == flags


def test_one_flag_among_many_comes_back() -> None:
    for value in (True, False):
        flags = np.full(5000, value)
        flags[1234] = not value
        data = write_flags([flags])
        assert read_all(data, [5000]) == [flags.tolist()] and len(data) < 40


def test_levels_of_one_kind_cost_a_byte_each() -> None:
    flags = [np.ones(10_000, dtype=bool), np.zeros(10_000, dtype=bool), np.ones(10_000, dtype=bool)]
    data = write_flags(flags)
    assert len(data) <= 4
    assert read_all(data, [10_000] * 3) == [level.tolist() for level in flags]


def test_random_flags_cost_their_entropy() -> None:
    flags = np.random.default_rng(0).random(8000) < 0.11
    chance = flags.mean()
    entropy = -chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)
    assert abs(8 * len(write_flags([flags])) - 8000 * entropy) < 0.01 * 8000 * entropy


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_is_refused_or_read_as_something(data: bytes, counts: list[int]) -> None:
    try:
        found = read_all(data, counts)
    except ContainerError:
        return
    assert [len(level) for level in found] == counts
