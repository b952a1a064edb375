"""Banded coefficients: compiled loops give exactly what the definition gives, and the definition what it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from inrcodec_kernels import bands
from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.bands import BandGraph, Neighbours

NUMBA = Backend("numba")
COMPILED = pytest.importorskip("numba")
CAP = 255


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Alone, and shared out among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def graph_of(sizes: list[int], seed: int) -> BandGraph:
    """Bands of the sizes given, coefficients numbered at random, each with random neighbours in earlier bands."""
    random = np.random.default_rng(seed)
    width = sum(sizes)
    order = np.concatenate([[0], 1 + random.permutation(width - 1)])
    members = [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]
    neighbours = []
    for weight, count in ((33, 3), (9, 2), (13, 1)):
        number = np.full((count, width), width, dtype=np.int64)
        for band in range(1, len(sizes)):
            earlier = np.append(np.concatenate(members[:band]), width)
            number[:, members[band]] = random.choice(earlier, (count, len(members[band])))
        neighbours.append(Neighbours(weight, number))
    thresholds = np.unique(np.rint(2.0 ** np.arange(4, 20, 0.5)).astype(np.int64))
    return BandGraph(members, tuple(neighbours), 64, thresholds)


def coefficients_of(graph: BandGraph, count: int, seed: int, scale: float = 20.0) -> np.ndarray:
    """Laplacian coefficients (n, W) that fall from band to band; some leaves quiet, some loud."""
    random = np.random.default_rng(seed)
    fall = scale / (1 + graph.band_of) ** 1.2
    loud = random.gamma(0.7, size=(count, 1)) * random.choice([0, 1, 1, 40], (count, 1))
    return (random.laplace(size=(count, graph.width)) * fall * loud).astype(np.float32)


def statistics_of(graph: BandGraph, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs of the magnitudes, what is expected alone, and costs of the widths."""
    random = np.random.default_rng(seed)
    decay = np.linspace(2.0, 0.1, graph.contexts)[:, None]
    cost = (0.2 + decay * np.minimum(np.arange(CAP + 1), 60) + random.random((graph.contexts, CAP + 1))).astype(np.float32)
    base = 33 * random.integers(0, 200, len(graph.members))
    return cost, base, 8 * random.random(len(graph.members))


GRAPHS = [graph_of([1], 0), graph_of([1, 1], 1), graph_of([1, 3, 5, 7, 6], 2), graph_of([1, *[9] * 12], 3)]
EVERY_GRAPH = pytest.mark.parametrize("graph", GRAPHS)


