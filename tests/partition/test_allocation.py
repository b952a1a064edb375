"""Budgets of parameters: spent, shared as asked, within limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.partition.allocation import interest, leaf_widths, level_budgets, variance, widths_for_budgets

most_lists = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def test_level_budgets_follow_ratio_times_nodes() -> None:
    assert level_budgets(420.0, (1.0, 0.5, 2.0), (1, 8, 64)) == pytest.approx(
        [420 / 133, 420 * 4 / 133, 420 * 128 / 133]
    )


def chain_count(nodes: list[int], layers: list[int]) -> Callable[[int, int, int], int]:
    def count(level: int, n_in: int, width: int) -> int:
        return nodes[level] * ((n_in + 1) * width + (layers[level] - 1) * (width + 1) * width)

    return count


@pytest.mark.parametrize("budget", [20_000, 73_001, 250_000, 1_000_003])
@pytest.mark.parametrize("layers", [[2], [2, 2], [2, 2, 3], [1, 1, 1]])
def test_widths_spend_the_budget(budget: int, layers: list[int]) -> None:
    nodes = [1, 8, 27][: len(layers)]
    ratios = (1.0, 0.8, 1.5)[: len(layers)]
    count = chain_count(nodes, layers)
    widths = widths_for_budgets(level_budgets(budget, ratios, nodes), count, 3)
    inputs = [3, *widths[:-1]]
    spent = sum(count(level, n_in, w) for level, (n_in, w) in enumerate(zip(inputs, widths, strict=True)))
    assert spent <= budget
    # One more unit of width of the deepest level would not fit: all that flooring can leave over.
    last = len(layers) - 1
    assert spent + count(last, inputs[-1], widths[-1] + 1) - count(last, inputs[-1], widths[-1]) > budget


@pytest.mark.parametrize("budget", [73_001, 250_000, 1_000_003])
def test_wide_networks_spend_98_per_cent(budget: int) -> None:
    count = chain_count([1, 8], [2, 2])
    widths = widths_for_budgets(level_budgets(budget, (1.0, 0.8), (1, 8)), count, 3)
    assert 0.98 * budget <= count(0, 3, widths[0]) + count(1, widths[0], widths[1]) <= budget


def test_widths_are_at_least_1() -> None:
    assert widths_for_budgets([0.5, 0.5], chain_count([1, 8], [2, 2]), 3) == [1, 1]


@settings(max_examples=150, deadline=None)
@given(most_lists, st.data())
def test_leaf_widths_spend_all_that_leaves_can_take(most: list[int], data: st.DataObject) -> None:
    weights = st.one_of(st.just(0.0), st.floats(0.01, 1e6))
    importance = np.array([data.draw(weights) for _ in most])
    budget = data.draw(st.integers(0, sum(most) + 20))
    widths = leaf_widths(budget, importance, np.array(most))
    assert np.all(widths >= 1) and np.all(widths <= most)
    assert widths.sum() == min(max(budget, len(most)), sum(most))


@settings(max_examples=80, deadline=None)
@given(most_lists, st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_leaf_widths_follow_importance(most: list[int], seed: int, part: float) -> None:
    """Of two leaves with the same limit the more important one has no fewer weights."""
    importance = np.random.default_rng(seed).random(len(most)) + 0.01
    limit = np.full(len(most), max(most))
    widths = leaf_widths(int(part * limit.sum()), importance, limit)
    assert np.all(np.diff(widths[np.argsort(-importance, kind="stable")]) <= 0)


def test_leaf_widths_are_proportional_beyond_the_constant() -> None:
    assert leaf_widths(4 + 100, np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 500)).tolist() == [11, 21, 31, 41]


def test_what_is_left_over_goes_to_the_most_important() -> None:
    assert leaf_widths(3 + 7, np.array([1.0, 3.0, 2.0]), np.full(3, 50)).tolist() == [2, 5, 3]


def test_full_leaves_hand_on_what_is_over() -> None:
    assert leaf_widths(61, np.array([100.0, 1.0, 1.0]), np.array([21, 60, 60])).tolist() == [21, 20, 20]


def test_leaves_of_no_importance_share_what_the_others_cannot_take() -> None:
    assert leaf_widths(150, np.array([1.0, 0.0, 0.0]), np.array([10, 100, 100])).tolist() == [10, 70, 70]


def test_no_importance_at_all_is_equal() -> None:
    assert leaf_widths(12, np.zeros(4), np.full(4, 9)).tolist() == [3, 3, 3, 3]


def test_interest_counts_samples_above_the_threshold() -> None:
    samples = np.array([[1, 2, 3], [3, 4, 5], [0, 0, 2]], np.float32)
    assert interest(samples, 2.0).tolist() == [1, 3, 0]


def test_variance_is_the_sum_of_squares_about_the_mean() -> None:
    samples = np.array([[1, 2, 3, 6], [5, 5, 5, 5]], np.float32)
    assert variance(samples).tolist() == [14.0, 0.0]
