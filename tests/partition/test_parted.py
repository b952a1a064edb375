"""Signals in parts: where they are cut, and their tiles as the blocks of one stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.partition.parted import Cut, PartedTiles, cut_of
from inrcodec.partition.tiles import TilePyramid

shapes = st.lists(st.integers(1, 60), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, share=st.floats(0.02, 0.98), channels=st.booleans())
def test_parts_are_small_whole_and_alike(shape: tuple[int, ...], share: float, channels: bool) -> None:
    most = max(1, int(share * math.prod(shape)))
    cut = cut_of(shape, most, channels)
    extents, plane = np.diff(cut.edges), math.prod(shape) // shape[cut.axis]
    assert cut.edges[0] == 0 and cut.edges[-1] == shape[cut.axis] and (extents > 0).all()
    assert (extents * plane <= max(most, plane)).all()
    assert not channels or len(shape) == 1 or cut.axis > 0
    assert extents[:-1].max(initial=0) - extents[:-1].min(initial=1 << 30) <= 8
    assert (cut.count - 1) * (most // (8 * plane)) * 8 < shape[cut.axis], "fewer parts would not hold it"


@pytest.mark.parametrize(
    ("shape", "most", "channels", "axis", "edges"),
    [
        ((64, 10, 10), 3200, False, 0, (0, 32, 64)),
        ((60, 10, 10), 3200, False, 0, (0, 32, 60)),
        ((3, 60, 10), 960, True, 1, (0, 32, 60)),
        ((4, 90, 90), 8000, False, 1, (0, 16, 32, 48, 64, 80, 90)),
        ((7, 7), 15, False, 0, (0, 1, 3, 5, 7)),
        ((2, 3, 100), 10, False, 2, (0, 1, 2)),
    ],
)  # fmt: skip
def test_the_slowest_axis_that_allows_it_is_cut(
    shape: tuple[int, ...], most: int, channels: bool, axis: int, edges: tuple[int, ...]
) -> None:
    cut = cut_of(shape, most, channels)
    assert cut.axis == axis and cut.edges[: len(edges)] == edges


def test_parts_of_a_plane_where_no_axis_allows_more() -> None:
    assert cut_of((5, 7, 6), 3) == Cut(1, tuple(range(8)))


def test_boxes_are_cut_at_faces() -> None:
    cut = Cut(1, (0, 4, 9, 12))
    pieces = list(cut.pieces(np.array([2, 3]), np.array([5, 10])))
    assert [(n, low.tolist(), high.tolist()) for n, low, high in pieces] == [
        (0, [2, 3], [5, 4]), (1, [2, 4], [5, 9]), (2, [2, 9], [5, 10]),
    ]  # fmt: skip
    assert [n for n, *_ in cut.pieces(np.array([0, 4]), np.array([1, 9]))] == [1]
    assert cut.box(1, (7, 12)) == (slice(0, 7), slice(4, 9)) and cut.origin(2, 2).tolist() == [0, 9]


def test_tiles_of_parts_lie_behind_each_other() -> None:
    cut = Cut(0, (0, 5, 12))
    parts = tuple(TilePyramid((n, 6), ((n, 6), (-(-n // 2), 3)), ((1, 1), (2, 2)), 4) for n in (5, 7))
    tiles = PartedTiles(cut, parts)
    assert tiles.shape == (12, 6) and tiles.count == parts[0].count + parts[1].count == len(tiles.origin)
    assert [tiles.part_of(n) for n in range(tiles.count)] == [0] * parts[0].count + [1] * parts[1].count
    covered = np.zeros((2, 12, 6), int)
    for number, (low, extent) in enumerate(zip(tiles.origin, tiles.extent, strict=True)):
        part = tiles.part_of(number)
        level = parts[part].level[number - tiles.first[part]]
        covered[(level, *map(slice, low, low + extent))] += 1
    assert (covered == 1).all(), "tiles of each level cover the signal once"
    found = tiles.overlapping(np.array([4, 0]), np.array([6, 1]))
    assert {tiles.part_of(n) for n in found.tolist()} == {0, 1}
