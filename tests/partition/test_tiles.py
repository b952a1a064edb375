"""Tiles of a pyramid: they cover every lattice once, and what asks for a region gets the tiles that lie in it."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.models.pyramid import PyramidLayout
from inrcodec.partition.tiles import TilePyramid
from pyramid_streams import SHAPES


@cache
def tiles_of(name: str, edge: int) -> TilePyramid:
    layout = PyramidLayout(*SHAPES[name])
    return TilePyramid(layout.shape, layout.lattices, layout.strides, edge)


every_shape = pytest.mark.parametrize("name", SHAPES)
every_edge = pytest.mark.parametrize("edge", [1, 3, 4, 64])


@every_shape
@every_edge
def test_tiles_cover_every_lattice_once(name: str, edge: int) -> None:
    tiles = tiles_of(name, edge)
    count = [np.zeros(lattice, dtype=int) for lattice in tiles.lattices]
    for tile in range(tiles.count):
        start, stop = tiles.box(tile)
        assert all(0 <= a < b <= a + edge for a, b in zip(start, stop, strict=True))
        count[tiles.level[tile]][tuple(map(slice, start, stop))] += 1
    assert all((c == 1).all() for c in count)


@every_shape
@every_edge
def test_tiles_are_numbered_coarse_to_fine_in_raster_order(name: str, edge: int) -> None:
    tiles = tiles_of(name, edge)
    keys = [(-int(tiles.level[tile]), tiles.box(tile)[0]) for tile in range(tiles.count)]
    assert keys == sorted(keys)
    for level in range(tiles.levels):
        assert np.flatnonzero(tiles.level == level).tolist() == list(
            range(tiles.first[level], tiles.first[level] + int(np.prod(tiles.grid(level))))
        )


@every_shape
def test_samples_under_tiles_are_those_of_their_latents(name: str) -> None:
    tiles = tiles_of(name, 3)
    for tile in range(tiles.count):
        start, stop = tiles.box(tile)
        stride = tiles.strides[tiles.level[tile]]
        ends = [min(b * s, n) for b, s, n in zip(stop, stride, tiles.shape, strict=True)]
        assert tiles.origin[tile].tolist() == [a * s for a, s in zip(start, stride, strict=True)]
        assert (tiles.origin[tile] + tiles.extent[tile]).tolist() == ends
    for level in range(tiles.levels):
        assert tiles.extent[tiles.level == level].prod(axis=1).sum() == np.prod(tiles.shape)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(SHAPES)), edge=st.integers(1, 9), data=st.data())
def test_tiles_of_a_box_are_those_that_meet_it(name: str, edge: int, data: st.DataObject) -> None:
    tiles = tiles_of(name, edge)
    level = data.draw(st.integers(0, tiles.levels - 1))
    start, stop = _box(data, tiles.lattices[level])
    expected = [
        tile
        for tile in np.flatnonzero(tiles.level == level).tolist()
        if all(a < d and c < b for a, b, c, d in zip(start, stop, *tiles.box(tile), strict=True))
    ]
    assert sorted(tiles.within(level, start, stop).tolist()) == expected


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(list(SHAPES)), data=st.data())
def test_tiles_over_samples(name: str, data: st.DataObject) -> None:
    tiles = tiles_of(name, 2)
    start, stop = _box(data, tiles.shape)
    found = set(tiles.overlapping(np.array(start), np.array(stop)).tolist())
    for level, stride in enumerate(tiles.strides):
        spans = [{i // s // 2 for i in range(a, b)} for a, b, s in zip(start, stop, stride, strict=True)]
        places = np.array(list(itertools.product(*spans)))
        numbers = np.ravel_multi_index(tuple(places.T), tiles.grid(level)) + tiles.first[level]
        assert {t for t in found if tiles.level[t] == level} == set(numbers.tolist())


def _box(data: st.DataObject, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    return start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
