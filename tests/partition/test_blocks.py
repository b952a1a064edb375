"""Blocks gathered from a volume and scattered back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.partition.blocks import gather, scatter


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """A volume, a cell, and the origins of the cells that cover the volume."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    cell = tuple(draw(st.integers(1, 5)) for _ in shape)
    volume = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    grid = tuple(-(-n // e) for n, e in zip(shape, cell, strict=True))
    return volume, cell, np.argwhere(np.ones(grid, dtype=bool)) * np.asarray(cell)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_samples_beyond_the_border_repeat_the_nearest(case: tuple[np.ndarray, tuple[int, ...], np.ndarray]) -> None:
    volume, cell, origin = case
    reach = [(0, int(o) + e - n if o + e > n else 0) for o, e, n in zip(origin[-1], cell, volume.shape, strict=True)]
    padded = np.pad(volume, reach, mode="edge")
    expected = [padded[tuple(slice(o, o + e) for o, e in zip(start, cell, strict=True))].ravel() for start in origin]
    found = gather(volume, origin, cell)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(expected))


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_scatter_fills_just_the_box(case: tuple[np.ndarray, tuple[int, ...], np.ndarray], data: st.DataObject) -> None:
    volume, cell, origin = case
    ends = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in volume.shape]
    start, stop = np.array(ends).T
    box = np.full(tuple(stop - start), -1, dtype=np.int16)
    scatter(box, start, origin, cell, gather(volume, origin, cell))
    assert np.array_equal(box, volume[tuple(slice(a, b) for a, b in ends)])


def test_scatter_leaves_what_no_block_covers() -> None:
    box = np.full((2, 4), 7.0)
    scatter(box, np.array([1, 1]), np.array([[0, 0]]), (2, 3), np.arange(6.0)[None])
    assert box.tolist() == [[4, 5, 7, 7], [7, 7, 7, 7]]


def test_no_blocks() -> None:
    assert gather(np.zeros((3, 4)), np.empty((0, 2), dtype=int), (2, 2)).shape == (0, 4)
    box = np.ones((2, 2))
    scatter(box, np.zeros(2, dtype=int), np.empty((0, 2), dtype=int), (2, 2), np.empty((0, 4)))
    assert np.all(box == 1)


def test_memory_mapped_volumes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(24, dtype=">i2").reshape(4, 6))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert gather(mapped, np.array([[2, 4], [3, 5]]), (2, 2)).tolist() == [[16, 17, 22, 23], [23, 23, 23, 23]]
