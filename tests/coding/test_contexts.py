"""Contexts of readout coefficients: integer thresholds, neighbours, and nothing from the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import contexts as module
from inrcodec.coding.contexts import CONTEXTS, MEAN_UNIT, Bands
from inrcodec.coding.entropy import ESCAPE


def lowest(cell: tuple[int, ...], width: int) -> np.ndarray:
    """The lowest frequencies of a cell, the constant first."""
    index = np.argwhere(np.ones(cell, dtype=bool))
    return index[np.argsort((index**2).sum(axis=1), kind="stable")[:width]]


def ranking(width: int, axes: int) -> np.ndarray:
    """What a dense network's features have instead of frequencies: band b holds b of them."""
    rank = np.zeros((width, axes), dtype=np.int64)
    rank[:, 0] = np.repeat(np.arange(width), np.maximum(np.arange(width), 1))[:width]
    return rank


LATTICES = [lowest((9,), 9), lowest((5, 6), 30), lowest((8, 8, 8), 80), lowest((3, 4, 3, 2), 60), ranking(40, 3)]
LATTICES += [lowest((4, 4), 1), ranking(2, 2), ranking(3, 2), ranking(4, 1)]
EVERY_LATTICE = pytest.mark.parametrize("lattice", LATTICES)


def test_thresholds_are_exact_integer_roots() -> None:
    found = module.THRESHOLDS.tolist()
    assert len(found) == CONTEXTS - 1
    for i, value in enumerate(found):
        assert value**4 <= 2 ** (2 * i + 17) < (value + 1) ** 4
    assert found[:6] == [19, 26, 38, 53, 76, 107] and found[-1] == 623487


@EVERY_LATTICE
def test_bands_hold_every_coefficient_once_low_frequencies_first(lattice: np.ndarray) -> None:
    bands = Bands.of_lattice(lattice)
    assert bands.width == len(lattice)
    assert sorted(np.concatenate(bands.members).tolist()) == list(range(len(lattice)))
    assert bands.members[0].tolist() == [0]
    for b, members in enumerate(bands.members):
        assert len(members) > 0 and np.all(lattice[members].sum(axis=1) == b)


@pytest.mark.parametrize("lattice", LATTICES[:4])
def test_neighbours_are_one_and_two_steps_lower(lattice: np.ndarray) -> None:
    bands = Bands.of_lattice(lattice)
    number = {tuple(k): i for i, k in enumerate(lattice.tolist())}
    axes = range(lattice.shape[1])
    for i, k in enumerate(lattice.tolist()):

        def below(*steps: int, k: list[int] = k) -> int:
            return number.get(tuple(v - steps.count(j) for j, v in enumerate(k)), len(lattice))

        assert bands.near[:, i].tolist() == [below(j) for j in axes]
        assert bands.far[:, i].tolist() == [below(j, j) for j in axes]
        assert sorted(bands.diagonal[:, i].tolist()) == sorted(below(a, b) for a in axes for b in range(a))


@EVERY_LATTICE
def test_neighbours_lie_in_earlier_bands(lattice: np.ndarray) -> None:
    bands = Bands.of_lattice(lattice)
    band = np.append(lattice.sum(axis=1), -1)
    for neighbours in (bands.near, bands.far, bands.diagonal):
        assert np.all(band[neighbours] < band[:-1])


@EVERY_LATTICE
def test_contexts_depend_on_earlier_bands_alone(lattice: np.ndarray) -> None:
    bands = Bands.of_lattice(lattice)
    random = np.random.default_rng(0)
    magnitude = np.zeros((bands.width + 1, 6), dtype=np.int32)
    magnitude[1:-1] = random.integers(0, 20, (bands.width - 1, 6))
    for band in range(1, bands.count):
        found = bands.contexts(band, magnitude, 64)
        assert found.shape == (len(bands.members[band]), 6)
        later = magnitude.copy()
        for number in range(band, bands.count):
            later[bands.members[number]] = random.integers(0, 256, (len(bands.members[number]), 6))
        assert np.array_equal(bands.contexts(band, later, 64), found)
        if band > 1:
            earlier = magnitude.copy()
            earlier[bands.members[band - 1]] += 200
            assert np.all(bands.contexts(band, earlier, 64) > found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 65535), st.sampled_from([0, 1, 3, ESCAPE]))
def test_leaves_have_contexts_of_their_own_within_range(seed: int, mean: int, largest: int) -> None:
    bands = Bands.of_lattice(LATTICES[2])
    magnitude = np.random.default_rng(seed).integers(0, largest + 1, (bands.width + 1, 5)).astype(np.int32)
    magnitude[-1] = 0
    for band in range(1, bands.count):
        found = bands.contexts(band, magnitude, mean)
        assert np.issubdtype(found.dtype, np.integer) and found.min() >= 0 and found.max() < CONTEXTS
        for leaf in range(5):
            assert np.array_equal(bands.contexts(band, magnitude[:, leaf : leaf + 1], mean)[:, 0], found[:, leaf])


@pytest.mark.parametrize("lattice", [LATTICES[1], LATTICES[4]])
def test_contexts_grow_with_what_is_expected(lattice: np.ndarray) -> None:
    bands = Bands.of_lattice(lattice)
    quiet, last = np.zeros((bands.width + 1, 1), dtype=np.int32), bands.count - 1
    means = [int(bands.contexts(last, quiet, mean).max()) for mean in range(0, 65536, 4096)]
    assert means == sorted(means) and means[0] == 0 and means[-1] > 15
    loud = quiet.copy()
    loud[:-1] = ESCAPE
    assert bands.contexts(last, loud, 255 * MEAN_UNIT).min() >= bands.contexts(last, quiet, 255 * MEAN_UNIT).max()


@pytest.mark.parametrize("kind", ["near", "far", "diagonal"])
def test_every_kind_of_neighbour_counts(kind: str) -> None:
    bands = Bands.of_lattice(LATTICES[2])
    quiet = np.zeros((bands.width + 1, 1), dtype=np.int32)
    for band in range(2, bands.count):
        neighbours = getattr(bands, kind)[:, bands.members[band]]
        loud = quiet.copy()
        loud[neighbours[neighbours < bands.width]] = 50
        has_some = (neighbours < bands.width).any(axis=0)
        raised = bands.contexts(band, loud, 0)[:, 0] > bands.contexts(band, quiet, 0)[:, 0]
        assert has_some.any() and np.all(raised[has_some])
