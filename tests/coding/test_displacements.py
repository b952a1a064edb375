"""What nodes of grids hold comes back, smooth fields are cheap, and impossible bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.coding.displacements import (
    MOST_LEVELS,
    NodeTables,
    classes,
    coarsest,
    passes,
    read_grids,
    residuals,
    top_spacing,
    write_grids,
)
from inrcodec.coding.entropy import SymbolWriter
from inrcodec_formats.errors import ContainerError


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)),
    most=st.sampled_from([0, 2, 40, 100_000]), seed=st.integers(0, 99),
)  # fmt: skip
def test_round_trip(shape: tuple[int, int, int], most: int, seed: int) -> None:
    random, grids = np.random.default_rng(seed), (shape[0], 2, *shape[1:])
    values = random.integers(-most, most + 1, grids) * (random.random(grids) < 0.7)
    np.testing.assert_array_equal(read_grids(write_grids(values), grids), values)


@pytest.mark.parametrize("grid", [(2, 2), (2, 5), (3, 3), (7, 6), (24, 41), (35, 3)])
def test_every_node_is_coded_once(grid: tuple[int, int]) -> None:
    """The coarsest ones, at most two along an axis, then those of every pass, whose neighbours are known by then."""
    times = np.zeros(grid, dtype=int)
    coarsest(times)[...] += 1
    assert max(coarsest(times).shape) <= 2 and top_spacing(grid) < max(grid)
    for step in passes(grid):
        assert all((known == 1).all() for known in step.neighbours(times))
        step.new(times)[...] += 1
    assert (times == 1).all()


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_polynomials_are_foretold(power: int) -> None:
    """A cubic through four nodes; only beside edges, where there are no four, straight lines."""
    y, x = np.indices((33, 33))
    values = ((x - 10) ** power - (y - 16) ** power)[None, None].repeat(2, 1)
    for step in passes(values.shape):
        rest = step.new(residuals(values))
        inner = rest[..., 1:-1, :] if step.axis == -2 else rest[..., 1:-1]
        assert not (inner if power > 1 else rest).any()


def test_a_table_of_each_class_is_what_was_counted() -> None:
    random = np.random.default_rng(0)
    rest = residuals(np.cumsum(random.integers(-3, 4, (5, 2, 9, 12)), axis=-1))
    for levels in range(1, MOST_LEVELS + 1):
        group = classes(rest, levels)
        tables = NodeTables.fit(rest, levels)
        assert len(tables.tables) == 2 + 5 * levels > group.max()
        for number, table in enumerate(tables.tables):
            mine = np.abs(rest[group == number])
            assert (table is not None) == (mine.size > 0)
            if table is not None and mine.size > 20:
                assert table.nonzero / 65536 == pytest.approx((mine > 0).mean(), abs=0.02)


def test_estimated_bits_are_those_of_the_stream() -> None:
    random = np.random.default_rng(1)
    values = np.rint(random.laplace(0, 1, (9, 2, 24, 41))).astype(np.int64)
    rest = residuals(values)
    assert len(write_grids(values)) == pytest.approx(NodeTables.best(rest).bits(rest) / 8, rel=0.01)


def test_fewer_levels_where_there_is_little_to_say() -> None:
    few, many = (np.random.default_rng(2).integers(-2, 3, (n, 2, 24, 41)) << np.arange(41) % 3 for n in (1, 20))
    assert NodeTables.best(residuals(few[:, :, :3, :3])).levels == 1
    smooth = np.cumsum(np.cumsum(many, axis=-1), axis=-2) // 8
    assert NodeTables.best(residuals(smooth)).levels == MOST_LEVELS


@pytest.mark.parametrize(("levels", "table", "words"), [(0, (), "levels"), (4, (), "levels"), (1, (1, 0, 1, 1), "above 0"), (1, (1, 9, 0, 1), "above 0")])
def test_impossible_tables_are_refused(levels: int, table: tuple[int, ...], words: str) -> None:
    writer = SymbolWriter()
    for value, bits in zip((levels, *table), (8, 1, 16, 8, 8), strict=False):
        writer.digits(np.array([value]), bits)
    with pytest.raises(ContainerError, match=words):
        read_grids(writer.finish(), (2, 2, 4, 4))
