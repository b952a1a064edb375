"""Sums over numbers by their sizes are those over the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting import sizes
from inrcodec.fitting.sizes import Sizes

VALUES = np.random.default_rng(5).laplace(0, 30, (2, 3000)).astype(np.float32) ** 3
VALUES[0, :500] = 0


@pytest.mark.parametrize("step", [0.01, 3.0, 1e5])
@pytest.mark.parametrize(("of_octave", "bound"), [(4, 0.01), (256, 1e-5)])
def test_sums_over_sizes_are_those_over_numbers(of_octave: int, bound: float, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_TOGETHER", 700)
    found = Sizes.of(VALUES[:1], of_octave).and_those(Sizes.of(VALUES[1:], of_octave))
    exact = VALUES.astype(np.float64)
    assert found.counts.sum() == VALUES.size - 500
    assert found.bits(step) == pytest.approx(float(np.log2(1 + (exact / step) ** 2).sum()), rel=bound)
    assert found.error(step) == pytest.approx(float(np.minimum(exact**2, step**2 / 12).sum()), rel=bound)


def test_zeros_are_nothing_and_no_size_is_too_large_or_small() -> None:
    nothing = Sizes.of(np.zeros(3, np.float32), 4)
    assert nothing.bits(1.0) == nothing.error(1.0) == 0
    assert Sizes.of(np.array([2.0, 3.0, -4.0], np.float32), 4, 3.0).counts.sum() == 1
    ends = Sizes.of(np.array([1e-19, 1e19], np.float32), 4)
    assert ends.counts[0] == ends.counts[-1] == 1
    assert ends.error(1e25) == pytest.approx(1e38, rel=1e-6)
