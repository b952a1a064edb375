"""Sharing a budget of parameters: between network levels, and among the leaves of a tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def level_budgets(budget: float, ratios: Sequence[float], nodes: Sequence[int]) -> list[float]:
    """Parameters of each network level: level l gets a share proportional to ``ratios[l] * nodes[l]``.

    Source: TINC, arXiv:2211.06689, section 3.3.
    """
    weight = np.asarray(ratios, dtype=float) * np.asarray(nodes, dtype=float)
    return [float(b) for b in budget * weight / weight.sum()]


def widths_for_budgets(budgets: Sequence[float], count: Callable[[int, int, int], int], n_in: int) -> list[int]:
    """Largest width of each level whose parameters fit the level's budget; what is left goes to the next level.

    Parameters
    ----------
    budgets : sequence of float
        Parameters per level, see `level_budgets`.
    count : callable
        ``count(level, n_in, width)``: parameters of all nodes of a level.
    n_in : int
        Inputs of level 0.
    """
    widths = []
    left = 0.0
    for level, budget in enumerate(budgets):
        available = budget + left
        low, high = 1, 2
        while count(level, n_in, high) <= available:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if count(level, n_in, middle) <= available else (low, middle)
        widths.append(low)
        left = available - count(level, n_in, low)
        n_in = low
    return widths


def leaf_widths(budget: int, importance: NDArray[np.float64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Readout weights of each leaf, proportional to its importance, summing to the budget exactly where possible.

    Parameters
    ----------
    budget : int
        Weights for all leaves together.
    importance : ndarray, shape (B,)
        Non-negative; all zero means equal.
    most : ndarray of int, shape (B,)
        Most weights a leaf can have; every leaf has at least 1 (its constant).

    Returns
    -------
    ndarray of int64, shape (B,)
    """
    count = len(importance)
    weight = importance.astype(float) if importance.sum() > 0 else np.ones(count)
    share = np.ones(count)
    free = np.ones(count, dtype=bool)
    # Leaves that reach their limit hand what is over to the others; each round fixes at least one.
    while free.any():
        if weight[free].sum() == 0:
            weight = np.where(free, 1.0, weight)
        spare = budget - count - (most[~free] - 1).sum()
        share = np.where(free, 1 + max(spare, 0) * (weight / weight[free].sum()), most)
        full = free & (share >= most)
        if not full.any():
            break
        free &= ~full
    widths = np.minimum(np.floor(share), most).astype(np.int64)
    return _give_left_over(widths, budget, weight, most)


def _give_left_over(widths: NDArray[np.int64], budget: int, weight: np.ndarray, most: np.ndarray) -> NDArray[np.int64]:
    """What flooring left goes one by one to the most important leaves with room."""
    left = budget - int(widths.sum())
    for leaf in np.argsort(-weight, kind="stable"):
        if left <= 0:
            break
        extra = min(left, 1) if widths[leaf] < most[leaf] else 0
        widths[leaf] += extra
        left -= extra
    return widths


def interest(samples: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """Number of samples of interest of each block, shape (B,): those above a threshold."""
    return (samples > threshold).sum(axis=1).astype(np.float64)


def variance(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Variance of each block's samples times their number, shape (B,)."""
    return samples.astype(np.float64).var(axis=1) * samples.shape[1]