@EVERY_GRAPH
@pytest.mark.parametrize("step", [0.3, 4.0, 200.0])
@pytest.mark.usefixtures("threads")
def test_rounding_is_exactly_the_definition(graph: BandGraph, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec_kernels.bands import cpu

    monkeypatch.setattr(cpu, "_PART", 500)
    step = float(np.float32(step))
    exact = coefficients_of(graph, 333, 4)
    exact[5], exact[6, 0] = -0.0, 2.5 * step
    exact[7:9] = np.rint(exact[7:9] / step) * step + step / 2  # halves
    exact[9] *= 500  # beyond the cap
    cost, base, width_cost = statistics_of(graph, 5)
    choices = {"cost": cost, "base": base, "width_cost": width_cost, "price": 0.12}
    expected = bands.round_bands(graph, exact, step, **choices, backend=REFERENCE)
    found = bands.round_bands(graph, exact, step, **choices, backend=NUMBA)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    plain = [bands.round_plain(graph, exact, step, threshold=0.55, backend=b) for b in (REFERENCE, NUMBA)]
    assert np.array_equal(plain[0][0], plain[1][0]) and np.array_equal(plain[0][1], plain[1][1])
    costs = [
        bands.leaf_costs(exact, (exact.astype(float) ** 2).sum(axis=1) + 9, step, rounding=0.36, bits=(5, 4, 1.6), price=0.1, backend=b)
        for b in (REFERENCE, NUMBA)
    ]
    assert np.array_equal(costs[0], costs[1]) and np.all(costs[0] > 0)


@EVERY_GRAPH
@pytest.mark.parametrize("largest", [1, 9, 70000])
@pytest.mark.usefixtures("threads")
def test_counts_are_exactly_the_definition(graph: BandGraph, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec_kernels.bands import cpu

    monkeypatch.setattr(cpu, "_PART", 500)
    random = np.random.default_rng(6)
    values = random.integers(-largest, largest + 1, (333, graph.width)).astype(np.int32) * (random.random((333, 1)) < 0.8)
    widths = random.integers(0, len(graph.members), 333)
    _, base, _ = statistics_of(graph, 7)
    for transposed in (values, np.ascontiguousarray(values.T).T):
        sums = [bands.sum_bands(graph, transposed, widths, cap=CAP, backend=b) for b in (REFERENCE, NUMBA)]
        counts = [bands.count_contexts(graph, transposed, widths, base, cap=CAP, backend=b) for b in (REFERENCE, NUMBA)]
        assert np.array_equal(*sums) and np.array_equal(*counts)
    sizes = np.array([len(m) for m in graph.members])
    assert counts[0][:, :3].sum() == sum(sizes[1 : w + 1].sum() for w in widths)
    assert sums[0].sum() == counts[0][:, 1].sum() + (2 * counts[0][:, 2] + counts[0][:, 3]).sum()


def test_no_leaves_are_no_trouble() -> None:
    graph = GRAPHS[2]
    none, widths = np.empty((0, graph.width), dtype=np.float32), np.empty(0, dtype=np.int64)
    cost, base, width_cost = statistics_of(graph, 0)
    for backend in (REFERENCE, NUMBA):
        values, kept = bands.round_bands(
            graph, none, 1.0, cost=cost, base=base, width_cost=width_cost, price=0.1, backend=backend
        )
        assert values.shape == none.shape and len(kept) == 0
        assert not bands.count_contexts(graph, values, widths, base, cap=CAP, backend=backend).any()
        assert not bands.sum_bands(graph, values, widths, cap=CAP, backend=backend).any()


@EVERY_GRAPH
def test_contexts_are_weighted_sums_of_neighbours(graph: BandGraph) -> None:
    """Leaf by leaf, coefficient by coefficient, in plain Python."""
    random = np.random.default_rng(8)
    magnitude = np.zeros((graph.width + 1, 3), dtype=np.int32)
    magnitude[1:-1] = random.integers(0, 30, (graph.width - 1, 3))
    for band in range(1, len(graph.members)):
        found = bands.band_contexts(graph, band, magnitude, 77)
        for row, k in enumerate(graph.members[band].tolist()):
            for leaf in range(3):
                total = sum(n.weight * int(magnitude[j, leaf]) for n in graph.neighbours for j in n.number[:, k])
                assert found[row, leaf] == sum(t <= 64 * total + 77 for t in graph.thresholds.tolist())


def test_rounding_costs_no_more_than_any_other_choice_of_bands() -> None:
    """Bands kept are the best prefix: with one band more or fewer, the priced sum is not lower."""
    graph = GRAPHS[2]
    exact = coefficients_of(graph, 400, 9, scale=3.0)
    cost, base, width_cost = statistics_of(graph, 10)
    values, kept = bands.round_bands(
        graph, exact, 1.0, cost=cost, base=base, width_cost=width_cost, price=0.12, backend=REFERENCE
    )

    def priced(number: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Error and 0.12 x bits of each leaf."""
        total = ((exact[:, 1:].astype(float) - number[:, 1:]) ** 2).sum(axis=1) + 0.12 * width_cost[widths]
        magnitude = np.zeros((graph.width + 1, len(number)), dtype=np.int32)
        magnitude[1:-1] = np.minimum(np.abs(number[:, 1:]), CAP).T
        for band in range(1, len(graph.members)):
            rows = graph.members[band]
            bits = cost[bands.band_contexts(graph, band, magnitude, int(base[band])), magnitude[rows]].sum(axis=0)
            total += np.where(widths >= band, 0.12 * bits, 0)
        return total

    best = priced(values, kept)
    assert len(np.unique(kept)) == len(graph.members)
    for fewer in range(1, len(graph.members)):
        widths = np.maximum(kept - fewer, 0)
        number = np.where(graph.band_of > widths[:, None], 0, values)
        assert np.all(best <= priced(number, widths) + 1e-6 * (exact.astype(float) ** 2).sum(axis=1))
