"""What lies between two pyramids in size: of both, cut where the bits are those that were wanted."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting.splicing import Integers, spliced

STRIDES = [(1, 2, 2), (2, 4, 4), (4, 4, 8)]
SHAPES = [(1, 20, 8, 7), (1, 10, 4, 4), (1, 5, 4, 2)]


def of_ones(number: int) -> Integers:
    return [np.full(shape, number, np.int32) for shape in SHAPES]


def bits(latents: Integers) -> float:
    return float(sum(y.sum() for y in latents))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.97])
def test_as_much_of_the_larger_one_as_is_wanted(share: float) -> None:
    larger, smaller = of_ones(3), of_ones(1)
    wanted = bits(smaller) + share * (bits(larger) - bits(smaller))
    found = spliced(larger, smaller, wanted, STRIDES, bits)
    # A slice of the finest latents, with those of the next level that begin there.
    assert wanted - 2 * (8 * 7 + 4 * 4 + 4 * 2) < bits(found) <= wanted
    ends = [int((y == 3).all((0, 2, 3)).sum()) for y in found]
    assert all((y[:, :n] == 3).all() and (y[:, n:] == 1).all() for y, n in zip(found, ends, strict=True))
    assert all(-(-ends[0] // stride[0]) == n for n, stride in zip(ends, STRIDES, strict=True))
    assert [y.shape for y in found] == SHAPES and all(y.flags.c_contiguous for y in found)


def test_the_cut_is_across_the_longest_axis() -> None:
    turned = [(2, 1, 2), (4, 2, 4), (4, 4, 8)]
    larger, smaller = ([y.transpose(0, 2, 1, 3) for y in of_ones(n)] for n in (3, 1))
    found = spliced(larger, smaller, (bits(larger) + bits(smaller)) / 2, turned, bits)
    assert all(len(np.unique(y[0, 0, :, 0])) == 2 and len(np.unique(y[0, :, 0, 0])) == 1 for y in found[:2])


def test_where_a_slice_is_too_much_the_smaller_one_stays() -> None:
    larger, smaller = of_ones(3), of_ones(1)
    found = spliced(larger, smaller, bits(smaller) + 10, STRIDES, bits)
    assert all(np.array_equal(a, b) for a, b in zip(found, smaller, strict=True))
    assert all((y == 3).all() for y in larger) and all((y == 1).all() for y in smaller)
