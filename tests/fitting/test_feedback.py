"""Rounding with feedback: losses are the definition's, and as small as was foretold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.fitting import feedback
from inrcodec.fitting.feedback import Feedback


def curved(n: int, seed: int) -> np.ndarray:
    """A matrix whose numbers hang together, as those of a layer do."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((4 * n, n)) @ (np.eye(n) + 0.9 * np.triu(np.ones((n, n)), 1) * random.random((n, n)))
    return rows.T @ rows


@given(n=st.integers(1, 24), seed=st.integers(0, 10**6), fine=st.integers(-2, 6))
def test_numbers_are_near_and_their_loss_is_what_is_left_of_each(n: int, seed: int, fine: int) -> None:
    random, matrix = np.random.default_rng(seed), curved(n, seed)
    values, steps = 3 * random.standard_normal(n), 2.0 ** (-fine - random.integers(0, 3, n))
    rounding = Feedback(matrix)
    found = rounding.rounded(values, steps)
    assert np.array_equal(found, np.rint(found))
    errors = values - found * steps
    own = np.diag(matrix)
    damped = matrix + np.diag(feedback._DAMPING * own + feedback._LEAST * own.mean())
    loss = errors @ damped @ errors
    # Nothing is further than half a step from where it would be lost least.
    assert loss <= (rounding.variances * steps**2).sum() / 4 * (1 + 1e-9)
    # The last number is rounded by itself.
    assert found[-1] == np.rint(values[-1] / steps[-1])


def test_less_is_lost_than_with_each_number_for_itself() -> None:
    random, losses, foretold = np.random.default_rng(5), [], 0.0
    for seed in range(20):
        matrix, values = curved(32, seed), random.standard_normal(32)
        rounding, steps = Feedback(matrix), np.full(32, 0.125)
        errors = [values - whole * steps for whole in (np.rint(values / steps), rounding.rounded(values, steps))]
        losses.append([e @ matrix @ e for e in errors])
        foretold += float((rounding.variances * steps**2).sum()) / 12
    plain, together = np.sum(losses, axis=0)
    assert together < 0.3 * plain
    assert together == pytest.approx(foretold, rel=0.2)


@pytest.mark.parametrize("unknown", [0.0, np.nan, np.inf])
def test_where_nothing_is_known_numbers_are_rounded_for_themselves(unknown: float) -> None:
    values = np.random.default_rng(1).standard_normal(9)
    rounding = Feedback(np.full((9, 9), unknown))
    assert (
        np.array_equal(rounding.rounded(values, np.full(9, 0.25)), np.rint(values / 0.25))
        and not rounding.variances.any()
    )


def test_a_matrix_that_roundings_made_indefinite_is_made_definite() -> None:
    """Products in single precision of numbers that say nearly the same."""
    matrix = np.full((40, 40), 1e6)
    matrix[np.diag_indices(40)] -= 2e4
    assert np.linalg.eigvalsh(matrix).min() < -1e4
    rounding, values = Feedback(matrix), np.linspace(-1, 1, 40)
    assert np.all(rounding.variances > 0)
    errors = values - 0.25 * rounding.rounded(values, np.full(40, 0.25))
    assert abs(errors.sum()) < 0.25
